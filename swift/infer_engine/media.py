"""What the rows of a static batch show: read once for each prompt, joined to what the model's forward takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from swift.core.tensors import concatenated, stacked
from swift.core.types import Media, Prompt

Kinds = frozenset[str]


def kinds_of(prompt: Prompt) -> Kinds:
    """Which of image, video, audio a prompt shows."""
    return frozenset(kind for kind, _ in prompt.media['media']) if prompt.media else frozenset()


class Shelf:
    """Media of prompts that are waiting, so that the choices of one request share what was read."""

    def __init__(self, read: Callable[[Prompt], Media]):
        self._read = read
        self._held: dict[int, tuple[Prompt, Media]] = {}

    def of(self, prompt: Prompt) -> Media | None:
        """What a prompt shows, as tensors; None for text. Raises RowError naming a file that can't be read."""
        if not prompt.media:
            return None
        if id(prompt) not in self._held:
            self._held[id(prompt)] = (prompt, self._read(prompt))
        return self._held[id(prompt)][1]

    def keep(self, prompts: Iterable[Prompt]) -> None:
        """Forget the media of all other prompts."""
        wanted = set(map(id, prompts))
        self._held = {key: value for key, value in self._held.items() if key in wanted}


def joined(shown: Sequence[Media | None], lengths: Sequence[int]) -> dict[str, torch.Tensor]:
    """Inputs of a batch of rows of so many tokens, padded on the left to the longest of them."""
    longest, inputs = max(lengths), {}
    for name in _names(shown, 'aligned'):
        inputs[name] = stacked([_or_zeros(media, 'aligned', name, n, shown) for media, n in zip(shown, lengths, strict=True)], longest, left=True)
    for name in _names(shown, 'listed'):
        inputs[name] = concatenated([media.listed[name] for media in shown if media and name in media.listed])
    for name in _names(shown, 'nested'):
        rows = [_or_zeros(media, 'nested', name, 0, shown) for media in shown]
        inputs[name] = stacked(rows, max(map(len, rows)))
    return inputs


def _names(shown: Sequence[Media | None], part: str) -> list[str]:
    return list(dict.fromkeys(name for media in shown if media for name in getattr(media, part)))


def _or_zeros(media: Media | None, part: str, name: str, count: int, shown: Sequence[Media | None]) -> torch.Tensor:
    """The tensor of a row; zeros of `count` entries where it has none."""
    if media and name in getattr(media, part):
        return getattr(media, part)[name]
    like = next(getattr(other, part)[name] for other in shown if other and name in getattr(other, part))
    return like.new_zeros(count, *like.shape[1:])


def as_inputs(model: Any, rows: Sequence[Sequence[int]], shown: Sequence[Media | None], pad: int) -> dict[str, torch.Tensor]:
    """What `generate` takes for rows of ids and what they show: on the model's device, pixels and sounds in the type of its weights."""
    longest = max(map(len, rows))
    device = model.device
    inputs = {
        'input_ids': torch.tensor([[pad] * (longest - len(row)) + list(row) for row in rows], device=device),
        'attention_mask': torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device),
    }
    for name, value in joined(shown, list(map(len, rows))).items():
        inputs[name] = value.to(device, model.dtype if value.is_floating_point() else None)
    return inputs
