"""What a training method is: two facts and four verbs. It sees tensors and actors, never the machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from swift.core.errors import RowError, SwiftError
from swift.core.types import Actors, Batch, Conversation, Loss, Sample, Template
from swift.objectives import collate


class Objective:
    """Base of every method; its verbs as they are serve any method that trains on labelled tokens."""

    roles: ClassVar[tuple[str, ...]] = ('policy',)
    """The models this method forwards (fields of `Actors`)."""
    columns: ClassVar[tuple[str, ...]] = ()
    """Attributes of a Conversation that a row must carry besides its messages."""
    rows: ClassVar[bool] = False
    """Whether `loss` needs one padded row a segment even where the model could run flat."""

    def __init__(self, args: Any):
        """`args`: the method's own argument group."""
        self.args = args

    def encode_batch(
        self, conversations: Sequence[Conversation], template: Template
    ) -> list[list[Sample] | RowError]:
        """Training samples of every conversation, or the RowError that says why there are none."""
        return template.encode_batch(conversations)

    def collate(self, samples: Sequence[Sample], padded: bool = False) -> Batch:
        """One micro-batch: flat, or padded for models that can't run flat."""
        if any(sample.media for sample in samples):
            raise SwiftError('samples with media need a collator of their own;', 'train on text rows')
        return collate.padded(samples) if padded or self.rows else collate.flat(samples)

    def weight(self, batch: Batch) -> float | Tensor:
        """What the sum of losses is divided by, before it is added up over micro-batches and ranks: labelled tokens."""
        found = batch.extra.get('answers')
        return float(found['index'].numel()) if found else (batch.labels != -100).sum()

    def loss(self, batch: Batch, actors: Actors) -> Loss:
        """The SUM of this micro-batch's losses, and its metrics."""
        raise NotImplementedError
