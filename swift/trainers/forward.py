"""A model as an objective sees it: log-probabilities where there is a label, and nothing else computed.

The wrapped module (DistributedDataParallel, FSDP, compiled, PEFT) is always called through its own forward, so that its hooks
run. Logits are kept small by a hook on the output embedding: it hands on the hidden states of the predictors only, and the
model then does to those logits whatever it does to all (scaling, soft-capping). Where even these logits are too many, the
hook keeps the hidden states and the head is applied to chunks of them, made again in the backward pass.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from swift.core.configs import decoder_config
from swift.core.errors import ModelError
from swift.core.heads import BARE, LANGUAGE, SEQUENCE, head_kind
from swift.core.types import AnswerTokens, Batch
from swift.objectives.logps import Answers, answer_tokens, answers, chunked_statistics, statistics
from swift.trainers.attention import SEGMENTS, SEGMENTS_EAGER, segments
from swift.trainers.media import media_inputs, mixes_kinds, own_positions
from swift.trainers.scoring import Pooled, first_position, pad_id_of, pooled_index, scoring_head, with_pad
from swift.tuners.base import Tuner

CPU_LIMIT = 1 << 25
"""Logits (elements) held at once on CPU; on a device 1/64 of its memory in bytes."""

CHUNK = 1 << 22
"""Logits (elements) of one chunk beyond that limit, on CPU; eight times as many on a device."""


@dataclass(frozen=True)
class Plan:
    """How a model is run, found out once by `selfcheck.plan` and the same on every process."""

    flat: bool = True
    """Segments of a micro-batch lie in one row; otherwise one padded row each."""
    selects: bool = True
    """The hook on the output embedding works; otherwise all logits are made and then selected."""
    tail: Callable[[Tensor], Tensor] | None = None
    """What the model does to the logits of its head (scaling, soft-capping). None: unknown, so no chunks."""
    reason: str | None = None
    """Why the model can't run flat. None: it can."""
    alone: bool = False
    """Padding changes what the model computes: the rows of a padded batch go through it one at a time, each without padding."""


def base_of(module: nn.Module) -> nn.Module:
    """The transformers model inside DDP, torch.compile, PEFT, and wrappers of a user's own tuner."""
    while True:
        inner = getattr(module, 'module', None) if type(module).__name__ in _WRAPPERS else None
        inner = module.model if isinstance(module, Tuner) else inner
        inner = inner if inner is not None else getattr(module, '_orig_mod', None)
        if inner is None:
            break
        module = inner
    return module.get_base_model() if hasattr(module, 'get_base_model') else module


_WRAPPERS = ('DistributedDataParallel', 'DataParallel', 'FullyShardedDataParallel', 'DeepSpeedEngine')


