"""Embeddings: a text becomes a vector, near to those of the texts that belong to it. The losses are in `embedding_losses`.

Most losses compare a row with all others of the optimizer step, whatever micro-batches and processes it is divided into. So
`prepare` embeds every text without gradient, joins the vectors of all processes and differentiates the loss of the whole step
with respect to them; `loss` embeds a micro-batch again, with the same dropout, and passes its share of that gradient on
(GradCache: Gao et al., 2021, arXiv:2101.06983). The result is the gradient of the whole step, at the memory of one micro-batch.
A step of one micro-batch in one process takes the direct way, with a single forward.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from swift.core.errors import RowError
from swift.core.log import warn_once
from swift.core.types import IGNORE_INDEX, Actors, Batch, Conversation, Loss, Sample, Template
from swift.objectives import loss_names
from swift.objectives.base import Objective
from swift.objectives.custom import Outputs, mean_of, own_loss
from swift.objectives.embedding_losses import ANCHOR, LOSSES, NEGATIVE, POSITIVE, Items, Step, matryoshka
from swift.objectives.group import as_group, in_groups
from swift.objectives.pool import pool
from swift.objectives.preference import missing
from swift.objectives.replay import Chance, replayed
from swift.objectives.retrieval import pearson, search_metrics, spearman
from swift.objectives.texts import Text, encode_texts, name_of, name_of_shown

POSITIVES = 'positive_messages, positive, response or sentence2'
NEGATIVES = 'negative_messages, negative or rejected_response'

SCORED = ('cosine_similarity', 'contrastive', 'online_contrastive', 'cosent')
"""Losses of pairs with a score."""


@dataclass(frozen=True)
class Share:
    """What a micro-batch adds to the loss of the whole step, as `prepare` found it."""

    vectors: Tensor
    """[S, H] its embeddings."""
    gradient: Tensor
    """[S, H] of the summed loss of the step with respect to them."""
    loss: Tensor
    """The sum over its own items."""
    metrics: dict[str, Tensor]
    chance: Chance
    """The random state before its texts were embedded."""


class Embedding(Objective):
    """`--task_type embedding`. `args`: TaskArgs and `loss_type`; `pooling` is settled by the model."""

    columns = ('positives',)
    several = True

    def __init__(self, args: Any):
        super().__init__(args)
        self.name = (loss_names(args) or ['infonce'])[0]
        self.function = _loss(self.name, args)

    # ---- rows

    @property
    def fingerprint(self) -> str:
        """What decides which texts of a row are used, and whether eos ends them."""
        args = self.args
        return repr((
            self.name, args.infonce_use_batch, args.infonce_include_qq, args.infonce_include_dd, args.infonce_hard_negatives,
            args.max_positive_samples, args.max_negative_samples, args.pooling,
        ))  # fmt: skip

    def encode_batch(self, conversations: Sequence[Conversation], template: Template) -> list[list[Sample] | RowError]:
        """One sample a row, its segments the anchor, the positives and the negatives."""
        groups = [self._texts(as_group(talk)) for talk in conversations]
        texts = [group if isinstance(group, RowError) else group[0] for group in groups]
        encoded = in_groups(texts, partial(encode_texts, template=template, end=self.args.pooling == 'last'))
        return [
            found.at(talk.source) if isinstance(found, RowError) else [grouped(found, talk, {'positives': group[1]})]
            for talk, group, found in zip(conversations, groups, encoded, strict=True)
        ]

    def _texts(self, talk: Conversation) -> tuple[list[Any], int] | RowError:
        """(anchor, positives and negatives; how many of them are positives)."""
        args = self.args
        if not talk.positives:
            return missing(talk, 'text that belongs to it', POSITIVES)
        positives = talk.positives[: args.max_positive_samples]
        negatives = (talk.negatives or [])[: args.max_negative_samples][: args.infonce_hard_negatives]
        if self.name in SCORED:
            if talk.label is None and not negatives:
                return missing(talk, 'label (how similar its two texts are)', f'label or score, or for 1 and 0 from {NEGATIVES}')
            wrong = _score_mistake(talk, self.name)
        else:
            alone = not (args.infonce_use_batch or args.infonce_include_qq or args.infonce_include_dd)
            if not negatives and (self.name == 'triplet' or (self.name == 'infonce' and alone)):
                return missing(talk, 'text that does not belong to it', NEGATIVES)
            wrong = _label_mistake(talk, self.name)
        return wrong or ([talk.messages, *positives, *negatives], len(positives))

    def collate(self, samples: Sequence[Sample], padded: bool = False) -> Batch:
        """Every text a segment; `extra['texts']` says what each is to its row."""
        batch = super().collate(samples, padded)
        kind, name, score = [], [], []
        for sample in samples:
            sizes, positives = sample.segment_lengths, int(sample.extra['positives'])
            kinds = [ANCHOR, *[POSITIVE] * positives, *[NEGATIVE] * (len(sizes) - 1 - positives)]
            kind += kinds
            shown = sample.extra.get('shown') or [''] * len(sizes)
            name += [name_of(part, what) for part, what in zip(torch.as_tensor(sample.input_ids).split(sizes), shown, strict=True)]
            score += [_score(each, sample.label) for each in kinds]
        batch.extra['texts'] = {'kind': torch.tensor(kind), 'name': torch.tensor(name), 'score': torch.tensor(score)}
        return batch

    def weight(self, batch: Batch) -> float:
        """Items of the loss: positives of InfoNCE, triplets, pairs."""
        if batch.extra.get('filler'):
            return 0.0
        kind = batch.extra['texts']['kind']
        if self.name == 'infonce':
            return float((kind == POSITIVE).sum())
        if self.name == 'triplet':
            row = (kind == ANCHOR).cumsum(0)
            counts = [torch.bincount(row[kind == each], minlength=int(row[-1]) + 1) for each in (POSITIVE, NEGATIVE)]
            return float((counts[0] * counts[1]).sum())
        return float((kind != ANCHOR).sum())

    # ---- the loss

    def embed(self, batch: Batch, actors: Actors) -> Tensor:
        """[S, H] float32 vectors of all texts of a batch, as the model gives them."""
        return pool(actors.policy.hidden(batch), batch, self.args.pooling).float()

    def _items(self, vectors: Tensor, texts: dict[str, Tensor]) -> Items:
        with torch.autocast(vectors.device.type, enabled=False):
            return matryoshka(self.function, Step(vectors, **texts), self.args)

    def prepare(self, batches: Sequence[Batch], actors: Actors, gather: Callable[[Tensor], Tensor]) -> None:
        """Embed the whole step and give every micro-batch its share of the gradient."""
        device = batches[0].input_ids.device
        me = torch.tensor([int.from_bytes(os.urandom(7), 'little')], device=device)
        everybody = gather(me)
        if len(everybody) == 1 and len(batches) == 1:
            return
        chances, vectors = [], []
        for batch in batches:  # fillers too: a model in several processes must run equally often in all
            chances.append(Chance.now(device))
            vectors.append(self.embed(batch, actors))
        real = [not batch.extra.get('filler') for batch in batches]
        mine = torch.cat([found if use else found[:0] for found, use in zip(vectors, real, strict=True)])
        sizes = gather(torch.tensor([len(mine)], device=device))
        start = int(sizes[: int((everybody == me).nonzero()[0, 0])].sum())
        whole = gather(mine.contiguous()).requires_grad_()
        texts = {
            name: gather(torch.cat([b.extra['texts'][name] if use else b.extra['texts'][name][:0] for b, use in zip(batches, real, strict=True)]))
            for name in ('kind', 'name', 'score')
        }
        with torch.enable_grad():
            items = self._items(whole, texts)
            (gradient,) = torch.autograd.grad(items.values.sum(), whole)
        row = Step(whole, **texts).row
        for batch, chance, found, use in zip(batches, chances, vectors, real, strict=True):
            if use:
                end = start + len(found)
                first, last = row[start], row[end - 1]

                def part(values: Tensor, rows: Tensor, first: Tensor = first, last: Tensor = last) -> Tensor:
                    return values.detach()[(rows >= first) & (rows <= last)]

                metrics = {name: part(*pair) for name, pair in items.metrics.items()}
                batch.extra['share'] = Share(found, gradient[start:end], part(items.values, items.row).sum(), metrics, chance)
                start = end

    def loss(self, batch: Batch, actors: Actors) -> Loss:
        """The share of this micro-batch in the loss of the step; the loss of the batch where there was nothing to prepare."""
        share: Share | None = batch.extra.get('share')
        texts = batch.extra['texts']
        if share is None:
            vectors = self.embed(batch, actors)
            items = self._items(vectors, texts)
            total, metrics = items.values.sum(), {name: values for name, (values, _) in items.metrics.items()}
        elif torch.is_grad_enabled():
            with replayed(share.chance):
                vectors = self.embed(batch, actors)
            passed = (vectors * share.gradient).sum()
            total, metrics = share.loss + passed - passed.detach(), share.metrics
        else:
            vectors, total, metrics = share.vectors, share.loss, share.metrics
        if torch.is_grad_enabled() and self.name == 'infonce' and not batch.extra.get('filler') and not metrics['accuracy'].numel():
            warn_once(
                'A step of one row without negatives teaches nothing: raise --per_device_train_batch_size (or '
                '--gradient_accumulation_steps), use --packing true, or give rows negatives.'
            )
        return Loss(total, metrics, {} if torch.is_grad_enabled() else {'vectors': vectors, **texts})

    # ---- evaluation

    def measure(self, outputs: dict[str, Tensor]) -> dict[str, float]:
        """Loss and means of the evaluation taken as one step; search among all its texts, or correlation with the scores; these of
        every size in mrl_dims too."""
        texts = {name: outputs[name] for name in ('kind', 'name', 'score')}
        step = Step(outputs['vectors'].float(), **texts)
        items = self._items(step.vectors, texts)
        found = {name: values.mean().item() for name, values in (('loss', items.values), *((n, v) for n, (v, _) in items.metrics.items())) if len(values)}
        scored = self.name in SCORED or (self.name not in LOSSES and bool((step.score[step.documents] % 1 != 0).any()))
        figures = _correlations if scored else _search
        found |= figures(step)
        for size in self.args.mrl_dims:
            found |= {f'{name}_dim{size}': value for name, value in figures(step.cut(size)).items()}
        return found


def grouped(parts: Sequence[Text], talk: Conversation, extra: dict[str, Any]) -> Sample:
    """One sample with every part as a segment, none of its tokens labelled; `extra['shown']` names what they show, where they do."""
    ids = [token for part in parts for token in part.ids]
    lengths, media = [len(part.ids) for part in parts], None
    if any(part.shown for part in parts):
        media, extra = [part.shown for part in parts], {**extra, 'shown': [name_of_shown(part.shown) for part in parts]}
    return Sample(
        ids, [IGNORE_INDEX] * len(ids), lengths=lengths, media=media, label=None if talk.label is None else float(talk.label),
        channel=talk.channel, source=talk.source, extra=extra,
    )  # fmt: skip


def _score(kind: int, label: Any) -> float:
    """What the similarity of a text with its anchor should be: the row's label, else 1 for positives and 0 for negatives."""
    if kind == ANCHOR:
        return float('nan')
    return float(kind == POSITIVE) if label is None or kind == NEGATIVE else float(label)


