"""A tiny random model of any causal architecture in transformers, and its way through LoRA.

`tiny_config` shrinks a configuration by the names of its fields; `architectures.json` holds the few facts that names
don't tell. `trip` is the whole way: base on disk → load → LoRA → two steps → save → load on a fresh base → merge →
save → load.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import warnings
from typing import Any

FACTS = json.load(open(os.path.join(os.path.dirname(__file__), 'architectures.json'), encoding='utf-8'))
VOCAB = 640
_WIDTH = 64
_SIZES = {
    'hidden_size d_model n_embd dim n_embed emb_dim embedding_size word_embed_proj_dim attention_hidden_size lru_width '
    'input_embedding_size output_embedding_size backbone_hidden_size embedding_dim hidden_size_global': _WIDTH,
    'intermediate_size d_ff dff decoder_ffn_dim encoder_ffn_dim ffn_dim n_inner d_inner dim_ff intermediate_size_mlp '
    'ffn_hidden_size feed_forward_size dense_intermediate_size': 96,
    'moe_intermediate_size expert_ffn_hidden_size shared_expert_intermediate_size shared_experts_intermediate_size '
    'moe_shared_expert_intermediate_size shared_intermediate_size': 48,
    'num_attention_heads n_head n_heads decoder_attention_heads encoder_attention_heads num_heads attention_heads '
    'num_decoder_attention_heads num_encoder_attention_heads swa_num_attention_heads linear_num_value_heads '
    'linear_num_heads': 4,
    'num_key_value_heads num_kv_heads swa_num_key_value_heads linear_num_key_heads num_query_groups': 2,
    'head_dim d_kv d_head qk_nope_head_dim qk_rope_head_dim v_head_dim linear_key_head_dim linear_value_head_dim '
    'linear_head_dim swa_head_dim kv_channels dim_head attention_head_size rotary_dim index_head_dim': 16,
    'qk_head_dim': 32,
    'num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers num_decoder_layers '
    'num_encoder_layers num_blocks depth': 2,
    'vocab_size vocab_size_per_layer_input decoder_vocab_size unpadded_vocab_size': VOCAB,
    'num_experts num_local_experts n_routed_experts moe_num_experts': 4,
    'num_experts_per_tok moe_topk num_experts_per_token moe_k moe_top_k topk_group n_group num_expert_group': 2,
    'q_lora_rank kv_lora_rank o_lora_rank router_hidden_size adapter_rank hc_lowrank gated_norm_rank': 16,
    'index_n_heads': 2,
    'index_topk': 8,  # fewer than a row has tokens, so that the sparse selection selects
    'hidden_size_per_layer_input ple_embed_dim': 16,
    'state_size mamba_d_state ssm_state_size time_step_rank mamba_dt_rank': 8,
    'mamba_n_groups n_groups mamba_ngroups': 1,
    'mamba_chunk_size chunk_size': 16,
    'sliding_window sliding_window_size local_attention attention_window_size window_size': 16,
    'first_k_dense_replace num_dense_layers': 1,
    'n_shared_experts num_shared_experts moe_num_shared_experts': 1,
    'num_nextn_predict_layers num_kv_shared_layers': 0,
    'zero_expert_num': 2,
}
_SIZE_OF = {name: size for names, size in _SIZES.items() for name in names.split()}


def model_types() -> list[str]:
    """Every entry of transformers' causal LM mapping."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tiny_config(model_type: str) -> Any:
    """A configuration of about 100,000 parameters that keeps what is special about the architecture."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    facts = FACTS.get(model_type, {})
    return _shrink(CONFIG_MAPPING[model_type], facts)


def _shrink(cls: Any, facts: dict[str, Any]) -> Any:
    fields = getattr(cls, '__dataclass_fields__', {})
    try:
        default = cls(**facts.get('first', {}))
    except Exception:
        default = cls(**{name: value for name, value in facts.items() if name in fields})
    values: dict[str, Any] = {}
    known = default.to_dict()
    for name in fields:
        value = known.get(name)
        if name in _SIZE_OF and isinstance(value, int) and not isinstance(value, bool) and value > 0:
            values[name] = min(_SIZE_OF[name], value) if 'vocab' not in name else _SIZE_OF[name]
        elif name in _SIZE_OF and isinstance(value, list) and value and isinstance(value[0], int):
            values[name] = _SIZE_OF[name]
        elif name.endswith('token_id') and isinstance(value, int) and value >= VOCAB:
            values[name] = VOCAB - 1
        elif name.endswith('token_id') and isinstance(value, list):
            values[name] = 2
    heads, groups = (known.get(name) for name in ('num_attention_heads', 'num_key_value_heads'))
    if 'num_key_value_heads' in values and (heads == groups or 'kv_lora_rank' in fields):
        values['num_key_value_heads'] = 4
    if 'head_dim' in fields and known.get('head_dim') is None:
        values['head_dim'] = 16
    for name in ('layer_types', 'mlp_layer_types', 'layers_block_type'):
        kinds = list(dict.fromkeys(known.get(name) or []))
        if len(kinds) > 1 and name in fields:
            values[name] = kinds
            values['num_hidden_layers'] = max(values.get('num_hidden_layers', 2), len(kinds))
    for name in ('layer_types', 'mlp_layer_types', 'layers_block_type'):
        if name in values:
            values[name] = (values[name] * 9)[: values['num_hidden_layers']]
    parts = [name for name in fields if hasattr(vars(default).get(name), 'to_diff_dict')]
    for name in parts:
        values[name] = _shrink(type(vars(default)[name]), facts.get(name, {})).to_dict()
    values.update({name: value for name, value in facts.items() if name not in parts and name not in ('first', 'length')})
    return cls(**values)


def build(model_type: str, directory: str) -> Any:
    """Write a random tiny model and the tests' tokenizer to a directory; returns the model."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    from tests.helpers.tiny import build_tokenizer

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(model_type), dtype=torch.float32).eval()
    _wake(model)
    model.generation_config = GenerationConfig()
    model.save_pretrained(directory)
    build_tokenizer().save_pretrained(directory)
    return model


