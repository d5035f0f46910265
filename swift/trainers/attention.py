"""Attention of a flat row, one segment at a time: no mask, cost Σ L² instead of (Σ L)², on any device.

Registered with transformers under two names: SEGMENTS (scaled_dot_product_attention) and SEGMENTS_EAGER (the model's own
eager function, for soft-capping, attention sinks and whatever else only that knows). Outside of `segments(...)` both do
exactly what `sdpa` and `eager` do, so generation and padded batches are unchanged.

How the lengths travel: the mask builder of transformers asks us for a mask while `segments(...)` is open. We hand out a
tiny int64 vector, [kind, window, length, length, …], in place of a mask. It goes wherever the model sends its mask, also
into the recomputation of checkpointed layers in another thread, where no context variable would be seen.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, eager_mask, sdpa_mask
from transformers.modeling_utils import AttentionInterface

from swift.core.configs import decoder_config, for_decoder
from swift.core.errors import ModelError

SEGMENTS, SEGMENTS_EAGER = 'swift_segments', 'swift_segments_eager'
CAUSAL, BIDIRECTIONAL = 0, 1

_lengths: ContextVar[tuple[int, ...] | None] = ContextVar('segment_lengths', default=None)


class CannotRunFlat(ModelError):
    """The model uses attention in a way that segments of a flat row can't express."""


@contextmanager
def segments(lengths: Sequence[int]) -> Iterator[None]:
    """While open, masks made by transformers say where the segments of the flat row end."""
    token = _lengths.set(tuple(lengths))
    try:
        yield
    finally:
        _lengths.reset(token)


def use_segments(model: nn.Module) -> str | None:
    """Make a model's attention run per segment; the implementation it had, or None when it can't be changed.

    Flash attention is left as it is: it works on segments by itself. Towers that read images or sounds keep what they have.
    """
    native = getattr(decoder_config(model), '_attn_implementation', None)
    if native is None or native.startswith(('flash', 'kernels-community/flash')) or native in (SEGMENTS, SEGMENTS_EAGER):
        return native
    if native not in ('sdpa', 'eager') or not type(model)._can_set_attn_implementation():
        return None
    model.set_attn_implementation(for_decoder(model.config, SEGMENTS if native == 'sdpa' else SEGMENTS_EAGER))
    return native


# ---- the mask that is a list of lengths


def _mask(native: Callable, *, q_length: int, kv_length: int, **kwargs: Any) -> Tensor | None:
    """What transformers calls to build a mask: ours while `segments` is open, else the native one."""
    lengths = _lengths.get()
    if lengths is None:
        return native(q_length=q_length, kv_length=kv_length, **kwargs)
    if q_length != kv_length or q_length != sum(lengths):
        raise CannotRunFlat('this model attends to something else than its own tokens')
    if kwargs.get('use_vmap'):
        raise CannotRunFlat('this model overlays a pattern of its own on the attention mask')
    kind = BIDIRECTIONAL if 'allow_is_bidirectional_skip' in kwargs else CAUSAL
    size, window = kwargs.get('local_size'), 0
    if size and max(lengths) > size:
        if kind == BIDIRECTIONAL:
            raise CannotRunFlat('this model has a sliding window in both directions')
        if _is_chunked(kwargs['mask_function'], lengths, size):
            lengths = tuple(part for length in lengths for part in _split(length, size))
        else:
            window = size
    return torch.tensor([kind, window, *lengths])


def _is_chunked(mask_function: Callable, lengths: Sequence[int], size: int) -> bool:
    """Whether a local pattern is made of chunks (token `size` does not see token 1) rather than a sliding window."""
    start = 0
    for length in lengths:
        if length > size:
            break
        start += length
    zero, last, early = torch.tensor(0), torch.tensor(start + size), torch.tensor(start + 1)
    return not bool(mask_function(zero, zero, last, early))


def _split(length: int, size: int) -> list[int]:
    return [min(size, length - start) for start in range(0, length, size)]


# ---- attention