class ModelActor:
    """An Actor (see core.types) around a causal language model, a classifier, or a model without a head.

    `module`: the model as the training loop has it, wrapped or not. `around` opens a context for each forward (adapters off
    for a reference, autocast). `limit`: logits held at once; None: by the device. `noise`: alpha of NEFTune
    (arXiv:2310.05914), uniform noise of ±alpha / √(L d) on the embeddings of a segment of L tokens, in training mode.
    """

    def __init__(
        self,
        module: nn.Module,
        plan: Plan | None = None,
        around: Callable[[], AbstractContextManager] = nullcontext,
        limit: int | None = None,
        noise: float | None = None,
    ):
        self.module = module
        self.plan = plan or Plan()
        self.around = around
        self.base = base_of(module)
        self.kind = head_kind(self.base)
        self.head = self.base.get_output_embeddings() if hasattr(self.base, 'get_output_embeddings') else None
        self.limit = limit
        self.noise = noise
        names = inspect.signature(self.base.forward).parameters
        self.names = frozenset(names)
        self.open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in names.values())
        self.random_head = self.head is not None and any(
            isinstance(part, nn.Dropout) and part.p > 0 for part in self.head.modules()
        )

    # ---- the four doors

    def answer_logps(self, batch: Batch, want: Sequence[str] = ()) -> AnswerTokens:
        """Log-probabilities of the N labelled tokens; `want` names optional fields of AnswerTokens."""
        found = answers(batch)
        size = found.index.numel() * self._vocabulary()
        whole = size <= self._limit(batch.input_ids.device) and 'hidden' not in want
        if self.plan.tail is None or not self.plan.selects or whole:
            with self.around():
                logits = self._logits(batch, found.index - 1)
            tokens = answer_tokens(found, statistics(logits, found.targets, want), want)
            return replace(tokens, hidden=self._once_more(batch, found.index - 1)) if 'hidden' in want else tokens
        return self._chunked(batch, found, want)

    def logits(self, batch: Batch, index: Tensor | None = None) -> Tensor:
        """[N, V] logits at the flat positions `index`; None: at the predictor of every labelled token."""
        with self.around():
            return self._logits(batch, answers(batch).index - 1 if index is None else index)

    def hidden(self, batch: Batch) -> Tensor:
        """Last hidden states, as a language model's head gets them: [1, T, H] flat or [S, L, H] padded."""
        if self._apart(batch) and batch.flat:
            return torch.cat([self.hidden(segment) for segment in _cut_apart(batch)], dim=1)
        if self._apart(batch):
            rows = [self.hidden(_row(batch, number))[0] for number in range(len(batch.lengths))]
            return nn.utils.rnn.pad_sequence(rows, batch_first=True)
        with self.around():
            kept: list[Tensor] = []
            layers = self.base.base_model
            if self.kind == BARE or self.head is None and layers is self.base:
                return hidden_of(self._forward(batch))
            if self.kind != LANGUAGE or self.head is None:
                with layers.register_forward_hook(lambda module, args, output: kept.append(hidden_of(output))):
                    self._forward(batch)
                return kept[0]

            def keep(module: nn.Module, args: tuple) -> tuple:
                kept.append(args[0])
                return (args[0][:1, :1], *args[1:])

            self._forward(batch, keep)
        return kept[0]

    def scores(self, batch: Batch) -> Tensor:
        """[S, C] outputs of a sequence classifier, one row a segment."""
        if self.kind != SEQUENCE:
            raise ModelError(f'{type(self.base).__name__} gives no scores;', 'load the model with --task_type seq_cls')
        if batch.flat and len(batch.lengths) > 1 and not self.plan.selects:
            return torch.cat([self.scores(segment) for segment in _cut_apart(batch)])
        if self._apart(batch):
            return torch.cat([self.scores(part) for part in self._parts(batch)])
        pad = pad_id_of(self.base)
        with self.around():
            if not self.plan.selects:
                return logits_of(self._forward(replace(batch, input_ids=with_pad(batch, pad))))
            with Pooled(scoring_head(self.base), batch, pooled_index(batch, pad)) as pooled:
                self._forward(batch)
        return pooled.scores

    def inputs(self, batch: Batch, labels: bool = False) -> dict[str, Any]:
        """Keyword arguments of the model's forward for `batch`."""
        inputs: dict[str, Any] = {'input_ids': batch.input_ids, **(batch.inputs or {})}
        if batch.media:
            inputs.update(media_inputs(batch, self.base.dtype))
        if batch.attention_mask is not None:
            inputs['attention_mask'] = batch.attention_mask
        if 'position_ids' in self.names and self._packed(batch):
            own = own_positions(self.base, batch)
            inputs['position_ids'] = batch.position_ids + first_position(self.base.config) if own is None else own
        if 'use_cache' in self.names:
            inputs['use_cache'] = False
        if labels:
            inputs['labels'] = batch.labels
        implementation = getattr(decoder_config(self.base), '_attn_implementation', None) or ''
        if batch.flat and self.open_ended and 'flash' in implementation:
            inputs.update(boundaries(batch.lengths, batch.input_ids.device))
        return inputs

    # ---- inside

    def _forward(self, batch: Batch, hook: Callable | None = None) -> Any:
        """The model's output for `batch`; `hook` sees (and may change) what its head gets."""
        inputs = self.inputs(batch)
        implementation = getattr(decoder_config(self.base), '_attn_implementation', None)
        by_segment = batch.flat and implementation in (SEGMENTS, SEGMENTS_EAGER)
        handle = self.head.register_forward_pre_hook(hook) if hook else nullcontext()
        noisy = self._noise(batch) if self.noise and self.base.training else nullcontext()
        with handle, noisy, segments(batch.lengths.tolist()) if by_segment else nullcontext():
            return self.module(**inputs)

    def _packed(self, batch: Batch) -> bool:
        """Whether the model has to be told positions; a classifier's single segment stands where it expects it."""
        return batch.flat and (self.kind == LANGUAGE or len(batch.lengths) > 1)

    def _noise(self, batch: Batch) -> AbstractContextManager:
        """A hook on the input embedding that adds noise for as long as it is open."""
        lengths = batch.lengths.to(batch.input_ids.device)
        of_token = torch.repeat_interleave(lengths, lengths)[None, :, None] if batch.flat else lengths[:, None, None]

        def add(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
            size = self.noise / (of_token * output.shape[-1]).float().sqrt().to(output.dtype)
            return output + torch.empty_like(output).uniform_(-1, 1) * size

        return self.base.get_input_embeddings().register_forward_hook(add)

    def _apart(self, batch: Batch) -> bool:
        """Whether the segments of this batch have to go through the model one at a time."""
        if batch.flat:
            return len(batch.lengths) > 1 and mixes_kinds(self.base, batch)
        return self.plan.alone or mixes_kinds(self.base, batch)

    @staticmethod
    def _parts(batch: Batch) -> list[Batch]:
        return _cut_apart(batch) if batch.flat else [_row(batch, number) for number in range(len(batch.lengths))]

    def _each_part(self, compute: Callable[[Batch, Tensor], Tensor], batch: Batch, index: Tensor) -> Tensor:
        """`compute(part, its share of index)` for every segment, each as a flat batch of its own, put together.

        `index` ascends. Segments without a share are passed over, but one always runs, so that every process takes part.
        """
        width = batch.input_ids.shape[-1]
        ends = batch.lengths.cumsum(0).tolist() if batch.flat else [width * (number + 1) for number in range(len(batch.lengths))]
        shares = [index[(index >= start) & (index < end)] - start for start, end in zip([0, *ends], ends, strict=False)]
        asked = [number for number, share in enumerate(shares) if share.numel()] or [0]
        parts = self._parts(batch)
        return torch.cat([compute(parts[number], shares[number]) for number in asked])

    def _logits(self, batch: Batch, index: Tensor) -> Tensor:
        if self._apart(batch):
            return self._each_part(self._logits, batch, index)
        if not self.plan.selects or self.head is None:
            logits = logits_of(self._forward(batch))
            return logits.reshape(-1, logits.shape[-1]).index_select(0, index)

        def select(module: nn.Module, args: tuple) -> tuple:
            return (args[0].reshape(-1, args[0].shape[-1]).index_select(0, index)[None], *args[1:])

        return logits_of(self._forward(batch, select))[0]

    def _predictors(self, batch: Batch, index: Tensor) -> Tensor:
        """[N, H] hidden states at the flat positions `index`, as the head gets them; the head itself sees one token only."""
        if self._apart(batch):
            return self._each_part(self._predictors, batch, index)
        kept: list[Tensor] = []

        def keep(module: nn.Module, args: tuple) -> tuple:
            hidden = args[0].reshape(-1, args[0].shape[-1])
            kept.append(hidden.index_select(0, index))
            return (hidden[None, :1], *args[1:])

        self._forward(batch, keep)
        return kept[0]

    def _chunked(self, batch: Batch, found: Answers, want: Sequence[str]) -> AnswerTokens:
        device = batch.input_ids.device
        with self.around():
            hidden = self._predictors(batch, found.index - 1)
            chunk = CHUNK if device.type == 'cpu' else CHUNK * 8
            rows = max(1, min(chunk, self._limit(device)) // self._vocabulary())
            row = chunked_statistics(self._apply_head, hidden, found.targets, want, rows, self.random_head)
        return replace(answer_tokens(found, row, want), hidden=hidden if 'hidden' in want else None)

    @torch.no_grad()
    def _once_more(self, batch: Batch, index: Tensor) -> Tensor:
        """[N, H] hidden states at the flat positions `index`, by a forward of their own."""
        hidden = self.hidden(batch)
        return hidden.reshape(-1, hidden.shape[-1]).index_select(0, index)

    def _apply_head(self, hidden: Tensor) -> Tensor:
        return self.plan.tail(self.head(hidden[None])[0])

    def _vocabulary(self) -> int:
        weight = getattr(self.head, 'weight', None)
        return getattr(self.head, 'out_features', None) or (weight.shape[0] if weight is not None else 1)

    def _limit(self, device: torch.device) -> int:
        if self.limit is not None:
            return self.limit
        if device.type != 'cuda':
            return CPU_LIMIT
        return torch.cuda.get_device_properties(device).total_memory // 64


def _row(batch: Batch, number: int) -> Batch:
    """One row of a padded batch, without its padding, as a flat batch."""
    length = int(batch.lengths[number])
    part = (slice(number, number + 1), slice(0, length))
    return Batch(
        batch.input_ids[part],
        batch.labels[part],
        batch.position_ids[part],
        batch.lengths[number : number + 1],
        inputs={name: value[part] for name, value in (batch.inputs or {}).items()},
        media=batch.media[number : number + 1] if batch.media else None,
    )


def _cut_apart(batch: Batch) -> list[Batch]:
    """The segments of a flat batch, each as a flat batch of its own."""
    sizes = batch.lengths.tolist()
    parts = zip(*(value.split(sizes, -1) for value in (batch.input_ids, batch.labels, batch.position_ids)), strict=True)
    inputs = {name: value.split(sizes, -1) for name, value in (batch.inputs or {}).items()}
    return [
        Batch(
            *part,
            batch.lengths[number : number + 1],
            inputs={name: pieces[number] for name, pieces in inputs.items()},
            media=batch.media[number : number + 1] if batch.media else None,
        )
        for number, part in enumerate(parts)
    ]


def hidden_of(output: Any) -> Tensor:
    """The last hidden states in the output of a model without a head."""
    return output.last_hidden_state if hasattr(output, 'last_hidden_state') else output[0]


def logits_of(output: Any) -> Tensor:
    """The logits of a model's output, whatever its form."""
    return output.logits if hasattr(output, 'logits') else output[0]


def boundaries(lengths: Tensor, device: torch.device) -> dict[str, Any]:
    """Where segments of a flat row end, under the names that flash attention and linear attention read."""
    ends = torch.zeros(len(lengths) + 1, dtype=torch.int32)
    ends[1:] = lengths.cumsum(0)
    ends, longest = ends.to(device, non_blocking=True), int(lengths.max())
    return {'cu_seq_lens_q': ends, 'cu_seq_lens_k': ends, 'max_length_q': longest, 'max_length_k': longest}
