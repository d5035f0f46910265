"""Metrics of an evaluation: token and sequence accuracy from logits, ROUGE, BLEU and exact match from generated text.

ROUGE-L and BLEU are computed here: they are thirty lines each, and the packages that have them pull in nltk with downloads
at run time and a dictionary segmenter. Chinese, Japanese and Korean text is counted by character, other text by word.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from swift.core.registry import Registry

_TOKEN = re.compile(r'[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003134f]|[^\W_]+|[^\w\s]',
                    re.UNICODE)
_CJK = re.compile(r'[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003134f]')


class MeanMetric:
    """A running mean: `update(value)` with a number, a list or a tensor; `compute()` → `{'value': mean}` (NaN when empty)."""

    def __init__(self, nan_value: float = 0.0, device: Any = None):
        self.nan_value = nan_value
        self.total = 0.0
        self.count = 0

    def update(self, value: Any) -> None:
        """Add one number or every number of a sequence or tensor; NaN is skipped."""
        values = value.detach().float().reshape(-1).tolist() if hasattr(value, 'detach') else value
        for number in values if isinstance(values, (list, tuple)) else [values]:
            if not math.isnan(float(number)):
                self.total += float(number)
                self.count += 1

    def compute(self) -> dict[str, float]:
        """The mean so far; `nan_value` when nothing was added."""
        return {'value': self.total / self.count if self.count else self.nan_value}

    def reset(self) -> None:
        """Forget everything."""
        self.total, self.count = 0.0, 0


def compute_acc(
    preds: Any,
    labels: Any,
    *,
    acc_strategy: str = 'token',
    is_encoder_decoder: bool = False,
    cu_seqlens: Sequence[int] | None = None,
) -> dict[str, list[bool]]:
    """`{'token_acc': [bool, …]}` or `{'seq_acc': [bool, …]}` of predictions against labels, both [S, L] (or [1, T] flat).

    `preds` are the most likely tokens at each position (argmax of the logits, not shifted); labels are not shifted either and
    -100 where nothing is learned. `cu_seqlens` are the segment borders of a flat row, needed for `seq`.
    """
    import numpy as np

    preds, labels = (value.detach().cpu().numpy() if hasattr(value, 'detach') else np.asarray(value) for value in (preds, labels))
    if cu_seqlens is not None:
        borders = [int(border) for border in cu_seqlens]
        pairs = list(zip(borders[:-1], borders[1:], strict=True))
        rows = [(preds.reshape(-1)[start:end], labels.reshape(-1)[start:end]) for start, end in pairs]
    else:
        rows = list(zip(np.atleast_2d(preds), np.atleast_2d(labels), strict=True))
    if not is_encoder_decoder:
        rows = [(row[:-1], label[1:]) for row, label in rows]
    hits = [(row[label != -100] == label[label != -100]) for row, label in rows]
    if acc_strategy == 'seq':
        return {'seq_acc': [bool(hit.all()) for hit in hits if hit.size]}
    return {'token_acc': [bool(value) for hit in hits for value in hit]}


def words(text: str) -> list[str]:
    """What ROUGE and BLEU count: lower-cased words and numbers, CJK characters, and punctuation marks one by one."""
    return _TOKEN.findall(text.lower())


def rouge_n(prediction: Sequence[str], reference: Sequence[str], n: int) -> float:
    """F1 of the n-grams in common (Lin 2004, clipped counts); 0 when either has none."""
    mine, other = (_ngrams(tokens, n) for tokens in (prediction, reference))
    return _f1(sum((mine & other).values()), sum(mine.values()), sum(other.values()))


def rouge_l(prediction: Sequence[str], reference: Sequence[str]) -> float:
    """F1 of the longest common subsequence (Lin 2004, section 3.1 with β = 1)."""
    return _f1(_lcs(prediction, reference), len(prediction), len(reference))


def bleu_4(prediction: Sequence[str], reference: Sequence[str]) -> float:
    """Sentence BLEU with n = 1…4 and equal weights (Papineni et al. 2002), 0…1.

    An order without a match is smoothed by 1 / (2^k · count), k = 1, 2, … (method 3 of Chen & Cherry 2014). Orders longer than
    one of the texts are left out, so that equal texts score 1 however short they are.
    """
    logs, missed = [], 0
    for n in range(1, min(4, len(prediction), len(reference)) + 1):
        mine, other = _ngrams(prediction, n), _ngrams(reference, n)
        hits = float(sum((mine & other).values()))
        if hits == 0:
            if n == 1:
                return 0.0
            missed += 1
            hits = 1 / 2**missed
        logs.append(math.log(hits / sum(mine.values())))
    if not logs:
        return 0.0
    brevity = min(0.0, 1 - len(reference) / len(prediction))
    return math.exp(brevity + sum(logs) / len(logs))


def text_metrics(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """`rouge-1`, `rouge-2`, `rouge-l`, `bleu-4` and `exact_match` (equal after trimming): means over the pairs, in percent."""
    sums: Counter[str] = Counter({name: 0.0 for name in ('rouge-1', 'rouge-2', 'rouge-l', 'bleu-4', 'exact_match')})
    for prediction, reference in zip(predictions, references, strict=True):
        mine, other = words(prediction), words(reference)
        sums['rouge-1'] += rouge_n(mine, other, 1)
        sums['rouge-2'] += rouge_n(mine, other, 2)
        sums['rouge-l'] += rouge_l(mine, other)
        sums['bleu-4'] += bleu_4(mine, other)
        sums['exact_match'] += float(prediction.strip() == reference.strip())
    return {name: 100 * total / max(len(predictions), 1) for name, total in sums.items()}


def exact_match(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Percentage of answers that equal the reference after trimming."""
    pairs = list(zip(predictions, references, strict=True))
    return {'exact_match': 100 * sum(mine.strip() == other.strip() for mine, other in pairs) / max(len(pairs), 1)}


TextMetric = Callable[[Sequence[str], Sequence[str]], dict[str, float]]

eval_metrics_map: Registry = Registry('eval_metric', {'nlg': text_metrics, 'rouge': text_metrics, 'exact_match': exact_match})
"""Name → function `(predictions, references) → {name: number}` for --predict_with_generate. Accuracy (`acc`) needs no entry: the
forward counts it at every evaluation."""


def _ngrams(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[i:i + n]) for i in range(len(tokens) - n + 1))


def _f1(hits: int, mine: int, other: int) -> float:
    return 2 * hits / (mine + other) if mine and other else 0.0


def _lcs(one: Sequence[str], two: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    if len(one) < len(two):
        one, two = two, one
    row = [0] * (len(two) + 1)
    for left in one:
        diagonal = 0
        for j, right in enumerate(two, 1):
            diagonal, row[j] = row[j], diagonal + 1 if left == right else max(row[j], row[j - 1])
    return row[-1]
