"""What preference objectives share: pairs of answers, log-probabilities of answers, the reference, rewards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from swift.core.errors import RowError
from swift.core.types import Actors, AnswerTokens, Batch, Conversation, Message, Sample, Template
from swift.objectives.base import Objective, units


@dataclass(frozen=True)
class Pairs:
    """Values [P] of the chosen and of the rejected answers of P pairs."""

    chosen: Tensor
    rejected: Tensor

    @staticmethod
    def of(values: Tensor) -> Pairs:
        """From values [2 P] of segments: chosen and rejected take turns."""
        return Pairs(values[0::2], values[1::2])

    def __sub__(self, other: Pairs) -> Pairs:
        return Pairs(self.chosen - other.chosen, self.rejected - other.rejected)

    @property
    def gap(self) -> Tensor:
        """[P] chosen minus rejected."""
        return self.chosen - self.rejected


class Preference(Objective):
    """Base of methods that learn from pairs: a sample holds two segments, the chosen and the rejected conversation."""

    columns = ('rejected',)
    several = True

    def encode_batch(self, conversations: Sequence[Conversation], template: Template) -> list[list[Sample] | RowError]:
        """One sample for every rejected answer of a row."""
        return encode_pairs(conversations, template)

    def weight(self, batch: Batch) -> float:
        """Pairs."""
        return units(batch)


def encode_pairs(conversations: Sequence[Conversation], template: Template) -> list[list[Sample] | RowError]:
    """Samples of two segments for every conversation, one for every rejected answer; a row without one becomes its RowError."""
    jobs: list[Conversation] = []
    places: list[tuple[int, ...] | RowError] = []
    for talk in conversations:
        if talk.rejected is None:
            places.append(missing(talk, 'a rejected answer', 'rejected, rejected_response or rejected_messages'))
            continue
        answers = [talk.messages, talk.rejected, *(talk.negatives or [])]
        places.append(tuple(range(len(jobs), len(jobs) + len(answers))))
        jobs += [answered(talk, messages) for messages in answers]
    encoded = template.encode_batch(jobs)
    results: list[list[Sample] | RowError] = []
    for talk, place in zip(conversations, places, strict=True):
        if isinstance(place, RowError):
            results.append(place)
            continue
        found = [encoded[index] for index in place]
        wrong = next((item for item in found if isinstance(item, RowError)), None)
        if wrong is not None:
            results.append(wrong)
            continue
        chosen, *rejected = (item[0] for item in found)
        extra = {'margin': float(talk.columns['margin'])} if talk.columns.get('margin') is not None else None
        results.append([joined([chosen, other], talk, extra) for other in rejected])
    return results


def answered(talk: Conversation, messages: list[Message]) -> Conversation:
    """The conversation with other messages."""
    return replace(talk, messages=messages, rejected=None, negatives=None)


def joined(parts: Sequence[Sample], talk: Conversation, extra: dict | None = None) -> Sample:
    """One sample with every part as a segment."""
    weights = None
    if any(part.weights is not None for part in parts):
        weights = [w for part in parts for w in (part.weights if part.weights is not None else [1.0] * len(part))]
    return Sample(
        [token for part in parts for token in part.input_ids],
        [label for part in parts for label in part.labels],
        weights,
        lengths=[len(part) for part in parts],
        label=talk.label,
        channel=talk.channel,
        source=talk.source,
        extra=extra,
    )


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


def reference_logps(batch: Batch, actors: Actors, *, at: str = 'reference_logps') -> Tensor:
    """[N] log-probabilities of the labelled tokens under the reference: stored with the samples, or computed now."""
    if at in batch.extra:
        return batch.extra[at]
    with torch.no_grad():
        return actors.reference.answer_logps(batch).logps
