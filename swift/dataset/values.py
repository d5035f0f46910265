"""Numbers that belong to stored samples, on disk beside the tokens and memory-mapped: what a reference model said about them.

A folder `values/<key>` of the cache:

    values.bin  float32  numbers of all samples, one after the other
    index.bin   int64    [N + 1] where each sample begins
    meta.json            counts, format, what it is; written last

The folder is written beside its place and renamed, so whatever is there under its name is complete.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from swift.core.errors import DatasetError
from swift.core.types import Sample

FORMAT = 1


class Values:
    """`values[i]` is the float32 array of sample i. Cheap to pickle and to fork."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        try:
            self.meta = json.loads((self.path / 'meta.json').read_text(encoding='utf-8'))
            self._index = np.fromfile(self.path / 'index.bin', np.int64)
            size = (self.path / 'values.bin').stat().st_size
            self._values = np.memmap(self.path / 'values.bin', np.float32, 'r') if size else np.empty(0, np.float32)
        except (OSError, ValueError) as error:
            raise DatasetError(f'{path} can not be read ({error});', 'delete it and compute it again') from error
        if self.meta.get('format') != FORMAT or len(self._values) != self._index[-1]:
            raise DatasetError(f'{path} is damaged or of another version;', 'delete it and compute it again')

    def __len__(self) -> int:
        return len(self._index) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        return np.array(self._values[self._index[index] : self._index[index + 1]])

    def __reduce__(self):
        return Values, (str(self.path),)


def has_values(path: str | os.PathLike) -> bool:
    """Whether a complete folder of values is there."""
    return (Path(path) / 'meta.json').is_file()


class ValueWriter:
    """Writes `path` sample by sample; nothing is there under its name until `finish`. A context manager that cleans up."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.aside = self.path.with_name(f'.{self.path.name}.{uuid.uuid4().hex[:8]}')
        self.ends = [0]

    def __enter__(self) -> ValueWriter:
        try:
            self.aside.mkdir(parents=True)
            self.file = open(self.aside / 'values.bin', 'wb')
        except OSError as error:
            raise self._failed(error) from error
        return self

    def add(self, values: Iterable[np.ndarray]) -> None:
        """The numbers of the next samples."""
        try:
            for row in values:
                self.file.write(np.ascontiguousarray(row, np.float32).tobytes())
                self.ends.append(self.ends[-1] + len(row))
        except OSError as error:
            raise self._failed(error) from error

    def finish(self, facts: dict[str, Any]) -> Values:
        """Complete the folder and open it; one that another process has completed meanwhile stays."""
        try:
            self._sync(self.file)
            for name, data in (('index.bin', np.asarray(self.ends, np.int64).tobytes()),
                               ('meta.json', json.dumps({'format': FORMAT, **facts}, ensure_ascii=False).encode())):  # fmt: skip
                with open(self.aside / name, 'wb') as file:
                    file.write(data)
                    self._sync(file)
            try:
                os.rename(self.aside, self.path)
            except OSError:
                if not has_values(self.path):
                    raise
        except OSError as error:
            raise self._failed(error) from error
        return Values(self.path)

    def __exit__(self, *_: Any) -> None:
        self.file.close()
        shutil.rmtree(self.aside, ignore_errors=True)

    def _sync(self, file: Any) -> None:
        file.flush()
        os.fsync(file.fileno())

    def _failed(self, error: OSError) -> DatasetError:
        return DatasetError(f"can't write {self.path} ({error});", 'set SWIFT_CACHE to a writable folder with room')


class WithValues:
    """Samples that carry their values in `extra[name]`; otherwise what they were."""

    def __init__(self, samples: Any, values: Values, name: str):
        if len(samples) != len(values):
            raise DatasetError(f'{values.path} holds {len(values)} samples, there are {len(samples)};', 'delete it and compute it again')
        self.samples, self.values, self.name = samples, values, name

    @property
    def lengths(self) -> Sequence[int]:
        return self.samples.lengths

    @property
    def labelled(self) -> int:
        """Tokens that are trained."""
        return self.samples.labelled

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        sample = self.samples[index]
        return replace(sample, extra={**(sample.extra or {}), self.name: self.values[index]})


def store_key(store: Any) -> str:
    """What the tokens of a TokenStore depend on, as its folder is called."""
    return re.sub(r'^once-([0-9a-f]+)-.*$', r'\1', store.path.name)
