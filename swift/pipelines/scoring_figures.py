"""How good the answers of a scoring model are, by the labels of the rows: the same figures as in an evaluation of its training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from swift.core.types import Conversation
from swift.objectives import retrieval, scores

Result = dict[str, Any]


def figures(task: str, objective: Any, talks: Sequence[Conversation], results: Sequence[Result]) -> dict[str, float]:
    """Name → figure over the rows that have what it takes; {} when none has."""
    return {
        'seq_cls': _classes,
        'token_cls': _words,
        'rm': _rewards,
        'embedding': _similarities,
    }.get(task, _rankings)(objective, talks, results)


def _classes(objective: Any, talks: Sequence[Conversation], results: Sequence[Result]) -> dict[str, float]:
    pairs = [(talk.label, result['response']) for talk, result in zip(talks, results, strict=True) if talk.label is not None]
    if not pairs:
        return {}
    labels, answers = zip(*pairs, strict=True)
    if objective.problem == 'regression':
        truth, found = (torch.tensor([_listed(value) for value in column], dtype=torch.float64) for column in (labels, answers))
        return {'mse': (truth - found).square().mean().item(), **scores.regression_figures(found, truth)}
    if objective.problem == 'multi_label_classification':
        truth, found = (_sets(objective, column) for column in (labels, answers))
        return {'accuracy': (truth == found).all(1).double().mean().item(), **scores.set_figures(found, truth)}
    truth, found = (torch.tensor([objective.classes.number(value) for value in column]) for column in (labels, answers))
    return {'accuracy': _mean(truth == found), **scores.class_figures(found, truth, objective.classes.count)}


def _sets(objective: Any, column: Sequence[Any]) -> Tensor:
    """bool [N, C] from lists of classes."""
    marks = torch.zeros(len(column), objective.classes.count, dtype=torch.bool)
    for row, value in zip(marks, column, strict=True):
        for item in _listed(value):
            row[objective.classes.number(item)] = True
    return marks


def _words(objective: Any, talks: Sequence[Conversation], results: Sequence[Result]) -> dict[str, float]:
    texts = [(talk.label, result['response']) for talk, result in zip(talks, results, strict=True) if isinstance(talk.label, (list, tuple))]
    texts = [(labels, answers) for labels, answers in texts if len(labels) == len(answers)]
    if not texts:
        return {}
    names, number = objective.classes.names, objective.classes.number
    outside = names.index('O') if 'O' in names else None
    known = torch.tensor([answer is not None for _, answers in texts for answer in answers])
    pairs = [(number(label), number(answer)) if answer is not None else (outside or 0, outside or 0)
             for labels, answers in texts for label, answer in zip(labels, answers, strict=True)]  # fmt: skip
    truth, found = torch.tensor(pairs).T
    accuracy = {'accuracy': _mean((truth == found)[known])} if bool(known.any()) else {}
    if scores.marks_entities(names):
        first = torch.cat([torch.arange(len(labels)) == 0 for labels, _ in texts])
        return {**accuracy, **scores.entity_figures(found, truth, first, names)}
    return {**accuracy, **scores.class_figures(found[known], truth[known], objective.classes.count, outside)}


def _rewards(objective: Any, talks: Sequence[Conversation], results: Sequence[Result]) -> dict[str, float]:
    margins = torch.tensor([result['margin'] for result in results if 'margin' in result])
    return {'rewards/accuracies': _mean(margins > 0), 'rewards/margins': margins.double().mean().item()} if len(margins) else {}


def _similarities(objective: Any, talks: Sequence[Conversation], results: Sequence[Result]) -> dict[str, float]:
    scored = [
        (result['similarities'][0], float(talk.label))
        for talk, result in zip(talks, results, strict=True)
        if talk.label is not None and 'similarities' in result
    ]
    found: dict[str, float] = {}
    if len(scored) > 1:
        ours, theirs = (torch.tensor(column, dtype=torch.float64) for column in zip(*scored, strict=True))
        found = {'spearman': retrieval.spearman(ours, theirs), 'pearson': retrieval.pearson(ours, theirs)}
    return {**found, **_grouped(talks, [result.get('similarities', []) for result in results])}


def _rankings(objective: Any, talks: Sequence[Conversation], results: Sequence[Result]) -> dict[str, float]:
    return _grouped(talks, [result['response'] for result in results])


def _grouped(talks: Sequence[Conversation], values: Sequence[Sequence[float]]) -> dict[str, float]:
    """Figures of rankings: the row's positives should stand before its negatives."""
    listed, gains, group = [], [], []
    for number, (talk, own) in enumerate(zip(talks, values, strict=True)):
        positives = len(talk.positives or [])
        listed += own
        gains += [1.0 if talk.label is None else float(talk.label)] * positives + [0.0] * (len(own) - positives) if own else []
        group += [number] * len(own)
    if not listed:
        return {}
    return retrieval.group_metrics(torch.tensor(listed, dtype=torch.float64), torch.tensor(gains), torch.tensor(group))


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _mean(hits: Tensor) -> float:
    return hits.double().mean().item()
