"""Figures of rankings: worked by hand, and against naive loops, scikit-learn and scipy."""

import math

import pytest
import torch

from swift.objectives import retrieval
from swift.objectives.retrieval import group_metrics, ndcg, pearson, ranks, search_metrics, spearman


def test_equal_scores_rank_the_relevant_last():
    scores, relevant = torch.tensor([0.5, 0.9, 0.5, 0.1]), torch.tensor([True, False, False, False])
    assert ranks(scores, relevant).tolist() == [3, 1, 2, 4]
    flat = group_metrics(torch.zeros(4), relevant.float(), torch.zeros(4))
    assert flat['mrr'] == 1 / 4 and flat['ndcg@10'] == pytest.approx(1 / math.log2(5))


def test_ndcg_by_hand():
    """Gains 3, 2, 0 found in the order 2, 0, 3: (2 + 3/2) / (3 + 2/log2 3)."""
    value = ndcg(torch.tensor([0.1, 0.9, 0.5]), torch.tensor([3.0, 2.0, 0.0]))
    assert value == pytest.approx(3.5 / (3 + 2 / math.log2(3)))
    assert ndcg(torch.tensor([0.1, 0.9, 0.5]), torch.tensor([3.0, 2.0, 0.0]), 1) == pytest.approx(2 / 3)


def test_ndcg_equals_scikit_learn():
    metrics = pytest.importorskip('sklearn.metrics')
    generator = torch.Generator().manual_seed(0)
    for k in (1, 5, 10, None):
        scores, gains = torch.rand(30, generator=generator), torch.randint(0, 4, (30,), generator=generator).float()
        assert ndcg(scores, gains, k) == pytest.approx(metrics.ndcg_score([gains.tolist()], [scores.tolist()], k=k))


def test_groups_by_hand():
    """Query 7: relevant documents at ranks 2 and 3; query 9 at rank 1; query 4 has no relevant one, query 5 nothing else."""
    scores = torch.tensor([0.3, 0.9, 0.8, 0.2, 0.5, 0.1, 0.6])
    gains = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0])
    group = torch.tensor([7, 9, 7, 9, 4, 4, 7])
    found = group_metrics(scores, gains, group)
    second = (1 / math.log2(3) + 1 / 2) / (1 + 1 / math.log2(3))
    assert found == pytest.approx({'mrr': (1 / 2 + 1) / 2, 'ndcg@10': (second + 1) / 2})
    alone = group_metrics(scores[:1], gains[:1], group[:1])
    assert alone == {}


def test_correlations():
    stats = pytest.importorskip('scipy.stats')
    a, b = torch.tensor([0.1, 0.4, 0.4, 0.9, 0.2]), torch.tensor([1.0, 3.0, 2.0, 2.0, 0.0])
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
    assert pearson(a, b) == pytest.approx(stats.pearsonr(a, b).statistic, rel=1e-6)
    assert spearman(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 3.0, 2.0])) == pytest.approx(0.5)
    assert math.isnan(spearman(a, torch.ones(5)))


def naive_search(queries, documents, query_text, document_text, owner, relevant):
    answers, docs = {}, {}
    for index, text in enumerate(document_text.tolist()):
        docs.setdefault(text, documents[index])
        if relevant[index]:
            answers.setdefault(query_text[owner[index]].item(), set()).add(text)
    asked = {text: queries[index] for index, text in enumerate(query_text.tolist())}
    totals = dict.fromkeys(('recall@1', 'recall@5', 'recall@10', 'mrr', 'ndcg@10'), 0.0)
    for text, vector in asked.items():
        wanted = answers[text]
        scored = [((vector @ d).item(), name in wanted, name) for name, d in docs.items() if name != text or name in wanted]
        order = [name for _, _, name in sorted(scored, key=lambda item: (-item[0], item[1]))]
        places = sorted(order.index(name) + 1 for name in wanted)
        for k in (1, 5, 10):
            totals[f'recall@{k}'] += sum(place <= k for place in places) / len(places)
        totals['mrr'] += 1 / places[0]
        best = sum(1 / math.log2(r + 1) for r in range(1, min(10, len(places)) + 1))
        totals['ndcg@10'] += sum(1 / math.log2(place + 1) for place in places if place <= 10) / best
    return {name: total / len(asked) for name, total in totals.items()}


@pytest.mark.parametrize('block', [1 << 24, 64], ids=['one block', 'blocks'])
def test_search_equals_a_naive_loop(monkeypatch, block):
    """Texts shared between rows, several documents of a query, a document that is a query, equal vectors."""
    monkeypatch.setattr(retrieval, 'BLOCK', block)
    generator = torch.Generator().manual_seed(3)
    queries = torch.nn.functional.normalize(torch.randn(12, 4, generator=generator), dim=1)
    documents = torch.nn.functional.normalize(torch.randn(40, 4, generator=generator), dim=1)
    query_text = torch.arange(12) + 1000
    query_text[5], queries[5] = query_text[2], queries[2]
    document_text = torch.arange(40)
    document_text[10], documents[10] = document_text[3], documents[3]
    document_text[11], documents[11] = query_text[1], queries[1]
    documents[20] = documents[21]
    owner = torch.cat([torch.arange(12), torch.arange(12), torch.randint(0, 12, (16,), generator=generator)])
    relevant = torch.arange(40) < 24
    given = (queries, documents, query_text, document_text, owner, relevant)
    assert search_metrics(*given) == pytest.approx(naive_search(*given))


def test_search_in_which_everything_is_found_and_nothing():
    eye, rows = torch.eye(4), torch.arange(4)
    every = torch.ones(4, dtype=torch.bool)
    assert search_metrics(eye, eye, rows, rows + 10, rows, every) == dict.fromkeys(('recall@1', 'recall@5', 'recall@10', 'mrr', 'ndcg@10'), 1.0)
    same = torch.ones(4, 2) / 2**0.5
    collapsed = search_metrics(same, same, rows, rows + 10, rows, every)
    assert collapsed['recall@1'] == 0 and collapsed['mrr'] == 1 / 4
