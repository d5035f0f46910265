"""What `config.json` and the weight files' headers tell about a model, without importing torch."""

from __future__ import annotations

import json
import math
import os
import struct
from dataclasses import dataclass, field
from typing import Any

from swift.core.errors import ModelError
from swift.core.heads import PAD_SHIFTED

_TEXT_PARTS = ('text_config', 'llm_config', 'language_config', 'thinker_config', 'decoder', 'text_model_config')
_MEDIA_PARTS = ('vision_config', 'audio_config', 'vision_tower', 'visual', 'video_config', 'vision_tower_config', 'audio_encoder')
PROCESSOR_FILES = ('preprocessor_config.json', 'processor_config.json')
_LENGTH_NAMES = ('max_position_embeddings', 'n_positions', 'max_seq_len', 'max_sequence_length', 'seq_length', 'n_ctx')
_EXPERT_NAMES = ('num_experts', 'num_local_experts', 'n_routed_experts', 'moe_num_experts', 'num_moe_experts')


@dataclass(frozen=True)
class ModelInfo:
    """Facts about one model directory. Made by `model_info` and `load_model`; read by everybody."""

    model_dir: str
    model_type: str
    """The family's name (`qwen2_5`, as ms-swift spells it) where one is known, else the configuration's own `model_type`."""
    config_type: str
    """`model_type` of config.json (`qwen2`)."""
    architectures: tuple[str, ...]
    torch_dtype: str | None
    """`bfloat16`, `float16`, `float32`: how the weights are stored. None: the configuration doesn't say."""
    max_model_len: int | None
    is_moe: bool
    is_multimodal: bool
    num_params: int | None
    """Number of stored parameters: exact from safetensors headers, else estimated from the configuration."""
    num_params_exact: bool = False
    vocab_size: int | None = None
    hidden_size: int | None = None
    num_layers: int | None = None
    tie_word_embeddings: bool = False
    quant_method: str | None = None
    """`gptq`, `awq`, `bitsandbytes`, `fp8`, … None: not quantised."""
    quant_bits: int | None = None
    template: str | None = None
    """The family's chat template name. None: unknown family; use the tokenizer's own."""
    model_arch: str | None = None
    """Which modules are language model, vision tower and aligner (multimodal). None: plain language model."""
    adapters: tuple[str, ...] = ()
    """Adapter directories that belong to the name that was given (a LoRA run or checkpoint); load them after the base."""
    new_token_ids: tuple[int, ...] = ()
    """Ids of the tokens that `--new_special_tokens` added in this session."""
    config: dict[str, Any] = field(default_factory=dict, repr=False)
    """config.json as a dictionary."""

    @property
    def text_config(self) -> dict[str, Any]:
        """The part of the configuration that describes the language model."""
        return text_part(self.config)


def read_json(path: str) -> dict[str, Any]:
    """A JSON object from a file; ModelError when it isn't one."""
    try:
        with open(path, encoding='utf-8') as file:
            value = json.load(file)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f'{path} is not a readable JSON file: {error}.') from None
    if not isinstance(value, dict):
        raise ModelError(f'{path} holds a {type(value).__name__}, not a JSON object.')
    return value


def text_part(config: dict[str, Any]) -> dict[str, Any]:
    """The language model's part of a (possibly nested) configuration."""
    for name in _TEXT_PARTS:
        part = config.get(name)
        if isinstance(part, dict) and part:
            return {**text_part(part)}
    return config


def first(config: dict[str, Any], names: tuple[str, ...]) -> Any:
    """The first of the named fields that is there and not None."""
    return next((config[name] for name in names if config.get(name) is not None), None)


def describe(model_dir: str, **known: Any) -> ModelInfo:
    """ModelInfo of a directory that holds a config.json. `known` overrides fields (family facts, adapters)."""
    path = os.path.join(model_dir, 'config.json')
    if not os.path.isfile(path):
        raise ModelError(f'{model_dir} has no config.json;', 'pass a directory of a transformers model, a run directory or a model id.')
    config = read_json(path)
    text = text_part(config)
    count, exact = count_parameters(model_dir, config)
    quantisation = config.get('quantization_config') or {}
    facts = dict(
        model_dir=model_dir,
        model_type=config.get('model_type') or 'unknown',
        config_type=config.get('model_type') or 'unknown',
        architectures=tuple(config.get('architectures') or ()),
        torch_dtype=_dtype_name(config, text),
        max_model_len=_max_model_len(config, text),
        is_moe=_is_moe(text),
        is_multimodal=_is_multimodal(model_dir, config),
        num_params=count,
        num_params_exact=exact,
        vocab_size=first(text, ('vocab_size',)),
        hidden_size=first(text, ('hidden_size', 'n_embd', 'd_model', 'dim')),
        num_layers=first(text, ('num_hidden_layers', 'n_layer', 'n_layers', 'num_layers')),
        tie_word_embeddings=bool(config.get('tie_word_embeddings', text.get('tie_word_embeddings', False))),
        quant_method=quantisation.get('quant_method'),
        quant_bits=_quant_bits(quantisation),
        config=config,
    )
    return ModelInfo(**{**facts, **known})