def _wake(model: Any) -> None:
    """Give all-zero matrices (gates that start closed) random values, so that what is behind them matters."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2 and parameter.is_floating_point() and not parameter.any():
                parameter.normal_(std=0.02)


def trip(model_type: str, directory: str) -> dict[str, Any]:
    """The whole way of one architecture; returns what was measured, raises where it breaks."""
    import torch
    import torch.nn.functional as F
    from safetensors import safe_open

    from swift.arguments.model import ModelArgs
    from swift.arguments.tuner import TunerArgs
    from swift.model import load_model
    from swift.tuners import coverage, load_adapter, merge, prepare_tuner, save_tuner

    start = time.perf_counter()
    shutil.rmtree(directory, ignore_errors=True)
    base, adapter, merged_dir = (os.path.join(directory, name) for name in ('base', 'adapter', 'merged'))
    made = build(model_type, base)
    length = FACTS.get(model_type, {}).get('length', 20)
    ids = torch.randint(10, 400, (2, length), generator=torch.Generator().manual_seed(1))

    def logits(model: Any) -> Any:
        model.eval()
        with torch.no_grad():
            torch.manual_seed(7)  # reformer hashes with random rotations
            return model(input_ids=ids, use_cache=False).logits.float()

    plain = logits(made)
    loaded = load_model(ModelArgs(model=base), for_training=True)
    _same('base after saving and loading', plain, logits(loaded.model))
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    torch.manual_seed(0)
    tuned = prepare_tuner(loaded.model, TunerArgs(), info=loaded.info)
    reach = coverage(tuned)
    optimizer = torch.optim.AdamW([p for p in tuned.parameters() if p.requires_grad], lr=2e-3)
    tuned.train()
    losses = []
    for _ in range(2):
        out = tuned(input_ids=ids, use_cache=False).logits
        loss = F.cross_entropy(out[:, :-1].reshape(-1, out.shape[-1]).float(), ids[:, 1:].reshape(-1))
        loss.backward()
        losses.append(loss.item())
        silent = [n for n, p in tuned.named_parameters() if p.requires_grad and '.lora_B.' in n and (p.grad is None or not p.grad.any())]
        optimizer.step()
        optimizer.zero_grad()
    after = {name.replace('.base_layer', ''): value for name, value in tuned.get_base_model().state_dict().items() if '.lora_' not in name}
    changed = [name for name, value in before.items() if name in after and after[name].is_floating_point() and not torch.equal(after[name], value)]
    trained = logits(tuned)
    save_tuner(tuned, adapter)
    with safe_open(os.path.join(adapter, 'adapter_model.safetensors'), framework='pt') as file:
        keys = len(file.keys())
    fresh = load_model(ModelArgs(model=base, adapters=[adapter]))
    again = load_adapter(fresh.model, fresh.info.adapters)
    _same('reloaded adapter', trained, logits(again))
    merged, report = merge(again)
    _same('merged', trained, logits(merged), 1e-4)
    save_tuner(merged, merged_dir)
    _same('merged after saving and loading', trained, logits(type(merged).from_pretrained(merged_dir)), 1e-4)
    return dict(
        parameters=reach.total,
        adapters=keys,
        silent=silent,
        share=reach.share,
        experts=reach.suggestion,
        effect=(trained - plain).abs().max().item(),
        loss=losses,
        base_changed=changed,
        max_diff=report.max_diff,
        seconds=time.perf_counter() - start,
    )


def sft_trip(model_type: str, directory: str) -> dict[str, Any]:
    """Two steps of `swift sft` with its defaults on a tiny chat data set, then the adapter reloaded and merged."""
    import contextlib
    import io

    from swift import sft_main
    from swift.arguments.model import ModelArgs
    from swift.model import load_model
    from swift.tuners import load_adapter, merge

    start = time.perf_counter()
    shutil.rmtree(directory, ignore_errors=True)
    build(model_type, os.path.join(directory, 'base'))
    data = os.path.join(directory, 'data.jsonl')
    with open(data, 'w', encoding='utf-8') as file:
        for i in range(12):
            answer = f'The answer is {2 * i}. ' + 'fox ' * (i % 5)
            file.write(json.dumps({'query': f'What is {i} + {i}?', 'response': answer}) + '\n')
    command = f'--model {directory}/base --dataset {data} --output_dir {directory}/run --add_version false --max_steps 2 --save_steps 2'
    command += ' --per_device_train_batch_size 2 --learning_rate 1e-3 --max_length 128 --logging_steps 1 --report_to none'
    log = io.StringIO()
    with contextlib.redirect_stderr(log), contextlib.redirect_stdout(log):
        result = sft_main(command.split())
    loaded = load_model(ModelArgs(model=result['last_model_checkpoint']))
    report = merge(load_adapter(loaded.model, loaded.info.adapters))[1]
    losses = [entry['loss'] for entry in result['log_history'] if 'loss' in entry]
    return dict(sft_loss=losses, padded='padded rows' in log.getvalue(), max_diff=report.max_diff, seconds=time.perf_counter() - start)


def _same(what: str, wanted: Any, got: Any, tolerance: float = 1e-5) -> None:
    difference = (wanted - got).abs().max().item()
    if not difference <= tolerance * max(1.0, wanted.abs().max().item()):
        raise AssertionError(f'{what}: logits differ by {difference:.2e}')


def quiet() -> None:
    """Silence libraries in a sweep."""
    import transformers

    warnings.simplefilter('ignore')
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
