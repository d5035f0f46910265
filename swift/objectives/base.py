"""What a training method is: two facts and four verbs. It sees tensors and actors, never the machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from swift.core.errors import RowError
from swift.core.types import IGNORE_INDEX, Actors, Batch, Conversation, Loss, Sample, Template
from swift.objectives import collate


class Objective:
    """Base of every method; its verbs as they are serve any method that trains on labelled tokens."""

    roles: ClassVar[tuple[str, ...]] = ('policy',)
    """The models this method forwards (fields of `Actors`)."""
    columns: ClassVar[tuple[str, ...]] = ()
    """Attributes of a Conversation that a row must carry besides its messages."""
    rows: ClassVar[bool] = False
    """Whether `loss` needs one padded row a segment even where the model could run flat."""

    several: ClassVar[bool] = False
    """Whether a sample holds several segments (a pair, a group), so that it may be longer than max_length."""
    module: nn.Module | None = None
    """Parameters of the method's own that are trained and saved beside the model's. None: it has none."""
    module_learning_rate: float | None = None
    """Learning rate of `module`, scheduled like the model's. None: the model's."""

    def __init__(self, args: Any):
        """`args`: the method's own argument group."""
        self.args = args

    @property
    def fingerprint(self) -> str:
        """The settings that decide what `encode_batch` makes of a row, besides the template; stored tokens are reused only for the same."""
        return ''

    def encode_batch(
        self, conversations: Sequence[Conversation], template: Template
    ) -> list[list[Sample] | RowError]:
        """Training samples of every conversation, or the RowError that says why there are none."""
        return template.encode_batch(conversations)

    def collate(self, samples: Sequence[Sample], padded: bool = False) -> Batch:
        """One micro-batch: flat, or padded for models that can't run flat."""
        batch = collate.padded(samples) if padded or self.rows else collate.flat(samples)
        if any('reference_logps' in (sample.extra or {}) for sample in samples):
            batch.extra['reference_logps'] = reference_logps(samples)
        return batch

    def prepare(self, batches: Sequence[Batch], actors: Actors, gather: Callable[[Tensor], Tensor]) -> None:
        """Look at all micro-batches of an optimizer step before the first backward; put what `loss` needs into their `extra`.

        For what a micro-batch can't know alone: a mean over the step, the embeddings of all its texts. Called without
        gradients, on every process. `gather` joins a tensor [n, …] of every process along its first dimension, in rank
        order; every process calls it equally often. An evaluation calls this for every batch on its own.
        """

    def measure(self, outputs: dict[str, Tensor]) -> dict[str, float]:
        """Metrics of an evaluation that are no means over items, from the outputs (`Loss.outputs`) of all its batches."""
        return {}

    def weight(self, batch: Batch) -> float | Tensor:
        """What the sum of losses is divided by, before it is added up over micro-batches and ranks: labelled tokens."""
        found = batch.extra.get('answers')
        return float(found['index'].numel()) if found else (batch.labels != -100).sum()

    def loss(self, batch: Batch, actors: Actors) -> Loss:
        """The SUM of this micro-batch's losses, and its metrics."""
        raise NotImplementedError


def units(batch: Batch) -> float:
    """Number of samples in a batch; a filler (a batch that only keeps processes in step) has none."""
    return 0.0 if batch.extra.get('filler') else float(len(batch.sample_lengths or batch.lengths))


def reference_logps(samples: Sequence[Sample]) -> Tensor:
    """[N] log-probabilities of the reference at all labelled tokens, as they were stored with the samples in advance."""
    stored = [(sample.extra or {}).get('reference_logps', []) for sample in samples if _labelled(sample)]
    return torch.cat([torch.as_tensor(values, dtype=torch.float32) for values in stored] or [torch.zeros(0)])


def _labelled(sample: Sample) -> bool:
    return bool((torch.as_tensor(sample.labels) != IGNORE_INDEX).any())
