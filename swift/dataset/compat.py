"""Data sets as objects for programs that build their own training: encoded lazily, packed, or streamed.

`template` is anything with `encode(conversation) -> list[Sample]`, or a callable `conversation -> Sample | list[Sample]`.
The rows are a source of conversations (`DatasetLoader.load`, `load_dataset`), a list of dicts, or a Hugging Face Dataset.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from swift.core.errors import DatasetError, RowError
from swift.core.types import Conversation, Sample
from swift.dataset.bad_rows import BadRows
from swift.dataset.convert import AutoPreprocessor
from swift.dataset.encode import LazySamples, encode_rows
from swift.dataset.memory import MemoryRows
from swift.dataset.packing import pack, pack_in_order
from swift.dataset.sources import Conversations, Rows, code_identity
from swift.dataset.stream_loader import Packer


def as_source(rows: Any) -> Any:
    """Rows of any kind as conversations by number."""
    if isinstance(rows, Conversations):
        return rows
    if len(rows) and isinstance(rows[0], Conversation):
        return _List(rows)
    return Conversations.of(Rows('rows', [MemoryRows(rows, 'rows')], AutoPreprocessor()))


class _List:
    """Conversations in a list, as a source."""

    def __init__(self, talks: Sequence[Conversation]):
        self.talks = talks
        names = [field.name for field in fields(Conversation)]
        self.fingerprint = MemoryRows([{name: getattr(talk, name) for name in names} for talk in talks], 'rows').digest

    def __len__(self) -> int:
        return len(self.talks)

    def __getitem__(self, index: int) -> Conversation:
        return self.talks[index]


class EncodePreprocessor:
    """Encodes rows with a template: one (`preprocess`), or all of them to a memory-mapped store (calling it).

    A row that gives several samples (truncation_strategy split) gives them all when called on rows.
    """

    def __init__(self, template: Any):
        self.template = template

    def preprocess(self, row: Any) -> list[Sample]:
        """The samples of a row or conversation. Raises RowError."""
        talk = row if isinstance(row, Conversation) else AutoPreprocessor()(row)
        made = self.template.encode(talk) if hasattr(self.template, 'encode') else self.template(talk)
        return list(made) if isinstance(made, (list, tuple)) else [made]

    def encode_batch(self, talks: Sequence[Conversation]) -> list[list[Sample] | RowError]:
        """Samples of many rows; a bad row becomes its error."""
        if hasattr(self.template, 'encode_batch'):
            return self.template.encode_batch(talks)
        made: list[list[Sample] | RowError] = []
        for talk in talks:
            try:
                made.append(self.preprocess(talk))
            except RowError as error:
                made.append(error)
        return made

    def identity(self) -> str:
        """A key for the token cache: what the template says of itself, else its class and settings."""
        return getattr(self.template, 'fingerprint', None) or code_identity(self.template)

    def __call__(
        self, rows: Any, *, num_proc: int = 1, strict: bool = False, load_from_cache_file: bool = True, batch_size: int | None = None
    ) -> Any:
        """All samples of `rows`, memory-mapped (see `encode_rows`); a stream of rows gives an iterator of samples."""
        if not hasattr(rows, '__len__'):
            return self._stream(rows, strict, batch_size or 64)
        return encode_rows(
            as_source(rows), self.encode_batch, cache_key=self.identity(), num_proc=num_proc,
            bad_rows=BadRows(strict=strict), load_from_cache_file=load_from_cache_file,
        )  # fmt: skip

    def _stream(self, rows: Iterable[Any], strict: bool, batch_size: int) -> Iterator[Sample]:
        bad_rows, convert, waiting = BadRows(strict=strict), AutoPreprocessor(), []

        def flush() -> Iterator[Sample]:
            for talk, result in zip(waiting, self.encode_batch(waiting), strict=True):
                if isinstance(result, RowError):
                    bad_rows.add(result.at(talk.source))
                else:
                    bad_rows.good()
                    yield from result
            waiting.clear()

        for number, row in enumerate(rows):
            try:
                waiting.append(row if isinstance(row, Conversation) else convert(row, f'row {number}'))
            except RowError as error:
                bad_rows.add(error)
            if len(waiting) >= batch_size:
                yield from flush()
        yield from flush()
        bad_rows.finish()


class AddLengthPreprocessor(EncodePreprocessor):
    """Encodes rows and keeps of each its length beside the row: `[{**row, 'lengths': [n, …]}, …]`."""

    def __call__(self, rows: Any, *, strict: bool = False) -> list[dict[str, Any]]:
        """The good rows with the lengths of their samples."""
        bad_rows, made = BadRows(strict=strict), []
        for number in range(len(rows)):
            try:
                lengths = [len(sample) for sample in self.preprocess(rows[number])]
            except RowError as error:
                bad_rows.add(error.at(f'row {number}'))
                continue
            bad_rows.good()
            row = rows[number] if isinstance(rows[number], dict) else {'conversation': rows[number]}
            made.append({**row, 'lengths': lengths})
        bad_rows.finish()
        return made


class LazyLLMDataset:
    """Rows encoded on access. A row that can't be encoded is replaced by another one chosen at random, unless `strict`.

    `encode_func` is a template or a callable as above; `n_try_fetch` rows are tried.
    """

    def __init__(
        self, dataset: Any, encode_func: Any, *, n_try_fetch: int = 10, strict: bool = False, random_state: int | None = None
    ):
        self.dataset, self.n_try_fetch, self.strict = dataset, 1 if strict else n_try_fetch, strict
        self._lazy = LazySamples(as_source(dataset), EncodePreprocessor(encode_func).encode_batch, BadRows(strict=strict))
        self._random = np.random.default_rng(random_state)

    def __len__(self) -> int:
        return len(self._lazy)

    def __getitem__(self, index: int) -> Sample:
        """The sample of row `index`. Raises RowError when strict, DatasetError when no row tried can be encoded."""
        for _ in range(self.n_try_fetch):
            found = self._lazy.fetch(int(index))
            if len(found) == 1:
                return found[0]
            if len(found) > 1:
                raise DatasetError('a row that gives several samples cannot be encoded lazily one by one;', 'use encode_rows')
            index = self._random.integers(len(self))
        raise DatasetError(f'{self.n_try_fetch} rows in a row cannot be encoded;', 'see the warnings above')


class PackingDataset:
    """Encoded rows packed into lists of samples of at most `packing_length` tokens together; no sample is lost or cut.

    `dataset` is anything with `len`, `[i] -> Sample` and `lengths`, or rows together with a `template` that encodes them
    in `packing_num_proc` processes. `packing_strategy`: binpack (best fit) or sequential (in order).
    """

    def __init__(
        self, template: Any, dataset: Any, *, packing_length: int | None = None, packing_num_proc: int = 1,
        packing_strategy: str = 'binpack', strict: bool = False,
    ):  # fmt: skip
        length = packing_length or getattr(template, 'max_length', None)
        if not length:
            raise DatasetError('packing needs packing_length or a template with max_length')
        encoded = hasattr(dataset, 'lengths')
        self.samples = dataset if encoded else EncodePreprocessor(template)(dataset, num_proc=packing_num_proc, strict=strict)
        self.packing_length = length
        plan = pack_in_order if packing_strategy == 'sequential' else pack
        self.packed_idx = plan(self.samples.lengths, length)
        self.packed_length = [int(sum(self.samples.lengths[i] for i in indices)) for indices in self.packed_idx]

    def __len__(self) -> int:
        return len(self.packed_idx)

    def __getitem__(self, index: int) -> list[Sample]:
        return [self.samples[i] for i in self.packed_idx[index]]


class IterablePackingDataset:
    """A stream of rows, encoded and packed window by window into lists of samples of at most `packing_length` tokens."""

    def __init__(
        self, template: Any, dataset: Iterable[Any], *, packing_length: int | None = None, packing_strategy: str = 'binpack',
        strict: bool = False,
    ):  # fmt: skip
        length = packing_length or getattr(template, 'max_length', None)
        if not length:
            raise DatasetError('packing needs packing_length or a template with max_length')
        self.encoder, self.dataset, self.strict = EncodePreprocessor(template), dataset, strict
        self._packer = Packer(self, length, packing_strategy)

    def samples(self, position: dict[str, Any]) -> Iterator[tuple[Sample, dict[str, Any]]]:
        """Encoded rows from the start of the stream, each with a position (which plain iterables don't have)."""
        for sample in self.encoder(iter(self.dataset), strict=self.strict):
            yield sample, position

    def __iter__(self) -> Iterator[list[Sample]]:
        for unit, _ in self._packer.units({}):
            yield unit
