"""Encoded samples on disk, memory-mapped: what `encode_rows` writes and the loader reads.

A store is a folder of flat arrays; nothing in it is ever a Python list:

    ids.bin      int32    tokens of all samples, one after the other
    spans.bin    int32    labelled runs as pairs (start, end) inside their sample
    odd.bin      int32    labels in full, for the rare sample whose labels are not simply its own tokens
    weights.bin  float32  loss weights, only of samples that have them
    notes.bin    bytes    JSON of everything else (source, channel, label, lengths, media, extra), '' when there is nothing
    index.bin    int64    [N + 1, 5] where each sample begins in the five arrays above
    meta.json             counts, bad rows, format; written last

The folder is written beside its place and renamed, so a killed writer leaves nothing that looks complete.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from swift.core.errors import DatasetError
from swift.core.types import IGNORE_INDEX, Sample

FORMAT = 2
_ARRAYS = (('ids', np.int32), ('spans', np.int32), ('odd', np.int32), ('weights', np.float32), ('notes', np.uint8))


@dataclass(slots=True)
class Chunk:
    """Samples of a few rows as flat arrays: what a worker process sends back."""

    arrays: list[np.ndarray]
    """One per entry of `_ARRAYS`."""
    sizes: np.ndarray
    """[n, 5] length of every sample in every array."""


def to_chunk(samples: Sequence[Sample]) -> Chunk:
    """Samples as flat arrays. Of media the references are kept, with the text around them."""
    sizes = np.zeros((len(samples), len(_ARRAYS)), dtype=np.int64)
    ids, labels = _joined(samples, 'input_ids'), _joined(samples, 'labels')
    for sample in samples:
        if len(sample.input_ids) != len(sample.labels):
            raise DatasetError(f'{sample.source}: {len(sample.input_ids)} tokens but {len(sample.labels)} labels')
    sizes[:, 0] = [len(sample.input_ids) for sample in samples]
    spans, odd, sizes[:, 1], sizes[:, 2] = _label_arrays(ids, labels, sizes[:, 0])
    weights = [np.asarray(sample.weights, np.float32) for sample in samples if sample.weights is not None]
    sizes[:, 3] = [0 if sample.weights is None else len(sample.weights) for sample in samples]
    notes = [_notes(sample) for sample in samples]
    sizes[:, 4] = [len(note) for note in notes]
    flat_weights = np.concatenate(weights) if weights else np.empty(0, np.float32)
    return Chunk([ids, spans, odd, flat_weights, np.frombuffer(b''.join(notes), np.uint8)], sizes)


def _joined(samples: Sequence[Sample], name: str) -> np.ndarray:
    """One field of all samples end to end, from lists or arrays."""
    values = [getattr(sample, name) for sample in samples]
    if values and all(isinstance(item, np.ndarray) for item in values):
        return np.concatenate(values).astype(np.int32)
    return np.fromiter(chain.from_iterable(values), np.int32)


def _label_arrays(ids: np.ndarray, labels: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, ...]:
    """(spans, labels in full of the samples where spans don't do, how many of either each sample has)."""
    owner = np.repeat(np.arange(len(lengths)), lengths)
    begins = np.cumsum(lengths) - lengths
    trained = labels != IGNORE_INDEX
    is_odd = np.bincount(owner[trained & (labels != ids)], minlength=len(lengths)) > 0
    spanned = trained & ~is_odd[owner]
    same = owner[1:] == owner[:-1]
    first, last = spanned.copy(), spanned.copy()
    first[1:] &= ~(spanned[:-1] & same)
    last[:-1] &= ~(spanned[1:] & same)
    starts, ends = np.flatnonzero(first), np.flatnonzero(last) + 1
    owners = owner[starts]
    spans = np.stack([starts - begins[owners], ends - begins[owners]], axis=1).astype(np.int32).reshape(-1)
    return spans, labels[is_odd[owner]], 2 * np.bincount(owners, minlength=len(lengths)), np.where(is_odd, lengths, 0)


def _notes(sample: Sample) -> bytes:
    values: dict[str, Any] = {
        'lengths': None if sample.lengths is None else [int(size) for size in sample.lengths],
        'label': sample.label,
        'channel': sample.channel,
        'source': sample.source,
        'extra': sample.extra,
        'media': sample.media,
    }
    values = {name: value for name, value in values.items() if value is not None}
    try:
        return json.dumps(values, ensure_ascii=False, separators=(',', ':')).encode() if values else b''
    except TypeError as error:
        raise DatasetError(f'{sample.source}: label, media and extra of a stored sample must be JSON values ({error})') from error


class TokenStore:
    """Samples read from a store folder; satisfies the protocol `Samples`. Cheap to pickle and to fork.

    `store[i]` is a Sample whose `input_ids` and `labels` are int64 numpy arrays and `weights` float32 or None.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        try:
            self.meta = json.loads((self.path / 'meta.json').read_text(encoding='utf-8'))
        except (OSError, ValueError) as error:
            raise DatasetError(f'{path} is not a complete token cache;', 'delete it and encode again') from error
        if self.meta['format'] != FORMAT:
            raise DatasetError(f'{path} was written by another version (format {self.meta["format"]});', 'encode again')
        self._open()

    def _open(self) -> None:
        count = self.meta['samples']
        self._index = _map(self.path / 'index.bin', np.int64).reshape(count + 1, len(_ARRAYS))
        self._arrays = [_map(self.path / f'{name}.bin', dtype) for name, dtype in _ARRAYS]
        self.lengths = np.diff(self._index[:, 0]).astype(np.int32)

    def __len__(self) -> int:
        return self.meta['samples']

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f'sample {index} of {len(self)}')
        index = index % len(self)
        start, end = self._index[index], self._index[index + 1]
        ids, spans, odd, weights, notes = (
            array[a:b] for array, a, b in zip(self._arrays, start.tolist(), end.tolist(), strict=True)
        )
        input_ids = ids.astype(np.int64)
        if len(odd):
            labels = odd.astype(np.int64)
        else:
            labels = np.full(len(input_ids), IGNORE_INDEX, dtype=np.int64)
            for first, last in spans.reshape(-1, 2).tolist():
                labels[first:last] = input_ids[first:last]
        values = json.loads(notes.tobytes()) if len(notes) else {}
        return Sample(input_ids, labels, np.array(weights) if len(weights) else None, **values)

    @property
    def labelled(self) -> int:
        """Tokens that are trained in the whole store."""
        return self.meta['labelled']

    def __reduce__(self):
        return TokenStore, (str(self.path),)


def _map(path: Path, dtype: Any) -> np.ndarray:
    return np.asarray(np.memmap(path, dtype, 'r')) if path.stat().st_size else np.empty(0, dtype)


def write_store(path: str | os.PathLike, chunks: Iterable[Chunk], meta: Any = dict) -> TokenStore:
    """Write `chunks` as the store `path` (which must not exist as a complete store) and open it.

    `meta()` is asked for further JSON facts after the last chunk.
    """
    path = Path(path)
    aside = path.with_name(f'.{path.name}.{uuid.uuid4().hex[:8]}')
    try:
        aside.mkdir(parents=True)
        facts = _write_arrays(aside, chunks)
        _write_synced(aside / 'meta.json', json.dumps({'format': FORMAT, **facts, **meta()}, ensure_ascii=False).encode())
        if path.exists():
            shutil.rmtree(path)
        os.rename(aside, path)
    except OSError as error:
        raise DatasetError(f"can't write the token cache {path} ({error});", 'set SWIFT_CACHE to a writable folder') from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return TokenStore(path)


def _write_arrays(folder: Path, chunks: Iterable[Chunk]) -> dict[str, int]:
    files = [open(folder / f'{name}.bin', 'wb') for name, _ in _ARRAYS]
    labelled = count = 0
    position = np.zeros(len(_ARRAYS), dtype=np.int64)
    try:
        with open(folder / 'index.bin', 'wb') as index:
            index.write(position.tobytes())
            for chunk in chunks:
                for file, array in zip(files, chunk.arrays, strict=True):
                    file.write(array.tobytes())
                begins = position + np.cumsum(chunk.sizes, axis=0)
                index.write(begins.tobytes())
                position = begins[-1] if len(begins) else position
                count += len(begins)
                spans = chunk.arrays[1].reshape(-1, 2).astype(np.int64)
                labelled += int((spans[:, 1] - spans[:, 0]).sum() + (chunk.arrays[2] != IGNORE_INDEX).sum())
    finally:
        for file in files:
            file.close()
    return {'samples': count, 'tokens': int(position[0]), 'labelled': labelled}


def _write_synced(path: Path, data: bytes) -> None:
    with open(path, 'wb') as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


class JoinedSamples:
    """Several `Samples` one after the other, as one."""

    def __init__(self, parts: Sequence[Any]):
        self.parts = list(parts)
        self._ends = np.cumsum([len(part) for part in self.parts])
        self.lengths = np.concatenate([np.asarray(part.lengths) for part in self.parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f'sample {index} of {len(self)}')
        part = int(np.searchsorted(self._ends, index, side='right'))
        return self.parts[part][index - (int(self._ends[part - 1]) if part else 0)]
