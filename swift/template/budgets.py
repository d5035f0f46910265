"""How large media may be: from the flags to what is read of them and to the keyword arguments of the processor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from swift.arguments.template import TemplateArgs
from swift.core.errors import TemplateError
from swift.media import Budget
from swift.template.media import MediaReader
from swift.template.media_facts import media_facts

_BOTH_EDGES = ('shortest_edge', 'longest_edge')
_PIXELS = 1024
"""An edge of a processor's `size` above this many is a number of pixels, not a length."""


def media_reader(processor: Any, args: TemplateArgs) -> MediaReader | None:
    """The media side of a processor under the budgets of the flags; None for a tokenizer, or a processor that reads text only."""
    reader = MediaReader(processor, media_facts(processor), *_budgets(processor, args))
    if not reader.kinds:
        return None
    if args.audio_max_token_num:
        seconds = args.audio_max_token_num / reader.tokens_per_second()
        reader = MediaReader(processor, reader.facts, replace(reader.budget, audio_max_seconds=seconds), reader.settings)
    return reader


def _budgets(processor: Any, args: TemplateArgs) -> tuple[Budget, dict[str, dict[str, Any]]]:
    """(what is read of media, settings of the processor by part).

    A processor that has a budget in pixels of its own is given ours; for others images are scaled when they are read.
    Raises TemplateError for a budget in tokens where the processor has no patches to count by.
    """
    image = getattr(processor, 'image_processor', None)
    video = getattr(processor, 'video_processor', None)
    low, high = _pixels('image', image, (args.min_pixels, args.max_pixels), (args.image_min_token_num, args.image_max_token_num))
    film_low, film_high = _pixels(
        'video', video, (args.video_min_pixels, args.video_max_pixels), (args.video_min_token_num, args.video_max_token_num)
    )
    settings: dict[str, dict[str, Any]] = {}
    if _counts_pixels(image) and (low or high):
        settings['images_kwargs'] = {'size': _size(image, low, high)}
        low = high = None  # scaled once, by the processor
    if _counts_pixels(video) and args.video_total_pixels:
        settings['videos_kwargs'] = {'size': _size(video, None, args.video_total_pixels)}
    rate = getattr(getattr(processor, 'feature_extractor', None), 'sampling_rate', None)
    if args.sampling_rate and rate and args.sampling_rate != rate:
        raise TemplateError(f'--sampling_rate {args.sampling_rate}: this model hears {rate} samples a second;', 'leave it unset')
    budget = Budget(
        max_pixels=high, min_pixels=low, video_max_pixels=film_high, video_min_pixels=film_low,
        video_total_pixels=args.video_total_pixels, fps=args.fps, fps_max_frames=args.fps_max_frames,
        fps_min_frames=args.fps_min_frames, nframes=args.nframes, sampling_rate=args.sampling_rate,
    )  # fmt: skip
    return budget, settings


def _pixels(kind: str, part: Any, pixels: tuple[int | None, ...], tokens: tuple[int | None, ...]) -> tuple[int | None, int | None]:
    """(least, most) pixels, from such bounds in pixels and in tokens: the narrower ones."""
    (low, high), (least, most) = pixels, tokens
    if part is None or not (least or most):
        return low, high
    patch = getattr(part, 'patch_size', None)
    patch = patch.get('height') if isinstance(patch, dict) else patch
    if not isinstance(patch, int):
        raise TemplateError(
            f'--{kind}_{"max" if most else "min"}_token_num: the number of tokens of a {kind} is fixed in this model;',
            f'drop it, or set --{"video_" if kind == "video" else ""}max_pixels',
        )
    area = (patch * (getattr(part, 'merge_size', None) or 1)) ** 2
    return _only(max, low, least and least * area), _only(min, high, most and most * area)


def _only(choose: Callable, *bounds: int | None) -> int | None:
    """`choose` of the bounds that there are; None: there is none."""
    return choose((bound for bound in bounds if bound), default=None)


def _counts_pixels(part: Any) -> bool:
    """Whether a processor scales by the number of pixels: it has patches that are merged, and bounds that are no lengths."""
    size = getattr(part, 'size', None)
    return bool(getattr(part, 'merge_size', None) and size and max(filter(None, (_edge(size, name) for name in _BOTH_EDGES)), default=0) > _PIXELS)


def _edge(size: Any, name: str) -> int | None:
    return size.get(name) if hasattr(size, 'get') else getattr(size, name, None)


def _size(part: Any, low: int | None, high: int | None) -> dict[str, int]:
    own = {name: _edge(part.size, name) for name in _BOTH_EDGES}
    high = high or max(own['longest_edge'], low or 0)
    return {'shortest_edge': min(low or own['shortest_edge'], high), 'longest_edge': high}
