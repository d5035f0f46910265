"""Results of a long job, written as they come, so that a job that was stopped goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from swift.core.errors import SwiftError


class Ledger:
    """A JSON-lines file with one line for each finished piece of work, found again by its `key`.

    The first line holds the `settings` that the results depend on: a file with others is refused. What a killed process left
    half written at the end is cut off.
    """

    def __init__(self, path: str, settings: Mapping[str, Any]):
        self.path = path
        self.settings = json.loads(json.dumps(settings, default=str))
        self.done: dict[str, dict[str, Any]] = self._read()
        """Key → the line, of what is there already."""
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        new = not os.path.exists(path)
        self._file = open(path, 'a', encoding='utf-8')
        if new:
            self._write({'settings': self.settings})

    def _read(self) -> dict[str, dict[str, Any]]:
        if not os.path.exists(self.path):
            return {}
        whole, rows = 0, []
        with open(self.path, 'rb') as file:
            for line in file:
                try:
                    rows.append(json.loads(line) if line.endswith(b'\n') else None)
                except ValueError:
                    rows.append(None)
                if rows[-1] is None:  # the process was killed while it wrote
                    rows.pop()
                    break
                whole += len(line)
        if not rows:
            os.unlink(self.path)
            return {}
        if rows[0].get('settings') != self.settings:
            before = rows[0].get('settings') or {}
            other = sorted(key for key in {*before, *self.settings} if before.get(key) != self.settings.get(key))
            raise SwiftError(f'{self.path} was begun with other settings ({", ".join(other) or "unknown"});', 'give the same ones, or another place')
        os.truncate(self.path, whole)
        return {row['key']: row for row in rows[1:]}

    def add(self, key: str, row: Mapping[str, Any]) -> None:
        """Note a result. It is in the file when this returns."""
        self.done[key] = {'key': key, **row}
        self._write(self.done[key])

    def _write(self, row: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(row, ensure_ascii=False, default=str) + '\n')
        self._file.flush()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
