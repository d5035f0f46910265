"""Samples → one Batch: flat (segments end to end, no padding) or padded (one right-padded row a segment)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from swift.core.types import IGNORE_INDEX, Batch, Media, Sample
from swift.objectives.logps import locate


def flat(samples: Sequence[Sample]) -> Batch:
    """One row [1, T] of all segments; position ids restart and no label stands at the start of a segment."""
    lengths = [length for sample in samples for length in sample.segment_lengths]
    ids, labels, weights = _joined(samples, lengths)
    sizes = torch.tensor(lengths, dtype=torch.int64)
    starts = sizes.cumsum(0) - sizes
    positions = torch.arange(ids.shape[0]) - torch.repeat_interleave(starts, sizes)
    return Batch(
        input_ids=ids[None],
        labels=labels[None],
        position_ids=positions[None],
        lengths=sizes,
        weights=None if weights is None else weights[None],
        extra={'answers': locate(labels, sizes, flat=True)},
        **_facts(samples),
    )


def padded(samples: Sequence[Sample], pad_id: int = 0) -> Batch:
    """One right-padded row [S, L] a segment, with an attention mask; padded places carry no label."""
    lengths = [length for sample in samples for length in sample.segment_lengths]
    ids, labels, weights = _joined(samples, lengths)
    sizes = torch.tensor(lengths, dtype=torch.int64)
    rows, longest = len(lengths), max(lengths)
    mask = torch.arange(longest)[None] < sizes[:, None]

    def spread(values: Tensor, fill: float) -> Tensor:
        return torch.full((rows, longest), fill, dtype=values.dtype).masked_scatter_(mask, values)

    grid = spread(labels, IGNORE_INDEX)
    return Batch(
        input_ids=spread(ids, pad_id),
        labels=grid,
        position_ids=torch.arange(longest).expand(rows, -1).contiguous(),
        lengths=sizes,
        weights=None if weights is None else spread(weights, 0.0),
        attention_mask=mask.to(torch.int64),
        extra={'answers': locate(grid, sizes, flat=False)},
        **_facts(samples),
    )


def _joined(samples: Sequence[Sample], lengths: list[int]) -> tuple[Tensor, Tensor, Tensor | None]:
    """Ids, labels and weights of all samples end to end. A token of weight 0 is not a label."""
    ids = torch.cat([_tensor(sample.input_ids, torch.int64) for sample in samples])
    labels = torch.cat([_tensor(sample.labels, torch.int64) for sample in samples])
    weights = None
    if any(sample.weights is not None for sample in samples):
        weights = torch.cat([_weights(sample) for sample in samples])
        labels = labels.masked_fill(weights == 0, IGNORE_INDEX)
    starts = torch.tensor([0, *accumulate(lengths[:-1])])
    labels[starts] = IGNORE_INDEX
    return ids, labels, weights


def _tensor(values: Sequence, dtype: torch.dtype) -> Tensor:
    return torch.as_tensor(values).to(dtype)


def _weights(sample: Sample) -> Tensor:
    if sample.weights is None:
        return torch.ones(len(sample), dtype=torch.float32)
    return _tensor(sample.weights, torch.float32)


def _facts(samples: Sequence[Sample]) -> dict:
    """The fields of a Batch that say which sample a segment belongs to."""
    counts = [len(sample.segment_lengths) for sample in samples]
    channels = None
    if any(sample.channel is not None for sample in samples):
        channels = [sample.channel for sample, count in zip(samples, counts, strict=True) for _ in range(count)]
    return {
        'sample_lengths': counts if any(count != 1 for count in counts) else None,
        'channels': channels,
        'sources': [sample.source for sample in samples],
        'media': _media(samples, counts),
    }


def _media(samples: Sequence[Sample], counts: list[int]) -> list[Media | None] | None:
    """What every segment shows; None where no sample shows anything."""
    if not any(sample.media for sample in samples):
        return None
    return [shown for sample, count in zip(samples, counts, strict=True) for shown in sample.media or [None] * count]
