"""Classes of a classification: what a row calls them, and the numbers that the model knows them by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from swift.core.errors import RowError, SwiftError, did_you_mean


@dataclass(frozen=True)
class Classes:
    """The classes of a head. `names` in the order of their numbers; empty: the numbers are all there is."""

    count: int
    names: tuple[str, ...] = ()

    @staticmethod
    def of(args: Any) -> Classes:
        """From `num_labels` and `class_names`. Raises SwiftError when neither is known."""
        names = tuple(args.class_names or ())
        count = args.num_labels or len(names)
        if not count:
            raise SwiftError('the number of classes is not known;', 'give --num_labels or --class_names')
        if names and len(names) != count:
            raise SwiftError(f'--class_names has {len(names)} names for --num_labels {count};', 'give one for each')
        return Classes(count, names)

    def number(self, value: Any) -> int:
        """The number of a class that a row names by its name or its number. Raises RowError for an unknown one."""
        if str(value) in self.names:
            return self.names.index(str(value))
        number = whole_number(value)
        if number is not None and 0 <= number < self.count:
            return number
        if self.names:
            near = did_you_mean(str(value), self.names) or f'known: {", ".join(self.names[:20])}'
            raise RowError(f'unknown class {value!r};', hint=near)
        raise RowError(f'unknown class {value!r};', hint=f'known: 0 to {self.count - 1}; name them with --class_names')


def whole_number(value: Any) -> int | None:
    """A class number however it is written (3, 3.0, '3', true); None when it is none."""
    if isinstance(value, (bool, int)):
        return int(value)
    if isinstance(value, float):
        return int(value) if value.is_integer() else None  # neither for NaN nor for infinity
    if isinstance(value, str) and value.strip().removeprefix('-').isdecimal():
        return int(value)
    return None


def ordered(values: Sequence[Any]) -> tuple[int, tuple[str, ...]]:
    """(number of classes, their names) of the distinct values that rows have.

    Numbers from 0 on stand for themselves (a number that never occurs is a class all the same) and have no names; anything else is
    named, in the order of the numbers, else of the alphabet, `O` (no entity) first.
    """
    numbers = [whole_number(value) for value in values]
    if all(number is not None for number in numbers):
        if min(numbers) >= 0:
            return max(numbers) + 1, ()
        return len(set(numbers)), tuple(str(number) for number in sorted(set(numbers)))
    names = sorted({str(value) for value in values}, key=lambda name: (name != 'O', name))
    return len(names), tuple(names)
