"""What a reward is, the two registries, and the one door through which all shapes of reward functions are called."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from swift.core.errors import SwiftError
from swift.core.registry import Registry

Columns = Mapping[str, Sequence[Any]]
"""Column → one value for each completion."""

REFERENCES = ('solution', 'answer', 'reference', 'ground_truth', 'label')
"""Names under which reward functions ask for the right answer; a row that lacks one gives another of them."""


class ORM:
    """Judges answers. Subclass it, write `__call__`, register: `orms['name'] = Mine`."""

    def __call__(self, completions: Sequence[str], **columns: Any) -> list[float]:
        """One score for each completion; the columns of the rows come as lists of the same length."""
        raise NotImplementedError(f'{type(self).__name__} has no __call__(completions, **columns)')


class PRM:
    """Judges the steps of answers. Registered as `prms['name'] = Mine`."""

    def __call__(self, completions: Sequence[str], **columns: Any) -> list[float | list[float]]:
        """For each completion a score, or one for each step: the worst of them counts."""
        raise NotImplementedError(f'{type(self).__name__} has no __call__(completions, **columns)')


orms: Registry = Registry(
    'outcome reward',
    {
        'accuracy': 'swift.rewards.builtin:Accuracy',
        'math': 'swift.rewards.builtin:Accuracy',
        'exact': 'swift.rewards.builtin:Exact',
        'normalised': 'swift.rewards.builtin:Normalised',
        'format': 'swift.rewards.builtin:Format',
        'length': 'swift.rewards.builtin:Length',
        'regex': 'swift.rewards.builtin:Regex',
    },
)
"""Name → class or function. `name:text` hands the text to the class: `regex:^\\d+$`, `length:200`."""

prms: Registry = Registry('process reward', {'equations': 'swift.rewards.builtin:Equations'})
"""Name → class or function that judges steps."""


class Reward:
    """A reward function ready to be called: `reward(completions, columns) -> one float (None: says nothing) each`."""

    def __init__(self, name: str, function: Callable[..., Any]):
        self.name = name
        self._function = function
        self._wants = _Parameters(function)

    def __call__(self, completions: Sequence[str], columns: Columns | None = None) -> list[float | None]:
        """Scores in the order of the completions. Raises SwiftError when the function gives another number of them, or no numbers."""
        completions, columns = list(completions), dict(columns or {})
        for name, values in columns.items():
            if len(values) != len(completions):
                raise SwiftError(f'{self.name}: the column {name} has {len(values)} values for {len(completions)} completions')
        if not completions:
            return []
        if self._wants.single:
            each = [{name: values[index] for name, values in columns.items()} for index in range(len(completions))]
            given = [_awaited(self._function(said, **self._wants.of(self.name, one))) for said, one in zip(completions, each, strict=True)]
        else:
            given = _awaited(self._function(completions, **self._wants.of(self.name, columns)))
        return _checked(self.name, given, len(completions))


class _Parameters:
    """What a reward function wants besides the completions."""

    def __init__(self, function: Callable[..., Any]):
        parameters = list(inspect.signature(function).parameters.values())
        if not parameters:
            raise SwiftError(f'{function!r} takes no completions;', 'a reward function is f(completions, **columns) or f(completion, …)')
        first, *others = parameters
        self.single = first.name in ('completion', 'response', 'answer_text', 'text')
        self.all = any(item.kind is item.VAR_KEYWORD for item in others)
        named = [item for item in others if item.kind in (item.POSITIONAL_OR_KEYWORD, item.KEYWORD_ONLY)]
        self.names = [item.name for item in named]
        self.needed = [item.name for item in named if item.default is item.empty]

    def of(self, reward: str, columns: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the columns that it takes. Raises SwiftError naming one that is missing."""
        found = dict(columns) if self.all else {name: columns[name] for name in self.names if name in columns}
        reference = next((columns[name] for name in REFERENCES if name in columns), None)
        for name in self.names:
            if name in REFERENCES and name not in found and reference is not None:
                found[name] = reference
        if missing := [name for name in self.needed if name not in found]:
            there = ', '.join(sorted(columns)) or 'none'
            raise SwiftError(f'the reward {reward} needs the column {missing[0]}, which the rows lack;', f'their columns: {there}')
        return found


def load_reward(spec: str | Callable[..., Any] | type, registry: Registry = orms) -> Reward:
    """The reward of a name (`accuracy`, `length:200`), a class, an instance or a function.

    A class is made once, without arguments, or with the text behind the colon. Raises SwiftError for unknown names and texts.
    """
    name, text = (spec, None) if isinstance(spec, str) else (getattr(spec, '__name__', type(spec).__name__), None)
    found: Any = spec
    if isinstance(spec, str):
        if spec not in registry and ':' in spec:
            name, _, text = spec.partition(':')
        found = registry[name]
    if isinstance(found, type):
        found = _made(found, name, text)
    elif text is not None:
        raise SwiftError(f'the reward {name} is a function and takes no settings (got {text!r});', f'write {name}')
    if not callable(found):
        raise SwiftError(f'the reward {name} is a {type(found).__name__} and cannot be called;', 'register a class or a function')
    return Reward(name, found)


def _made(cls: type, name: str, text: str | None) -> Any:
    try:
        inspect.signature(cls).bind(*([] if text is None else [text]))
    except TypeError:
        wants = 'needs settings' if text is None else 'takes no settings'
        raise SwiftError(f'the reward {name} {wants};', f'write {name}:…' if text is None else f'write {name}') from None
    return cls() if text is None else cls(text)


def combined(rewards: Sequence[Reward], completions: Sequence[str], columns: Columns, weights: Sequence[float] | None = None) -> list[float]:
    """The weighted sum of several rewards for each completion; one that says nothing (None) counts 0."""
    weights = [1.0] * len(rewards) if weights is None else list(weights)
    if len(weights) != len(rewards):
        raise SwiftError(f'{len(weights)} weights for {len(rewards)} rewards;', 'give one for each')
    scores = [reward(completions, columns) for reward in rewards]
    return [sum(weight * (score[index] or 0.0) for weight, score in zip(weights, scores, strict=True)) for index in range(len(completions))]


def _awaited(value: Any) -> Any:
    """The result of a function that may be `async`."""

    async def wait() -> Any:
        return await value

    return asyncio.run(wait()) if inspect.isawaitable(value) else value


def _checked(name: str, given: Any, count: int) -> list[float | None]:
    values = given.tolist() if hasattr(given, 'tolist') else given
    if not isinstance(values, (list, tuple)):
        raise SwiftError(f'the reward {name} gave a {type(given).__name__};', f'it must give a list of {count} numbers, one for each completion')
    if len(values) != count:
        raise SwiftError(f'the reward {name} gave {len(values)} values for {count} completions;', 'it must give one for each')
    return [_number(name, value, index) for index, value in enumerate(values)]


def _number(name: str, value: Any, index: int) -> float | None:
    if value is None:
        return None
    if isinstance(value, (list, tuple)):  # a score for every step: the chain is as good as its weakest link
        steps = [_number(name, step, index) for step in value]
        return min((step for step in steps if step is not None), default=0.0)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if math.isnan(number):
        raise SwiftError(f'the reward {name} gave {value!r} for completion {index};', 'a score is a number (or None)')
    return number
