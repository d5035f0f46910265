"""Models that read and write text, stored inside of larger ones that also speak: the part that is trained and asked."""

from __future__ import annotations

from typing import Any

from swift.core.log import info_once

_INNER = {
    'qwen2_5_omni': ('thinker', 'Qwen2_5OmniThinkerForConditionalGeneration'),
    'qwen3_omni_moe': ('thinker', 'Qwen3OmniMoeThinkerForConditionalGeneration'),
}
"""model_type → the part, and its class."""


def inner_config(config: Any) -> Any:
    """The configuration of the part that writes text; the same one for models that are nothing else."""
    if getattr(config, 'model_type', None) not in _INNER:
        return config
    part, name = _INNER[config.model_type]
    inner = getattr(config, f'{part}_config')
    inner.architectures = [name]
    info_once('Of a %s model the %s is loaded: it reads, sees and hears, and writes text; the parts that speak are left out.', config.model_type, part)
    return inner


def inner_class(config_type: str) -> Any | None:
    """The transformers class of the part that writes text; None for models that are nothing else."""
    import transformers

    return getattr(transformers, _INNER[config_type][1]) if config_type in _INNER else None


def key_mapping(config_type: str) -> dict[str, str] | None:
    """How the names of its weights in the larger model become its own, as `from_pretrained` takes it; None: they are its own."""
    return {rf'^{_INNER[config_type][0]}\.': ''} if config_type in _INNER else None
