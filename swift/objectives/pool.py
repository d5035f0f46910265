"""Hidden states of the tokens of a text → one vector."""

from __future__ import annotations

import torch
from torch import Tensor

from swift.core.types import Batch


def pool(hidden: Tensor, batch: Batch, how: str) -> Tensor:
    """[S, H]: the state of the last token (`last`) or the first (`cls`) of every segment, or the mean over its tokens (`mean`).

    `hidden` is [1, T, H] for a flat batch, [S, L, H] for a padded one.
    """
    lengths = batch.lengths.to(hidden.device)
    number = torch.arange(len(lengths), device=hidden.device)
    states = hidden.reshape(-1, hidden.shape[-1])
    starts = lengths.cumsum(0) - lengths if batch.flat else number * hidden.shape[1]
    if how == 'cls':
        return states.index_select(0, starts)
    if how == 'last':
        return states.index_select(0, starts + lengths - 1)
    if not batch.flat:
        inside = torch.arange(hidden.shape[1], device=hidden.device)[None] < lengths[:, None]
        sums = (hidden.float() * inside[..., None]).sum(1)
    else:
        segment = torch.repeat_interleave(number, lengths, output_size=states.shape[0])
        sums = states.new_zeros(len(lengths), states.shape[1], dtype=torch.float32).index_add(0, segment, states.float())
    return sums / lengths[:, None]
