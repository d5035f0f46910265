"""Scores of a sequence classifier: one row of numbers a segment, whether segments lie in one row or in padded ones.

A decoder's classifier applies its head to every token and then takes one row. Here the head gets only the hidden states of the
tokens that count: a hook hands them over, and the scores are caught as they leave the head, since what the model then picks from
them assumes padded rows. An encoder's classifier has a pooler of its own; its output is taken as it is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from swift.core.errors import ModelError
from swift.core.heads import PAD_SHIFTED, SEQUENCE, head_kind, head_names
from swift.core.types import Batch


def scoring_head(base: nn.Module) -> nn.Module | None:
    """The module that gives a sequence classifier's scores; None for other models."""
    names = head_names(base) if head_kind(base) == SEQUENCE else []
    return base.get_submodule(names[-1]) if names else None


def pooled_index(batch: Batch, pad_id: int | None) -> Tensor:
    """[S] flat position of the token that stands for each segment: its last one that is no padding token.

    transformers' classifiers look for it by the id, so a text that ends in padding tokens must be read the same way here.
    """
    ids, lengths = batch.input_ids, batch.lengths.to(batch.input_ids.device)
    number = torch.arange(len(lengths), device=ids.device)
    starts = lengths.cumsum(0) - lengths if batch.flat else number * ids.shape[-1]
    if pad_id is None:
        return starts + lengths - 1
    place = torch.arange(ids.numel(), device=ids.device)
    if batch.flat:
        segment = torch.repeat_interleave(number, lengths, output_size=ids.numel())
    else:
        segment = place // ids.shape[-1]
    inside = place < (starts + lengths)[segment]
    found = torch.where(inside & (ids.reshape(-1) != pad_id), place, starts[segment])
    return starts.scatter_reduce(0, segment, found, 'amax')


def with_pad(batch: Batch, pad_id: int | None) -> Tensor:
    """The ids of a padded batch with the model's own padding token in the places that are none."""
    if batch.flat or pad_id is None:
        return batch.input_ids
    return batch.input_ids.masked_fill(batch.attention_mask == 0, pad_id)


def pad_id_of(base: Any) -> int | None:
    """The padding token that the model's own pooling looks for."""
    config = base.config.get_text_config() if hasattr(base.config, 'get_text_config') else base.config
    pad = getattr(config, 'pad_token_id', None)
    return pad if isinstance(pad, int) else None


def first_position(config: Any) -> int:
    """The position of a text's first token: 0, but behind the padding token in encoders that count from it."""
    return (getattr(config, 'pad_token_id', None) or 0) + 1 if config.model_type in PAD_SHIFTED else 0


class Pooled:
    """While open, the scoring head gets only the hidden states at `index` [S], and `scores` [S, C] holds what it gave."""

    def __init__(self, head: nn.Module, batch: Batch, index: Tensor):
        self.head, self.shape, self.index = head, batch.input_ids.shape, index
        self.scores: Tensor | None = None
        self._handles: list[Any] = []

    def __enter__(self) -> Pooled:
        self._handles = [self.head.register_forward_pre_hook(self._select), self.head.register_forward_hook(self._keep)]
        return self

    def __exit__(self, *_: Any) -> None:
        for handle in self._handles:
            handle.remove()

    def _select(self, module: nn.Module, args: tuple) -> tuple:
        hidden = args[0]
        if hidden.dim() != 3 or hidden.shape[:2] != self.shape:
            raise ModelError('this classifier pools before its head;', 'its own forward gives the scores')
        return (hidden.reshape(-1, hidden.shape[-1]).index_select(0, self.index)[None], *args[1:])

    def _keep(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        self.scores = output[0]
        return output[:, :1].expand(*self.shape, output.shape[-1])  # something of the shape that the model goes on with
