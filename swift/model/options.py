"""Spellings of `--attn_impl`, `--rope_scaling`, `--device_map`, … turned into what transformers takes. No torch here."""

from __future__ import annotations

import importlib.util
import json
import os
from typing import Any

from swift.core.errors import MissingDependencyError, ModelError, did_you_mean

_ATTENTION = {
    'flash_attn': 'flash_attention_2',
    'flash_attn_2': 'flash_attention_2',
    'flash_attention': 'flash_attention_2',
    'flash_attention_2': 'flash_attention_2',
    'fa2': 'flash_attention_2',
    'flash_attn_3': 'flash_attention_3',
    'flash_attention_3': 'flash_attention_3',
    'fa3': 'flash_attention_3',
    'sdpa': 'sdpa',
    'eager': 'eager',
    'flex': 'flex_attention',
    'flex_attention': 'flex_attention',
}
_PACKAGES = {'flash_attention_2': ('flash_attn', 'flash-attn'), 'flash_attention_3': ('flash_attn_interface', 'flash-attn-3')}
_QUANTISERS = {
    'gptq': ('gptqmodel', 'gptqmodel'),
    'awq': ('gptqmodel', 'gptqmodel'),
    'bitsandbytes': ('bitsandbytes', 'bitsandbytes'),
    'compressed-tensors': ('compressed_tensors', 'compressed-tensors'),
    'hqq': ('hqq', 'hqq'),
    'torchao': ('torchao', 'torchao'),
    'quanto': ('optimum.quanto', 'optimum-quanto'),
    'aqlm': ('aqlm', 'aqlm'),
    'eetq': ('eetq', 'eetq'),
}


def installed(module: str) -> bool:
    """Whether a module can be imported, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def attention(name: str | None, registered: tuple[str, ...] = ()) -> str | None:
    """The attention implementation in transformers' spelling. None: transformers picks (sdpa where the model has it).

    `registered` are further names (functions registered with transformers); an id with a slash is a hub kernel.
    """
    if name is None or name == 'auto':
        return None
    known = _ATTENTION.get(name.lower())
    if known is None:
        if '/' in name or name in registered:
            return name
        raise ModelError(f'unknown --attn_impl {name!r};', did_you_mean(name, _ATTENTION) or f'known: {", ".join(_ATTENTION)}')
    if known in _PACKAGES and not installed(_PACKAGES[known][0]):
        raise MissingDependencyError(_PACKAGES[known][1], f'--attn_impl {name}')
    return known


def check_quantiser(method: str | None) -> None:
    """Raise MissingDependencyError when a quantised checkpoint needs a package that isn't there."""
    module, package = _QUANTISERS.get(method or '', (None, None))
    if module and not installed(module):
        raise MissingDependencyError(package, f'this checkpoint is quantised with {method}: loading it')


def mapping(value: str | dict | None, flag: str) -> dict | None:
    """A dictionary given as such, as JSON text, or as the path of a JSON file; None stays None."""
    if value is None or isinstance(value, dict):
        return value
    text = value.strip()
    if os.path.isfile(text):
        with open(text, encoding='utf-8') as file:
            text = file.read()
    try:
        parsed = json.loads(text)
    except json.JSONDecodeError as error:
        raise ModelError(f'--{flag} {value!r} is neither JSON nor a JSON file: {error}.') from None
    if not isinstance(parsed, dict):
        raise ModelError(f'--{flag} must be a JSON object, got {parsed!r}.')
    return parsed


def device_map(value: str | dict | None) -> str | dict | None:
    """`auto`, `cpu`, `cuda:0`, … unchanged; a dictionary, JSON or JSON file as a dictionary."""
    if isinstance(value, str) and not value.lstrip().startswith('{') and not os.path.isfile(value):
        return value
    return mapping(value, 'device_map')


def max_memory(value: str | dict | None) -> dict | None:
    """Device → limit; devices that are numbers become integers, as accelerate wants them."""
    limits = mapping(value, 'max_memory')
    return limits and {int(key) if str(key).isdigit() else key: limit for key, limit in limits.items()}


def rope(value: str | dict, factor: float | None, wanted: int | None, original: int | None) -> dict[str, Any]:
    """The fields that `--rope_scaling` sets: `{"rope_type": …, "factor": …}`.

    `wanted` is the context asked for (`--max_model_len`), `original` the pre-trained one.
    """
    fields = dict(value) if isinstance(value, dict) else None
    if fields is None:
        fields = mapping(value, 'rope_scaling') if value.lstrip().startswith('{') else {'rope_type': value.strip()}
    fields['rope_type'] = fields.pop('type', None) or fields.get('rope_type')
    known = ('linear', 'dynamic', 'yarn', 'llama3', 'longrope', 'default', 'proportional')
    if fields['rope_type'] not in known:
        hint = did_you_mean(str(fields['rope_type']), known) or f'known: {", ".join(known)}'
        raise ModelError(f'unknown --rope_scaling {fields["rope_type"]!r};', hint)
    if fields['rope_type'] in ('linear', 'dynamic', 'yarn') and fields.get('factor') is None:
        if factor is None and wanted and original:
            factor = max(wanted / original, 1.0)
        if factor is None:
            raise ModelError(f'--rope_scaling {fields["rope_type"]} needs a factor;', 'add --rope_scaling_factor or --max_model_len.')
        fields['factor'] = float(factor)
    if fields['rope_type'] == 'yarn' and original:
        fields.setdefault('original_max_position_embeddings', int(original))
    return fields
