"""Tiny random multimodal models with their real processors, made offline.

`save_vlm(path, family)` writes a directory that `AutoProcessor` and the architecture's own class load: random weights
of two layers, a tokenizer with the family's special tokens, its processor with small sizes, and its chat template.
What a family is (tokens, template, sizes) stands in vlm_facts.json.
"""

from __future__ import annotations

import json
import os
from typing import Any

import swift  # noqa: F401  (before transformers: it stands in for torchvision)
from tests.helpers.architectures import FACTS, _wake
from tests.helpers.vlm_check import check_plain
from tests.helpers.vlm_config import merged, tiny_config, with_ids
from tests.helpers.vlm_tokens import build_tokenizer, chat_template

_FACTS = json.load(open(os.path.join(os.path.dirname(__file__), 'vlm_facts.json'), encoding='utf-8'))
STYLES: dict[str, dict[str, Any]] = _FACTS['styles']
FAMILIES: dict[str, dict[str, Any]] = _FACTS['families']
PRIORITY: list[str] = _FACTS['priority']
"""Families that every change of the multimodal path is tried on."""


def save_vlm(path: str | os.PathLike, family: str, *, seed: int = 0, **overrides: Any) -> str:
    """Write a tiny random model of a family with its processor to `path` (unless it is there); the path as a string.

    `overrides` are laid over the family's facts: `config=dict(text_config=dict(num_hidden_layers=3))`,
    `image_processor=dict(size=…)`, `video_processor`, `feature_extractor`, `processor`, `model_class='…'`.
    """
    path = str(path)
    if os.path.exists(os.path.join(path, 'config.json')):
        return path
    facts = merged(family_facts(family), overrides)
    processor = build_processor(family, facts)
    model = build_model(family, facts, processor.tokenizer, seed)
    model.save_pretrained(path)
    processor.save_pretrained(path)
    if facts.get('speakers'):
        import torch

        torch.save({}, os.path.join(path, 'spk_dict.pt'))  # the class wants voices, and may get none
    return path


def family_facts(family: str) -> dict[str, Any]:
    """The facts of a family, those of the family it is `like` underneath."""
    facts = FAMILIES.get(family, {})
    return merged(family_facts(facts['like']), facts) if 'like' in facts else facts


def media_of(family: str) -> list[str]:
    """Which of image, video, audio the family understands."""
    return family_facts(family).get('media', ['image'])


def check_family(family: str, path: str) -> dict[str, Any]:
    """Write the family's model to `path` and try every kind of row on it in plain transformers."""
    return check_plain(save_vlm(path, family), **habits_of(family))


def habits_of(family: str) -> dict[str, Any]:
    """How rows are made for the family: the fields of `vlm_check.Habits`."""
    facts = family_facts(family)
    return dict(media=media_of(family)) | {
        name: facts[name] for name in ('bare', 'single', 'discrete', 'part', 'call') if name in facts
    }


def model_types() -> list[str]:
    """Every architecture of transformers that reads media beside text, and the families of our own facts."""
    return list(dict.fromkeys([*_classes(), *FAMILIES]))


def build_model(family: str, facts: dict[str, Any], tokenizer: Any, seed: int) -> Any:
    """The random model, float32, in eval mode."""
    import torch
    import transformers
    from transformers import GenerationConfig

    given = merged(FACTS.get(family, {}), facts.get('config', {}))
    config = tiny_config(facts.get('model_type', family), given, token_ids(tokenizer), len(tokenizer))
    torch.manual_seed(seed)
    model = getattr(transformers, facts.get('model_class') or class_of(family))(config).float().eval()
    _wake(model)
    _open_gates(model)
    ids = dict(
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.bos_token_id
    )
    model.generation_config = GenerationConfig(**{**ids, **with_ids(facts.get('generation', {}), token_ids(tokenizer))})
    return model


def _open_gates(model: Any) -> None:
    """Gates that start closed (a zero vector in front of a whole branch) half open."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ('gate' in name or 'alpha' in name) and parameter.dim() <= 1 and not parameter.any():
                parameter.fill_(0.5)


def build_processor(family: str, facts: dict[str, Any]) -> Any:
    """The family's own processor, small, around a tokenizer with its tokens."""
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    tokenizer = tokenizer_of(facts)
    cls = getattr(
        transformers, facts.get('processor_class') or PROCESSOR_MAPPING_NAMES[facts.get('model_type', family)]
    )
    parts = {}
    for name in cls.get_attributes():
        parts[name] = tokenizer if name == 'tokenizer' else _part(family, name, facts)
    if 'style' in facts:
        parts['chat_template'] = chat_template(STYLES[facts['style']], facts['marks'])
    return cls(**parts, **facts.get('processor', {}))


def tokenizer_of(facts: dict[str, Any]) -> Any:
    """The tokenizer of a family: its special tokens, and the eos of its chat style."""
    style = STYLES.get(facts.get('style'), {})
    usual = {name: style[name] for name in ('bos_token', 'eos_token', 'pad_token') if name in style}
    named = {**usual, **facts.get('tokens', {})}
    others = [*style.get('specials', []), *facts.get('specials', [])]
    return build_tokenizer(named, others, kind=facts.get('tokenizer', 'bytes'), bos=facts.get('bos', False))


def _part(family: str, name: str, facts: dict[str, Any]) -> Any:
    """An image processor, video processor or feature extractor."""
    import transformers
    from transformers.models.auto import feature_extraction_auto, image_processing_auto, video_processing_auto

    kinds = dict(
        image_processor=image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES,
        video_processor=video_processing_auto.VIDEO_PROCESSOR_MAPPING_NAMES,
        audio_processor=feature_extraction_auto.FEATURE_EXTRACTOR_MAPPING_NAMES,
        feature_extractor=feature_extraction_auto.FEATURE_EXTRACTOR_MAPPING_NAMES,
    )
    if name.endswith('_tokenizer'):
        return tokenizer_of(facts)
    settings = dict(facts.get(name, {}))
    found = settings.pop('class', None) or kinds[name][facts.get('model_type', family)]
    if isinstance(found, dict):
        found = found.get('torchvision') or found['pil']
    return getattr(transformers, found)(**settings)


def token_ids(tokenizer: Any) -> dict[str, int]:
    """Ids by spelling of every special token, and by name (`image_token`, `eos_token`)."""
    ids = {token.content: number for number, token in tokenizer.added_tokens_decoder.items()}
    names = tokenizer.SPECIAL_TOKENS_ATTRIBUTES
    return {**ids, **{name: ids[str(token)] for name in names if (token := getattr(tokenizer, name, None)) is not None}}


def class_of(family: str) -> str:
    """Name of the architecture's class."""
    return _classes()[family]


def _classes() -> dict[str, str]:
    from transformers.models.auto import modeling_auto

    return {**modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES, **_others(modeling_auto)}


def _others(modeling_auto: Any) -> dict[str, str]:
    images = modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    return {
        name: cls for name, cls in modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES.items() if name not in images
    }
