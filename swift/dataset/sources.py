"""Map-style sources: conversations by number, whatever files, samples and mixtures lie below.

Choosing, repeating, splitting, joining, interleaving and shuffling are all index arithmetic on two integer arrays.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from swift.core.errors import DatasetError
from swift.core.types import Conversation, Row
from swift.dataset.convert import RowPreprocessor
from swift.dataset.media import whereabouts


class Rows:
    """The rows of several files of one data set, with what turns a row into a conversation."""

    def __init__(self, name: str, files: Sequence[Any], convert: Callable[[Row, str | None], Conversation]):
        self.name, self.files, self.convert = name, list(files), convert
        self._ends = np.cumsum([len(file) for file in self.files], dtype=np.int64)
        parts = [file.digest for file in self.files] + [code_identity(convert), *whereabouts(self.files, convert)]
        self.fingerprint = hashlib.blake2b('|'.join(parts).encode(), digest_size=16).hexdigest()

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def _locate(self, index: int) -> tuple[Any, int]:
        number = int(np.searchsorted(self._ends, index, side='right'))
        return self.files[number], index - (int(self._ends[number - 1]) if number else 0)

    def raw(self, index: int) -> Row:
        """The row as the file has it."""
        file, row = self._locate(index)
        return file[row]

    def place(self, index: int) -> str:
        """`file:line` of a row."""
        file, row = self._locate(index)
        return file.place(row)

    def __getitem__(self, index: int) -> Conversation:
        file, row = self._locate(index)
        return self.convert(file[row], file.place(row))


class Conversations:
    """A map-style source: `len`, `[i] -> Conversation` (or RowError), `fingerprint` of its whole content.

    `part[i]` and `row[i]` say in which of `parts`, and where there, conversation i is.
    """

    def __init__(self, parts: Sequence[Any], part: np.ndarray, row: np.ndarray):
        self.parts = list(parts)
        self.part, self.row = part.astype(np.int32), row.astype(np.int64)
        digest = hashlib.blake2b(json.dumps([part.fingerprint for part in self.parts]).encode(), digest_size=16)
        digest.update(self.part.tobytes())
        digest.update(self.row.tobytes())
        self.fingerprint = digest.hexdigest()

    @classmethod
    def of(cls, part: Any, rows: np.ndarray | None = None) -> Conversations:
        """All conversations of one part, or the given rows of it."""
        rows = np.arange(len(part)) if rows is None else rows
        return cls([part], np.zeros(len(rows), np.int32), rows)

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, index: int) -> Conversation:
        if not -len(self) <= index < len(self):
            raise IndexError(f'row {index} of {len(self)}')
        return self.parts[self.part[index]][int(self.row[index])]

    def place(self, index: int) -> str:
        """`file:line` of a conversation."""
        return self.parts[self.part[index]].place(int(self.row[index]))

    def raw(self, index: int) -> Row:
        """The row of a conversation as its file has it."""
        return self.parts[self.part[index]].raw(int(self.row[index]))

    def take(self, indices: np.ndarray) -> Conversations:
        """The conversations at `indices`, in that order; an index may come more than once."""
        return Conversations(self.parts, self.part[indices], self.row[indices])

    def shuffled(self, seed: int) -> Conversations:
        """The same conversations in an order that depends on the seed only."""
        return self.take(np.random.Generator(np.random.PCG64([seed, 7])).permutation(len(self)))


def concatenated(sources: Sequence[Conversations]) -> Conversations:
    """The sources one after the other."""
    if len(sources) == 1:
        return sources[0]
    return _joined(sources, np.concatenate([np.full(len(source), i) for i, source in enumerate(sources)]),
                   np.concatenate([np.arange(len(source)) for source in sources]))  # fmt: skip


def interleaved(
    sources: Sequence[Conversations], probabilities: Sequence[float] | None, seed: int, stopping: str = 'first_exhausted'
) -> Conversations:
    """Draw from the sources in turn, or with the given probabilities, each source in its own order.

    `first_exhausted` ends when a draw finds its source used up; `all_exhausted` starts used-up sources again and ends
    once every source was used up.
    """
    sizes = np.array([len(source) for source in sources])
    draws = _draws(sizes, check_probabilities(probabilities, len(sources)), seed, stopping)
    position = np.empty(len(draws), dtype=np.int64)
    for index, size in enumerate(sizes):
        mine = draws == index
        position[mine] = np.arange(mine.sum()) % size
    return _joined(sources, draws, position)


def check_probabilities(probabilities: Sequence[float] | None, count: int) -> np.ndarray | None:
    """Probabilities that sum to 1. Raises DatasetError."""
    if probabilities is None:
        return None
    values = np.asarray(probabilities, dtype=np.float64)
    if len(values) != count:
        raise DatasetError(f'--interleave_prob has {len(values)} values for {count} data sets;', 'give one each')
    if (values < 0).any() or values.sum() <= 0:
        raise DatasetError('--interleave_prob must not be negative and not all 0')
    return values / values.sum()


def _draws(sizes: np.ndarray, probabilities: np.ndarray | None, seed: int, stopping: str) -> np.ndarray:
    """Which source each draw takes, up to the stop."""
    if stopping not in ('first_exhausted', 'all_exhausted'):
        raise DatasetError(f'unknown stopping_strategy {stopping!r};', 'known: first_exhausted, all_exhausted')
    if (sizes == 0).any():
        raise DatasetError('one of the data sets to interleave is empty')
    count, all_of_them = len(sizes), stopping == 'all_exhausted'
    if all_of_them and probabilities is not None and (probabilities == 0).any():
        raise DatasetError('all_exhausted never ends with a probability of 0;', 'raise it or use first_exhausted')
    rng, drawn = np.random.Generator(np.random.PCG64([seed, 11])), np.empty(0, dtype=np.int64)
    while True:
        more = max(1024, int(sizes.sum()))
        block = np.arange(more) % count if probabilities is None else rng.choice(count, more, p=probabilities)
        if probabilities is None:
            block = (block + len(drawn)) % count
        drawn = np.concatenate([drawn, block])
        used = [np.flatnonzero(drawn == index) for index in range(count)]
        if all_of_them:
            if all(len(where) >= size for where, size in zip(used, sizes, strict=True)):
                last = max(int(where[size - 1]) for where, size in zip(used, sizes, strict=True))
                return drawn[: last + 1]
        elif any(len(where) > size for where, size in zip(used, sizes, strict=True)):
            stop = min(int(where[size]) for where, size in zip(used, sizes, strict=True) if len(where) > size)
            return drawn[:stop]


def _joined(sources: Sequence[Conversations], which: np.ndarray, position: np.ndarray) -> Conversations:
    """Conversation i is number `position[i]` of `sources[which[i]]`."""
    parts: list[Any] = []
    part, row = np.empty(len(which), np.int32), np.empty(len(which), np.int64)
    for index, source in enumerate(sources):
        mine = which == index
        part[mine] = source.part[position[mine]] + len(parts)
        row[mine] = source.row[position[mine]]
        parts += source.parts
    return Conversations(parts, part, row)


def sampled(size: int, wanted: int, rng: np.random.Generator | None) -> np.ndarray:
    """`wanted` of `size` rows: chosen at random (None: the first ones); more than there are = whole repeats and a rest."""
    if not size:
        return np.empty(0, dtype=np.int64)
    whole, rest = divmod(wanted, size)
    chosen = np.arange(rest) if rng is None else rng.permutation(size)[:rest]
    return np.concatenate([np.tile(np.arange(size), whole), chosen])


def code_identity(convert: Any) -> str:
    """A text that changes when a preprocessor's class, settings or code do."""
    settings = convert.__dict__ if hasattr(convert, '__dict__') else {}
    kind = convert if inspect.isroutine(convert) or inspect.isclass(convert) else type(convert)
    code = _code(kind)
    plain = {key: _described(value) for key, value in sorted(settings.items())}
    return f'{kind.__module__}.{kind.__qualname__}|{code}|{plain}'