def _search(step: Step) -> dict[str, float]:
    queries, documents = step.places(ANCHOR), step.documents
    given = (step.name[queries], step.name[documents], step.row[documents], step.kind[documents] == POSITIVE)
    return search_metrics(step.unit[queries], step.unit[documents], *given)


def _correlations(step: Step) -> dict[str, float]:
    index = step.documents
    similarity = (step.unit[step.anchors_of(index)] * step.unit[index]).sum(-1)
    return {'spearman': spearman(similarity, step.score[index]), 'pearson': pearson(similarity, step.score[index])}


# ---- what can be wrong with a label


def number(label: Any) -> float | None:
    """A label as a number; None when it is none."""
    try:
        return float(label)
    except (TypeError, ValueError):
        return None


def _score_mistake(talk: Conversation, loss: str) -> RowError | None:
    if talk.label is None:
        return None
    value = number(talk.label)
    if value is None:
        return RowError(f'label must be a number, got {talk.label!r}', talk.source)
    if loss == 'online_contrastive' and value not in (0, 1):
        return RowError(f'label is {talk.label}, but online_contrastive needs 1 (similar) or 0;', talk.source, 'graded scores suit cosent')
    if loss in ('contrastive', 'cosine_similarity') and not -(loss == 'cosine_similarity') <= value <= 1:
        return RowError(f'label is {talk.label}, but {loss} needs a similarity up to 1;', talk.source, 'scale the scores, or use cosent')
    return None


