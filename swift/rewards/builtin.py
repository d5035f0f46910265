"""Rewards that come with the package. None of them asks a network or another model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from swift.core.errors import SwiftError
from swift.rewards.answers import final_answer, normalised, same_answer
from swift.rewards.base import ORM, PRM
from swift.rewards.expressions import Unreadable, value_of

_THOUGHT = re.compile(r'\A\s*<think>(?:(?!</?think>).)*</think>\s*(?=\S)(?!.*</?think>)', re.S)
_ANSWERED = re.compile(r'<answer>(?:(?!</?answer>).)*</answer>\s*\Z', re.S)
_STATED = re.compile(r'([-+*/×÷().\d\s,^%$]*\d[-+*/×÷().\d\s,^%$]*)=\s*[$£€]?\s*([-+−]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:\s*/\s*\d+)?)')
_OPERATION = re.compile(r'\d\s*[)]?\s*[-+*/×÷^]')


class Exact(ORM):
    """1 where the completion is the solution, blanks at the ends aside."""

    def __call__(self, completions: Sequence[str], solution: Sequence[Any], **columns: Any) -> list[float]:
        return [float(said.strip() == str(right).strip()) for said, right in zip(completions, solution, strict=True)]


class Normalised(ORM):
    """1 where the answer of the completion is that of the solution, but for case, blanks, widths, articles and quotes."""

    def __call__(self, completions: Sequence[str], solution: Sequence[Any], **columns: Any) -> list[float]:
        pairs = zip(completions, map(str, solution), strict=True)
        return [float(normalised(said) == normalised(right) or normalised(final_answer(said)[0]) == normalised(final_answer(right)[0])) for said, right in pairs]


class Accuracy(ORM):
    """1 where the answer of the completion is worth as much as that of the solution: numbers, fractions, simple algebra, else text.

    The package math-verify, where it is installed, is asked about answers that are not plainly equal.
    """

    def __init__(self) -> None:
        self._verify = find_spec('math_verify') is not None

    def __call__(self, completions: Sequence[str], solution: Sequence[Any], **columns: Any) -> list[float]:
        return [float(self._right(said, str(right))) for said, right in zip(completions, solution, strict=True)]

    def _right(self, said: str, right: str) -> bool:
        wanted, _ = final_answer(right)
        answer, marked = final_answer(said)
        if same_answer(answer, wanted):
            return True
        if _is_number(wanted) and not _is_number(answer):  # 12 apples, or a sentence around the number
            number, _ = final_answer(answer if marked else said, number=True)
            if same_answer(number, wanted):
                return True
        return self._verify and _verified(said, right)


def _is_number(text: str) -> bool:
    try:
        return value_of(text).rational is not None
    except Unreadable:
        return False


def _verified(said: str, right: str) -> bool:
    """What math-verify says."""
    from math_verify import parse, verify

    # its own time limits use signals, which only the main thread may
    gold = parse(right, parsing_timeout=None) or parse(f'${right}$', parsing_timeout=None)
    return bool(gold and verify(gold, parse(said, parsing_timeout=None), timeout_seconds=None))


class Format(ORM):
    """1 where the completion thinks in one `<think>…</think>` and then says something; `format:answer`: says it in `<answer>…</answer>`."""

    def __init__(self, rest: str = ''):
        if rest not in ('', 'answer'):
            raise SwiftError(f'format:{rest} is not known;', 'write format or format:answer')
        self._tagged = rest == 'answer'

    def __call__(self, completions: Sequence[str], **columns: Any) -> list[float]:
        return [float(self._fits(said)) for said in completions]

    def _fits(self, said: str) -> bool:
        thought = _THOUGHT.match(said)
        return bool(thought) and (not self._tagged or _ANSWERED.match(said, thought.end()) is not None)


class Length(ORM):
    """1 up to so many characters, then falling to 0 at twice as many: `length:200`; `length:50-200` wants at least 50 too."""

    def __init__(self, bounds: str):
        found = re.fullmatch(r'(?:(\d+)-)?(\d+)', bounds.strip())
        if not found or int(found[1] or 0) > int(found[2]) or int(found[2]) == 0:
            raise SwiftError(f'length:{bounds} is no range of characters;', 'write length:200 or length:50-200')
        self._low, self._high = int(found[1] or 0), int(found[2])

    def __call__(self, completions: Sequence[str], **columns: Any) -> list[float]:
        return [self._score(len(said)) for said in completions]

    def _score(self, length: int) -> float:
        if length < self._low:
            return length / self._low
        return max(0.0, 1.0 - max(0, length - self._high) / self._high)


class Regex(ORM):
    """1 where a pattern is found in the completion: `regex:^\\d+$`, or each row's own column `pattern`."""

    def __init__(self, pattern: str | None = None):
        self._pattern = pattern

    def __call__(self, completions: Sequence[str], pattern: Sequence[str] | None = None, **columns: Any) -> list[float]:
        if self._pattern is None and pattern is None:
            raise SwiftError('the reward regex has no pattern;', 'write regex:PATTERN, or give the rows a column pattern')
        patterns = [self._pattern] * len(completions) if self._pattern is not None else list(pattern or ())
        return [float(self._found(wanted, said)) for wanted, said in zip(patterns, completions, strict=True)]

    def _found(self, pattern: str, said: str) -> bool:
        try:
            return re.search(pattern, said) is not None
        except re.error as error:
            raise SwiftError(f'the reward regex: {pattern!r} is no pattern ({error});', 'mend it') from error


class Equations(PRM):
    """For each line of a completion the share of the equations in it that hold (`48/2 = 24`); a line without any is right."""

    def __call__(self, completions: Sequence[str], **columns: Any) -> list[float | list[float]]:
        return [[self._line(line) for line in said.splitlines() if line.strip()] or [1.0] for said in completions]

    def _line(self, line: str) -> float:
        plain = re.sub(r'<<.*?>>|[$£€]', '', line)
        plain = re.sub(r'(?<=[\d)%])\s*[xX]\s*(?=[\d(.])', '*', plain)
        found = _STATED.finditer(plain)
        checked = [holds for stated in found if (holds := self._holds(plain[: stated.start()], stated[1], stated[2])) is not None]
        return sum(checked) / len(checked) if checked else 1.0

    @staticmethod
    def _holds(before: str, left: str, right: str) -> bool | None:
        """None: the left side computes nothing, or is only the end of something that has words in it (3 bags x 4 = 12)."""
        left = left.strip(' ,\t')
        if not _OPERATION.search(left) or (before.strip() and (left[0] in '-+*/×÷' or re.search(r'(?:^|[^A-Za-z])[xX]\s*$', before))):
            return None
        try:
            readings = {left.replace('%', ''), left.replace('%', '/100')}  # both are meant by it
            return any(value_of(reading) == value_of(right) for reading in readings)
        except Unreadable:
            return None
