"""A stream of conversations → a stream of samples, encoded a chunk ahead, with an exact position after every sample."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from swift.core.errors import RowError
from swift.core.types import Conversation, Sample
from swift.dataset.bad_rows import BadRows
from swift.dataset.encode import CHUNK, EncodeBatch, in_order, worker_pool
from swift.dataset.stream import Stream


class StreamSamples:
    """Samples of a `Stream`. `encode_batch` as for `encode_rows`; `num_proc` workers encode whole chunks."""

    def __init__(self, stream: Stream, encode_batch: EncodeBatch, *, num_proc: int = 1, bad_rows: BadRows | None = None):
        self.stream, self.encode_batch, self.num_proc = stream, encode_batch, num_proc
        self.bad_rows = bad_rows or stream.bad_rows

    def beginning(self, epoch: int) -> dict[str, Any]:
        """The position at the start of an epoch."""
        self.stream.set_epoch(epoch, again=True)
        return {'chunk': self.stream.state_dict(), 'skip': 0}

    def samples(self, position: dict[str, Any]) -> Iterator[tuple[Sample, dict[str, Any]]]:
        """Samples from a position to the end of its epoch, each with the position after it."""
        self.stream.load_state_dict(position['chunk'])
        skip = position['skip']
        for begin, found in self._chunks():
            for number, sample in enumerate(found, 1):
                if number > skip:
                    yield sample, {'chunk': begin, 'skip': number}
            skip = 0

    def _chunks(self) -> Iterator[tuple[dict[str, Any], list[Sample]]]:
        """(position where the chunk begins, its samples); bad rows are counted on the way."""
        for begin, (found, good, errors) in self._encoded():
            self.bad_rows.good(good)
            for error in errors:
                self.bad_rows.add(error)
            yield begin, found
        self.bad_rows.check()

    def _encoded(self) -> Iterator[tuple[dict[str, Any], tuple[list[Sample], int, list[RowError]]]]:
        if self.num_proc <= 1:
            for begin, talks in self._read():
                yield begin, encode_talks(talks, self.encode_batch)
            return
        begins: list[dict[str, Any]] = []

        def jobs() -> Iterator[tuple[list[Conversation]]]:
            for begin, talks in self._read():
                begins.append(begin)
                yield (talks,)

        with worker_pool(self.num_proc, (None, self.encode_batch)) as pool:
            for result in in_order(pool, _encode_here, jobs(), window=4 * self.num_proc):
                yield begins.pop(0), result

    def _read(self) -> Iterator[tuple[dict[str, Any], list[Conversation]]]:
        epoch = self.stream.epoch
        while self.stream.epoch == epoch:
            begin, talks = self.stream.state_dict(), []
            while len(talks) < CHUNK and (talk := self.stream.read()) is not None:
                talks.append(talk)
            if talks:
                yield begin, talks


def encode_talks(talks: list[Conversation], encode_batch: EncodeBatch) -> tuple[list[Sample], int, list[RowError]]:
    """(samples, number of good rows, errors of the others)."""
    found: list[Sample] = []
    errors: list[RowError] = []
    for talk, result in zip(talks, encode_batch(talks), strict=True):
        if isinstance(result, RowError):
            errors.append(result.at(talk.source))
            continue
        for sample in result:
            sample.source = sample.source or talk.source
            found.append(sample)
    return found, len(talks) - len(errors), errors


def _encode_here(talks: list[Conversation]) -> tuple[list[Sample], int, list[RowError]]:
    from swift.dataset import encode

    return encode_talks(talks, encode._here[1])
