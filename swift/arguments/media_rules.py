"""Checks of the flags of multimodal models: what makes no sense in a command line, and what a text-only model has no use for."""

from __future__ import annotations

from collections.abc import Mapping

from swift.arguments.media import BOUNDS, MEDIA
from swift.arguments.rules import Conflict, NoEffect, Values, flags

_HEADS = ('seq_cls', 'token_cls', 'reranker')
"""Tasks with a head that is new and learns whatever is frozen."""

PARTS = ('freeze_llm', 'freeze_vit', 'freeze_aligner')
_TOWER = 'while nothing of the vision and audio towers is trained (--freeze_vit false trains them)'
_ALIGNER = 'while nothing of the aligner is trained (--freeze_aligner false trains it)'


def names_modules(v: Values) -> bool:
    """Whether the modules that get an adapter are named one by one, so that the freeze flags, which act on all-linear, don't act."""
    return bool(v['target_regex']) or 'all-linear' not in v['target_modules']


def _others(v: Values) -> bool:
    """Whether something can be trained in a frozen part. What a plugin's tuner does, only the plugin knows."""
    if v['tuner_type'] == 'full':
        return bool(v['trainable_parameters'] or v['trainable_parameters_regex'])
    if v['tuner_type'] == 'lora':
        return names_modules(v) or bool(v['modules_to_save'] or v['target_parameters'] or v['adapters'])
    return True


MEDIA_CONFLICTS: tuple[Conflict, ...] = (
    Conflict(('fps', 'nframes'), lambda v: True, '--fps and --nframes both say how many frames of a video are taken; give one of them'),
)

MEDIA_NO_EFFECT: tuple[NoEffect, ...] = (
    NoEffect(
        PARTS,
        lambda v: v['tuner_type'] == 'lora' and names_modules(v),
        'with --target_modules or --target_regex: modules that are named get adapters wherever they are; all-linear heeds it',
        warn=True,
    ),
    NoEffect(flags('vit_lr'), lambda v: v['freeze_vit'] and not _others(v), _TOWER),
    NoEffect(flags('aligner_lr'), lambda v: v['freeze_aligner'] and not _others(v), _ALIGNER),
    NoEffect(flags('vit_lora_rank'), lambda v: v['tuner_type'] == 'full', 'with --tuner_type full, which trains no adapter'),
    NoEffect(flags('vit_lora_rank'), lambda v: v['freeze_vit'] and not names_modules(v), _TOWER),
    NoEffect(flags('vit_gradient_checkpointing'), lambda v: v['freeze_vit'] and not _others(v), _TOWER, warn=True),
    NoEffect(
        flags('optimizer'),
        lambda v: v['optimizer'] == 'multimodal' and v['vit_lr'] is None and v['aligner_lr'] is None,
        'without --vit_lr or --aligner_lr: every part learns at --learning_rate',
        warn=True,
    ),
    NoEffect((*MEDIA, *PARTS), lambda v: True, 'in export: no image, video or sound is read, and nothing is trained', ('export', 'merge-lora')),
)


def media_mistakes(values: Values, training: bool) -> list[str]:
    """Bounds in the wrong order, and everything frozen."""
    found = [
        f'--{low} {values[low]} is above --{high} {values[high]}'
        for low, high in BOUNDS
        if values[low] is not None and values[high] is not None and values[low] > values[high]
    ]
    if training and all(values[name] for name in PARTS) and not _others(values) and values['task_type'] not in _HEADS:
        found.append('--freeze_llm, --freeze_vit and --freeze_aligner together leave nothing to train; set one of them to false')
    return found


def text_only_mistakes(values: Values, sources: Mapping[str, str], defaults: Values) -> list[str]:
    """Given flags that a model without vision and audio has no use for. Values that ask for nothing pass, and so do an environment's."""
    found = [
        name
        for name in (*MEDIA, *PARTS, 'vit_lora_rank', 'vit_lr', 'aligner_lr', 'vit_gradient_checkpointing')
        if name in values and _by_hand(sources.get(name, 'derived')) and values[name] not in (None, defaults[name])
        and not (values[name] is False and defaults[name] is None)
    ]  # fmt: skip
    if values.get('optimizer') == 'multimodal' and _by_hand(sources.get('optimizer', 'derived')):
        found.append('optimizer')
    return [f'--{name} has no effect: the model has no vision or audio tower; drop it' for name in found]


def _by_hand(source: str) -> bool:
    return not source.startswith(('environment ', 'args.json ', 'derived'))
