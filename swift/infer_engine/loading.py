"""From a name to what the engine runs: model, adapters, template, and what they say about themselves."""

from __future__ import annotations

import os
from typing import Any

import torch

from swift.core.errors import SwiftError, did_you_mean
from swift.core.types import Template


def ids_of(value: int | list[int] | None) -> list[int]:
    if value is None:
        return []
    return [value] if isinstance(value, int) else list(value)


def context_of(model: Any) -> int | None:
    """Longest context by the model's own configuration."""
    config = model.config.get_text_config(decoder=True)
    for name in ('max_position_embeddings', 'n_positions', 'max_seq_len', 'seq_length', 'n_ctx'):
        if isinstance(value := getattr(config, name, None), int) and value > 0:
            return value
    return None


def token_room(device: torch.device, token_bytes: int) -> int | None:
    """How many tokens of keys and values the free memory holds, something left for everything else."""
    if not token_bytes:
        return None
    if device.type == 'cuda':
        free = int(torch.cuda.mem_get_info(device)[0] * 0.8)
    elif device.type == 'cpu':
        import psutil

        free = psutil.virtual_memory().available // 2
    else:
        return None
    # growing holds the old storage of one layer beside the new one; the bytes are counted once
    return max(1, free // token_bytes)


PREFIX_TOKENS = 32_768
"""Most tokens of what was read before that are kept unless another number is asked for."""


def room_for(model: Any, token_bytes: int, rows: int | None, prefixes: int | None) -> tuple[int | None, int]:
    """Tokens of keys and values for running answers (None: no limit), and for what is kept of earlier ones.

    `rows`, `prefixes`: what the caller asked for. Nothing is kept where keys depend on how long the text is.
    """
    room = token_room(model.device, token_bytes) if rows is None else rows
    if prefixes is None:
        prefixes = PREFIX_TOKENS if room is None else min(room // 8, PREFIX_TOKENS)
        room = room - prefixes if rows is None and room is not None else room
    config = model.config.get_text_config(decoder=True)
    rope = getattr(config, 'rope_parameters', None) or getattr(config, 'rope_scaling', None) or {}
    kinds = {value.get('rope_type') for value in (rope, *rope.values()) if isinstance(value, dict)}
    return room, 0 if kinds & {'dynamic', 'longrope'} else prefixes


def weights_of(model: Any) -> tuple:
    """Where the weights are and how often they were changed in place: equal as long as they are the same."""
    return tuple((p.data_ptr(), 0 if p.is_inference() else p._version) for p in model.parameters())


def name_of(model: Any) -> str:
    path = getattr(model.config, '_name_or_path', '') or type(model).__name__
    return os.path.basename(os.path.normpath(path)) or path


def active_adapter(model: Any) -> str | None:
    if not getattr(model, 'peft_config', None):
        return None
    active = model.active_adapter
    return active if isinstance(active, str) else active[0]


def load(model: str, adapters: list[str], template: Template | None, settings: dict[str, Any]) -> tuple[Any, Template, str, int | None]:
    """Model (with its adapters on), template, name and context length of an id or a directory.

    `settings`: fields of ModelArgs and, where no template is given, of TemplateArgs; budgets of media may be in the environment too.
    """
    from swift.arguments import ModelArgs, TemplateArgs
    from swift.model import load_model
    from swift.template import get_template

    fields, words = ModelArgs.__dataclass_fields__, TemplateArgs.__dataclass_fields__ if template is None else {}
    if unknown := [name for name in settings if name not in fields and name not in words]:
        near = did_you_mean(unknown[0], [*fields, *words])
        raise SwiftError(f'{unknown[0]}: no such setting of a model;', near or f'known: {", ".join([*fields, *words])}')
    loaded = load_model(ModelArgs(model=model, adapters=adapters, **{k: v for k, v in settings.items() if k in fields}))
    model = with_adapters(loaded.model, list(loaded.info.adapters))
    if template is None:
        asked = {**_budgets(), **{k: v for k, v in settings.items() if k not in fields}}
        template = get_template(loaded.processor, stop_token_ids=ids_of(model.generation_config.eos_token_id), **asked)
    return model, template, os.path.basename(os.path.normpath(loaded.info.model_dir)), loaded.info.max_model_len


def _budgets() -> dict[str, Any]:
    """Budgets of media that the environment sets, as `MAX_PIXELS`."""
    from swift.arguments.convert import convert
    from swift.arguments.flags import flags_of
    from swift.arguments.media import MediaArgs

    return {name: convert(flag, os.environ[name.upper()]) for name, flag in flags_of(MediaArgs).items() if os.environ.get(name.upper())}


def with_adapters(model: Any, paths: list[str], names: list[str] | None = None) -> Any:
    """The model with the adapters of these directories on it, beside those it has; the first is active."""
    if not paths:
        return model
    from swift.tuners import load_adapter

    return load_adapter(model, paths, names=names)


def check_adapter(path: str) -> None:
    if not os.path.isfile(os.path.join(path, 'adapter_config.json')):
        raise SwiftError(f'{path} holds no adapter_config.json;', 'give the directory of a trained adapter')
