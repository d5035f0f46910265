"""JSON and JSON-lines files, written so that a crash never leaves half a file."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any


def append_to_jsonl(path: str, rows: dict | Iterable[dict], *, strict: bool = True) -> None:
    """Append one row or several to a JSON-lines file, each line written whole; folders are made.

    `strict=False` turns a row that JSON can't hold into its `repr` instead of raising.
    """
    rows = [rows] if isinstance(rows, dict) else list(rows)
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    default = None if strict else repr
    text = ''.join(json.dumps(row, ensure_ascii=False, default=default) + '\n' for row in rows)
    with open(path, 'a', encoding='utf-8') as file:
        file.write(text)


def write_jsonl(path: str, rows: Iterable[dict]) -> None:
    """Write a whole JSON-lines file in place of what was there, atomically."""
    write_text(path, ''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows))


def read_jsonl(path: str) -> Iterator[dict]:
    """Rows of a JSON-lines file, one at a time; empty lines are passed over."""
    with open(path, encoding='utf-8') as file:
        for line in file:
            if line.strip():
                yield json.loads(line)


def write_json(path: str, value: Any) -> None:
    """Write one JSON document, atomically."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + '\n')


def write_text(path: str, text: str) -> None:
    """Write a text file beside its place, sync it to disk and rename it: whoever reads sees the old file or the new one."""
    folder = os.path.dirname(os.path.abspath(path))
    os.makedirs(folder, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix='.' + os.path.basename(path), suffix='.tmp')
    try:
        with os.fdopen(handle, 'w', encoding='utf-8') as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def _umask() -> int:
    """The process's file mode mask; mkstemp ignores it, readers of the file expect it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