_READING = ('convert', 'groups', 'media', 'messages', 'preference')
"""Modules that all preprocessors of this room share."""


def _code(kind: Any) -> str:
    """Hash of the file that defines a class or function and of what it inherits here; of its byte code where there is no file."""
    ours = inspect.isclass(kind) and any(base.__module__ == 'swift.dataset.convert' for base in kind.__mro__)
    folder = os.path.dirname(__file__)
    shared = [os.path.join(folder, f'{name}.py') for name in _READING] if ours else []
    return ''.join([_own_code(kind), *(_file_hash(path, os.stat(path).st_mtime_ns) for path in shared if os.path.exists(path))])


def _own_code(kind: Any) -> str:
    path = getattr(sys.modules.get(kind.__module__), '__file__', None)
    if path and os.path.exists(path):
        return _file_hash(path, os.stat(path).st_mtime_ns)
    methods = [kind, *vars(kind).values()] if inspect.isclass(kind) else [kind]
    codes = [getattr(method, '__code__', None) for method in methods]
    return _hash(repr([(code.co_code, code.co_names, _plain_constants(code)) for code in codes if code]).encode())


def _plain_constants(code: Any) -> list[Any]:
    return [value.co_code if inspect.iscode(value) else value for value in code.co_consts]


@cache
def _file_hash(path: str, changed: int) -> str:
    with open(path, 'rb') as file:
        return _hash(file.read())


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _described(value: Any) -> str:
    """repr, but without memory addresses."""
    if isinstance(value, (str, int, float, bool, type(None))):
        return repr(value)
    if isinstance(value, dict):
        return str({key: _described(item) for key, item in sorted(value.items())})
    if isinstance(value, (list, tuple)):
        return str([_described(item) for item in value])
    ours = type(value).__module__.startswith('swift.') or isinstance(value, RowPreprocessor)
    if ours or inspect.isroutine(value) or inspect.isclass(value):
        return code_identity(value)
    text = repr(value)
    return text if ' at 0x' not in text else f'{type(value).__module__}.{type(value).__qualname__}'
