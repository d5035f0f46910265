"""Objects of a row in the text: `<ref-object>` and `<bbox>` become names and coordinates as the model's family writes them.

`objects` of a row is `{"ref": [name, …], "bbox": [[x1, y1, x2, y2], [x, y], …], "bbox_type": "real" | "norm1000" | "norm1",
"image_id": [number of the image, …]}`. The tags take them in order, over all messages. How a family writes a box, and in which
units, is data (`grounding.json`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from swift.core.errors import RowError, TemplateError
from swift.core.types import Message

Size = tuple[int, int]
"""(height, width)"""
_TAGS = re.compile(r'<ref-object>|(?:<bbox>)+')
_TYPES = ('real', 'norm1000', 'norm1')
_SLACK = 0.05
"""Boxes may reach over the image by this share of it (annotations do); they are cut to it."""


@dataclass(frozen=True)
class Convention:
    """How a family of models writes objects."""

    box: str
    """Format of a box: x1, y1, x2, y2, or the first and last patch."""
    point: str | None = None
    """Format of a point: x, y. None: the family has none."""
    ref: str = '{}'
    """Format of an object's name."""
    group: str = '{}'
    """Around the boxes that stand together."""
    join: str = ''
    """Between the boxes that stand together."""
    scale: int | str = 1000
    """1000: thousandths of the image. `pixels`: pixels of the image as the model gets it. `bins`: numbered bins a side.
    `patches`: the number of the patch, row by row."""
    bins: int = 0
    """Bins or patches a side."""


def convention_of(model_type: str | None, norm_bbox: str | None = None) -> Convention:
    """The convention of a model type; `norm_bbox` (norm1000: thousandths, none: pixels) says other units. Raises TemplateError."""
    facts = _facts()
    found = Convention(**facts['conventions'][facts['model_types'].get(model_type, 'default')])
    if norm_bbox is None:
        return found
    if norm_bbox not in ('norm1000', 'none'):
        raise TemplateError(f'unknown norm_bbox {norm_bbox!r};', 'known: norm1000, none')
    if found.bins:
        raise TemplateError(f'{model_type} writes boxes as tokens of its own;', 'leave out --norm_bbox')
    return replace(found, scale=1000 if norm_bbox == 'norm1000' else 'pixels')


@cache
def _facts() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name('grounding.json').read_text(encoding='utf-8'))


def ground(
    messages: Sequence[Message], objects: Mapping[str, Any] | str | None, sizes: Sequence[tuple[Size, Size]], convention: Convention
) -> list[Message]:
    """The messages with every `<ref-object>` and `<bbox>` written out; without `objects` they are as they were.

    `sizes`: of each image of the row, before the model's own resizing and after it. An entry of `bbox` that is a list of boxes
    stands for several boxes of one object. Messages that end with a prompt need not use all objects (the answer would).
    Raises RowError where tags and objects don't match, with both numbers, and for coordinates that can't be.
    """
    if isinstance(objects, str):
        objects = _parsed(objects)
    if not objects:
        return list(messages)
    refs, boxes = list(objects.get('ref') or []), list(objects.get('bbox') or [])
    texts = [text for message in messages for text in _texts(message)]
    answered = bool(messages) and messages[-1].get('role') == 'assistant'
    _check_count('ref', '<ref-object>', sum(text.count('<ref-object>') for text in texts), len(refs), answered)
    _check_count('bbox', '<bbox>', sum(text.count('<bbox>') for text in texts), len(boxes), answered)
    images = _image_numbers(objects, len(boxes))
    kind = objects.get('bbox_type') or 'real'
    if kind not in _TYPES:
        raise RowError(f'unknown bbox_type {kind!r};', hint=f'known: {", ".join(_TYPES)}')
    names = (convention.ref.format(ref) for ref in refs)
    written = (_written(box, kind, _sizes_of(sizes, image, number), convention, number)
               for number, (box, image) in enumerate(zip(boxes, images, strict=True)))  # fmt: skip
    return [_filled(message, names, written, convention) for message in messages]


def _parsed(objects: str) -> Any:
    try:
        return json.loads(objects) if objects.strip() else None
    except ValueError as error:
        raise RowError(f'objects is a string that is not JSON ({error})') from error


def _texts(message: Message) -> Iterator[str]:
    content = message.get('content')
    if isinstance(content, str):
        yield content
    for part in content if isinstance(content, list) else []:
        if isinstance(part, Mapping) and isinstance(part.get('text'), str):
            yield part['text']


def _check_count(name: str, tag: str, tags: int, given: int, answered: bool) -> None:
    if tags > given or (answered and tags < given):
        plural = '' if tags == 1 else 's'
        raise RowError(f'the messages have {tags} {tag} tag{plural}, but objects.{name} holds {given};', hint=f'write one {tag} for each')


