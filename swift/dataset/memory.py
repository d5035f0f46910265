"""Rows that a program made itself: a list of dicts, or anything with `len` and `[i]` such as a Hugging Face Dataset."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from swift.core.errors import RowError
from swift.core.types import Row


def content(value: Any) -> str:
    """A text that is equal for equal values: the hash of bytes, pictures and arrays, the repr of anything else."""
    raw = value if isinstance(value, bytes) else getattr(value, 'tobytes', None)
    if raw is None:
        return repr(value)
    raw = raw() if callable(raw) else raw
    facts = [getattr(value, name, '') for name in ('mode', 'size', 'shape', 'dtype')]
    return f'{type(value).__name__} {facts} {hashlib.blake2b(raw, digest_size=16).hexdigest()}'


class MemoryRows:
    """The same interface as a file: `len`, `[i] -> Row`, `place(i)`, `digest`."""

    def __init__(self, rows: Any, shown: str):
        self.rows, self.shown = rows, shown
        given = getattr(rows, '_fingerprint', None)  # Hugging Face datasets know theirs
        self.digest = str(given) if given else self._hash()

    def _hash(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        for index in range(len(self.rows)):
            digest.update(json.dumps(self.rows[index], ensure_ascii=False, default=content, sort_keys=True).encode())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        row = self.rows[index]
        if not isinstance(row, dict):
            raise RowError(f'a row must be a dict, this is a {type(row).__name__}', self.place(index))
        return row

    def place(self, index: int) -> str:
        """`name[index]`."""
        return f'{self.shown}[{index}]'
