"""Rows of local files by number: an index of byte ranges, parsed when a row is asked for.

json (array or lines), jsonl, csv, tsv, txt: the file stays on disk, memory-mapped; what a process holds is three
integers a row. gz is unpacked into the cache first. parquet and arrow: see `arrow.py`.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import mmap
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from swift.core.errors import DatasetError, RowError
from swift.core.types import Row

TEXT_FORMATS = ('.jsonl', '.json', '.ndjson', '.csv', '.tsv', '.txt')
ARROW_FORMATS = ('.parquet', '.arrow')
FORMATS = TEXT_FORMATS + ARROW_FORMATS
_BLOCK = 1 << 24
_BLANK = re.compile(r'[ \t\n\r]*')
csv.field_size_limit(1 << 30)


def file_format(path: str | os.PathLike) -> str | None:
    """The suffix that decides how a file is read (without .gz), None for other files."""
    name = str(path).lower().removesuffix('.gz')
    suffix = os.path.splitext(name)[1]
    return suffix if suffix in FORMATS else None


def open_rows(path: str | os.PathLike, cache: Path) -> Any:
    """The rows of one local file: an object with `len`, `[i] -> Row`, `place(i)` and `digest`.

    `cache` is the folder for unpacked and converted files. Raises DatasetError.
    """
    path = Path(path)
    kind = file_format(path)
    if kind is None:
        raise DatasetError(f'{path}: unknown kind of file;', f'known: {" ".join(FORMATS)}, each also with .gz')
    shown = str(path)
    try:
        if path.suffix.lower() == '.gz':
            path = unpacked(path, cache)
        if kind in ARROW_FORMATS:
            from swift.dataset.arrow import ArrowRows

            return ArrowRows(path, shown, cache)
        return TextRows(path, shown, kind)
    except OSError as error:
        raise DatasetError(f"can't read {shown}: {error.strerror or error}") from error


def content_digest(path: str | os.PathLike) -> str:
    """Hash of a file's content."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, 'rb') as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


MEDIA_WORDS = (b'image', b'video', b'audio')


def scanned(path: str | os.PathLike) -> tuple[str, bool]:
    """(hash of a file's content, whether a word in it may be the name or tag of media)."""
    digest, found, tail = hashlib.blake2b(digest_size=16), False, b''
    with open(path, 'rb') as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            found = found or any(word in block or word in tail + block[:8] for word in MEDIA_WORDS)
            tail = block[-8:]
    return digest.hexdigest(), found


def unpacked(path: Path, cache: Path) -> Path:
    """The content of a .gz file as a file in `cache`, made once per content."""
    target = cache / 'files' / f'{content_digest(path)}{Path(path.stem).suffix}'
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f'.{uuid.uuid4().hex}')
        with gzip.open(path, 'rb') as packed, open(aside, 'wb') as out:
            shutil.copyfileobj(packed, out, _BLOCK)
        os.replace(aside, target)
    return target


class TextRows:
    """Rows of a text file through an index of byte ranges."""

    def __init__(self, path: Path, shown: str, kind: str):
        self.path, self.shown, self.kind = path, shown, kind
        self.digest, self.mentions_media = scanned(path)
        self._map: Any = None
        self.header: list[str] | None = None
        with open(path, 'rb') as file:
            begin = 3 if file.read(3) == b'\xef\xbb\xbf' else 0
        if kind in ('.csv', '.tsv'):
            self.delimiter = '\t' if kind == '.tsv' else ','
            self.starts, self.ends, self.lines, self.header = _index_csv(path, begin, self.delimiter)
        elif kind == '.json':
            self.starts, self.ends, self.lines = _index_json(path, begin, shown)
        else:
            self.starts, self.ends, self.lines = _index_lines(path, begin)

    def __len__(self) -> int:
        return len(self.starts)

    def place(self, index: int) -> str:
        """`file:line` of a row."""
        return f'{self.shown}:{self.lines[index]}'

    def __getitem__(self, index: int) -> Row:
        if self._map is None:
            with open(self.path, 'rb') as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self.parse(self._map[int(self.starts[index]) : int(self.ends[index])], index)

    def parse(self, raw: bytes, index: int) -> Row:
        """The row that `raw` holds. Raises RowError with the place."""
        try:
            if self.kind == '.txt':
                return {'text': raw.decode('utf-8')}
            if self.header is not None:
                return parse_csv(raw, self.header, self.delimiter)
            return parse_json(raw)
        except UnicodeDecodeError as error:
            raise RowError(f'not UTF-8 ({error.reason} at byte {error.start})', self.place(index)) from error
        except RowError as error:
            raise error.at(self.place(index)) from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_map': None}


def parse_json(raw: bytes) -> Row:
    """One JSON object. Raises RowError saying what is wrong with it."""
    try:
        row = json.loads(raw)
    except UnicodeDecodeError:
        raise
    except ValueError as error:
        raise RowError(f'not valid JSON ({error})') from error
    if not isinstance(row, dict):
        raise RowError(f'a row must be a JSON object, this is a {type(row).__name__}')
    return row


