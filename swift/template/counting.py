"""How many tokens stand for an image, by arithmetic instead of trying: for processors that say so, and are found to say it rightly.

What such a processor writes for an image is a run of one token between fixed words. That, and its count, are compared with what it
writes for blank images of several sizes, alone and beside another; only where all of it agrees is the count believed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_SIZES = ((224, 224), (97, 480), (640, 201), (1000, 1500))
"""(height, width) of the images that are tried."""

Written = Callable[[tuple], 'list[str] | None']
"""((kind, size), …) → what the processor writes for each."""


class ImageCounter:
    """`processor` with its `images_kwargs`, `token` that stands for images, `written` to compare with."""

    def __init__(self, processor: Any, settings: dict[str, Any], token: str, written: Written):
        self._processor, self._settings, self._token = processor, settings, token
        self._others = 0
        self._around = self._learn(written)

    @property
    def works(self) -> bool:
        """Whether the processor's count can be believed."""
        return self._around is not None

    def __call__(self, size: tuple[int, int]) -> str:
        """What the processor writes for an image of (height, width)."""
        before, after = self._around
        return before + self._token * (self._count(size) - self._others) + after

    def _count(self, size: tuple[int, int]) -> int:
        counted = self._processor._get_num_multimodal_tokens(image_sizes=[list(size)], images_kwargs=dict(self._settings))
        return int(counted['num_image_tokens'][0])

    def _learn(self, written: Written) -> tuple[str, str] | None:
        """The words before and after the run; None where the processor writes something else, or counts otherwise."""
        try:
            alone = [(written((('image', size),)) or [''])[0] for size in _SIZES]
            pair = written((('image', _SIZES[0]), ('image', _SIZES[3])))
            around = {_split(text, self._token) for text in alone}
            counts = [self._count(size) for size in _SIZES]
        except Exception:  # not every processor has such a count, or takes every size
            return None
        others = {count - text.count(self._token) for count, text in zip(counts, alone, strict=True)}
        if len(around) != 1 or len(others) != 1 or pair != [alone[0], alone[3]]:
            return None
        self._others = others.pop()  # some count the tokens around the run, too
        return around.pop()


def _split(text: str, token: str) -> tuple[str, str]:
    """The words before and after one unbroken run of the token. Raises ValueError where there is none."""
    start, end = text.index(token), text.rindex(token) + len(token)
    if text[start:end] != token * ((end - start) // len(token)):
        raise ValueError('several runs')
    return text[:start], text[end:]
