"""Tensors of several rows put together, shorter ones filled up with zeros. Their own methods do it: nothing is imported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def concatenated(values: Sequence[Tensor]) -> Tensor:
    """Joined along the first dimension; where further dimensions differ (tiles, frames, time), the shorter are filled up."""
    if len(values) == 1:
        return values[0]
    made = values[0].new_zeros(sum(map(len, values)), *_widest(values))
    at = 0
    for value in values:
        made[(slice(at, at + len(value)), *map(slice, value.shape[1:]))] = value
        at += len(value)
    return made


def stacked(values: Sequence[Tensor], length: int, *, left: bool = False) -> Tensor:
    """[rows, length, …] of [n, …] with n up to `length`; the zeros stand behind, or in front (`left`)."""
    made = values[0].new_zeros(len(values), length, *_widest(values))
    for row, value in enumerate(values):
        start = length - len(value) if left else 0
        made[(row, slice(start, start + len(value)), *map(slice, value.shape[1:]))] = value
    return made


def _widest(values: Sequence[Tensor]) -> list[int]:
    return [max(value.shape[axis] for value in values) for axis in range(1, values[0].dim())]
