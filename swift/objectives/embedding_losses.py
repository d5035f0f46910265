"""Losses on the embeddings of all texts of an optimizer step: cosine similarities of anchors with the texts of their rows.

They are written for a whole step, since most of them compare a row with the others. Where a loss has items (a pair, a positive,
a triplet), its mean over the items of the step is what is trained; `Items.values` holds one value for each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from swift.core.errors import SwiftError
from swift.core.registry import Registry

ANCHOR, POSITIVE, NEGATIVE = range(3)
"""What a text is to its row."""

BLOCK = 1 << 24
"""Similarities (elements) of InfoNCE held at once; more are computed in blocks, and again in the backward pass."""


@dataclass(frozen=True)
class Step:
    """The texts of a step, row after row: an anchor, its positives, its negatives."""

    vectors: Tensor
    """[n, H] float32 embeddings, of any length."""
    kind: Tensor
    """[n] int64: ANCHOR, POSITIVE or NEGATIVE."""
    name: Tensor
    """[n] int64: equal for equal texts."""
    score: Tensor
    """[n] float32: how similar the text should be to its anchor; NaN for anchors."""

    @cached_property
    def row(self) -> Tensor:
        """[n] int64: number of the row that a text belongs to."""
        return (self.kind == ANCHOR).cumsum(0) - 1

    @cached_property
    def unit(self) -> Tensor:
        """[n, H] the vectors at length 1."""
        return F.normalize(self.vectors, dim=-1)

    def places(self, kind: int) -> Tensor:
        """Indices of the texts of a kind."""
        return (self.kind == kind).nonzero()[:, 0]

    @cached_property
    def documents(self) -> Tensor:
        """Indices of everything but anchors."""
        return (self.kind != ANCHOR).nonzero()[:, 0]

    def anchors_of(self, index: Tensor) -> Tensor:
        """Indices of the anchors of the texts at `index`."""
        return self.places(ANCHOR)[self.row[index]]

    def cut(self, size: int) -> Step:
        """The same with the first `size` dimensions only."""
        return replace(self, vectors=self.vectors[:, :size])


@dataclass(frozen=True)
class Items:
    """What a loss gives for a step of K items."""

    values: Tensor
    """[K] losses; their mean is trained."""
    row: Tensor
    """[K] int64: row of each item."""
    metrics: dict[str, tuple[Tensor, Tensor]]
    """Name → ([m] values, [m] row of each)."""


EmbeddingLoss = Callable[[Step, Any], Items]

LOSSES: Registry = Registry('loss_type')
"""Name → function of (step, TaskArgs)."""


def matryoshka(loss: EmbeddingLoss, step: Step, args: Any) -> Items:
    """The mean of `loss` over the dimensions of `mrl_dims` and the full one (Matryoshka representations, arXiv:2205.13147, eq. 1
    with equal weights). Metrics are those of the full one."""
    full = step.vectors.shape[1]
    sizes = [size for size in args.mrl_dims if size != full]
    if any(size > full for size in sizes):
        raise SwiftError(f'--mrl_dims {max(sizes)}: the embeddings of this model have {full} dimensions;', 'name smaller ones')
    items = loss(step, args)
    if not sizes:
        return items
    values = [items.values, *(loss(step.cut(size), args).values for size in sizes)]
    return replace(items, values=torch.stack(values).mean(0))


# ---- one positive against all others


@LOSSES.register('infonce')
def infonce(step: Step, args: Any) -> Items:
    """InfoNCE (arXiv:1807.03748), with the negatives of Qwen3-Embedding (arXiv:2506.05176, eq. 1). An item is a positive p of anchor a:

        -log e^{s(a,p)/τ} / (e^{s(a,p)/τ} + Σ_n e^{s(a,n)/τ} + Σ_b e^{s(a,b)/τ} + Σ_b e^{s(p,b)/τ})

    n: negatives of the row, and with infonce_use_batch the texts of other rows; b: anchors of other rows (infonce_include_qq);
    last sum: texts of other rows (infonce_include_dd). τ = infonce_temperature. Never a negative: another positive of
    the anchor (in this row, or of the same anchor elsewhere), and the anchor's own text. With infonce_mask_fake_negative neither
    what is more similar than s(a,p) + infonce_fake_neg_margin.
    """
    places = step.places(POSITIVE)
    known = _Known(step)
    columns = len(step.documents) * (1 + bool(args.infonce_include_dd)) + len(known.anchors) * bool(args.infonce_include_qq)
    size = max(1, BLOCK // max(columns, 1))
    parts = []
    for own in places.split(size) if len(places) else [places]:
        if len(places) > size and step.unit.requires_grad:
            parts.append(checkpoint(_infonce, step, step.unit, own, known, args, use_reentrant=False, preserve_rng_state=False))
        else:
            parts.append(_infonce(step, step.unit, own, known, args))
    values, found, others, right, some = (torch.cat(column) for column in zip(*parts, strict=True))
    row = step.row[places]
    metrics = {'positive_similarity': (found, row), 'negative_similarity': (others[some], row[some]), 'accuracy': (right[some], row[some])}
    return Items(values, row, metrics)


class _Known:
    """Which texts are known to belong to an anchor, wherever in the step that stands."""

    def __init__(self, step: Step):
        self.anchors = step.places(ANCHOR)
        names, self.code = torch.unique(step.name, return_inverse=True)
        self._names = len(names)
        positives = step.places(POSITIVE)
        owners = torch.cat([step.anchors_of(positives), self.anchors])
        texts = torch.cat([positives, self.anchors])  # a text is no negative of itself
        self._pairs = self.code[owners], self.code[texts]

    def belongs(self, anchors: Tensor, texts: Tensor) -> Tensor:
        """[anchors, texts] bool: the text is a positive of the anchor, or the anchor itself."""
        asked, place = torch.unique(self.code[anchors], return_inverse=True)
        number = torch.full((self._names,), len(asked), dtype=torch.int64, device=asked.device)  # a last line for all others
        number[asked] = torch.arange(len(asked), device=asked.device)
        table = torch.zeros(len(asked) + 1, self._names, dtype=torch.bool, device=asked.device)
        table[number[self._pairs[0]], self._pairs[1]] = True
        return table[place][:, self.code[texts]]


def _infonce(step: Step, unit: Tensor, own: Tensor, known: _Known, args: Any) -> tuple[Tensor, ...]:
    """For the positives at `own`, each [P]: loss; s(a,p); mean s(a,n); whether p is nearest to a; whether there is any n."""
    anchors, documents = step.anchors_of(own), step.documents
    a, p = unit[anchors], unit[own]
    found = (a * p).sum(-1)
    elsewhere = step.row[own][:, None] != step.row[documents][None]
    free = ~known.belongs(anchors, documents)
    against = [a @ unit[documents].T]
    kept = [free & ((elsewhere & bool(args.infonce_use_batch)) | (~elsewhere & (step.kind[documents] == NEGATIVE)))]
    if args.infonce_include_qq:
        against.append(a @ unit[known.anchors].T)
        kept.append(~known.belongs(anchors, known.anchors))
    if args.infonce_include_dd:
        against.append(p @ unit[documents].T)
        kept.append(free & elsewhere)
    if args.infonce_mask_fake_negative:
        most = found.detach()[:, None] + args.infonce_fake_neg_margin
        kept = [keep & (similarity.detach() <= most) for keep, similarity in zip(kept, against, strict=True)]
    wrong = [s.masked_fill(~k, -math.inf) for s, k in zip(against, kept, strict=True)]
    right = found / args.infonce_temperature
    total = torch.logsumexp(torch.cat([found[:, None], *wrong], 1) / args.infonce_temperature, 1)
    with torch.no_grad():
        count = kept[0].sum(1)
        mean = against[0].masked_fill(~kept[0], 0.0).sum(1) / count.clamp(min=1)
        nearest = (found > wrong[0].amax(1)).float() if wrong[0].shape[1] else torch.ones_like(found)
    return total - right, found.detach(), mean, nearest, count > 0


@LOSSES.register('triplet')
def triplet(step: Step, args: Any) -> Items:
    """max(0, d(a,p) - d(a,n) + margin) for every positive and negative of a row, d = 1 - cosine (FaceNet, arXiv:1503.03832, eq. 1, where
    d is twice that). margin: 0.2."""
    margin = 0.2 if args.margin is None else args.margin
    positives, negatives = step.places(POSITIVE), step.places(NEGATIVE)
    p, n = _triplets(step, positives, negatives)
    near, far = (_cosine(step, index) for index in (p, n))
    row = step.row[p]
    metrics = {
        'positive_similarity': (near.detach(), row),
        'negative_similarity': (far.detach(), row),
        'accuracy': ((near > far).float(), row),
    }
    return Items(F.relu(far - near + margin), row, metrics)


def _triplets(step: Step, positives: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
    """Every positive with every negative of its row. Texts lie row after row, so that negatives of a row are neighbours."""
    rows = step.row[positives]
    counts = torch.bincount(step.row[negatives], minlength=len(step.places(ANCHOR)))
    first, own = (counts.cumsum(0) - counts)[rows], counts[rows]
    which = torch.repeat_interleave(own)
    place = torch.arange(len(which), device=which.device) - (own.cumsum(0) - own)[which]
    return positives[which], negatives[first[which] + place]


# ---- pairs with a score


def _cosine(step: Step, index: Tensor) -> Tensor:
    """Similarity of the texts at `index` with their anchors."""
    return (step.unit[step.anchors_of(index)] * step.unit[index]).sum(-1)


def _pairs(step: Step) -> tuple[Tensor, Tensor, Tensor]:
    """Of every pair of an anchor and another text of its row: similarity, score, row."""
    documents = step.documents
    return _cosine(step, documents), step.score[documents], step.row[documents]


def _pair_items(values: Tensor, similarity: Tensor, score: Tensor, row: Tensor) -> Items:
    """Items of pairs, with the similarity of pairs of high score (from 0.5) and of low score as metrics."""
    high = score >= 0.5
    metrics = {
        'positive_similarity': (similarity.detach()[high], row[high]),
        'negative_similarity': (similarity.detach()[~high], row[~high]),
    }
    return Items(values, row, metrics)


@LOSSES.register('cosine_similarity')
def cosine_similarity(step: Step, args: Any) -> Items:
    """(cosine - score)² of every pair, as Sentence-BERT's regression objective (arXiv:1908.10084, section 3)."""
    similarity, score, row = _pairs(step)
    return _pair_items((similarity - score).square(), similarity, score, row)


