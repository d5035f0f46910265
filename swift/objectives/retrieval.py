"""How good a ranking is: recall, reciprocal rank, discounted gain of documents; correlation of similarities with scores.

A document that scores the same as another is ranked behind every irrelevant one of that score: a model that gives the same
value to everything finds nothing.

DCG@k = Σ_{r ≤ k} gain_r / log2(r + 1), NDCG@k = DCG@k / the best DCG@k possible (Järvelin & Kekäläinen, 2002).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 1 << 24
"""Similarities (elements) held at once while all documents are searched."""


def ranks(scores: Tensor, relevant: Tensor) -> Tensor:
    """[D] int64: rank from 1 of every document by `scores` [D]; at equal scores those of `relevant` [D] (bool) come last."""
    by_relevance = torch.argsort(relevant.long(), stable=True)
    order = by_relevance[torch.argsort(scores[by_relevance], descending=True, stable=True)]
    places = torch.empty_like(order)
    places[order] = torch.arange(1, len(order) + 1)
    return places


def dcg(gains: Tensor, places: Tensor, k: int | None = None) -> float:
    """Discounted gain of documents with `gains` at `places` (ranks from 1), of the first k only."""
    kept = places <= k if k else torch.ones_like(places, dtype=torch.bool)
    return (gains[kept].double() / torch.log2(places[kept].double() + 1)).sum().item()


def ndcg(scores: Tensor, gains: Tensor, k: int | None = None) -> float:
    """NDCG@k of one query: `scores` [D] as the model has them, `gains` [D] ≥ 0 as they should be. NaN when all gains are 0."""
    best = dcg(*(lambda g: (g, torch.arange(1, len(g) + 1)))(gains.sort(descending=True).values), k)
    return dcg(gains, ranks(scores, gains > 0), k) / best if best else float('nan')


def group_metrics(scores: Tensor, gains: Tensor, group: Tensor) -> dict[str, float]:
    """`mrr` and `ndcg@10`: means over the queries that have both a relevant document (gain above 0.5) and another one.

    `scores`, `gains` [N]; `group` [N] names the query of every document. Empty when there is no such query.
    """
    reciprocal: list[float] = []
    gained: list[float] = []
    for members in _groups(group):
        found, wanted = scores[members], gains[members]
        relevant = wanted > 0.5
        if not relevant.any() or relevant.all():
            continue
        reciprocal.append(1 / ranks(found, relevant)[relevant].min().item())
        gained.append(ndcg(found, wanted, 10))
    return {'mrr': _mean(reciprocal), 'ndcg@10': _mean(gained)} if reciprocal else {}


def _groups(group: Tensor) -> Iterator[Tensor]:
    """Indices of the members of every group."""
    order = torch.argsort(group, stable=True)
    sizes = torch.unique_consecutive(group[order], return_counts=True)[1]
    yield from torch.split(order, sizes.tolist())


def search_metrics(
    queries: Tensor, documents: Tensor, query_text: Tensor, document_text: Tensor, owner: Tensor, relevant: Tensor
) -> dict[str, float]:
    """`recall@1`, `recall@5`, `recall@10`, `mrr`, `ndcg@10` of every query searching all documents by cosine.

    `queries` [Q, H] and `documents` [D, H] are unit vectors; `query_text` [Q] and `document_text` [D] name their texts, so that
    a text that several rows hold counts once; document d belongs to the query of row `owner[d]` and answers it if `relevant[d]`.
    Every query has a document that answers it. recall@k is the share of these documents among the first k. A query is not
    searched for among the documents.
    """
    ask, ask_of = _first_of(query_text)
    docs, doc_of = _first_of(document_text)
    pairs = torch.unique(torch.stack([ask_of[owner], doc_of])[:, relevant], dim=1)  # sorted by query
    same = document_text[docs]
    vectors = documents[docs]
    figures: list[Tensor] = []
    step = max(1, BLOCK // max(len(docs), 1))
    for start in range(0, len(ask), step):
        block = ask[start : start + step]
        query, document = pairs[:, (pairs[0] >= start) & (pairs[0] < start + step)]
        query = query - start
        scores = queries[block] @ vectors.T
        found = scores[query, document]
        scores[same[None] == query_text[block][:, None]] = float('-inf')
        scores[query, document] = float('-inf')
        ahead = torch.cat([(scores[q] >= f[:, None]).sum(1) for q, f in zip(query.split(64), found.split(64), strict=True)])
        figures.append(_figures(query, ahead + _place_among(query, found), len(block)))
    names = ('recall@1', 'recall@5', 'recall@10', 'mrr', 'ndcg@10')
    return dict(zip(names, torch.cat(figures).mean(0).tolist(), strict=True)) if figures else {}


def _place_among(query: Tensor, found: Tensor) -> Tensor:
    """From 1: how the documents that answer the same query (`query` ascends) follow each other by `found`."""
    order = torch.argsort(found, descending=True, stable=True)
    order = order[torch.argsort(query[order], stable=True)]
    _, sizes = torch.unique_consecutive(query, return_counts=True)
    within = torch.arange(len(query)) - torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes)
    return torch.empty_like(order).scatter_(0, order, within + 1)


def _figures(query: Tensor, places: Tensor, queries: int) -> Tensor:
    """[queries, 5] recall@1, @5, @10, reciprocal rank, NDCG@10 from the places of the documents that answer each."""
    places = places.double()

    def total(values: Tensor) -> Tensor:
        return torch.zeros(queries, dtype=torch.float64).index_add(0, query, values)

    count = total(torch.ones_like(places))
    recalls = [total((places <= k).double()) / count for k in (1, 5, 10)]
    first = torch.full((queries,), float('inf'), dtype=torch.float64).scatter_reduce(0, query, places, 'amin')
    discounts = (1 / torch.log2(torch.arange(2, 12, dtype=torch.float64))).cumsum(0)
    gained = total((places <= 10).double() / torch.log2(places + 1)) / discounts[count.clamp(1, 10).long() - 1]
    return torch.stack([*recalls, 1 / first, gained], 1)


def _first_of(text: Tensor) -> tuple[Tensor, Tensor]:
    """(index of the first occurrence of every text, which of them each is)."""
    names, inverse = torch.unique(text, return_inverse=True)
    first = torch.full((len(names),), len(text), dtype=torch.int64)
    first.scatter_reduce_(0, inverse, torch.arange(len(text)), 'amin')
    return first, inverse


def pearson(a: Tensor, b: Tensor) -> float:
    """Linear correlation; NaN when one of them is constant."""
    a, b = a.double() - a.double().mean(), b.double() - b.double().mean()
    scale = (a.square().sum() * b.square().sum()).sqrt().item()
    return (a * b).sum().item() / scale if scale > 1e-300 else float('nan')


def spearman(a: Tensor, b: Tensor) -> float:
    """Correlation of ranks, equal values sharing the mean of theirs; NaN when one of them is constant."""
    return pearson(mean_ranks(a), mean_ranks(b))


def mean_ranks(values: Tensor) -> Tensor:
    """[N] float64 ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = torch.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts.double() - 1) / 2)[inverse]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
