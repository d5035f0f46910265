"""Figures of a whole evaluation of a classifier: F1, precision, recall, of classes and of entities; errors of a regression.

Classes are averaged in the two usual ways: macro (every class counts the same) over those that occur in the truth or among the
predictions, micro (every decision counts the same). A figure whose denominator is 0 is 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from swift.objectives.retrieval import pearson, spearman


def class_figures(predicted: Tensor, truth: Tensor, count: int, ignored: int | None = None) -> dict[str, float]:
    """f1_macro, f1_micro, precision, recall (both macro) of class numbers [N]; `ignored`: a class that is no class (`O`)."""
    columns = torch.arange(count)
    marks = [(values.cpu()[:, None] == columns) for values in (predicted, truth)]
    return _figures(*(mark if ignored is None else mark[:, columns != ignored] for mark in marks))


def set_figures(predicted: Tensor, truth: Tensor) -> dict[str, float]:
    """The same of sets of classes: bool [N, C]."""
    return _figures(predicted.cpu().bool(), truth.cpu().bool(), every=True)


def _figures(predicted: Tensor, truth: Tensor, every: bool = False) -> dict[str, float]:
    hits, found, wanted = (a.sum(0).double() for a in (predicted & truth, predicted, truth))
    used = torch.ones_like(found, dtype=torch.bool) if every else (found + wanted) > 0
    precision, recall, f1 = _ratio(hits, found), _ratio(hits, wanted), _ratio(2 * hits, found + wanted)

    def mean(values: Tensor) -> float:
        return values[used].mean().item() if bool(used.any()) else 0.0

    micro = _ratio(2 * hits.sum(), found.sum() + wanted.sum()).item()
    return {'f1_macro': mean(f1), 'f1_micro': micro, 'precision': mean(precision), 'recall': mean(recall)}


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / whole.clamp(min=1), torch.zeros_like(part))


def regression_figures(predicted: Tensor, truth: Tensor) -> dict[str, float]:
    """rmse, pearson and spearman of values [N, C]; correlations are the mean over the C columns."""
    predicted, truth = predicted.cpu().double(), truth.cpu().double()
    columns = range(truth.shape[1])
    return {
        'rmse': (predicted - truth).square().mean().sqrt().item(),
        'pearson': sum(pearson(predicted[:, c], truth[:, c]) for c in columns) / truth.shape[1],
        'spearman': sum(spearman(predicted[:, c], truth[:, c]) for c in columns) / truth.shape[1],
    }


# ---- entities

Entity = tuple[int, int, str]
"""First word, word behind the last, type."""

_PREFIXES = frozenset('BIESLU')


def marks_entities(names: Sequence[str]) -> bool:
    """Whether class names are tags of entities: `B-PER`, `I-PER`, …, `O` (BIO, BIOES, BILOU)."""
    return any(name[:2] in ('B-', 'I-') for name in names) and all(name == 'O' or _split(name)[0] in _PREFIXES for name in names)


def entity_figures(predicted: Tensor, truth: Tensor, begins: Tensor, names: Sequence[str]) -> dict[str, float]:
    """f1, precision, recall of whole entities: right when first word, last word and type are.

    `predicted`, `truth` [N] class numbers of words in their order, `begins` [N] whether a word is the first of its text.
    """
    tags = [[names[number] for number in values.tolist()] for values in (predicted, truth)]
    starts = begins.tolist()
    found, wanted = (set(entities(row, starts)) for row in tags)
    hits = len(found & wanted)
    precision, recall = hits / len(found) if found else 0.0, hits / len(wanted) if wanted else 0.0
    return {'f1': 2 * hits / (len(found) + len(wanted)) if found or wanted else 0.0, 'precision': precision, 'recall': recall}


def entities(tags: Sequence[str], begins: Sequence[bool]) -> Iterator[Entity]:
    """The entities that tags mark, read as the CoNLL-2000 evaluation script does: I- after O, or of another type, begins one too."""
    start, kind, last = 0, None, 'O'
    for place, (tag, first) in enumerate(zip([*tags, 'O'], [*begins, True], strict=True)):
        prefix, name = _split(tag)
        ends = kind is not None and (first or prefix in 'OBSU' or name != kind or last in 'ESLU')
        if ends:
            yield start, place, kind
            kind = None
        if kind is None and prefix != 'O':
            start, kind = place, name
        last = prefix


def _split(tag: str) -> tuple[str, str]:
    prefix, _, name = tag.partition('-')
    return prefix, name
