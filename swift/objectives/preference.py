"""What methods that learn from preferences share: pairs of answers, their log-probabilities, the reference, the step they are in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from swift.core.errors import RowError
from swift.core.types import Actors, AnswerTokens, Batch, Conversation, Loss, Message, Sample, Template
from swift.objectives.base import Objective, units
from swift.objectives.group import in_groups
from swift.objectives.logps import answers


@dataclass(frozen=True)
class Pairs:
    """Values [P] of the chosen and of the rejected answers of P pairs."""

    chosen: Tensor
    rejected: Tensor

    @staticmethod
    def of(values: Tensor) -> Pairs:
        """From values [2 P] of segments: chosen and rejected take turns."""
        return Pairs(values[0::2], values[1::2])

    def map(self, function: Callable[[Tensor], Tensor]) -> Pairs:
        """`function` of both."""
        return Pairs(function(self.chosen), function(self.rejected))

    def __sub__(self, other: Pairs) -> Pairs:
        return Pairs(self.chosen - other.chosen, self.rejected - other.rejected)

    def __truediv__(self, other: Pairs) -> Pairs:
        return Pairs(self.chosen / other.chosen, self.rejected / other.rejected)

    @property
    def gap(self) -> Tensor:
        """[P] chosen minus rejected."""
        return self.chosen - self.rejected


@dataclass(frozen=True)
class Step:
    """What the loss of a pair may need of the whole optimizer step, over all its micro-batches and processes."""

    pairs: Tensor
    """[] number of pairs."""
    tokens: Tensor
    """[] number of labelled tokens of chosen answers."""
    own: Tensor | None = None
    """[P, 4] log-probabilities, without gradient, of this micro-batch: policy chosen and rejected, reference chosen and rejected."""
    all: Tensor | None = None
    """[N, 4] the same of every pair of the step. None, like `own`: this micro-batch is the step, or no loss asks."""


@dataclass(frozen=True)
class Compared:
    """P pairs as a loss sees them. All tensors are float32; only `policy` and `nll` carry gradients."""

    policy: Pairs
    """Log-probability of each answer, summed over its labelled tokens (their weights applied)."""
    reference: Pairs
    """The same under the reference; 0 without one."""
    lengths: Pairs
    """Labelled tokens of each answer, at least 1."""
    nll: Tensor
    """[P] negative log-likelihood of the chosen answer, scaled so that its mean over pairs is the mean over the step's tokens."""
    confidence: Tensor
    """[P] weight of the pair (WPO), without gradient; 1 unless asked for."""
    step: Step
    margin: Tensor | None = None
    """[P] column `margin` of the rows, 0 where a row has none. None: no row has it."""

    @property
    def ratio(self) -> Pairs:
        """log π/π_ref of both answers."""
        return self.policy - self.reference


class Preference(Objective):
    """Base of methods that learn from pairs: a sample holds two segments, the chosen and the rejected conversation."""

    columns = ('rejected',)
    several = True

    def encode_batch(self, conversations: Sequence[Conversation], template: Template) -> list[list[Sample] | RowError]:
        """One sample for every rejected answer of a row."""
        return encode_pairs(conversations, template)

    def collate(self, samples: Sequence[Sample], padded: bool = False) -> Batch:
        """One micro-batch; `extra['margin']` [P] holds the margins of the rows where any row has one."""
        batch = super().collate(samples, padded)
        margins = [(sample.extra or {}).get('margin') for sample in samples]
        if any(margin is not None for margin in margins):
            batch.extra['margin'] = torch.tensor([margin or 0.0 for margin in margins], dtype=torch.float32)
        return batch

    def weight(self, batch: Batch) -> float:
        """Pairs."""
        return units(batch)


