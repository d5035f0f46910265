"""Rows of one file in order, with a position that can be saved in the middle of it: what --streaming reads."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

from swift.core.errors import RowError
from swift.core.types import Row
from swift.dataset.files import CsvCursor, TextRows, file_format, parse_json

Placed = tuple['Row | RowError', str]
"""A row, or what is wrong with it, and its place."""


def open_cursor(path: str, position: dict[str, Any] | None = None) -> Any:
    """A cursor on a file: `read() -> Placed | None at the end`, `position() -> JSON-able dict`."""
    kind = file_format(path)
    if kind == '.parquet':
        return ParquetCursor(path, position)
    if kind == '.arrow':
        return IndexCursor(_arrow(path), position)
    if kind in ('.csv', '.tsv'):
        return CsvFile(path, '\t' if kind == '.tsv' else ',', position)
    if kind == '.json' and not _has_lines(path):
        return IndexCursor(_json(path), position)
    return LineCursor(path, kind == '.txt', position)


def _open(path: str) -> Any:
    file = gzip.open(path, 'rb') if path.lower().endswith('.gz') else open(path, 'rb')
    if file.read(3) != b'\xef\xbb\xbf':
        file.seek(0)
    return file


def _has_lines(path: str) -> bool:
    """Whether a .json file holds one object a line."""
    with _open(path) as file:
        line = file.readline().strip()
    try:
        parse_json(line)
    except (RowError, UnicodeDecodeError):
        return False
    return True


def _json(path: str) -> Any:
    if path.lower().endswith('.gz'):
        from swift.dataset.encode import cache_root
        from swift.dataset.files import unpacked

        return TextRows(unpacked(Path(path), cache_root()), path, '.json')
    return TextRows(Path(path), path, '.json')


def _arrow(path: str) -> Any:
    from swift.dataset.arrow import ArrowRows

    return ArrowRows(Path(path), path, Path())


class LineCursor:
    """Lines of a jsonl or txt file (also gz: its position counts unpacked bytes)."""

    def __init__(self, path: str, text: bool, position: dict[str, Any] | None = None):
        self.path, self.text, self._file, self._line = path, text, _open(path), 0
        if position:
            self._file.seek(position['offset'])
            self._line = position['line']
        self._offset = self._file.tell()

    def position(self) -> dict[str, Any]:
        """Where the next read begins."""
        return {'offset': self._offset, 'line': self._line}

    def read(self) -> Placed | None:
        """The next row that is not blank."""
        while raw := self._file.readline():
            self._line += 1
            self._offset += len(raw)
            if raw.strip():
                place = f'{self.path}:{self._line}'
                try:
                    return ({'text': raw.rstrip(b'\r\n').decode('utf-8')} if self.text else parse_json(raw)), place
                except UnicodeDecodeError as error:
                    return RowError(f'not UTF-8 ({error.reason} at byte {error.start})', place), place
                except RowError as error:
                    return error.at(place), place
        return None


class CsvFile:
    """Records of a csv or tsv file."""

    def __init__(self, path: str, delimiter: str, position: dict[str, Any] | None = None):
        self.path, file = path, _open(path)
        self._cursor = CsvCursor(file, delimiter)
        self._header = self._cursor.record() or []
        if position:
            file.seek(position['offset'])
            self._cursor = CsvCursor(file, delimiter)
            self._cursor.line = position['line']

    def position(self) -> dict[str, Any]:
        """Where the next read begins."""
        return {'offset': self._cursor.offset, 'line': self._cursor.line}

    def read(self) -> Placed | None:
        """The next record that is not blank."""
        while True:
            place = f'{self.path}:{self._cursor.line + 1}'
            cells = self._cursor.record()
            if cells is None:
                return None
            if len(cells) == len(self._header):
                return dict(zip(self._header, cells, strict=True)), place
            if cells:
                reason = f'{len(cells)} cells under a header of {len(self._header)} ({", ".join(self._header[:8])})'
                return RowError(reason, place), place


class IndexCursor:
    """Rows of something with `len`, `[i]` and `place(i)`."""

    def __init__(self, rows: Any, position: dict[str, Any] | None = None):
        self._rows, self._next = rows, position['row'] if position else 0

    def position(self) -> dict[str, Any]:
        """Where the next read begins."""
        return {'row': self._next}

    def read(self) -> Placed | None:
        """The next row."""
        if self._next >= len(self._rows):
            return None
        index, self._next = self._next, self._next + 1
        place = self._rows.place(index)
        try:
            return self._rows[index], place
        except RowError as error:
            return error, place


class ParquetCursor:
    """Rows of a parquet file, a part of a row group in memory at a time."""

    def __init__(self, path: str, position: dict[str, Any] | None = None):
        import pyarrow.parquet as pq

        self.path, self._file = path, pq.ParquetFile(path)
        self._group, self._row = (position['group'], position['row']) if position else (0, 0)
        self._first = sum(self._file.metadata.row_group(group).num_rows for group in range(self._group))
        self._batches: Any = None
        self._batch: Any = None
        self._start = 0

    def position(self) -> dict[str, Any]:
        """Where the next read begins."""
        return {'group': self._group, 'row': self._row}

    def read(self) -> Placed | None:
        """The next row."""
        while self._group < self._file.num_row_groups:
            batch = self._batch_of_row()
            if batch is not None:
                row, self._row = self._row, self._row + 1
                columns = zip(batch.schema.names, batch.columns, strict=True)
                values = {name: column[row - self._start].as_py() for name, column in columns}
                return values, f'{self.path}[{self._first + row}]'
            self._first += self._file.metadata.row_group(self._group).num_rows
            self._group, self._row, self._batches = self._group + 1, 0, None
        return None

    def _batch_of_row(self) -> Any:
        """The rows around the next one, None at the end of its row group."""
        if self._batches is None:
            from swift.dataset.arrow import batch_rows

            size = batch_rows(self._file.schema_arrow)
            self._batches, self._batch, self._start = self._file.iter_batches(size, row_groups=[self._group]), None, 0
        while self._batch is None or self._row >= self._start + self._batch.num_rows:
            self._start += self._batch.num_rows if self._batch is not None else 0
            self._batch = next(self._batches, None)
            if self._batch is None:
                return None
        return self._batch
