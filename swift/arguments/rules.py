"""What a check of the arguments is: a row of a table, with a test over all values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from swift.arguments.commands import TRAINING

Values = dict[str, Any]
Test = Callable[[Values], bool]


@dataclass(frozen=True)
class Conflict:
    """Two or more given flags that exclude each other. `test` sees all values; it counts only if all of `given` were given."""

    given: tuple[str, ...]
    test: Test
    message: str
    commands: tuple[str, ...] = ()


@dataclass(frozen=True)
class NoEffect:
    """Flags that do nothing while `test` holds. `why` completes “has no effect …”. Only flags that were given count."""

    flags: tuple[str, ...]
    test: Test
    why: str
    commands: tuple[str, ...] = TRAINING
    warn: bool = False
    """True: a warning is enough, since commands written for other defaults carry such flags."""


def flags(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())