def _attention(
    native: Callable | None,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """[B, heads, T, D] each → ([B, T, heads, D], weights or None), as transformers' attention interface has it."""
    if attention_mask is None or attention_mask.dim() != 1:
        function = native or _eager_of(module)
        return function(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
    kind, window, *lengths = attention_mask.tolist()
    if query.shape[2] != sum(lengths) or key.shape[2] != sum(lengths):
        raise CannotRunFlat('an attention layer of this model sees other tokens than the row has')
    special = any(kwargs.get(name) is not None for name in ('softcap', 's_aux', 'position_bias'))
    if native is None or special:
        return _eager_segments(module, query, key, value, kind, window, lengths, dropout, scaling, kwargs), None
    return _sdpa_segments(query, key, value, kind, window, lengths, dropout, scaling), None


def _sdpa_segments(
    query: Tensor, key: Tensor, value: Tensor, kind: int, window: int, lengths: list[int], dropout: float, scaling: float | None
) -> Tensor:
    """scaled_dot_product_attention of each segment; neighbours of equal length share one call."""
    grouped = query.shape[1] != key.shape[1]
    out = []
    for start, count, length in _runs(lengths):
        q, k, v = (_cut(x, start, count, length) for x in (query, key, value))
        band = window if 0 < window < length else 0
        mask = _band(length, band, q.device) if band else None
        part = F.scaled_dot_product_attention(
            q, k, v, mask, dropout, is_causal=mask is None and kind == CAUSAL, scale=scaling, enable_gqa=grouped
        )
        out.append(part.transpose(1, 2).reshape(1, count * length, part.shape[1], part.shape[3]))
    return out[0] if len(out) == 1 else torch.cat(out, 1)


def _eager_segments(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, kind: int, window: int, lengths: list[int],
    dropout: float, scaling: float | None, kwargs: dict[str, Any],
) -> Tensor:
    """The model's own eager attention of each segment, with a mask as large as the segment."""
    eager, out = _eager_of(module), []
    if scaling is not None:
        kwargs = {**kwargs, 'scaling': scaling}
    for start, count, length in _runs(lengths):
        q, k, v = (_cut(x, start, count, length) for x in (query, key, value))
        mask = None
        if kind == CAUSAL:
            allowed = _band(length, window or length, q.device)
            mask = torch.zeros(1, 1, length, length, dtype=q.dtype, device=q.device)
            mask = mask.masked_fill_(~allowed, torch.finfo(q.dtype).min)
        part = eager(module, q, k, v, mask, dropout=dropout, **kwargs)[0]
        out.append(part.reshape(1, count * length, *part.shape[2:]))
    return out[0] if len(out) == 1 else torch.cat(out, 1)


@lru_cache(maxsize=256)
def _run_table(lengths: tuple[int, ...]) -> tuple[tuple[int, int, int], ...]:
    table, start = [], 0
    for length in lengths:
        if table and table[-1][2] == length:
            table[-1] = (table[-1][0], table[-1][1] + 1, length)
        else:
            table.append((start, 1, length))
        start += length
    return tuple(table)


def _runs(lengths: list[int]) -> tuple[tuple[int, int, int], ...]:
    """(start, count, length) of every run of neighbouring segments of equal length."""
    return _run_table(tuple(lengths))


def _cut(x: Tensor, start: int, count: int, length: int) -> Tensor:
    """[1, heads, T, D] → [count, heads, length, D] of the tokens of one run; a view wherever possible."""
    part = x[:, :, start : start + count * length]
    return part if count == 1 else part[0].unflatten(1, (count, length)).transpose(0, 1)


def _band(length: int, window: int, device: torch.device) -> Tensor:
    """[L, L] bool: token i sees the `window` tokens up to itself."""
    place = torch.arange(length, device=device)
    distance = place[:, None] - place[None]
    return (distance >= 0) & (distance < window)


def _eager_of(module: nn.Module) -> Callable:
    """The eager attention function that a modeling file defines beside its attention class."""
    for cls in type(module).__mro__:
        function = getattr(sys.modules.get(cls.__module__), 'eager_attention_forward', None)
        if function is not None:
            return function
    raise CannotRunFlat(f'{type(module).__name__} has no eager attention function beside it')


def _with_sdpa(module, query, key, value, attention_mask, **kwargs):
    return _attention(sdpa_attention_forward, module, query, key, value, attention_mask, **kwargs)


def _with_eager(module, query, key, value, attention_mask, **kwargs):
    return _attention(None, module, query, key, value, attention_mask, **kwargs)


def _sdpa_or_segments(*, q_length: int, kv_length: int, **kwargs):
    return _mask(sdpa_mask, q_length=q_length, kv_length=kv_length, **kwargs)


def _eager_or_segments(*, q_length: int, kv_length: int, **kwargs):
    return _mask(eager_mask, q_length=q_length, kv_length=kv_length, **kwargs)


AttentionInterface.register(SEGMENTS, _with_sdpa)
AttentionInterface.register(SEGMENTS_EAGER, _with_eager)
AttentionMaskInterface.register(SEGMENTS, _sdpa_or_segments)
AttentionMaskInterface.register(SEGMENTS_EAGER, _eager_or_segments)
