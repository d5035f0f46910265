"""Rows in which the model speaks of itself: {{name}} and {{author}} become what --model_name and --model_author say."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from swift.core.types import Row
from swift.dataset.convert import RowPreprocessor

_MARK = re.compile(r'\{\{\s*(name|author)\s*\}\}', re.I)
_CHINESE = re.compile(r'[\u4e00-\u9fff]')
_SHARE = 0.2
"""A data set is about the model itself when so many of its first rows hold a placeholder."""


def is_identity(rows: Sequence[Any]) -> bool:
    """Whether rows are about the model itself, judged by some of them (None: unreadable)."""
    rows = [row for row in rows if row is not None]
    marked = sum(bool(_MARK.search(_text(row))) for row in rows)
    return bool(rows) and marked >= _SHARE * len(rows)


def _text(row: Any) -> str:
    """Everything that a row says; media in memory say nothing."""
    return json.dumps(row, ensure_ascii=False, default=lambda value: '')


@dataclass(frozen=True)
class Identity:
    """Name and author, in Chinese and in English (the same where one was given)."""

    name: tuple[str, str]
    author: tuple[str, str]

    @classmethod
    def of(cls, names: Sequence[str] | str | None, authors: Sequence[str] | str | None) -> Identity | None:
        """From the values of --model_name and --model_author; None unless both are given."""
        pairs = [_pair(value) for value in (names, authors)]
        return cls(*pairs) if all(pairs) else None

    def filling(self, inner: RowPreprocessor) -> FilledRows:
        """`inner` behind the replacement."""
        return FilledRows(inner, self)

    def fill(self, row: Row) -> Row:
        """The row with its placeholders replaced, in the language of the row."""
        english = not _CHINESE.search(_text(row))
        values = {'name': self.name[english], 'author': self.author[english]}
        return _replaced(row, values)


def _pair(value: Sequence[str] | str | None) -> Any:
    values = [value] if isinstance(value, str) else list(value or [])
    return (values[0], values[-1]) if values else None


def _replaced(value: Any, values: dict[str, str]) -> Any:
    if isinstance(value, str):
        return _MARK.sub(lambda found: values[found[1].lower()], value)
    if isinstance(value, list):
        return [_replaced(item, values) for item in value]
    if isinstance(value, dict):
        return {key: _replaced(item, values) for key, item in value.items()}
    return value


class FilledRows(RowPreprocessor):
    """Another preprocessor after the placeholders of the row were replaced."""

    def __init__(self, inner: RowPreprocessor, identity: Identity):
        super().__init__(tags=inner.tags)
        self.inner, self.identity = inner, identity

    def preprocess(self, row: Row) -> Row | None:
        return self.inner.preprocess(self.inner.renamed(self.identity.fill(row)))
