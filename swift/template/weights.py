"""Which turns are trained and how much: the strategies of `--loss_scale`.

A strategy is a base (`default`, `last_round`, `all`) and any number of weighted patterns, joined by `+`:
`last_round+ignore_empty_think`, `default+my_weights.json`. A pattern file is JSON:

    {"<tool_call>.+?</tool_call>": [2.0],        the match gets weight 2
     "Action:": [2.0, 1.5]}                      the word gets 2, what follows up to the next such word 1.5
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path

from swift.core.errors import RowError, TemplateError, did_you_mean

BASES = ('default', 'last_round', 'all')

Weighted = tuple[int, int, float]
"""(start, end, weight) in characters."""


@lru_cache(maxsize=1)
def _named() -> dict[str, dict[str, list[float]]]:
    return json.loads(Path(__file__).with_name('loss_scales.json').read_text(encoding='utf-8'))


def loss_scale_names() -> list[str]:
    """Every name that `--loss_scale` knows."""
    return [*BASES, *_named()]


@dataclass(frozen=True)
class LossScale:
    """One parsed strategy."""

    name: str
    base: str
    matches: tuple[tuple[re.Pattern, float], ...]
    """Pattern → weight of what it matches."""
    words: tuple[tuple[re.Pattern, float, float], ...]
    """Pattern → weight of the match, and of what follows up to the next of these patterns."""

    @property
    def weighted(self) -> bool:
        """Whether any pattern changes weights inside a turn."""
        return bool(self.matches or self.words)

    def turns(self, messages: list[dict]) -> dict[int, float]:
        """Message index → weight of the assistant turns that are trained. `loss` of a message decides over the base."""
        last_user = max((i for i, m in enumerate(messages) if m['role'] == 'user'), default=-1)
        chosen = {}
        for i, message in enumerate(messages):
            loss = message.get('loss')
            if message['role'] != 'assistant':
                if loss:
                    raise RowError(f'message {i} ({message["role"]}) has loss {loss!r}; only assistant messages can')
                continue
            weight = float(self.base != 'last_round' or i > last_user) if loss is None else float(loss)
            if weight < 0:
                raise RowError(f'message {i} has a negative loss weight: {loss!r}')
            if weight:
                chosen[i] = weight
        return chosen

    def parts(self, text: str, start: int, end: int, weight: float) -> list[Weighted]:
        """The span [start, end) of `text` cut into parts of equal weight."""
        said = text[start:end]
        marks: list[Weighted] = []
        found = sorted(
            (m.start(), m.end(), key, rest) for pattern, key, rest in self.words for m in pattern.finditer(said)
        )
        for (a, b, key, rest), following in zip_longest(found, found[1:]):
            marks.append((a, b, key))
            marks.append((b, following[0] if following else len(said), rest))
        for pattern, value in self.matches:
            marks += [(m.start(), m.end(), value) for m in pattern.finditer(said) if m.end() > m.start()]
        if not marks:
            return [(start, end, weight)]
        values = [1.0] * len(said)
        for a, b, value in marks:
            values[a:b] = [value] * (b - a)
        parts, at = [], 0
        for i in range(1, len(said) + 1):
            if i == len(said) or values[i] != values[at]:
                parts.append((start + at, start + i, values[at] * weight))
                at = i
        return parts


@lru_cache(maxsize=64)
def parse_loss_scale(text: str) -> LossScale:
    """`'last_round+hermes'` → LossScale; TemplateError names the wrong part and the nearest right one."""
    base = None
    matches: list[tuple[re.Pattern, float]] = []
    words: list[tuple[re.Pattern, float, float]] = []
    for part in text.split('+'):
        part = part.strip()
        if part in BASES:
            if base not in (None, part):
                raise TemplateError(f'--loss_scale {text}: {base} and {part} exclude each other;', 'keep one of them')
            base = part
            continue
        for pattern, weights in _patterns(part, text).items():
            compiled = _compile(pattern, part)
            if not isinstance(weights, list) or len(weights) not in (1, 2):
                raise TemplateError(
                    f'--loss_scale {part}: {pattern!r} needs a list of one or two weights, not {weights!r}'
                )
            if len(weights) == 1:
                matches.append((compiled, float(weights[0])))
            else:
                words.append((compiled, float(weights[0]), float(weights[1])))
    return LossScale(text, base or 'default', tuple(matches), tuple(words))


def _patterns(name: str, text: str) -> dict[str, list[float]]:
    if name in _named():
        return _named()[name]
    path = Path(name).expanduser()
    if path.suffix == '.json' and path.is_file():
        try:
            value = json.loads(path.read_text(encoding='utf-8'))
        except ValueError as e:
            raise TemplateError(f'--loss_scale {name}: the file is not JSON ({e})') from e
        if not isinstance(value, dict):
            raise TemplateError(f'--loss_scale {name}: the file must hold an object: pattern → list of weights')
        return value
    if path.suffix == '.json':
        raise TemplateError(f'--loss_scale {name}: there is no such file')
    near = did_you_mean(name, loss_scale_names()) or f'known: {", ".join(loss_scale_names())}, or a JSON file'
    raise TemplateError(f'--loss_scale {text}: unknown strategy {name!r};', near)


def _compile(pattern: str, name: str) -> re.Pattern:
    try:
        return re.compile(pattern, re.DOTALL)
    except re.error as e:
        raise TemplateError(f'--loss_scale {name}: {pattern!r} is no regular expression ({e})') from e