def _is_multimodal(model_dir: str, config: dict) -> bool:
    """Whether the configuration has a part for images or sounds, or a processor for them lies beside it."""
    parts = any(isinstance(config.get(name), dict) for name in _MEDIA_PARTS)
    return parts or 'thinker_config' in config or any(os.path.isfile(os.path.join(model_dir, name)) for name in PROCESSOR_FILES)


def _dtype_name(config: dict, text: dict) -> str | None:
    for part in (config, text):
        name = part.get('dtype') or part.get('torch_dtype')
        if name:
            return str(name).removeprefix('torch.')
    return None


def _max_model_len(config: dict, text: dict) -> int | None:
    length = first(text, _LENGTH_NAMES) or first(config, _LENGTH_NAMES)
    if isinstance(length, list):
        length = max(length)
    if length and config.get('model_type') in PAD_SHIFTED:
        length -= (1 if config.get('pad_token_id') is None else config['pad_token_id']) + 1
    rope = text.get('rope_scaling') or text.get('rope_parameters') or {}
    kind = rope.get('rope_type') or rope.get('type')
    if length and kind in ('linear', 'dynamic') and rope.get('factor'):
        return int(length * rope['factor'])  # the position count is the pre-trained one; the factor stretches it
    return int(length) if length else None


def _is_moe(text: dict) -> bool:
    count = first(text, _EXPERT_NAMES)
    return (max(count) if isinstance(count, list) else count or 0) > 1


def _quant_bits(quantisation: dict) -> int | None:
    if quantisation.get('bits'):
        return int(quantisation['bits'])
    if quantisation.get('load_in_4bit'):
        return 4
    return 8 if quantisation.get('load_in_8bit') or quantisation.get('quant_method') == 'fp8' else None


def safetensors_header(path: str) -> dict[str, dict]:
    """Name → {dtype, shape, data_offsets} of a safetensors file, read from its header alone."""
    try:
        with open(path, 'rb') as file:
            (length,) = struct.unpack('<Q', file.read(8))
            header = json.loads(file.read(length))
    except (OSError, struct.error, ValueError, MemoryError) as error:
        raise ModelError(f'{path} is not a readable safetensors file: {error};', 'is the download complete?') from None
    header.pop('__metadata__', None)
    return header


def weight_files(model_dir: str) -> list[str]:
    """The safetensors shards of a model directory that `from_pretrained` would read; [] when there are none."""
    index = os.path.join(model_dir, 'model.safetensors.index.json')
    if os.path.isfile(index):
        return sorted(os.path.join(model_dir, name) for name in set(read_json(index).get('weight_map', {}).values()))
    single = os.path.join(model_dir, 'model.safetensors')
    return [single] if os.path.isfile(single) else []


def count_parameters(model_dir: str, config: dict[str, Any]) -> tuple[int | None, bool]:
    """(number of parameters, exact?): from the safetensors headers, else estimated from the configuration."""
    files = [] if config.get('quantization_config') else weight_files(model_dir)  # packed weights hide how many there are
    if files and all(os.path.isfile(file) for file in files):
        return sum(math.prod(item['shape']) for file in files for item in safetensors_header(file).values()), True
    return estimate_parameters(text_part(config)), False


def estimate_parameters(text: dict[str, Any]) -> int | None:
    """Parameters of a standard decoder (gated MLP, grouped attention, optional experts). None: not enough is known."""
    hidden = first(text, ('hidden_size', 'n_embd', 'd_model'))
    layers = first(text, ('num_hidden_layers', 'n_layer', 'n_layers', 'num_layers'))
    vocab = text.get('vocab_size')
    if not all(isinstance(value, int) for value in (hidden, layers, vocab)):
        return None
    heads = first(text, ('num_attention_heads', 'n_head', 'n_heads')) or 1
    if isinstance(heads, list):
        heads = max(heads)
    kv_heads = first(text, ('num_key_value_heads', 'num_kv_heads')) or heads
    head_dim = text.get('head_dim') or hidden // heads
    inner = first(text, ('intermediate_size', 'n_inner', 'ffn_dim')) or 4 * hidden
    kv_heads, inner = (max(value) if isinstance(value, list) else value for value in (kv_heads, inner))
    attention = hidden * head_dim * (2 * heads + 2 * kv_heads)
    experts = first(text, _EXPERT_NAMES)
    if isinstance(experts, int) and experts > 1:
        width = first(text, ('moe_intermediate_size', 'expert_intermediate_size')) or inner
        shared = (text.get('n_shared_experts') or 0) * width + (text.get('shared_expert_intermediate_size') or 0)
        mlp = 3 * hidden * (experts * width + shared) + hidden * experts
    else:
        mlp = 3 * hidden * inner
    tied = text.get('tie_word_embeddings', False)
    return vocab * hidden * (1 if tied else 2) + layers * (attention + mlp + 2 * hidden) + hidden
