"""What the segments of a batch show, joined to what the forward of a model takes; positions of models that count in three dimensions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from swift.core.tensors import concatenated, stacked
from swift.core.types import Batch, Media
from swift.tuners.parts import parts_of

_POSITION_INPUTS = {'second_per_grids': 'video_second_per_grid'}
"""Argument of a model's own position function → input of its forward, where the two have different names."""


_ONE_TOKEN = frozenset({'glm4v', 'glm4v_moe', 'glm46v', 'glm_ocr'})
"""Architectures (model_type) that mark images and frames of videos by the same token, and so take one kind at a time."""


def mixes_kinds(base: nn.Module, batch: Batch) -> bool:
    """Whether a batch shows images and videos to a model that takes only one of them at a time."""
    if not batch.media or getattr(base.config, 'model_type', None) not in _ONE_TOKEN:
        return False
    names = {name for media in batch.media if media for name in media.listed}
    return {'pixel_values', 'pixel_values_videos'} <= names


def media_inputs(batch: Batch, dtype: torch.dtype) -> dict[str, Tensor]:
    """Inputs of the forward for what the batch shows; floating-point ones as `dtype` (that of the weights)."""
    shown = batch.media or []
    if not any(shown):
        return {}
    inputs = dict(_aligned(batch, shown))
    for name in _names(shown, 'listed'):
        inputs[name] = concatenated([media.listed[name] for media in shown if media and name in media.listed])
    inputs.update(_nested(batch, shown))
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()}


def _names(shown: Sequence[Media | None], part: str) -> list[str]:
    return list(dict.fromkeys(name for media in shown if media for name in getattr(media, part)))


def _aligned(batch: Batch, shown: Sequence[Media | None]) -> Iterator[tuple[str, Tensor]]:
    """[1, T, …] flat or [S, L, …] padded; zeros where a segment has none."""
    sizes = batch.lengths.tolist()
    for name in _names(shown, 'aligned'):
        like = next(media.aligned[name] for media in shown if media and name in media.aligned)
        rows = [
            media.aligned[name] if media and name in media.aligned else like.new_zeros(size, *like.shape[1:])
            for media, size in zip(shown, sizes, strict=True)
        ]
        if batch.flat:
            yield name, concatenated(rows)[None]
        else:
            yield name, stacked(rows, batch.input_ids.shape[1])


def _nested(batch: Batch, shown: Sequence[Media | None]) -> Iterator[tuple[str, Tensor]]:
    """[1, N, …] flat or [S, N, …] padded; zeros stand for media that a row does not have."""
    for name in _names(shown, 'nested'):
        if batch.flat:
            yield name, concatenated([media.nested[name] for media in shown if media and name in media.nested])[None]
            continue
        like = next(media.nested[name] for media in shown if media and name in media.nested)
        rows = [media.nested[name] if media and name in media.nested else like.new_zeros(0, *like.shape[1:]) for media in shown]
        yield name, stacked(rows, max(map(len, rows)))


def own_positions(base: nn.Module, batch: Batch) -> Tensor | None:
    """[3, 1, T] positions of a flat batch by the model's own function (M-RoPE, arXiv:2409.12191), each segment as if it were alone.

    None: the model has no such function, or the batch shows nothing, so that the positions of its tokens do.
    """
    function = position_function(base)
    if function is None or not batch.flat or not any(batch.media or []):
        return None
    sizes = batch.lengths.tolist()
    parts = zip(batch.input_ids.split(sizes, 1), batch.position_ids.split(sizes, 1), batch.media, strict=True)
    return torch.cat([_positions(function, ids, places, media) for ids, places, media in parts], dim=-1)


def _positions(function: Callable, ids: Tensor, places: Tensor, media: Media | None) -> Tensor:
    if media is None:
        return places.expand(3, 1, -1)
    given: dict[str, Any] = {'input_ids': ids, 'attention_mask': torch.ones_like(ids), **media.listed}
    given.update({name: value[None] for name, value in media.aligned.items()})
    if 'feature_attention_mask' in given:
        given['audio_seqlens'] = given['feature_attention_mask'].sum(-1)
    names = inspect.signature(function).parameters
    given.update({name: given[other] for name, other in _POSITION_INPUTS.items() if name in names and other in given})
    positions, _ = function(**{name: value for name, value in given.items() if name in names})
    return positions.to(places.dtype)


def position_function(base: nn.Module) -> Callable | None:
    """The function by which a model counts tokens and patches in three dimensions; None: it counts tokens."""
    for owner in (base, getattr(base, 'model', None)):
        if owner is not None and callable(getattr(owner, 'get_rope_index', None)):
            return owner.get_rope_index
    return None


def tower_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The trainable parameters that only what a batch shows reaches: towers, and what joins them to the language model."""
    parts = parts_of(model)
    return [value for name, value in model.named_parameters() if value.requires_grad and parts.of(name) != 'llm']


def idle(parameters: Sequence[nn.Parameter]) -> Tensor:
    """A loss of zero that reaches all of these parameters.

    Where one process has texts and another images, both give every parameter a gradient, so that none waits for the other; and a
    step of texts alone moves towers by the optimizer's momentum whether one process sees it or several.
    """
    return 0.0 * torch.stack([parameter.sum().float() for parameter in parameters]).sum()