@LOSSES.register('contrastive')
def contrastive(step: Step, args: Any) -> Items:
    """½ (y d² + (1 - y) max(0, margin - d)²) of every pair, y its score, d = 1 - cosine (Hadsell, Chopra & LeCun, CVPR 2006, eq. 4,
    with y the other way round). margin: 0.5."""
    similarity, score, row = _pairs(step)
    near, far = _hadsell(similarity, args)
    return _pair_items((score * near + (1 - score) * far) / 2, similarity, score, row)


def _hadsell(similarity: Tensor, args: Any) -> tuple[Tensor, Tensor]:
    """What a pair costs if it belongs together, and if not."""
    distance = 1 - similarity
    return distance.square(), F.relu((0.5 if args.margin is None else args.margin) - distance).square()


@LOSSES.register('online_contrastive')
def online_contrastive(step: Step, args: Any) -> Items:
    """The contrastive loss (without its ½) of the hard pairs of the step, 0 for the others: positive pairs farther apart than the
    nearest negative pair, negative pairs nearer than the farthest positive pair; where the other side is empty, those beyond the
    mean of their own."""
    similarity, score, row = _pairs(step)
    near, far = _hadsell(similarity, args)
    distance, positive = 1 - similarity.detach(), score >= 0.5
    inner, outer = distance[positive], distance[~positive]
    limit_of_positives = outer.min() if len(outer) else inner.mean()
    limit_of_negatives = inner.max() if len(inner) else outer.mean()
    hard = torch.where(positive, distance > limit_of_positives, distance < limit_of_negatives)
    return _pair_items(torch.where(positive, near, far) * hard, similarity, score, row)


@LOSSES.register('cosent')
def cosent(step: Step, args: Any) -> Items:
    """log(1 + Σ e^{λ (s_j - s_i)}) over all pairs i, j of the step with score_i > score_j; λ = cosent_scale (CoSENT: Su, 2022,
    https://kexue.fm/archives/8847). It has no items: every pair is given the whole value, so that their mean is it.

    For each i the sum over j is one cumulative sum over the pairs in the order of their scores.
    """
    similarity, score, row = _pairs(step)
    if not len(score):
        return _pair_items(similarity, similarity, score, row)
    order = torch.argsort(score, stable=True)
    scaled, levels = args.cosent_scale * similarity[order], score[order]
    below = torch.searchsorted(levels, levels, right=False)  # pairs of lower score
    lower = F.pad(torch.logcumsumexp(scaled, 0), (1, 0), value=-math.inf)[below]
    some = below > 0
    terms = torch.cat([scaled.new_zeros(1), (lower - scaled)[some]])
    return _pair_items(torch.logsumexp(terms, 0).expand(len(score)), similarity, score, row)
