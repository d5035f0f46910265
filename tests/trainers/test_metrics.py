"""Metrics against values worked out by hand."""

import math

import pytest
import torch

from swift.core.errors import SwiftError
from swift.trainers.metrics import (
    MeanMetric,
    bleu_4,
    compute_acc,
    eval_metrics_map,
    rouge_l,
    rouge_n,
    text_metrics,
    words,
)


def test_words_count_chinese_by_character():
    assert words('Hello, 世界 3.5!') == ['hello', ',', '世', '界', '3', '.', '5', '!']
    assert words('我很好') == ['我', '很', '好']


def test_rouge_by_hand():
    mine, other = 'the cat sat on the mat'.split(), 'the cat was on the mat'.split()
    assert rouge_n(mine, other, 1) == pytest.approx(5 / 6)
    assert rouge_n(mine, other, 2) == pytest.approx(3 / 5)  # the-cat, on-the, the-mat
    assert rouge_l(mine, other) == pytest.approx(5 / 6)  # the cat _ on the mat
    assert rouge_l('a b c'.split(), 'c b a'.split()) == pytest.approx(1 / 3)
    assert rouge_l([], ['a']) == 0.0
    assert rouge_n('a a a'.split(), 'a'.split(), 1) == pytest.approx(0.5)  # clipped: one hit of 3 and of 1


def test_bleu_by_hand():
    mine, other = 'a b c d e'.split(), 'a b c d f'.split()
    # precisions 4/5, 3/4, 2/3, 1/2, no brevity penalty
    assert bleu_4(mine, other) == pytest.approx((4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    # three of four orders; the missing 3- and 4-grams count as 1/2 and 1/4 of a match
    mine, other = 'a b x c d'.split(), 'a b y c d z'.split()
    expected = math.exp(1 - 6 / 5) * (4 / 5 * 2 / 4 * (1 / 2) / 3 * (1 / 4) / 2) ** 0.25
    assert bleu_4(mine, other) == pytest.approx(expected)
    assert bleu_4(['42'], ['42']) == 1.0 and bleu_4(['42'], ['43']) == 0.0 and bleu_4([], ['a']) == 0.0


def test_text_metrics_are_percentages():
    scores = text_metrics(['答案是四十二', 'yes '], ['答案是四十二', 'no'])
    assert scores == {'rouge-1': 50, 'rouge-2': 50, 'rouge-l': 50, 'bleu-4': 50, 'exact_match': 50}
    assert eval_metrics_map['rouge'] is text_metrics
    with pytest.raises(SwiftError, match="did you mean 'rouge'"):
        eval_metrics_map['rogue']


def test_accuracy_looks_one_token_ahead():
    preds = torch.tensor([[5, 6, 7, 0], [1, 2, 3, 9]])
    labels = torch.tensor([[-100, 5, 6, 8], [-100, -100, 2, 3]])
    assert compute_acc(preds, labels)['token_acc'] == [True, True, False, True, True]
    assert compute_acc(preds, labels, acc_strategy='seq')['seq_acc'] == [False, True]
    flat = compute_acc(preds.reshape(1, -1), labels.reshape(1, -1), acc_strategy='seq', cu_seqlens=[0, 4, 8])
    assert flat['seq_acc'] == [False, True]


def test_mean_metric():
    mean = MeanMetric()
    assert mean.compute() == {'value': 0.0}
    mean.update(torch.tensor([1.0, 2.0]))
    mean.update([6, float('nan')])
    assert mean.compute() == {'value': 3.0}
