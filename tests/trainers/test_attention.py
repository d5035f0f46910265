"""Per-segment attention against each segment alone under the model's own attention, for several architectures."""

import copy

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from swift.core.errors import ModelError
from swift.core.types import Sample
from swift.objectives import collate
from swift.trainers.attention import SEGMENTS, SEGMENTS_EAGER, segments, use_segments
from swift.trainers.forward import ModelActor, Plan
from swift.trainers.selfcheck import plan

SMALL = dict(
    vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    head_dim=8, max_position_embeddings=128, pad_token_id=0, bos_token_id=1, eos_token_id=2,
)  # fmt: skip

FLAT = {
    'llama': {},
    'qwen2': {},
    'qwen3': {},
    'qwen3-window': dict(model_type='qwen3', use_sliding_window=True, sliding_window=6, max_window_layers=1),
    'mistral': dict(sliding_window=6),
    'phi3': dict(sliding_window=6),
    'gemma2': dict(sliding_window=6, query_pre_attn_scalar=8),
    'gemma2-eager': dict(
        model_type='gemma2', sliding_window=6, query_pre_attn_scalar=8, attn_implementation='eager', attn_logit_softcapping=2.0,
        final_logit_softcapping=3.0,
    ),
    'gemma3_text': dict(sliding_window=6, query_pre_attn_scalar=8, layer_types=['sliding_attention', 'full_attention']),
    'gpt_oss': dict(sliding_window=6, num_local_experts=4, num_experts_per_tok=2),
    'gpt2': dict(n_embd=32, n_layer=2, n_head=4, n_positions=128),
    'gpt_neox': dict(rotary_pct=0.5),
    'olmo2': {},
    'cohere2': dict(sliding_window=6, logit_scale=0.5),
    'granite': dict(logits_scaling=3.0, attention_multiplier=0.3),
    'qwen3_moe': dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16),
    'llama4_text': dict(
        attention_chunk_size=6, num_local_experts=2, intermediate_size_mlp=32, no_rope_layers=[1, 0], moe_layers=[]
    ),
}  # fmt: skip
PADDED = {
    'mamba': dict(hidden_size=32, num_hidden_layers=2, state_size=4),
    'bloom': dict(hidden_size=32, n_layer=2, n_head=4),
    'rwkv': dict(attention_hidden_size=32, hidden_size=32, num_hidden_layers=2),
}


def build(name: str, settings: dict):
    settings = dict(settings)
    implementation = settings.pop('attn_implementation', None)
    torch.manual_seed(0)
    config = AutoConfig.for_model(settings.pop('model_type', name), **{**SMALL, **settings})
    model = AutoModelForCausalLM.from_config(config, **({'attn_implementation': implementation} if implementation else {}))
    for parameter in model.parameters():  # away from the tiny initial values, so that attention has something to say
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def samples(*lengths: int) -> list[Sample]:
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randint(3, 97, (length,), generator=generator).tolist() for length in lengths]
    return [Sample(row, [-100, *row[1:]]) for row in rows]


def all_logits(model, rows, implementation=None):
    actor = ModelActor(model, Plan(selects=False))
    batch = collate.flat(rows)
    return actor.logits(batch, torch.arange(batch.input_ids.numel()))


@pytest.mark.parametrize('name', FLAT)
def test_flat_segments_equal_each_alone_in_logits_and_gradients(name):
    model = build(name, FLAT[name])
    alone = copy.deepcopy(model)
    assert use_segments(model) in ('sdpa', 'eager')
    rows = samples(11, 5, 5, 16, 1, 7)
    packed = all_logits(model, rows)
    single = torch.cat([all_logits(alone, [row]) for row in rows])
    torch.testing.assert_close(packed, single, rtol=1e-4, atol=1e-4)
    probe = torch.randn(packed.shape, generator=torch.Generator().manual_seed(2))
    (packed * probe).sum().backward()
    (single * probe).sum().backward()
    for (key, a), b in zip(model.named_parameters(), alone.parameters(), strict=True):
        if b.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-3, msg=lambda m, key=key: f'{key}: {m}')


