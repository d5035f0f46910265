"""Which samples share a row, decided by their lengths alone.

Best-fit decreasing: the longest sample first, each into the fullest bin it still fits (Johnson, 1973: at most
11/9 of the optimum; on real length distributions practically the optimum). Lengths are small integers, so sorting is
counting and "the fullest bin that fits" is one search in a bit set of remaining capacities: O(n) for n samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from swift.core.errors import DatasetError


def pack(lengths: Sequence[int], capacity: int, order: Sequence[int] | None = None) -> list[list[int]]:
    """Indices of samples for every bin, none over `capacity` tokens; every sample is in exactly one bin.

    `order` breaks ties: samples of the same length are taken in this order (default: as they stand). The number of bins
    depends on the multiset of lengths only. Raises DatasetError for a sample longer than `capacity`.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    _check(lengths, capacity)
    order = np.arange(len(lengths)) if order is None else np.asarray(order, dtype=np.int64)
    order = order[np.argsort(-lengths[order], kind='stable')]
    bins: list[list[int]] = []
    waiting: list[list[int]] = [[] for _ in range(capacity + 1)]  # remaining capacity → bins
    free = 0  # bit r is set while some bin has r tokens left
    for index, size in zip(order.tolist(), lengths[order].tolist(), strict=True):
        fitting = free >> size
        if fitting:
            left = size + (fitting & -fitting).bit_length() - 1
            stack = waiting[left]
            number = stack.pop()
            if not stack:
                free ^= 1 << left
            bins[number].append(index)
        else:
            left, number = capacity, len(bins)
            bins.append([index])
        left -= size
        if left:
            waiting[left].append(number)
            free |= 1 << left
    return bins


def pack_in_order(lengths: Sequence[int], capacity: int, order: Sequence[int] | None = None) -> list[list[int]]:
    """Bins that keep the order of the samples: a bin is closed when the next sample does not fit (next fit)."""
    lengths = np.asarray(lengths, dtype=np.int64)
    _check(lengths, capacity)
    bins: list[list[int]] = []
    left = 0
    for index in range(len(lengths)) if order is None else np.asarray(order).tolist():
        size = int(lengths[index])
        if not bins or size > left:
            bins.append([])
            left = capacity
        bins[-1].append(index)
        left -= size
    return bins


def fill(bins: Sequence[Sequence[int]], lengths: Sequence[int], capacity: int) -> float:
    """Share of the tokens in `bins` that are real."""
    return sum(int(lengths[index]) for items in bins for index in items) / max(1, len(bins) * capacity)


def _check(lengths: np.ndarray, capacity: int) -> None:
    if len(lengths) and lengths.max() > capacity:
        raise DatasetError(
            f'a sample of {int(lengths.max())} tokens does not fit a packed row of {capacity};',
            'raise --packing_length, or lower --max_length',
        )