def _image_numbers(objects: Mapping[str, Any], count: int) -> list[int]:
    numbers = objects.get('image_id')
    if numbers is None or numbers == []:
        return [0] * count
    if not isinstance(numbers, list | tuple) or len(numbers) != count:
        held = len(numbers) if isinstance(numbers, list | tuple) else 'no list'
        raise RowError(f'objects.image_id holds {held}, but objects.bbox {count};', hint='give the number of its image (from 0) for each box')
    return list(numbers)


def _sizes_of(sizes: Sequence[tuple[Size, Size]], image: int, number: int) -> tuple[Size, Size] | None:
    """Sizes of the image that box `number` is in; None for a row without images (then only relative coordinates can be)."""
    if not sizes:
        return None
    if not isinstance(image, int) or not 0 <= image < len(sizes):
        raise RowError(f'box {number} is in image {image}, but the row has {len(sizes)} images (numbered from 0)')
    return sizes[image]


def _written(box: Any, kind: str, sizes: tuple[Size, Size] | None, convention: Convention, number: int) -> list[str]:
    """The boxes of one entry, as text each."""
    if isinstance(box, list | tuple) and box and all(isinstance(item, list | tuple) for item in box):
        return [text for item in box for text in _written(item, kind, sizes, convention, number)]
    if not isinstance(box, list | tuple) or len(box) not in (2, 4) or not all(map(_is_number, box)):
        raise RowError(f'box {number} must be [x1, y1, x2, y2] or a point [x, y], got {box!r}'[:200])
    places = _shares(box, kind, sizes, number)
    if len(box) == 2 and convention.point is None:
        raise RowError(f'box {number} is a point, which this model has no way to write;', hint='give boxes [x1, y1, x2, y2]')
    return [_format(places, convention, sizes)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _shares(box: Sequence[float], kind: str, sizes: tuple[Size, Size] | None, number: int) -> list[float]:
    """Coordinates as shares of the image's width and height, from 0 to 1."""
    if kind == 'real' and sizes is None:
        raise RowError('bbox_type real needs an image in the row;', hint='add it, or give norm1000 coordinates')
    height, width = {'norm1': (1, 1), 'norm1000': (1000, 1000)}.get(kind) or sizes[0]
    shares = [value / (height if index % 2 else width) for index, value in enumerate(box)]
    if not all(-_SLACK <= share <= 1 + _SLACK for share in shares):
        raise RowError(f'box {number} {list(box)} lies outside the image ({width} wide, {height} high as {kind});',
                       hint=f'check bbox_type: {", ".join(_TYPES)}')  # fmt: skip
    return [min(max(share, 0.0), 1.0) for share in shares]


def _format(shares: list[float], convention: Convention, sizes: tuple[Size, Size] | None) -> str:
    scale, bins = convention.scale, convention.bins
    if scale == 'patches':
        return convention.box.format(first=_patch(shares[0], shares[1], bins), last=_patch(shares[2], shares[3], bins, end=True))
    if scale == 'pixels':
        if sizes is None:
            raise RowError('this model writes boxes in pixels, which needs an image in the row')
        height, width = sizes[1]
    else:
        height = width = bins or scale
    numbers = [math.floor(share * (height if index % 2 else width) + 0.5) for index, share in enumerate(shares)]
    if scale == 'bins':
        numbers = [min(number, bins - 1) for number in numbers]
    if len(numbers) == 2:
        return (convention.point or '').format(**dict(zip(('x', 'y'), numbers, strict=True)))
    return convention.box.format(**dict(zip(('x1', 'y1', 'x2', 'y2'), numbers, strict=True)))


def _patch(x: float, y: float, side: int, end: bool = False) -> int:
    """Number of the patch that a corner lies in; the end of a box belongs to the patch before a border."""
    column, row = (max(math.ceil(v * side) - 1, 0) if end else min(math.floor(v * side), side - 1) for v in (x, y))
    return row * side + column


def _filled(message: Message, names: Iterator[str], boxes: Iterator[list[str]], convention: Convention) -> Message:
    if not any(_TAGS.search(text) for text in _texts(message)):
        return message

    def write(match: re.Match) -> str:
        if match[0] == '<ref-object>':
            return next(names)
        texts = [text for _ in range(match[0].count('<bbox>')) for text in next(boxes)]
        return convention.group.format(convention.join.join(texts))

    content = message['content']
    if isinstance(content, str):
        return {**message, 'content': _TAGS.sub(write, content)}
    parts = [
        {**part, 'text': _TAGS.sub(write, part['text'])} if isinstance(part, Mapping) and isinstance(part.get('text'), str) else part
        for part in content
    ]
    return {**message, 'content': parts}