def test_window_matters():
    """The sliding case above would pass without a window if the window did nothing."""
    narrow, wide = (build('mistral', dict(sliding_window=w)) for w in (6, 64))
    rows = samples(16)
    assert (all_logits(narrow, rows) - all_logits(wide, rows)).abs().max() > 1e-2


@pytest.mark.parametrize('implementation', ['sdpa', 'eager'])
def test_outside_of_segments_it_is_the_native_attention(implementation):
    """Generation from left-padded prompts gives the same tokens before and after the registered attention is set."""
    model = build('qwen3', {'attn_implementation': implementation})
    ids = torch.tensor([[0, 0, 5, 6, 7], [8, 9, 10, 11, 12]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    before = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=8, do_sample=False)
    use_segments(model)
    assert model.config._attn_implementation in (SEGMENTS, SEGMENTS_EAGER)
    after = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=8, do_sample=False)
    assert torch.equal(before, after)


@pytest.mark.parametrize('reentrant', [False, True])
def test_recomputed_layers_see_the_segments_too(reentrant):
    """Checkpointed layers run again in the backward pass, where the context of the forward is gone."""
    model = build('qwen3', {})
    plain = copy.deepcopy(model)
    use_segments(model), use_segments(plain)
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={'use_reentrant': reentrant})
    model.enable_input_require_grads()
    model.train(), plain.train()
    rows = samples(9, 4, 12)
    for one in (model, plain):
        all_logits(one, rows).square().sum().backward()
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_lengths_that_do_not_fit_are_refused():
    model = build('qwen3', {})
    use_segments(model)
    with segments([3, 3]), pytest.raises(ModelError):
        model(input_ids=torch.ones(1, 5, dtype=torch.long), use_cache=False)


@pytest.mark.parametrize('name', [*FLAT, *PADDED])
def test_selfcheck_decides(name):
    model = build(name, {**FLAT, **PADDED}[name])
    decided = plan(model, samples(30, 21))
    assert decided.flat == (name in FLAT), decided.reason
    assert decided.selects
    assert (decided.reason is None) == decided.flat
    assert decided.tail is not None


def test_selfcheck_finds_a_leak():
    """A model that mixes neighbouring tokens by a convolution across the row must not be packed."""
    model = build('qwen3', {})
    layer = model.model.layers[0].mlp

    def leak(module, args, output):
        return output + torch.nn.functional.pad(output, (0, 0, 1, 0))[:, :-1]

    layer.register_forward_hook(leak)
    decided = plan(model, samples(30, 21))
    assert not decided.flat and 'leak' in decided.reason
    assert model.config._attn_implementation == 'sdpa'


def test_a_model_that_padding_disturbs_runs_one_sample_at_a_time():
    model = build('qwen3', {})

    def wrong(module, args, output):  # depends on the number and length of rows
        return output * output.shape[0] * output.shape[1] / 21

    model.model.layers[1].mlp.register_forward_hook(wrong)
    decided = plan(model, samples(30, 21), flat=False)
    assert decided.alone and not decided.flat
    rows = samples(30, 21)
    for row in rows:
        row.labels = [-100] * 5 + list(row.input_ids)[5:]
    unlabelled = samples(12, 9)[0]
    unlabelled.labels = [-100] * len(unlabelled.input_ids)
    batch = collate.padded([rows[0], unlabelled, rows[1]])
    wanted = torch.cat([ModelActor(model).answer_logps(collate.flat([row])).logps for row in rows])
    for actor in (ModelActor(model, decided), ModelActor(model, decided, limit=1)):  # at once, and in chunks
        found = actor.answer_logps(batch)
        assert torch.allclose(found.logps, wanted, atol=1e-6)
        assert found.segment.unique().tolist() == [0, 2]
    nothing = ModelActor(model, decided).answer_logps(collate.padded([unlabelled, unlabelled]))
    assert nothing.logps.numel() == 0 and nothing.logps.requires_grad
    hidden = ModelActor(model, decided).hidden(batch)
    assert torch.allclose(hidden[2, : len(rows[1])], ModelActor(model).hidden(collate.flat([rows[1]]))[0], atol=1e-6)
