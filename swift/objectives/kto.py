"""Kahneman-Tversky optimisation (Ethayarajh et al. 2024, arXiv:2402.01306): learning from answers judged one by one.

With r = log π(y|x) - log π_ref(y|x), σ the sigmoid and z₀ an estimate of the policy's divergence from the reference:

    desirable     λ_D · (1 - σ(β (r - z₀)))
    undesirable   λ_U · (1 - σ(β (z₀ - r)))                      equations 7 and 8

    z₀ = max(0, mean of r over mismatched rows)                  a prompt with another row's answer, no gradient

z₀ is the mean over the whole optimizer step, so that it does not depend on how the step is cut into micro-batches and
processes; over a whole evaluation likewise. `apo_zero_unpaired` (D'Oosterlinck et al. 2024, arXiv:2408.06266) is the same
with z₀ = 0.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from swift.core.errors import RowError, SwiftError
from swift.core.media import media_of
from swift.core.types import IGNORE_INDEX, Actors, Batch, Conversation, Loss, Sample, Template
from swift.objectives import one_loss
from swift.objectives.base import Objective, units
from swift.objectives.group import in_groups
from swift.objectives.preference import answered, joined, missing, reference_logps, segment_counts, segment_sums

YES, NO = ('true', 'yes', 'desirable', 'good', 'chosen', '1'), ('false', 'no', 'undesirable', 'bad', 'rejected', '0')
"""Words of a label, in any case."""


class KTO(Objective):
    """`args`: loss_type, beta, desirable_weight, undesirable_weight, calculate_KL (RlhfArgs).

    A sample holds the row as its first segment. Where z₀ is estimated, the second one is the row's prompt with the answer of
    another row of the same chunk, and shows what the row's prompt shows; a row that is alone in its chunk, or shows something after
    its first answer, has none and takes no part in the estimate.
    """

    roles = ('policy', 'reference')
    columns = ('label',)
    several = True

    def __init__(self, args: Any):
        super().__init__(args)
        kind = one_loss(args, 'kto')
        if kind == 'apo_zero_unpaired' and args.calculate_KL:
            raise SwiftError('--calculate_KL true: the loss apo_zero_unpaired has no KL term;', 'drop it, or use --loss_type kto')
        self.kl = kind == 'kto' and args.calculate_KL is not False

    @property
    def fingerprint(self) -> str:
        """Whether samples carry a mismatched segment."""
        return f'kl={self.kl}'

    # ---- rows → samples → batches

    def encode_batch(self, conversations: Sequence[Conversation], template: Template) -> list[list[Sample] | RowError]:
        """One sample for every judged answer: of a labelled row one, of a preference row the chosen and every rejected answer."""
        results: list[list[Sample] | RowError] = []
        alone: set[int] = set()
        talks = [_judged(talk) for talk in conversations]
        for judged, found in zip(talks, in_groups(talks, template.encode_batch), strict=True):
            results.append(found if isinstance(found, RowError) else [sample for part in found for sample in part])
            if not isinstance(found, RowError):
                alone |= {id(sample) for talk, part in zip(judged, found, strict=True) if _shows_late(talk) for sample in part}
        return mismatched(results, template.max_length, alone) if self.kl else results

    def collate(self, samples: Sequence[Sample], padded: bool = False) -> Batch:
        """The rows; `extra['mismatched']` is a batch of the mismatched segments."""
        parts = [parted(sample) for sample in samples]
        batch = super().collate([part[0] for part in parts], padded)
        desirable = torch.tensor([bool(sample.label) for sample in samples])
        batch.extra['desirable'] = desirable
        batch.extra['rows'] = {'chosen': desirable.nonzero()[:, 0], 'rejected': (~desirable).nonzero()[:, 0]}
        if self.kl:  # never without a segment, so that every process forwards equally often
            others = [part[1] for part in parts if len(part) > 1] or [_unlabelled(parts[0][0])]
            batch.extra['mismatched'] = super().collate(others, padded)
        return batch

    def weight(self, batch: Batch) -> float:
        """Judged answers."""
        return units(batch)

    # ---- the step

    def prepare(self, batches: Sequence[Batch], actors: Actors, gather: Callable[[Tensor], Tensor]) -> None:
        """z₀ and the number of desirable and undesirable rows, over the whole step."""
        device = batches[0].input_ids.device
        real = [batch for batch in batches if not batch.extra.get('filler')]
        own = [sum(batch.extra['rows'][name].numel() for batch in real) for name in ('chosen', 'rejected')]
        counts = gather(torch.tensor([own], dtype=torch.float32, device=device)).sum(0).tolist()
        if self.kl:
            for batch in batches:
                batch.extra['divergence'] = self._divergence(batch.extra['mismatched'], actors)
            divergence = gather(torch.stack([batch.extra['divergence'] for batch in batches]).sum(0)[None]).sum(0)
        for batch in batches:
            batch.extra['counts'] = counts
            batch.extra['z0'] = z0(divergence) if self.kl else torch.zeros((), device=device)

    def _divergence(self, batch: Batch, actors: Actors) -> Tensor:
        """[2]: the sum of r over mismatched segments, and how many there are; a segment without labels is none."""
        tokens, ratio = log_ratios(batch, actors)
        found = segment_counts(tokens, len(batch.lengths)) > 0
        return torch.stack([ratio.sum(), found.sum().to(ratio)])

    def loss(self, batch: Batch, actors: Actors) -> Loss:
        """The sum of losses of a batch that `prepare` has seen."""
        tokens, ratio = log_ratios(batch, actors)
        each = self._each(ratio, batch.extra['desirable'], batch.extra['z0'])
        logps, rewards = segment_sums(tokens, tokens.logps, len(batch.lengths)), self.args.beta * ratio
        metrics = {}
        for name, rows in batch.extra['rows'].items():
            metrics[f'rewards/{name}'], metrics[f'logps/{name}'] = rewards[rows], logps[rows]
        if all(batch.extra['counts']):
            metrics['rewards/margins'] = _gap_shares(rewards, batch.extra['desirable'], *batch.extra['counts'])
        outputs = {'log_ratios': ratio, 'desirable': batch.extra['desirable']}
        if self.kl:
            metrics['kl'] = batch.extra['z0'].expand(len(ratio))
            outputs['divergence'] = batch.extra['divergence'][None]
        return Loss(each.sum(), metrics, outputs)

    def _each(self, ratio: Tensor, desirable: Tensor, zero: Tensor) -> Tensor:
        """[S] the loss of every row: 1 - σ(x) = σ(-x)."""
        loss = torch.sigmoid(self.args.beta * torch.where(desirable, zero - ratio, ratio - zero))
        return loss * torch.where(desirable, self.args.desirable_weight, self.args.undesirable_weight)

    def measure(self, outputs: dict[str, Tensor]) -> dict[str, float]:
        """The loss with z₀ over the whole evaluation, z₀ itself, the gap between mean rewards, and the share of pairs of a
        desirable and an undesirable row in which the desirable one has the higher reward."""
        if not outputs:
            return {}
        ratio, desirable, found = outputs['log_ratios'], outputs['desirable'], {}
        if self.kl:
            zero = z0(outputs['divergence'].sum(0))
            found = {'loss': self._each(ratio, desirable, zero).mean().item(), 'kl': zero.item()}
        if desirable.any() and not desirable.all():
            chosen, rejected = ratio[desirable], ratio[~desirable].sort().values
            found['rewards/margins'] = self.args.beta * (chosen.mean() - rejected.mean()).item()
            found['rewards/accuracies'] = torch.searchsorted(rejected, chosen).double().mean().item() / len(rejected)
        return found


def z0(divergence: Tensor) -> Tensor:
    """The mean of [sum, count], at least 0; without a mismatched segment 0."""
    return (divergence[0] / divergence[1].clamp(min=1)).clamp(min=0)


def log_ratios(batch: Batch, actors: Actors) -> tuple[Any, Tensor]:
    """(the policy's labelled tokens, [S] sum of log π - log π_ref over every segment). A token of weight w counts w times."""
    tokens = actors.policy.answer_logps(batch)
    gaps = tokens.logps - reference_logps(batch, actors)
    if batch.weights is not None:
        gaps = gaps * batch.weights.reshape(-1)[tokens.index]
    return tokens, segment_sums(tokens, gaps, len(batch.lengths))


def _gap_shares(rewards: Tensor, desirable: Tensor, chosen: float, rejected: float) -> Tensor:
    """[S] numbers whose mean over all rows of the step is the mean reward of its chosen rows minus that of its rejected ones."""
    total = chosen + rejected
    return rewards * torch.where(desirable, total / chosen, -total / rejected)


# ---- rows


def judged(talk: Conversation) -> list[Conversation]:
    """The conversation with its label as a bool; of a preference row one for every answer. Raises RowError."""
    if talk.rejected is None:
        if talk.label is None:
            raise missing(talk, 'label', 'label (true or false), or from chosen and rejected')
        return [replace(talk, label=truth(talk))]
    if talk.label is not None:
        raise RowError(
            'the row has a label and a rejected answer, so it is judged twice;', talk.source, 'keep one of the two columns'
        )
    rejected = [talk.rejected, *(talk.negatives or [])]
    return [
        replace(answered(talk, messages), label=desirable)
        for messages, desirable in [(talk.messages, True), *((messages, False) for messages in rejected)]
    ]


def _judged(talk: Conversation) -> list[Conversation] | RowError:
    try:
        return judged(talk)
    except RowError as error:
        return error


def _shows_late(talk: Conversation) -> bool:
    """Whether something is shown after the first answer has begun, so that the answers can't go to another prompt."""
    roles = [message['role'] for message in talk.messages]
    return 'assistant' in roles and bool(media_of(talk.messages[roles.index('assistant') :]))


def truth(talk: Conversation) -> bool:
    """The label as a bool. Raises RowError."""
    label = talk.label
    if isinstance(label, (bool, int, float)) and label in (0, 1):
        return bool(label)
    word = label.strip().lower() if isinstance(label, str) else None
    if word in YES or word in NO:
        return word in YES
    raise RowError(
        f'label {label!r} is neither desirable nor undesirable;',
        talk.source,
        f'accepted: true, false, 1, 0, or the words {", ".join((*YES[:-1], *NO[:-1]))}',
    )


# ---- mismatched rows


def mismatched(
    results: list[list[Sample] | RowError], limit: int | None, alone: Collection[int] = ()
) -> list[list[Sample] | RowError]:
    """Every sample with a second segment: its own prompt with the answer of another sample, at most `limit` tokens.

    Every answer is used once. Samples of the same prompt lie far apart in the ring of partners, so that a prompt meets an
    answer of its own only where there are not enough others. A single sample stays as it is, and so do those whose id() is in `alone`.
    """
    good = [sample for result in results if not isinstance(result, RowError) for sample in result if id(sample) not in alone]
    if len(good) < 2:
        return results
    starts = [_answer_start(sample) for sample in good]
    met: dict[tuple, int] = {}
    turn = []
    for sample, start in zip(good, starts, strict=True):
        prompt = (*sample.input_ids[:start], json.dumps(sample.media))
        turn.append(met.setdefault(prompt, 0))
        met[prompt] += 1
    ring = sorted(range(len(good)), key=turn.__getitem__)
    partner = dict(zip(ring, [*ring[1:], ring[0]], strict=True))
    paired = iter([
        joined([sample, _crossed(sample, starts[i], good[partner[i]], starts[partner[i]], limit)], sample)
        for i, sample in enumerate(good)
    ])  # fmt: skip
    return [
        result if isinstance(result, RowError) else [sample if id(sample) in alone else next(paired) for sample in result]
        for result in results
    ]


def _answer_start(sample: Sample) -> int:
    """Where the first trained token is; the first token of all is never trained."""
    return next(index for index, label in enumerate(sample.labels) if index and label != IGNORE_INDEX)


def _crossed(asked: Sample, asked_start: int, said: Sample, said_start: int, limit: int | None) -> Sample:
    """The prompt of one sample, with what it shows, and the answer of another."""
    ids = [*asked.input_ids[:asked_start], *said.input_ids[said_start:]]
    labels = [IGNORE_INDEX] * asked_start + list(said.labels[said_start:])
    weights = None if said.weights is None else [0.0] * asked_start + list(said.weights[said_start:])
    return Sample(ids[:limit], labels[:limit], weights and weights[:limit], media=asked.media)


def parted(sample: Sample) -> list[Sample]:
    """Every segment as a sample of its own, each with its share of the stored log-probabilities of the reference."""
    parts, start, used = [], 0, 0
    stored = (sample.extra or {}).get('reference_logps')
    for number, size in enumerate(sample.segment_lengths):
        span = slice(start, start + size)
        part = replace(
            sample, input_ids=sample.input_ids[span], labels=sample.labels[span], lengths=None,
            weights=None if sample.weights is None else sample.weights[span],
            media=sample.media[number : number + 1] if sample.media and sample.media[number] is not None else None,
        )  # fmt: skip
        if stored is not None:
            count = _labelled(part)
            part.extra = {**sample.extra, 'reference_logps': stored[used : used + count]}
            used += count
        parts.append(part)
        start += size
    return parts


def _labelled(sample: Sample) -> int:
    """Tokens that a batch counts as labelled: not the first one, none of weight 0."""
    trained = torch.as_tensor(sample.labels)[1:] != IGNORE_INDEX
    if sample.weights is not None:
        trained &= torch.as_tensor(sample.weights)[1:] != 0
    return int(trained.sum())


def _unlabelled(sample: Sample) -> Sample:
    """A stand-in of two tokens that show nothing (what ends the row), nothing trained."""
    ids, stored = list(sample.input_ids[-1:]) * 2, 'reference_logps' in (sample.extra or {})
    return Sample(ids, [IGNORE_INDEX] * len(ids), source=sample.source, extra={'reference_logps': []} if stored else None)
