"""Tiny configurations of multimodal architectures: the sizes of every part, token ids as the tokenizer has them."""

from __future__ import annotations

import re
from typing import Any

from tests.helpers.architectures import _shrink

_TOWER = re.compile(r'vision|visual|image|vit|audio|speech|encoder|vq|backbone|depth')
_TOWER_SIZES = {
    'hidden_size': 32, 'd_model': 32, 'embed_dim': 32, 'intermediate_size': 64, 'encoder_ffn_dim': 64, 'mlp_dim': 64,
    'num_attention_heads': 2, 'num_heads': 2, 'attention_heads': 2, 'encoder_attention_heads': 2,
    'num_key_value_heads': 2, 'num_hidden_layers': 2, 'depth': 2, 'encoder_layers': 2, 'head_dim': 16, 'image_size': 28,
    'patch_size': 14, 'projection_dim': 32, 'out_hidden_size': 64, 'num_mel_bins': 16, 'max_source_positions': 50,
}  # fmt: skip
"""Sizes in an encoder of images or sounds; the language model has hidden size 64 with heads of 16."""
_TOKEN = re.compile(r'(\w+)_(?:token_id|token_index|token)')


def tiny_config(model_type: str, given: dict[str, Any], ids: dict[str, int], vocab: int) -> Any:
    """The configuration of an architecture, shrunk by the names of its fields.

    `given` are values by (nested) field name, a string `@name` standing for the id of that token; `ids` the ids of
    tokens by token and by name (`image_token`); `vocab` the size of the vocabulary.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    cls = CONFIG_MAPPING[model_type]
    return _shrink(cls, _facts(cls, with_ids(given, ids), ids, vocab, tower=False))


def with_ids(value: Any, ids: dict[str, int]) -> Any:
    """`value` with every string `@name` replaced by the id of the token of that name or spelling."""
    if isinstance(value, dict):
        return {name: with_ids(item, ids) for name, item in value.items()}
    if isinstance(value, list):
        return [with_ids(item, ids) for item in value]
    return ids[value[1:]] if isinstance(value, str) and value.startswith('@') else value


def merged(*layers: dict[str, Any]) -> dict[str, Any]:
    """Nested dictionaries laid over each other, the last on top; `=` before a key replaces a whole dictionary."""
    out: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            both = isinstance(value, dict) and isinstance(out.get(name), dict)
            out[name.lstrip('=')] = merged(out[name], value) if both else value
    return out


def _facts(cls: Any, given: dict[str, Any], ids: dict[str, int], vocab: int, tower: bool) -> dict[str, Any]:
    """What `_shrink` must know of a configuration and its parts beyond its own table."""
    fields = getattr(cls, '__dataclass_fields__', {})
    default = cls(**given.get('first', {}))
    known = vars(default)
    facts: dict[str, Any] = {}
    for name in fields:
        value = known.get(name)
        if hasattr(value, 'to_diff_dict'):
            facts[name] = _facts(type(value), given.get(name, {}), ids, vocab, tower or bool(_TOWER.search(name)))
        elif tower and name in _TOWER_SIZES and isinstance(value, (int, list, tuple)):
            size = _TOWER_SIZES[name]
            facts[name] = size if isinstance(value, int) else [size] * len(value)
        elif name == 'initializer_range' and isinstance(value, float):
            facts[name] = 0.1  # so that in 64 dimensions a picture changes the loss visibly
        elif name in ('vocab_size', 'unpadded_vocab_size') and isinstance(value, int) and value > 4 * vocab:
            facts[name] = vocab
        elif (match := _TOKEN.fullmatch(name)) and isinstance(value, (int, list)) and not isinstance(value, bool):
            facts[name] = ids.get(f'{match[1]}_token', ids['pad_token'])
        elif isinstance(value, dict) and 'mrope_section' in value:
            facts[name] = {**value, 'mrope_section': [2, 3, 3]}
    return merged(facts, given)
