"""Parts of a transformers configuration: where the language model of a multimodal one is."""

from __future__ import annotations

from typing import Any


def decoder_config(model: Any) -> Any:
    """The part of a model's configuration that its language model reads; the whole one where there is no part."""
    config = getattr(model, 'config', None)
    return config.get_text_config(decoder=True) if hasattr(config, 'get_text_config') else config


def for_decoder(config: Any, implementation: str) -> Any:
    """What `set_attn_implementation` takes to switch the attention of the language model alone: a name, below the names of the
    sub-configurations that lead to it."""
    wanted = config.get_text_config(decoder=True)
    value: Any = implementation
    for name in reversed(_place_of(config, wanted) or []):
        value = {name: value}
    return value


def _place_of(config: Any, wanted: Any) -> list[str] | None:
    """Names of the sub-configurations that lead to `wanted`; none for the configuration itself, None where there is no way."""
    if config is wanted:
        return []
    for name in getattr(config, 'sub_configs', ()):
        rest = _place_of(getattr(config, name, None), wanted)
        if rest is not None:
            return [name, *rest]
    return None