class PairLikelihoods(Preference):
    """Base of methods whose loss is made of the log-probabilities of both answers. `args`: RlhfArgs.

    The loss is a sum over pairs, so that it does not depend on how a step is split into micro-batches and processes. What
    couples pairs is settled by `prepare` for the whole step: the mean of `nll` over tokens (by counting labels), and what
    losses that set `whole_step` compare a pair with (by one more forward without gradient, unless the step is a single
    micro-batch). An evaluation calls `prepare` for every batch on its own.
    """

    averaged = False
    """Whether log-probabilities are means over the tokens of an answer instead of sums."""
    whole_step = False
    """Whether a loss needs the log-probabilities of all pairs of a step."""

    def terms(self, pairs: Compared) -> dict[str, tuple[float, Tensor]]:
        """Name → (weight, [P] values) of everything the loss adds up."""
        raise NotImplementedError

    def metrics(self, pairs: Compared, terms: dict[str, tuple[float, Tensor]]) -> dict[str, Tensor]:
        """Rewards β log π/π_ref and log-probabilities, one value a pair; each loss by itself where there are several."""
        rewards = pairs.ratio.map(lambda ratio: self.args.beta * ratio)
        found = {
            'rewards/chosen': rewards.chosen,
            'rewards/rejected': rewards.rejected,
            'rewards/accuracies': rewards.gap > 0,
            'rewards/margins': rewards.gap,
            'logps/chosen': pairs.policy.chosen,
            'logps/rejected': pairs.policy.rejected,
        }
        losses = {name: values for name, (_, values) in terms.items() if name != NLL}
        return found if len(losses) < 2 else {**found, **{f'loss/{name}': values for name, values in losses.items()}}

    def prepare(self, batches: Sequence[Batch], actors: Actors, gather: Callable[[Tensor], Tensor]) -> None:
        """Leave a Step in every micro-batch."""
        real = [not batch.extra.get('filler') for batch in batches]
        device = batches[0].labels.device
        counts = torch.zeros(3, device=device)
        for batch, counted in zip(batches, real, strict=True):
            if counted:
                counts += torch.stack([torch.ones((), device=device), torch.full((), units(batch), device=device), chosen_tokens(batch)])
        size, pairs, tokens = gather(counts[None]).sum(0)
        if not self.whole_step or size <= 1:
            for batch in batches:
                batch.extra['step'] = Step(pairs, tokens)
            return
        own = [self._look_ahead(batch, actors) for batch in batches]
        every = gather(torch.cat([values if counted else values[:0] for values, counted in zip(own, real, strict=True)]))
        for batch, values in zip(batches, own, strict=True):
            batch.extra['step'] = Step(pairs, tokens, values, every)

    def loss(self, batch: Batch, actors: Actors) -> Loss:
        """The SUM over pairs of all weighted terms."""
        tokens = actors.policy.answer_logps(batch, want=self._want())
        pairs = self._compare(batch, actors, tokens)
        terms = self.terms(pairs)
        metrics = self.metrics(pairs, terms)
        if NLL in terms:
            metrics['nll_loss'] = -_weighted(tokens, batch)[tokens.segment % 2 == 0]
        return Loss(sum((weight * values).sum() for weight, values in terms.values()), metrics)

    # ---- inside

    def _want(self) -> tuple[str, ...]:
        return ()

    def _emphasis(self, tokens: AnswerTokens, segments: int) -> Tensor | None:
        """[N] factor of each token's log-probability. None: 1."""
        return None

    def _confidence(self, tokens: AnswerTokens, segments: int) -> Tensor:
        """[P] weight of each pair."""
        return tokens.logps.new_ones(segments // 2)

    def _sums(self, batch: Batch, actors: Actors, tokens: AnswerTokens) -> tuple[Pairs, Pairs]:
        """Log-probabilities of the answers under policy and reference."""
        segments, emphasis = len(batch.lengths), self._emphasis(tokens, len(batch.lengths))

        def total(logps: Tensor) -> Pairs:
            values = logps if batch.weights is None else logps * batch.weights.reshape(-1)[tokens.index]
            return Pairs.of(segment_sums(tokens, values if emphasis is None else values * emphasis, segments))

        policy = total(tokens.logps)
        if 'reference' not in self.roles:
            return policy, policy.map(torch.zeros_like)
        return policy, total(reference_logps(batch, actors))

    def _compare(self, batch: Batch, actors: Actors, tokens: AnswerTokens) -> Compared:
        segments = len(batch.lengths)
        policy, reference = self._sums(batch, actors, tokens)
        lengths = Pairs.of(segment_counts(tokens, segments).clamp(min=1))
        step = batch.extra.get('step') or Step(lengths.chosen.new_tensor(segments // 2), chosen_tokens(batch))
        if step.own is None:
            values = torch.stack([policy.chosen, policy.rejected, reference.chosen, reference.rejected], 1).detach()
            step = replace(step, own=values, all=values)
        nll = -Pairs.of(segment_sums(tokens, _weighted(tokens, batch), segments)).chosen
        if self.averaged:
            policy, reference = policy / lengths, reference / lengths
        return Compared(
            policy, reference, lengths, nll * step.pairs / step.tokens.clamp(min=1), self._confidence(tokens, segments), step,
            batch.extra.get('margin'),
        )  # fmt: skip

    def _look_ahead(self, batch: Batch, actors: Actors) -> Tensor:
        """[P, 4] log-probabilities for Step; what the reference said is kept for the loss."""
        if 'reference' in self.roles:
            batch.extra['reference_logps'] = reference_logps(batch, actors)
        policy, reference = self._sums(batch, actors, actors.policy.answer_logps(batch))
        return torch.stack([policy.chosen, policy.rejected, reference.chosen, reference.rejected], 1)


NLL = 'sft'
"""Name of the term that is the likelihood of the chosen answers."""


def chosen_tokens(batch: Batch) -> Tensor:
    """[] number of labelled tokens of chosen answers, as a float."""
    return (answers(batch).segment % 2 == 0).sum().float()


def _weighted(tokens: AnswerTokens, batch: Batch) -> Tensor:
    return tokens.logps if batch.weights is None else tokens.logps * batch.weights.reshape(-1)[tokens.index]


def encode_pairs(conversations: Sequence[Conversation], template: Template) -> list[list[Sample] | RowError]:
    """Samples of two segments for every conversation, one for every rejected answer; a row without one becomes its RowError."""
    results: list[list[Sample] | RowError] = []
    for talk, found in zip(conversations, in_groups([_answers(talk) for talk in conversations], template.encode_batch), strict=True):
        try:
            results.append(found.at(talk.source) if isinstance(found, RowError) else _paired(talk, found))
        except RowError as error:
            results.append(error.at(talk.source))
    return results


def _answers(talk: Conversation) -> list[Conversation] | RowError:
    """The conversation with the chosen answer, then with every rejected one."""
    if talk.rejected is None:
        return missing(talk, 'rejected answer', 'rejected, rejected_response or rejected_messages')
    return [answered(talk, messages) for messages in (talk.messages, talk.rejected, *(talk.negatives or []))]


def _paired(talk: Conversation, found: Sequence[list[Sample]]) -> list[Sample]:
    """The chosen answer with every rejected one. Raises RowError when one of them can't be used."""
    if any(len(item) != 1 for item in found):
        raise RowError('an answer of a pair was split;', hint='choose --truncation_strategy delete, left or right')
    chosen, *rejected = (item[0] for item in found)
    margin = _number(talk.columns, 'margin')
    return [joined([chosen, other], talk, None if margin is None else {'margin': margin}) for other in rejected]


def _number(columns: dict[str, Any], name: str) -> float | None:
    try:
        return None if columns.get(name) is None else float(columns[name])
    except (TypeError, ValueError):
        raise RowError(f'{name} must be a number, got {columns[name]!r};', hint='correct or drop this column') from None


def answered(talk: Conversation, messages: list[Message]) -> Conversation:
    """The conversation with other messages."""
    return replace(talk, messages=messages, rejected=None, negatives=None)


def joined(parts: Sequence[Sample], talk: Conversation, extra: dict | None = None) -> Sample:
    """One sample with every part as a segment, each with what it shows."""
    weights = None
    if any(part.weights is not None for part in parts):
        weights = [w for part in parts for w in (part.weights if part.weights is not None else [1.0] * len(part))]
    return Sample(
        [token for part in parts for token in part.input_ids],
        [label for part in parts for label in part.labels],
        weights,
        lengths=[len(part) for part in parts],
        media=media_of_parts(parts),
        label=talk.label,
        channel=talk.channel,
        source=talk.source,
        extra=extra,
    )


def media_of_parts(parts: Sequence[Sample]) -> list[Any] | None:
    """What each of several samples of one segment shows; None where none shows anything."""
    return [part.media[0] if part.media else None for part in parts] if any(part.media for part in parts) else None


def missing(talk: Conversation, what: str, names: str) -> RowError:
    """The error for a row that lacks what the method needs: what it has, and the columns that would give it."""
    has = ['messages', *(name for name in ('tools', 'images', 'videos', 'audios', 'rejected', 'label') if getattr(talk, name)), *talk.columns]
    return RowError(f'the row has {", ".join(has)}, but no {what};', talk.source, f'it is read from {names}')


def segment_sums(tokens: AnswerTokens, values: Tensor, segments: int) -> Tensor:
    """[S] sum of per-token values over every segment."""
    return values.new_zeros(segments).index_add(0, tokens.segment, values)


def segment_counts(tokens: AnswerTokens, segments: int) -> Tensor:
    """[S] number of labelled tokens of every segment, as floats."""
    return segment_sums(tokens, torch.ones_like(tokens.logps), segments)


def reference_logps(batch: Batch, actors: Actors) -> Tensor:
    """[N] log-probabilities of the labelled tokens under the reference: stored with the samples, or computed now."""
    if 'reference_logps' in batch.extra:
        return batch.extra['reference_logps']
    with torch.no_grad():
        return actors.reference.answer_logps(batch).logps
