"""Answers → figures: every metric item by item where it can be, with an interval for its mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from swift.core.errors import SwiftError, did_you_mean
from swift.pipelines.eval_kinds import Item, Kind

Z = 1.959964
"""Of a normal distribution 95 % lie within so many standard deviations."""

TEXT = ('rouge', 'bleu', 'nlg')
"""Metrics of texts, computed item by item; from 0 to 1."""

Judge = Callable[[Sequence[str], Sequence[Item]], dict[str, list[float | None]]]
"""Responses and their items → metric → one value an item."""


def figures_of(judged: Mapping[str, Sequence[float | None]]) -> dict[str, dict[str, float]]:
    """Metric → mean, bounds of its 95 % interval, count. Values None are left out."""
    made = {}
    for name, values in judged.items():
        kept = [value for value in values if value is not None]
        if kept:
            low, high = interval(kept)
            made[name] = {'mean': sum(kept) / len(kept), 'low': low, 'high': high, 'count': len(kept)}
    return made


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of a mean: Wilson's for hits and misses, else the normal one."""
    count, mean = len(values), sum(values) / len(values)
    if all(value in (0.0, 1.0) for value in values):
        spread = Z * math.sqrt(mean * (1 - mean) / count + Z * Z / (4 * count * count))
        middle = mean + Z * Z / (2 * count)
        scale = 1 + Z * Z / count
        return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)
    variance = sum((value - mean) ** 2 for value in values) / max(count - 1, 1)
    half = Z * math.sqrt(variance / count)
    return mean - half, mean + half


def judges_of(names: Sequence[str], kind: Kind) -> tuple[list[Judge], list[tuple[str, Callable[..., Any]]]]:
    """(judges item by item, functions of all predictions and references) of metric names. Raises SwiftError for unknown ones."""
    from swift.rewards import load_reward, orms
    from swift.trainers.metrics import eval_metrics_map

    judges: list[Judge] = []
    whole = []
    for name in names:
        if name == 'choice':
            judges.append(_choice(kind))
        elif name in TEXT:
            judges.append(_texts('bleu' if name == 'bleu' else 'rouge' if name == 'rouge' else ''))
        elif name in orms or name.partition(':')[0] in orms:
            judges.append(_reward(name, load_reward(name), kind))
        elif name in eval_metrics_map:
            whole.append((name, eval_metrics_map[name]))
        else:
            known = ['choice', *TEXT, *orms, *eval_metrics_map]
            raise SwiftError(f'unknown metric {name!r};', did_you_mean(name, known) or f'known: {", ".join(dict.fromkeys(known))}')
    return judges, whole


def _choice(kind: Kind) -> Judge:
    return lambda said, items: {'accuracy': [float(kind.judge(text, item) == item.reference) for text, item in zip(said, items, strict=True)]}


def _reward(name: str, reward: Any, kind: Kind) -> Judge:
    def judge(said: Sequence[str], items: Sequence[Item]) -> dict[str, list[float | None]]:
        texts = [kind.judge(text, item) for text, item in zip(said, items, strict=True)]
        return {name: reward(texts, columns_of([item.talk for item in items], [item.reference for item in items]))}

    return judge


def _texts(part: str) -> Judge:
    def judge(said: Sequence[str], items: Sequence[Item]) -> dict[str, list[float | None]]:
        from swift.trainers.metrics import text_metrics

        each = [text_metrics([text], [item.reference or '']) for text, item in zip(said, items, strict=True)]
        names = [name for name in (each[0] if each else ()) if name.startswith(part) and name != 'exact_match']
        return {name: [scores[name] / 100 for scores in each] for name in names}

    return judge


def columns_of(talks: Sequence[Any], references: Sequence[str | None]) -> dict[str, list[Any]]:
    """The columns that reward functions may ask for: those that all rows have, the messages, and the reference as `solution`."""
    shared = set(talks[0].columns) if talks else set()
    for talk in talks:
        shared &= set(talk.columns)
    columns = {name: [talk.columns[name] for talk in talks] for name in sorted(shared)}
    columns['messages'] = [talk.messages for talk in talks]
    if all(reference is not None for reference in references):
        columns.setdefault('solution', list(references))
    return columns


def judge_set(responses: Sequence[str | None], items: Sequence[Item], names: Sequence[str], kind: Kind) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(figures of the set, metric → value of each item). A response None (an error) counts 0; items without a reference are not judged."""
    judges, whole = judges_of(names, kind)
    scores: list[dict[str, Any]] = [{} for _ in items]
    good = [index for index, item in enumerate(items) if item.reference is not None and responses[index] is not None]
    bad = [index for index, item in enumerate(items) if item.reference is not None and responses[index] is None]
    said, asked = [responses[index] or '' for index in good], [items[index] for index in good]
    for judge in judges:
        for name, values in (judge(said, asked) if good else {}).items():
            for index, value in zip(good, values, strict=True):
                scores[index][name] = value
    found = sorted({name for each in scores for name in each}, key=lambda name: next(i for i, e in enumerate(scores) if name in e))
    for index in bad:
        scores[index] = dict.fromkeys(found, 0.0)
    ordered = list(dict.fromkeys(name for each in scores for name in each)) or found
    figures = figures_of({name: [each.get(name) for each in scores] for name in ordered})
    for name, metric in whole:
        if good:
            values = metric(said, [item.reference for item in asked])
            if not isinstance(values, Mapping):
                raise SwiftError(f'the metric {name} gave a {type(values).__name__};', 'it must give {name: figure}')
            figures.update({key: {'mean': float(value), 'count': len(good)} for key, value in values.items()})
    return figures, scores
