"""Rows of arrow and parquet files. Arrow is memory-mapped as it is; parquet becomes an arrow file in the cache once."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from swift.core.errors import DatasetError
from swift.core.types import Row
from swift.dataset.files import MEDIA_WORDS, content_digest


class ArrowRows:
    """Rows of one arrow (file or stream format) or parquet file by number."""

    def __init__(self, path: Path, shown: str, cache: Path):
        self.shown, self.digest = shown, content_digest(path)
        self.path = parquet_as_arrow(path, shown, self.digest, cache) if path.suffix.lower() == '.parquet' else path
        self._batches: list[Any] | None = None
        sizes = [batch.num_rows for batch in self._open()]
        self.mentions_media = bool(self._batches) and mentions_media(self._batches[0].schema)
        self._ends = np.cumsum(sizes, dtype=np.int64)

    def _open(self) -> list[Any]:
        if self._batches is None:
            self._batches = read_batches(self.path, self.shown)
        return self._batches

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def place(self, index: int) -> str:
        """`file[row]` (there are no lines in such files)."""
        return f'{self.shown}[{index}]'

    def __getitem__(self, index: int) -> Row:
        number = int(np.searchsorted(self._ends, index, side='right'))
        batch = self._open()[number]
        row = index - (int(self._ends[number - 1]) if number else 0)
        return {name: column[row].as_py() for name, column in zip(batch.schema.names, batch.columns, strict=True)}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_batches': None}


def mentions_media(schema: Any) -> bool:
    """Whether a name in a schema may be that of media."""
    return any(word.decode() in str(schema).lower() for word in MEDIA_WORDS)


def batch_rows(schema: Any) -> int:
    """How many rows to hold at a time: few where a column has binary values, such as whole images."""
    return 64 if 'binary' in str(schema) else 4096


def read_batches(path: Path, shown: str) -> list[Any]:
    """The record batches of an arrow file, memory-mapped, whichever of the two arrow formats it has."""
    import pyarrow as pa

    mapped = pa.memory_map(str(path))
    try:
        try:
            return pa.ipc.open_file(mapped).read_all().to_batches()
        except pa.ArrowInvalid:
            mapped.seek(0)
            return pa.ipc.open_stream(mapped).read_all().to_batches()
    except pa.ArrowInvalid as error:
        raise DatasetError(f"can't read {shown} as arrow: {error}") from error


def parquet_as_arrow(path: Path, shown: str, digest: str, cache: Path) -> Path:
    """An uncompressed arrow copy of a parquet file in `cache`, made once per content, row group by row group."""
    target = cache / 'files' / f'{digest}.arrow'
    if target.exists():
        return target
    import pyarrow as pa
    import pyarrow.parquet as pq

    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f'.{uuid.uuid4().hex}')
    try:
        table = pq.ParquetFile(path)
        with pa.OSFile(str(aside), 'wb') as out, pa.ipc.new_file(out, table.schema_arrow) as writer:
            for batch in table.iter_batches(batch_size=batch_rows(table.schema_arrow)):
                writer.write_batch(batch)
        os.replace(aside, target)
    except pa.ArrowInvalid as error:
        raise DatasetError(f"can't read {shown} as parquet: {error}") from error
    finally:
        aside.unlink(missing_ok=True)
    return target