def parse_csv(raw: bytes, header: list[str], delimiter: str) -> Row:
    """One CSV record. Raises RowError when it has not as many cells as the header."""
    cells = next(csv.reader(io.StringIO(raw.decode('utf-8'), newline=''), delimiter=delimiter), [])
    if len(cells) != len(header):
        raise RowError(f'{len(cells)} cells under a header of {len(header)} ({", ".join(header[:8])})')
    return dict(zip(header, cells, strict=True))


def _index_lines(path: Path, begin: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    size = os.path.getsize(path)
    with open(path, 'rb') as file:
        breaks = np.concatenate([*_line_breaks(file), np.empty(0, np.int64)])
        starts = np.concatenate([[begin], breaks + 1])
        ends = np.concatenate([breaks, [size]])
        keep = ends > starts
        for index in np.flatnonzero(keep & (ends - starts < 16)).tolist():  # lines of blanks only are no rows
            file.seek(int(starts[index]))
            keep[index] = bool(file.read(int(ends[index] - starts[index])).strip())
    return starts[keep], ends[keep], (np.flatnonzero(keep) + 1).astype(np.int32)


def _line_breaks(file: Any) -> Iterator[np.ndarray]:
    offset = 0
    file.seek(0)
    while block := file.read(_BLOCK):
        yield np.flatnonzero(np.frombuffer(block, np.uint8) == 10) + offset
        offset += len(block)


def _index_json(path: Path, begin: int, shown: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A .json file is an array of objects, or (often, against its name) one object a line."""
    with open(path, 'rb') as file:
        file.seek(begin)
        head = file.read(4096).lstrip()
        if head[:1] == b'{':
            file.seek(begin)
            try:
                json.loads(next((line for line in file if line.strip()), b''))
                return _index_lines(path, begin)
            except ValueError:
                pass  # an object over several lines: walk over it like over an array
        file.seek(begin)
        data = file.read()
    try:
        text = data.decode('utf-8')
    except UnicodeDecodeError as error:
        raise DatasetError(f'{shown}: not UTF-8 ({error.reason} at byte {error.start})') from error
    spans = np.array(_json_spans(text, shown), dtype=np.int64).reshape(-1, 2)
    if not text.isascii():
        spans = _byte_offsets(text, spans)
    breaks = np.flatnonzero(np.frombuffer(data, np.uint8) == 10)
    lines = np.searchsorted(breaks, spans[:, 0], side='right') + 1
    return spans[:, 0] + begin, spans[:, 1] + begin, lines.astype(np.int32)


def _json_spans(text: str, shown: str) -> list[tuple[int, int]]:
    """Character ranges of the elements of a JSON array, or of the objects that follow each other."""
    scan = json.JSONDecoder().raw_decode
    blank = _BLANK.match
    position = blank(text, 0).end()
    array = text.startswith('[', position)
    if array:
        position = blank(text, position + 1).end()
    spans = []
    while position < len(text) and not (array and text[position] == ']'):
        try:
            _, end = scan(text, position)
        except ValueError as error:
            line = text.count('\n', 0, position) + 1
            raise DatasetError(f'{shown}: not valid JSON in the value that begins on line {line} ({error})') from error
        spans.append((position, end))
        position = blank(text, end).end()
        if array and text.startswith(',', position):
            position = blank(text, position + 1).end()
        elif array and not text.startswith(']', position):
            line = text.count('\n', 0, position) + 1
            raise DatasetError(f'{shown}:{line}: a comma or ] is missing (is the file cut off?)')
    return spans


def _byte_offsets(text: str, spans: np.ndarray) -> np.ndarray:
    """Character ranges as byte ranges of the UTF-8 encoding; ranges are in order and don't overlap."""
    flat, out, position, offset = spans.reshape(-1).tolist(), [], 0, 0
    for point in flat:
        offset += len(text[position:point].encode('utf-8'))
        position = point
        out.append(offset)
    return np.array(out, dtype=np.int64).reshape(-1, 2)


def _index_csv(path: Path, begin: int, delimiter: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    spans: list[tuple[int, int, int]] = []
    with open(path, 'rb') as file:
        file.seek(begin)
        reader = CsvCursor(file, delimiter)
        header = reader.record() or []
        while True:
            start, line = reader.offset, reader.line + 1
            cells = reader.record()
            if cells is None:
                break
            if cells:
                spans.append((start, reader.offset, line))
    found = np.array(spans, dtype=np.int64).reshape(-1, 3)
    return found[:, 0], found[:, 1], found[:, 2].astype(np.int32), header


class CsvCursor:
    """CSV records of an open binary file, with the byte offset and line number after each."""

    def __init__(self, file: Any, delimiter: str):
        self.offset, self.line = file.tell(), 0
        self._file = file
        self._reader = csv.reader(self._text(), delimiter=delimiter)

    def _text(self) -> Iterator[str]:
        for raw in self._file:
            self.offset += len(raw)
            self.line += 1
            yield raw.decode('utf-8', errors='replace')

    def record(self) -> list[str] | None:
        """The next record, [] for a blank line, None at the end."""
        return next(self._reader, None)
