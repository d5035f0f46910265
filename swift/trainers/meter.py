"""Means over items, micro-batches and processes, without waiting for the device until they are asked for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from swift.parallel import group


class Meter:
    """Sums and counts of metrics since the last `drain`, and the pace of real (unpadded) tokens."""

    def __init__(self):
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._tokens = 0
        self._since: float | None = None

    def add(self, metrics: dict[str, Tensor]) -> None:
        """Add 1-D tensors with one value per item."""
        for name, values in metrics.items():
            total = values.sum()
            self._sums[name] = self._sums[name] + total if name in self._sums else total
            self._counts[name] = self._counts.get(name, 0) + values.numel()

    def count_tokens(self, number: int) -> None:
        """Add to the tokens that are trained on; the clock starts with the first."""
        if self._since is None:
            self._since = time.perf_counter()
        self._tokens += number

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent inside (evaluation, saving) does not count for the pace."""
        start = time.perf_counter()
        try:
            yield
        finally:
            if self._since is not None:
                self._since += time.perf_counter() - start

    def drain(self) -> dict[str, float]:
        """Mean of every metric over all items of all processes, and start anew. All processes call it together."""
        names = list(self._sums)
        sums = torch.stack([self._sums[name].double() for name in names]).tolist() if names else []
        mine = {name: (total, self._counts[name]) for name, total in zip(names, sums, strict=True)}
        means: dict[str, tuple[float, int]] = {}
        for part in group.gather(mine):
            for name, (total, count) in part.items():
                old = means.get(name, (0.0, 0))
                means[name] = (old[0] + total, old[1] + count)
        self._sums, self._counts = {}, {}
        return {name: total / count for name, (total, count) in sorted(means.items()) if count}

    def pace(self) -> float:
        """Tokens per second of all processes since the last call."""
        now = time.perf_counter()
        start = now if self._since is None else self._since
        tokens, seconds = sum(group.gather(self._tokens)), max(now - start, 1e-9)
        self._tokens, self._since = 0, now
        return tokens / seconds

    def state_dict(self) -> dict[str, list]:
        """What was added since the last `drain`, as JSON values: name → [sum as a hexadecimal float, count]."""
        return {name: [float(total.item()).hex(), self._counts[name]] for name, total in self._sums.items()}

    def load_state_dict(self, state: dict[str, list], device: torch.device | str = 'cpu') -> None:
        """Bring back what `state_dict` gave; `device` is where later values will be."""
        self._sums = {name: torch.tensor(float.fromhex(total), device=device) for name, (total, _) in state.items()}
        self._counts = {name: count for name, (_, count) in state.items()}
