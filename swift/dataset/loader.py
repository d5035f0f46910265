"""Samples → micro-batches, in an order that is a pure function of (seed, epoch) and a position that can be saved.

The plan of an epoch is global: a list of units (a sample, or a pack of samples), cut into *global micro-batches* of
`batch_size × world_size` units; rank r takes the r-th slice of each. So 2 processes with batch 4 train on the very same
global micro-batches as 1 process with batch 8. In the uneven tail the units left are dealt out as evenly as possible,
never repeated; a rank that gets none receives a batch of one sample without any labelled token
(`batch.extra['filler']` is True), so that every rank takes the same number of steps and adds nothing to the loss.

Resuming is O(1): the plan is made again from (seed, epoch) and reading starts at the cursor.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from swift.core.errors import CheckpointError, DatasetError
from swift.core.types import IGNORE_INDEX, Batch, BatchLoader, Sample, Samples
from swift.dataset.packing import pack, pack_in_order

Collate = Callable[[list[Sample]], Batch]
_MEGA = 50
"""Global micro-batches among which `group_by_length` sorts."""


def make_loader(
    samples: Samples | Any,
    collate: Collate,
    *,
    batch_size: int = 1,
    packing_length: int | None = None,
    packing_strategy: str = 'binpack',
    oversize: bool = False,
    max_batch_tokens: int | None = None,
    shuffle: bool = True,
    seed: int = 42,
    rank: int = 0,
    world_size: int = 1,
    drop_last: bool = False,
    num_workers: int = 0,
    group_by_length: bool = False,
) -> BatchLoader:
    """The loader for `samples`: map-style (`Samples`) or streaming (`swift.dataset.stream.StreamSamples`).

    `batch_size` counts samples, or packs of at most `packing_length` tokens (`packing_strategy`: binpack or sequential;
    with `oversize` a longer sample is a pack of its own, without it an error).
    `max_batch_tokens` replaces it by a budget: as many samples as fit, at least one. `num_workers` threads collate ahead;
    0 does it when a batch is asked for. Raises DatasetError for settings that exclude each other.
    """
    if packing_length and (max_batch_tokens or group_by_length):
        raise DatasetError('packing fills rows by itself;', 'drop --max_batch_tokens and --group_by_length, or --packing')
    if max_batch_tokens and group_by_length:
        raise DatasetError('--max_batch_tokens and --group_by_length exclude each other;', 'keep one')
    shape = dict(batch_size=batch_size, rank=rank, world_size=world_size, drop_last=drop_last)
    if hasattr(samples, 'stream'):
        from swift.dataset.stream_loader import StreamLoader

        if group_by_length:
            raise DatasetError('--group_by_length needs all lengths in advance;', 'drop it or --streaming')
        return StreamLoader(
            samples, collate, packing_length=packing_length, packing_strategy=packing_strategy, oversize=oversize,
            max_batch_tokens=max_batch_tokens, num_workers=num_workers, **shape,
        )  # fmt: skip
    plan = Plan(
        samples, packing_length=packing_length, packing_strategy=packing_strategy, oversize=oversize,
        max_batch_tokens=max_batch_tokens, shuffle=shuffle, seed=seed, group_by_length=group_by_length, **shape,
    )  # fmt: skip
    return Loader(samples, collate, plan, num_workers)


class Plan:
    """Which samples each micro-batch of an epoch holds: `plan.epoch(e)[i]` is a list of sample indices for this rank."""

    def __init__(
        self, samples: Samples, *, batch_size: int, rank: int, world_size: int, drop_last: bool, shuffle: bool, seed: int,
        packing_length: int | None, packing_strategy: str, oversize: bool, max_batch_tokens: int | None, group_by_length: bool,
    ):  # fmt: skip
        if not len(samples):
            raise DatasetError('there are no samples to load')
        self.samples, self.seed, self.shuffle, self.drop_last = samples, seed, shuffle, drop_last
        self.rank, self.world_size, self.group = rank, world_size, (1 if max_batch_tokens else batch_size) * world_size
        self.packing_length, self.strategy, self.oversize = packing_length, packing_strategy, oversize
        self.budget, self.group_by_length = max_batch_tokens, group_by_length
        self._made: tuple[int, list[Any]] | None = None
        self.identity = self._identity()

    def _identity(self) -> str:
        """Changes whenever the global plan does; what a saved position is valid for."""
        facts = [
            len(self.samples), self.seed, self.shuffle, self.drop_last, self.group,
            self.packing_length, self.strategy if self.packing_length else None,
            self.budget, self.group_by_length,
        ]  # fmt: skip
        digest = hashlib.blake2b(json.dumps(facts).encode(), digest_size=8)
        if self.packing_length or self.budget or self.group_by_length:
            digest.update(np.ascontiguousarray(self.samples.lengths, dtype=np.int32).tobytes())
        return digest.hexdigest()

    def order(self, epoch: int) -> np.ndarray:
        """The samples of an epoch in training order."""
        count = len(self.samples)
        return self._rng(epoch, 0).permutation(count) if self.shuffle else np.arange(count)

    def _rng(self, epoch: int, purpose: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([self.seed, epoch, purpose]))

    def epoch(self, epoch: int) -> list[Any]:
        """Global micro-batches of an epoch: each a sequence of units, each unit an index or a list of indices."""
        if self._made is None or self._made[0] != epoch:
            self._made = (epoch, self._make(epoch))
        return self._made[1]

    def _make(self, epoch: int) -> list[Any]:
        order = self.order(epoch)
        units: Sequence[Any] = order
        if self.packing_length or self.budget:
            units = self._packs(order, epoch)
        elif self.group_by_length:
            units = self._grouped(order, epoch)
        groups = [units[start : start + self.group] for start in range(0, len(units), self.group)]
        if self.drop_last and len(groups[-1]) < self.group:
            groups.pop()
        if not groups:
            raise DatasetError(
                f'{len(units)} units don\'t fill one global batch of {self.group};',
                'lower --per_device_train_batch_size or set --dataloader_drop_last false',
            )
        return groups

    def _packs(self, order: np.ndarray, epoch: int) -> list[list[int]]:
        """Packs, or micro-batches under the token budget; how many there are does not depend on the epoch."""
        capacity = self.budget or self.packing_length
        sizes = self.samples.lengths
        if self.budget or self.oversize:
            sizes = np.minimum(sizes, capacity)  # a longer sample is a pack of its own
        if not self.budget and self.strategy == 'sequential':
            packs = pack_in_order(sizes, capacity)
        else:
            packs = pack(sizes, capacity, order)
        if not self.shuffle:
            return sorted(packs, key=min)
        return [packs[index] for index in self._rng(epoch, 1).permutation(len(packs)).tolist()]

    def _grouped(self, order: np.ndarray, epoch: int) -> np.ndarray:
        """Samples of like length beside each other; the longest of all first, so that too little memory shows at once."""
        lengths, mega = np.asarray(self.samples.lengths), self.group * _MEGA
        runs = [order[start : start + mega] for start in range(0, len(order), mega)]
        runs = [run[np.argsort(-lengths[run], kind='stable')] for run in runs]
        batches = [run[start : start + self.group] for run in runs for start in range(0, len(run), self.group)]
        whole = [batch for batch in batches if len(batch) == self.group]
        rest = [batch for batch in batches if len(batch) < self.group]
        if self.shuffle:
            whole = [whole[index] for index in self._rng(epoch, 2).permutation(len(whole)).tolist()]
        if whole:
            longest = max(range(len(whole)), key=lambda index: int(lengths[whole[index]].max()))
            whole[0], whole[longest] = whole[longest], whole[0]
        return np.concatenate(whole + rest)

    def share(self, group: Any) -> tuple[list[int], bool]:
        """(sample indices of this rank in a global micro-batch, whether they are a filler)."""
        units = dealt(group, self.rank, self.world_size)
        flat = [int(index) for unit in units for index in (unit if isinstance(unit, list) else [unit])]
        if flat:
            return flat, False
        first = group[0]
        return [int(first[0] if isinstance(first, list) else first)], True


def dealt(group: Sequence[Any], rank: int, world_size: int) -> Sequence[Any]:
    """The contiguous share of `rank`; shares differ by one unit at most."""
    base, more = divmod(len(group), world_size)
    start = rank * base + min(rank, more)
    return group[start : start + base + (rank < more)]


def filler(sample: Sample) -> Sample:
    """The sample with nothing labelled."""
    labels = np.full(len(sample.input_ids), IGNORE_INDEX, dtype=np.int64)
    return Sample(
        sample.input_ids, labels, None, lengths=sample.lengths, media=sample.media, label=sample.label,
        channel=sample.channel, source=sample.source, extra=sample.extra,
    )  # fmt: skip


class Loader:
    """Micro-batches of a map-style `Samples`; satisfies the protocol `BatchLoader`."""

    def __init__(self, samples: Samples, collate: Collate, plan: Plan, num_workers: int = 0):
        self.samples, self.collate, self.plan, self.num_workers = samples, collate, plan, num_workers
        self.epoch = 0
        self._cursor = 0

    def __len__(self) -> int:
        return len(self.plan.epoch(self.epoch))

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of `epoch`; nothing happens when that is the present one."""
        if epoch != self.epoch:
            self.epoch, self._cursor = epoch, 0

    def __iter__(self) -> Iterator[Batch]:
        groups = self.plan.epoch(self.epoch)
        for number, batch in enumerate(self._batches(groups[self._cursor :]), self._cursor + 1):
            self._cursor = number
            yield batch
        self.epoch, self._cursor = self.epoch + 1, 0

    def _batches(self, groups: Sequence[Any]) -> Iterator[Batch]:
        return ahead(self._batch, groups, self.num_workers)

    def _batch(self, group: Any) -> Batch:
        indices, is_filler = self.plan.share(group)
        fetch = getattr(self.samples, 'fetch', None)
        found = [sample for index in indices for sample in (fetch(index) if fetch else [self.samples[index]])]
        if not found:  # every row of the share is bad (lazy encoding)
            found, is_filler = [self._any_sample(fetch)], True
        return collated(self.collate, found, is_filler)

    def _any_sample(self, fetch: Callable[[int], list[Sample]]) -> Sample:
        for index in range(len(self.samples)):
            if found := fetch(index):
                return found[0]
        raise DatasetError('no row can be encoded')

    def state_dict(self) -> dict[str, Any]:
        """Position after the last micro-batch that was handed out, whatever is collated ahead."""
        epoch, cursor = (self.epoch + 1, 0) if self._cursor and self._cursor >= len(self) else (self.epoch, self._cursor)
        return {'epoch': epoch, 'cursor': cursor, 'plan': self.plan.identity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved position. Raises CheckpointError when it belongs to other data or another batch plan."""
        if state.get('plan') != self.plan.identity:
            raise CheckpointError(
                'the saved data position belongs to another plan (data, seed, global batch size or packing changed);',
                'resume with the settings of the run, or start over from its weights with --resume_only_model true',
            )
        self.epoch, self._cursor = int(state['epoch']), int(state['cursor'])


def collated(collate: Collate, samples: list[Sample], is_filler: bool) -> Batch:
    """The batch of the samples; a filler batch has nothing labelled and says so in `extra`."""
    batch = collate([filler(sample) for sample in samples] if is_filler else samples)
    if is_filler:
        batch.extra['filler'] = True
    return batch


def ahead(make: Callable[[Any], Any], items: Sequence[Any], num_workers: int) -> Iterator[Any]:
    """`make(item)` in order, computed by `num_workers` threads ahead of the reader; 0: when asked for."""
    if num_workers <= 0:
        yield from map(make, items)
        return
    pool = ThreadPoolExecutor(num_workers, thread_name_prefix='swift-loader')
    waiting: deque = deque()
    try:
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > 2 * num_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
