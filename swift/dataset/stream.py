"""Streams of conversations: read as they are needed, shuffled within blocks, resumable in the middle of a file.

Shuffling works on blocks: `shuffle_buffer_size` rows are read and dealt in an order that depends on (seed, epoch, block).
The position is then small and exact: where the block began, and how many of its rows were dealt. Rows never travel in it.

Every node has `start(epoch)`, `read() -> Conversation | RowError | None at the end`, `state()` and `restore(state)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from swift.core.errors import DatasetError, RowError
from swift.core.types import Conversation
from swift.dataset.bad_rows import BadRows
from swift.dataset.cursor import Placed, open_cursor
from swift.dataset.resolve import Found
from swift.dataset.sources import check_probabilities


def _rng(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(key))


class FileStream:
    """Rows of several files; their order changes with the epoch when shuffled."""

    def __init__(self, files: Sequence[str], seed: int, shuffle: bool):
        self.files, self.seed, self.shuffle = list(files), seed, shuffle
        self.start(0)

    def start(self, epoch: int) -> None:
        """Go to the first row of an epoch."""
        self.epoch, self._number, self._cursor = epoch, 0, None
        count = len(self.files)
        self._order = _rng(self.seed, epoch, 1).permutation(count).tolist() if self.shuffle else list(range(count))

    def read(self) -> Placed | None:
        """The next row and its place."""
        while self._number < len(self.files):
            self._cursor = self._cursor or open_cursor(self.files[self._order[self._number]])
            placed = self._cursor.read()
            if placed is not None:
                return placed
            self._number, self._cursor = self._number + 1, None
        return None

    def state(self) -> dict[str, Any]:
        """Position of the next row."""
        inside = self._cursor.position() if self._cursor else None
        return {'epoch': self.epoch, 'file': self._number, 'inside': inside}

    def restore(self, state: dict[str, Any]) -> None:
        """Go to a saved position."""
        self.start(state['epoch'])
        self._number = state['file']
        if state['inside'] is not None:
            self._cursor = open_cursor(self.files[self._order[self._number]], state['inside'])


class BlockShuffle:
    """Rows of a FileStream, dealt block by block in random order."""

    def __init__(self, rows: FileStream, size: int, seed: int):
        self.rows, self.size, self.seed = rows, size, seed
        self.start(0)

    def start(self, epoch: int) -> None:
        """Go to the first row of an epoch."""
        self.rows.start(epoch)
        self._number, self._dealt, self._block = 0, 0, None
        self._begin = self.rows.state()

    def read(self) -> Placed | None:
        """The next row and its place."""
        if self._block is None or self._dealt >= len(self._block):
            if self._block is not None:
                self._number += 1
            self._begin, self._dealt = self.rows.state(), 0
            self._fill()
            if not self._block:
                return None
        self._dealt += 1
        return self._block[self._dealt - 1]

    def _fill(self) -> None:
        block: list[Placed] = []
        while len(block) < self.size and (placed := self.rows.read()) is not None:
            block.append(placed)
        order = _rng(self.seed, self.rows.epoch, 2, self._number).permutation(len(block))
        self._block = [block[index] for index in order.tolist()]

    def state(self) -> dict[str, Any]:
        """Position of the next row."""
        return {'rows': self._begin, 'block': self._number, 'dealt': self._dealt}

    def restore(self, state: dict[str, Any]) -> None:
        """Go to a saved position: one block is read again."""
        self.rows.restore(state['rows'])
        self._begin, self._number, self._dealt = state['rows'], state['block'], state['dealt']
        self._block = None
        if self._dealt:
            self._fill()


class EntryStream:
    """Conversations of one entry of --dataset: all of it, or `limit` rows (starting over where there are fewer)."""

    def __init__(self, rows: Any, convert: Any, limit: int | None, name: str):
        self.rows, self.convert, self.limit, self.name = rows, convert, limit, name
        self._given = self._round = 0
        self._epoch = 0

    def start(self, epoch: int) -> None:
        """Go to the first row of an epoch."""
        self._epoch, self._given, self._round = epoch, 0, 0
        self.rows.start(epoch)

    def read(self) -> Conversation | RowError | None:
        """The next conversation, or what is wrong with the next row."""
        if self.limit is not None and self._given >= self.limit:
            return None
        placed = self.rows.read()
        if placed is None and self.limit is not None and self._given:
            self._round += 1
            self.rows.start(self._epoch)
            placed = self.rows.read()
        if placed is None:
            return None
        self._given += 1
        row, place = placed
        if isinstance(row, RowError):
            return row
        try:
            return self.convert(row, place)
        except RowError as error:
            return error

    def state(self) -> dict[str, Any]:
        """Position of the next row."""
        return {'rows': self.rows.state(), 'given': self._given, 'round': self._round, 'epoch': self._epoch}

    def restore(self, state: dict[str, Any]) -> None:
        """Go to a saved position."""
        self._given, self._round, self._epoch = state['given'], state['round'], state['epoch']
        self.rows.restore(state['rows'])


class JoinedStream:
    """Several streams one after the other."""

    def __init__(self, streams: Sequence[Any]):
        self.streams, self._number = list(streams), 0

    def start(self, epoch: int) -> None:
        """Go to the first row of an epoch."""
        self._number = 0
        for stream in self.streams:
            stream.start(epoch)

    def read(self) -> Conversation | RowError | None:
        """The next conversation, or what is wrong with the next row."""
        while self._number < len(self.streams):
            item = self.streams[self._number].read()
            if item is not None:
                return item
            self._number += 1
        return None

    def state(self) -> dict[str, Any]:
        """Position of the next row."""
        return {'number': self._number, 'streams': [stream.state() for stream in self.streams]}

    def restore(self, state: dict[str, Any]) -> None:
        """Go to a saved position."""
        self._number = state['number']
        for stream, saved in zip(self.streams, state['streams'], strict=True):
            stream.restore(saved)


class InterleavedStream:
    """Draws from several streams with probabilities; draw k of an epoch depends on (seed, epoch, k) only."""

    def __init__(self, streams: Sequence[Any], probabilities: Sequence[float], seed: int, stopping: str):
        self.streams, self.seed, self.all_of_them = list(streams), seed, stopping == 'all_exhausted'
        self._bounds = np.cumsum(check_probabilities(probabilities, len(self.streams)))
        if self.all_of_them and min(probabilities) == 0:
            raise DatasetError('all_exhausted never ends with a probability of 0;', 'raise it or use first_exhausted')
        self.start(0)

    def start(self, epoch: int) -> None:
        """Go to the first row of an epoch."""
        self._epoch, self._draws, self._used = epoch, 0, [False] * len(self.streams)
        for stream in self.streams:
            stream.start(epoch)

    def read(self) -> Conversation | RowError | None:
        """The next conversation, or what is wrong with the next row."""
        if all(self._used):
            return None
        which = int(np.searchsorted(self._bounds, _rng(self.seed, self._epoch, 3, self._draws).random(), side='right'))
        which = min(which, len(self.streams) - 1)
        self._draws += 1
        item = self.streams[which].read()
        if item is not None:
            return item
        self._used[which] = True
        if not self.all_of_them or all(self._used):
            self._used = [True] * len(self.streams)
            return None
        self.streams[which].start(self._epoch)
        return self.streams[which].read()

    def state(self) -> dict[str, Any]:
        """Position of the next row."""
        states = [stream.state() for stream in self.streams]
        return {'epoch': self._epoch, 'draws': self._draws, 'used': list(self._used), 'streams': states}

    def restore(self, state: dict[str, Any]) -> None:
        """Go to a saved position."""
        self._epoch, self._draws, self._used = state['epoch'], state['draws'], list(state['used'])
        for stream, saved in zip(self.streams, state['streams'], strict=True):
            stream.restore(saved)


class Stream:
    """A streaming source: iterate it for the conversations of an epoch, from the present position on.

    Bad rows go to `bad_rows` and are skipped. At the end of an epoch the position is the start of the next one.
    `state_dict()` is JSON-able and exact in the middle of a file and of a shuffled block.
    """

    def __init__(self, node: Any, bad_rows: BadRows):
        self.node, self.bad_rows, self.epoch = node, bad_rows, 0

    def read(self) -> Conversation | None:
        """The next good conversation, None at the end of the epoch (the next read begins the next epoch)."""
        while True:
            item = self.node.read()
            if item is None:
                self.set_epoch(self.epoch + 1, again=True)
                return None
            if isinstance(item, Conversation):
                return item
            self.bad_rows.add(item)

    def __iter__(self) -> Iterator[Conversation]:
        while (talk := self.read()) is not None:
            yield talk

    def set_epoch(self, epoch: int, again: bool = False) -> None:
        """Go to the start of `epoch`; nothing happens when that is the present one (unless `again`)."""
        if again or epoch != self.epoch:
            self.epoch = epoch
            self.node.start(epoch)

    def state_dict(self) -> dict[str, Any]:
        """The position."""
        return {'epoch': self.epoch, 'node': self.node.state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved position."""
        self.epoch = state['epoch']
        self.node.restore(state['node'])


def entry_stream(found: Found, convert: Any, *, seed: int, shuffle: bool, buffer: int) -> EntryStream:
    """The stream of one located data set."""
    if found.made is not None:
        raise DatasetError(f'{found.name} is made by a function;', 'it cannot be streamed, drop --streaming')
    rows: Any = FileStream(found.files, seed, shuffle)
    return EntryStream(BlockShuffle(rows, buffer, seed) if shuffle else rows, convert, found.rows, found.name)


def mixed(streams: Sequence[Any], probabilities: Sequence[float] | None, seed: int, stopping: str) -> Any:
    """The streams one after the other, or interleaved."""
    if probabilities:
        return InterleavedStream(streams, probabilities, seed, stopping)
    return streams[0] if len(streams) == 1 else JoinedStream(streams)
