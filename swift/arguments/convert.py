"""From what was written (words of a command line, values of a file or of Python) to a flag's typed value."""

from __future__ import annotations

import json
import os
from typing import Any

from swift.arguments.flags import Flag

TRUE = ('true', '1', 'yes', 'on', 'y', 't')
FALSE = ('false', '0', 'no', 'off', 'n', 'f')
NULL = ('none', 'null', '')


def convert(flag: Flag, raw: Any) -> Any:
    """The typed value. `raw` is a list of words (from argv; empty: the flag stood alone) or a Python value.

    Raises ValueError with the reason; the caller puts the flag's name in front.
    """
    if isinstance(raw, Words):
        return _from_words(flag, list(raw))
    if raw is None:
        return flag.default if not flag.nullable else None
    if isinstance(raw, str):
        return _from_words(flag, [raw])
    if flag.kind == 'list':
        items = list(raw) if isinstance(raw, (list, tuple)) else [raw]
        return [_scalar(flag.item, item) for item in items]
    return _checked(flag, _scalar(flag.kind, raw))


class Words(list):
    """The words after a flag on a command line."""


def _from_words(flag: Flag, words: list[str]) -> Any:
    if not words:
        if flag.kind == 'bool':
            return True
        if flag.bare is not None:
            return flag.bare
        raise ValueError('needs a value')
    if flag.kind == 'list':
        if len(words) == 1 and flag.nullable and words[0].lower() in NULL:
            return None
        if words == ['']:
            return []
        return [_scalar(flag.item, item) for item in _list_items(flag, words)]
    if len(words) > 1:
        quote = '; put quotes around a text with spaces' if flag.kind in ('str', 'json') else ''
        raise ValueError(f'takes one value, got {len(words)}: {" ".join(words)}{quote}')
    word = words[0].lower()
    if word in NULL and word not in flag.choices:
        if flag.nullable and (
            word or flag.kind != 'str'
        ):  # an empty text is a text: --system '' wants no system prompt
            return None
        if flag.kind == 'dict':
            return {}
    return _checked(flag, _scalar(flag.kind, words[0]))


def _checked(flag: Flag, value: Any) -> Any:
    if flag.choices and value not in flag.choices:
        same = [choice for choice in flag.choices if choice.lower() == str(value).lower()]
        if same:
            return same[0]
        from swift.core.errors import did_you_mean

        near = did_you_mean(str(value), flag.choices, cutoff=0.5)
        raise ValueError(f'{value!r} is not one of {", ".join(flag.choices)}' + (f'; {near}' if near else ''))
    return value


def _scalar(kind: str, raw: Any) -> Any:
    if kind == 'bool':
        return _bool(raw)
    if kind in ('int', 'float', 'number'):
        return _number(kind, raw)
    if kind == 'dict':
        return _dict(raw)
    if kind == 'json':
        return _dict(raw) if isinstance(raw, dict) or str(raw).lstrip().startswith('{') else _text(raw)
    return _text(raw)


def _text(raw: Any) -> str:
    if isinstance(raw, (dict, list, tuple)):
        raise ValueError(f'takes a text, got {raw!r}')
    if isinstance(raw, bool):
        return str(raw).lower()
    return os.fspath(raw) if isinstance(raw, os.PathLike) else str(raw)


def _bool(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    text = str(raw).strip().lower()
    if text in TRUE:
        return True
    if text in FALSE:
        return False
    raise ValueError(f'takes true or false, got {raw!r}')


def _number(kind: str, raw: Any) -> int | float:
    word = {'int': 'a whole number', 'float': 'a number', 'number': 'a number'}[kind]
    if isinstance(raw, bool) or not isinstance(raw, (str, int, float)):
        raise ValueError(f'takes {word}, got {raw!r}')
    try:
        value = float(raw)
    except ValueError:
        raise ValueError(f'takes {word}, got {raw!r}') from None
    if value != value:
        raise ValueError(f'takes {word}, got {raw!r}')
    whole = value.is_integer() if abs(value) != float('inf') else False
    if kind == 'int':
        if not whole:
            raise ValueError(f'takes {word}, got {raw!r}')
        return int(value) if abs(value) < 2**53 else int(str(raw).replace('_', ''))
    if kind == 'number':
        return int(value) if whole else value
    return value


def _dict(raw: Any) -> dict:
    """A dict, JSON text of one, or the path of a JSON file with one."""
    if isinstance(raw, dict):
        return raw
    text = str(raw)
    if not text.lstrip().startswith('{') and os.path.isfile(text):
        with open(text, encoding='utf-8') as file:
            text = file.read()
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        value = _python_literal(text)
        if value is None:
            raise ValueError(
                f'takes JSON such as \'{{"key": 1}}\', got {text!r} ({error.msg} at character {error.pos})'
            ) from None
    if not isinstance(value, dict):
        raise ValueError(f'takes a JSON object, got {text!r}')
    return value


def _python_literal(text: str) -> Any:
    """`{'key': 1}` as Python prints it; None when it isn't that."""
    import ast

    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None


def _list_items(flag: Flag, words: list[str]) -> list[Any]:
    if len(words) == 1 and words[0].lstrip().startswith('['):
        try:
            value = json.loads(words[0])
        except json.JSONDecodeError:
            value = None
        if isinstance(value, list):
            return value
    if not flag.split:
        return words
    items: list[str] = []
    for word in words:
        items += [word] if os.path.exists(word) else split_commas(word)
    return [item for item in items if item]


def split_commas(text: str) -> list[str]:
    """Cut at the commas outside quotes, brackets and braces, so that JSON, globs and patterns stay whole."""
    parts, depth, quote, start = [], 0, '', 0
    for index, char in enumerate(text):
        if quote:
            quote = '' if char == quote else quote
        elif char == '"':
            quote = char
        elif char in '([{':
            depth += 1
        elif char in ')]}':
            depth = max(0, depth - 1)
        elif char == ',' and not depth:
            parts.append(text[start:index].strip())
            start = index + 1
    return parts + [text[start:].strip()]
