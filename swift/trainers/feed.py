"""Our micro-batches in the clothes transformers' Trainer knows: a DataLoader that accelerate neither shards nor shuffles."""

from __future__ import annotations

from collections.abc import Iterator, KeysView
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from swift.core.errors import DatasetError
from swift.core.types import Batch, BatchLoader
from swift.trainers.forward import ModelActor


class MicroBatch:
    """A Batch that can be read as the keyword arguments of a model, for a user's own `compute_loss(model, inputs)`.

    Deliberately no Mapping: the training loop would take it apart and build it anew.
    """

    def __init__(self, batch: Batch, model: Any):
        self.batch = batch
        self._model = model
        self._inputs: dict[str, Any] | None = None

    @property
    def inputs(self) -> dict[str, Any]:
        """input_ids, labels, position_ids or attention_mask, …; made when first asked for."""
        if self._inputs is None:
            self._inputs = ModelActor(self._model).inputs(self.batch, labels=True)
        return self._inputs

    def keys(self) -> KeysView[str]:
        return self.inputs.keys()

    def __getitem__(self, name: str) -> Any:
        return self.inputs[name]

    def __contains__(self, name: str) -> bool:
        return name in self.inputs

    def __iter__(self) -> Iterator[str]:
        return iter(self.inputs)

    def __len__(self) -> int:
        return 1

    def get(self, name: str, default: Any = None) -> Any:
        return self.inputs.get(name, default)

    def pop(self, name: str, *default: Any) -> Any:
        return self.inputs.pop(name, *default)


class _Source(IterableDataset):
    """The micro-batches of a BatchLoader, after `skipped` stand-ins that the training loop throws away when it resumes.

    The loop resumes by discarding the micro-batches already trained. Our loader is at its saved position at once, so
    stand-ins take their place. They are given once. A loader without length is read as one endless epoch.
    """

    def __init__(self, loader: BatchLoader, skipped: int):
        self.loader = loader
        self.skipped = skipped

    def __iter__(self) -> Iterator[Batch | None]:
        for _ in range(self.skipped):
            yield None
        self.skipped = 0
        if sized(self.loader):
            yield from self.loader
            return
        while True:
            empty = True
            for batch in self.loader:
                empty = False
                yield batch
            if empty:
                raise DatasetError('the stream of training data has ended;', 'lower --max_steps or give more data')


class _SizedSource(_Source):
    def __len__(self) -> int:
        return len(self.loader)


class Feed(DataLoader):
    """`DataLoader` face of a BatchLoader; `skipped` micro-batches are stand-ins (see `_Source`)."""

    def __init__(self, loader: BatchLoader, skipped: int = 0):
        source = (_SizedSource if sized(loader) else _Source)(loader, skipped)
        super().__init__(source, batch_size=None, collate_fn=_as_it_is, generator=torch.Generator())

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch, unless the loader is in it; streams count their epochs themselves."""
        loader = self.dataset.loader
        if sized(loader) and loader.epoch != epoch:
            loader.set_epoch(epoch)


def sized(loader: Any) -> bool:
    """Whether a loader knows how many micro-batches an epoch has."""
    try:
        len(loader)
    except TypeError:
        return False
    return True


def _as_it_is(item: Any) -> Any:
    return item
