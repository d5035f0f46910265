"""Flags, values and commands of capabilities that this version doesn't have: known by name, refused with the reason."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from typing import Any

from swift.arguments.convert import FALSE, NULL, Words


def facts() -> dict[str, Any]:
    """`facts/later.json`: capabilities (name → sentence), flags (name → [capability, value that asks for nothing]), values, commands."""
    return read_facts('later.json')


@lru_cache
def read_facts(name: str) -> dict[str, Any]:
    """One JSON file of `swift/arguments/facts`."""
    with open(os.path.join(os.path.dirname(__file__), 'facts', name), encoding='utf-8') as file:
        return json.load(file)


def flag_reason(name: str) -> str | None:
    """Why a flag is refused; None when it isn't one of a later capability."""
    entry = facts()['flags'].get(name)
    return facts()['capabilities'][entry[0]] if entry else None


def asks_for_nothing(name: str, raw: Any) -> bool:
    """Whether a later flag was given the value that switches it off, as in `--use_liger_kernel false`."""
    off = facts()['flags'][name][1]
    if isinstance(raw, Words):
        if len(raw) != 1:
            return False
        raw = raw[0]
    text = str(raw).lower()
    if off is None:
        return text in NULL
    if isinstance(off, bool):
        return text in FALSE if off is False else text == 'true'
    try:
        return float(text) == float(off)
    except (TypeError, ValueError):
        return text == str(off).lower()


def value_reason(flag: str, value: Any) -> str | None:
    """Why a value of a known flag is refused; None when it isn't one of a later capability."""
    capability = facts()['values'].get(flag, {}).get(str(value).lower())
    return facts()['capabilities'][capability] if capability else None


def command_reason(command: str) -> str | None:
    """Why a command is refused; None when it isn't one of a later capability."""
    capability = facts()['commands'].get(command)
    return facts()['capabilities'][capability] if capability else None
