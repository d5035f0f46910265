"""Micro-batches of a stream: the same global micro-batches on every rank, and a position after each of them.

Every rank reads and encodes the whole stream and takes its share of each global micro-batch, so the ranks agree on what
a pack holds and when the stream ends. Packing works on windows: samples for `WINDOW` packs are collected and packed best
fit decreasing; bins that stayed too empty go into the next window (at most `_AGE` times), so that almost no token is padding.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import numpy as np

from swift.core.errors import CheckpointError
from swift.core.types import Batch, Sample
from swift.dataset.loader import Collate, collated, dealt
from swift.dataset.packing import pack, pack_in_order
from swift.dataset.stream_encode import StreamSamples

WINDOW = 64
"""Packs that are planned at a time."""
_FULL = 0.985
"""A pack at least so full is not held back."""
_AGE = 3
Unit = tuple[list[Sample], dict[str, Any]]
"""Samples of one row of a micro-batch, and the position after them."""


class StreamLoader:
    """Micro-batches of `StreamSamples`; satisfies the protocol `BatchLoader` (`len` raises TypeError)."""

    def __init__(
        self, samples: StreamSamples, collate: Collate, *, batch_size: int, rank: int, world_size: int, drop_last: bool,
        packing_length: int | None, packing_strategy: str, oversize: bool, max_batch_tokens: int | None, num_workers: int,
    ):  # fmt: skip
        self.samples, self.collate, self.num_workers = samples, collate, num_workers
        self.rank, self.world_size, self.drop_last = rank, world_size, drop_last
        self.group = world_size if max_batch_tokens else batch_size * world_size
        if packing_length:
            self._units: Callable[[Any], Iterator[Unit]] = Packer(samples, packing_length, packing_strategy, oversize).units
        elif max_batch_tokens:
            self._units = Budget(samples, max_batch_tokens).units
        else:
            self._units = lambda position: (([sample], after) for sample, after in samples.samples(position))
        self.identity = f'{self.group}|{packing_length}|{packing_strategy}|{max_batch_tokens}|{drop_last}'
        self.epoch = 0
        self._position: dict[str, Any] | None = None
        self._reading: Any = None

    def __len__(self) -> int:
        raise TypeError('the number of micro-batches of a stream is not known; set --max_steps')

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of `epoch`; nothing happens when that is the present one."""
        if epoch != self.epoch:
            self.epoch, self._position = epoch, None

    def __iter__(self) -> Iterator[Batch]:
        if self._reading is not None:
            self._reading.close()  # an iteration that was left early must not go on reading
        position = self._position or self.samples.beginning(self.epoch)
        batches = ((self._batch(group), after) for group, after in self._groups(position))
        self._reading = in_background(batches, 2 * self.num_workers) if self.num_workers else batches
        for batch, after in self._reading:
            if after is None:
                self.epoch, self._position = self.epoch + 1, None
            else:
                self._position = after
            yield batch

    def _groups(self, position: dict[str, Any]) -> Iterator[tuple[list[list[Sample]], dict[str, Any] | None]]:
        """Global micro-batches, each with the position after it; None after the last one of the epoch."""
        ready: tuple[list[list[Sample]], dict[str, Any]] | None = None
        group: list[list[Sample]] = []
        for unit, after in self._units(position):
            group.append(unit)
            full = len(group) == self.group
            if ready is not None and (full or not self.drop_last):  # sure that another one follows
                yield ready
                ready = None
            if full:
                ready, group = (group, after), []
        if group and not self.drop_last:
            yield group, None
        elif ready is not None:
            yield ready[0], None

    def _batch(self, group: list[list[Sample]]) -> Batch:
        mine = [sample for unit in dealt(group, self.rank, self.world_size) for sample in unit]
        return collated(self.collate, mine or [group[0][0]], not mine)

    def state_dict(self) -> dict[str, Any]:
        """Position after the last micro-batch that was handed out, whatever was read ahead."""
        position = self._position
        if position and 'carried' in position:
            position = {**position, 'carried': [[to_json(sample), age] for sample, age in position['carried']]}
        return {'epoch': self.epoch, 'position': position, 'plan': self.identity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved position. Raises CheckpointError when it belongs to another batch plan."""
        if state.get('plan') != self.identity:
            raise CheckpointError(
                'the saved data position belongs to another plan (global batch size or packing changed);',
                'resume with the settings of the run, or start over from its weights with --resume_only_model true',
            )
        position = state['position']
        if position and 'carried' in position:
            position = {**position, 'carried': [(Sample(**values), age) for values, age in position['carried']]}
        self.epoch, self._position = state['epoch'], position


class Packer:
    """Samples → packs of at most `capacity` tokens, window by window; with `oversize` a longer sample is a pack of its own."""

    def __init__(self, samples: StreamSamples, capacity: int, strategy: str, oversize: bool = False):
        self.samples, self.capacity, self.strategy, self.oversize = samples, capacity, strategy, oversize

    def units(self, position: dict[str, Any]) -> Iterator[Unit]:
        """Packs from a position on. The position of a pack: where its window began, what had been carried into it, and
        how many of its packs are done."""
        begin, done = position.get('window', position), position.get('done', 0)
        carried = position.get('carried', [])
        source = self.samples.samples(begin)
        while True:
            window, after, ended = self._collect(source, carried, begin)
            if not window:
                return
            packs, left = self._plan([sample for sample, _ in window], [age for _, age in window], ended)
            for number, indices in enumerate(packs, 1):
                if number > done:
                    yield [window[i][0] for i in indices], {'window': begin, 'carried': carried, 'done': number}
            if ended:
                return
            carried, begin, done = [(window[i][0], window[i][1] + 1) for i in left], after, 0

    def _collect(self, source: Any, carried: list[Any], begin: Any) -> tuple[list[tuple[Sample, int]], Any, bool]:
        """(samples of a window with their age, the position after them, whether the stream ended)."""
        window = list(carried)
        tokens, after = sum(len(sample) for sample, _ in window), begin
        while tokens < WINDOW * self.capacity:
            item = next(source, None)
            if item is None:
                return window, after, True
            sample, after = item
            window.append((sample, 0))
            tokens += len(sample)
        return window, after, False

    def _plan(self, samples: list[Sample], ages: list[int], ended: bool) -> tuple[list[list[int]], list[int]]:
        """(packs to hand out, samples to carry into the next window)."""
        sizes = [min(len(sample), self.capacity) if self.oversize else len(sample) for sample in samples]
        if self.strategy == 'sequential':
            packs = pack_in_order(sizes, self.capacity)
            return (packs, []) if ended else (packs[:-1], packs[-1])
        packs = pack(sizes, self.capacity)
        if ended:
            return sorted(packs, key=min), []
        filled = [sum(sizes[index] for index in indices) / self.capacity for indices in packs]
        emptiest = np.argsort(filled, kind='stable')[: max(1, len(packs) // 4)].tolist()
        held = {
            number
            for number in emptiest
            if filled[number] < _FULL and all(ages[index] < _AGE for index in packs[number])
        }
        out = [indices for number, indices in enumerate(packs) if number not in held]
        return sorted(out, key=min), sorted(index for number in held for index in packs[number])


class Budget:
    """Samples → micro-batches of at most `budget` tokens (at least one sample), in order."""

    def __init__(self, samples: StreamSamples, budget: int):
        self.samples, self.budget = samples, budget

    def units(self, position: dict[str, Any]) -> Iterator[Unit]:
        """Micro-batches from a position on."""
        unit: list[Sample] = []
        tokens, before = 0, position
        for sample, after in self.samples.samples(position):
            if unit and tokens + len(sample) > self.budget:
                yield unit, before
                unit, tokens = [], 0
            unit.append(sample)
            tokens, before = tokens + len(sample), after
        if unit:
            yield unit, before


def to_json(sample: Sample) -> dict[str, Any]:
    """A text sample as JSON values."""
    if sample.media:
        raise CheckpointError('a packed stream of media cannot save its position;', 'drop --packing or --streaming')
    values = {field.name: getattr(sample, field.name) for field in fields(sample)}
    values = {name: value for name, value in values.items() if value is not None}
    for name in ('input_ids', 'labels', 'weights', 'lengths'):
        if name in values:
            values[name] = np.asarray(values[name]).tolist()
    return values


def in_background(items: Iterator[Any], depth: int) -> Iterator[Any]:
    """The items, made by a thread up to `depth` ahead of the reader."""
    line: queue.Queue = queue.Queue(max(1, depth))
    stop = threading.Event()

    def put(entry: tuple[str, Any]) -> bool:
        while not stop.is_set():
            try:
                line.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def produce() -> None:
        try:
            for item in items:
                if not put(('item', item)):
                    return
            put(('end', None))
        except BaseException as error:  # handed to the reader, who raises it
            put(('error', error))

    thread = threading.Thread(target=produce, name='swift-stream', daemon=True)
    thread.start()
    try:
        while True:
            kind, value = line.get()
            if kind == 'end':
                return
            if kind == 'error':
                raise value
            yield value
    finally:
        stop.set()
        thread.join()
