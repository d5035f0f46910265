"""Doing something twice with the same random numbers: dropout of a second forward must be that of the first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Chance:
    """The state of the random generators of the CPU and of one device."""

    device: torch.device
    cpu: Tensor
    own: Tensor | None
    """None: the device is the CPU."""

    @staticmethod
    def now(device: torch.device) -> Chance:
        """The present state."""
        own = None if device.type == 'cpu' else torch.get_device_module(device).get_rng_state(device)
        return Chance(device, torch.get_rng_state(), own)

    def set(self) -> None:
        """Make this the present state."""
        torch.set_rng_state(self.cpu)
        if self.own is not None:
            torch.get_device_module(self.device).set_rng_state(self.own, self.device)


@contextmanager
def replayed(chance: Chance) -> Iterator[None]:
    """Inside, random numbers come as they came after `chance`; afterwards they go on where they were."""
    before = Chance.now(chance.device)
    chance.set()
    try:
        yield
    finally:
        before.set()