def _label_mistake(talk: Conversation, loss: str) -> RowError | None:
    value = None if talk.label is None else number(talk.label)
    if loss in LOSSES and talk.label is not None and (value is None or value < 1):
        reason = f'label is {talk.label}, but {loss} takes every positive as one;'
        return RowError(reason, talk.source, f'train scores with --loss_type {", ".join(SCORED)}')
    return None


# ---- losses of the user's own


def _loss(name: str, args: Any) -> Callable[[Step, Any], Items]:
    """The built-in loss, or the one that a plugin registered.

    A user's own is called `mine(outputs, labels)` once for a whole step: `outputs['last_hidden_state']` are the unit vectors
    [n, H] of all texts (each row's anchor, positives, negatives), `labels` [documents] the score of everything that is no anchor
    (1 for positives, 0 for negatives, or the row's label). It returns the mean over the step.
    """
    own = own_loss(name, LOSSES, args)
    return LOSSES[name] if own is None else partial(_own, own, name)


def _own(function: Callable, name: str, step: Step, args: Any) -> Items:
    documents = step.documents
    fields = dict(kind=step.kind, name=step.name, score=step.score, row=step.row, vectors=step.vectors)
    mean = mean_of(name, function(Outputs(last_hidden_state=step.unit, **fields), step.score[documents]))
    return Items(mean.expand(len(documents)), step.row[documents], {})
