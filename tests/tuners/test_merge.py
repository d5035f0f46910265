"""Merging: exact sums, one rounding, and refusal where something is lost."""

import pytest
import torch

from swift.arguments.tuner import TunerArgs
from swift.core.errors import CheckpointError, ModelError
from swift.tuners import coverage, merge, prepare_tuner
from swift.tuners.merging import fold
from tests.helpers.tiny import build_model
from tests.tuners.test_lora import logits, steps


def tuned(dtype=torch.float32, **settings):
    torch.manual_seed(0)
    model = prepare_tuner(build_model().to(dtype), TunerArgs(**{'lora_dropout': 0.0, **settings}))
    steps(model, 3)
    return model


def test_the_sum_is_made_in_float32_and_rounded_once():
    """bf16 base: W + s·B·A in float64, rounded to bf16, equals the merged weight bit for bit (but for ties of float32)."""
    model = tuned(torch.bfloat16)
    layer = model.base_model.model.model.layers[0].mlp.up_proj
    exact = layer.base_layer.weight.double() + 4.0 * layer.lora_B['default'].weight.double() @ layer.lora_A['default'].weight.double()
    twice = layer.base_layer.weight + (4.0 * layer.lora_B['default'].weight @ layer.lora_A['default'].weight).bfloat16()
    merged = fold(model).model.layers[0].mlp.up_proj.weight
    assert merged.dtype == torch.bfloat16
    assert (merged == exact.to(torch.bfloat16)).double().mean() > 0.999
    assert (twice == exact.to(torch.bfloat16)).double().mean() < 0.999  # rounding twice, as PEFT does, is another number


def test_the_report_says_how_exact_it_is():
    merged, report = merge(tuned())
    assert type(merged).__name__ == 'Qwen3ForCausalLM' and not any('lora' in name for name, _ in merged.named_parameters())
    assert report.max_diff < 1e-4 and report.kl < 1e-6 and report.effect > 1e-4 and report.tokens == 96
    assert 'max|Δlogit|' in str(report)


def test_a_merge_that_loses_the_adapter_is_an_error(monkeypatch):
    monkeypatch.setattr('swift.tuners.merging.fold', lambda model: model.unload())
    with pytest.raises(CheckpointError, match='the merged model is not the adapter it came from'):
        merge(tuned())


def test_nothing_to_merge_and_quantised_bases_are_refused():
    with pytest.raises(ModelError, match='carries no adapter'):
        merge(build_model())
    model = tuned()
    model.get_base_model().is_quantized = True
    with pytest.raises(ModelError, match='merging into a quantised base'):
        merge(model)


def test_coverage_counts_what_adapters_reach():
    """115,072 weights: 2 layers of linears have 2·(64·(64+32+32+64) + 3·64·128) = 73,728; the rest is embedding and norms."""
    reach = coverage(tuned())
    assert (reach.total, reach.covered) == (115072, 73728)
    assert reach.trainable == 8 * 2 * sum(a + b for a, b in [(64, 64), (64, 32), (64, 32), (64, 64), (64, 128), (64, 128), (128, 64)])
    assert reach.missed[0].name == 'model.embed_tokens.weight' and reach.missed[0].count == 40960
    assert 'not reached: model.embed_tokens.weight (35.6 %)' in str(reach) and reach.suggestion == []


def test_experts_are_pointed_out_and_can_be_reached():
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    def moe():
        torch.manual_seed(0)
        return Qwen3MoeForCausalLM(
            Qwen3MoeConfig(
                vocab_size=640, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
                intermediate_size=64, moe_intermediate_size=32, num_experts=4, num_experts_per_tok=2, tie_word_embeddings=True,
            )
        )  # fmt: skip

    reach = coverage(prepare_tuner(moe(), TunerArgs()))
    assert reach.suggestion == ['experts.gate_up_proj', 'experts.down_proj']
    assert '--target_parameters experts.gate_up_proj experts.down_proj' in str(reach)
    torch.manual_seed(0)
    model = prepare_tuner(moe(), TunerArgs(target_parameters=reach.suggestion, lora_dropout=0.0))
    wide = coverage(model)
    assert wide.suggestion == [] and wide.covered - reach.covered == 2 * 4 * 3 * 64 * 32
    steps(model)
    before = logits(model)
    assert (logits(merge(model)[0]) - before).abs().max() < 1e-5
    assert not any('gate.lora' in name for name, _ in model.named_parameters())  # the router stays as trained


def test_names_that_peft_takes_for_experts_stay_out():
    """DeepSeek-V3 has plain layers named like its experts; PEFT would adapt the experts instead, and fail with dropout."""
    from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

    def moe():
        torch.manual_seed(0)
        return DeepseekV3ForCausalLM(
            DeepseekV3Config(
                vocab_size=640, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4, q_lora_rank=16,
                kv_lora_rank=16, qk_nope_head_dim=16, qk_rope_head_dim=16, v_head_dim=16, intermediate_size=96, moe_intermediate_size=32,
                n_routed_experts=4, num_experts_per_tok=2, n_group=2, topk_group=1, first_k_dense_replace=1, n_shared_experts=1,
            )
        )  # fmt: skip

    model = prepare_tuner(moe(), TunerArgs(lora_dropout=0.05))
    assert not any('mlp' in name for name, p in model.named_parameters() if p.requires_grad)
    assert coverage(model).suggestion == ['experts.gate_up_proj', 'experts.down_proj']
    asked = prepare_tuner(moe(), TunerArgs(target_modules=['q_b_proj', 'gate_proj', 'up_proj', 'down_proj'], lora_dropout=0.05))
    assert coverage(asked).suggestion == []  # named on purpose, they are the experts
    steps(asked)
    assert merge(asked)[1].max_diff < 1e-4


def test_kernels_of_convolutions_are_no_experts():
    model = torch.nn.Sequential(torch.nn.Conv1d(80, 64, 3), torch.nn.Linear(64, 64))
    model.requires_grad_(False)
    found = coverage(model)
    assert {group.name for group in found.missed} >= {'0.weight'} and found.suggestion == []
