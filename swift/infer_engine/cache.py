"""Keys and values of many answers of different lengths, and the attention that reads them.

Rows lie in slots 0 … n-1 without holes, each filled from its left, so a decoding step reads one view of the
storage and copies nothing. A forward is flat: one row [1, T] of tokens, each belonging to a slot, so that answers
go on while new prompts are read in the same forward.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface
from transformers.cache_utils import Cache

NAME = 'swift_slots'
"""Name of the attention in transformers' interface. No mask function carries it, so models build no mask."""

_plan = threading.local()


@dataclass(slots=True)
class Plan:
    """Where the tokens of one forward belong: first one token for each decoding slot, then new prompts.

    `slots`, `positions`: [T] int64. `decoding`: how many of the T tokens continue slots 0 … decoding-1.
    `prompts`: how many tokens of each prompt behind them are read, `starts`: how many of it are known already.
    `longest`: keys of the longest decoding row, this token included. `bias`: [decoding, 1, 1, longest], 0 or -inf.
    `room`: slots and length that the storage must have. `fills`: keys and values that are known: slot, place of the
    first token, layer → keys and values [heads, tokens, size].
    """

    slots: Tensor
    positions: Tensor
    decoding: int
    prompts: list[int]
    starts: list[int]
    longest: int
    bias: Tensor | None
    room: tuple[int, int]
    fills: list[tuple[int, int, dict[int, tuple[Tensor, Tensor]]]]
    storage: tuple[Tensor, Tensor] | None = None
    """Keys and values of all slots in the layer that is being computed."""
    seen: dict[tuple[int, int, int | None], Tensor] = field(default_factory=dict)
    """Masks of prompts of which a part is known."""
    windows: dict[int, Tensor] = field(default_factory=dict)
    saw_window: bool = False
    """Whether a layer asked for a sliding window (for the self-check)."""

    def __enter__(self) -> Plan:
        _plan.now = self
        return self

    def __exit__(self, *_: object) -> None:
        _plan.now = None

    def hidden(self, window: int | None) -> Tensor:
        """The decode bias, with keys further back than `window` hidden too."""
        if not window or window >= self.longest:
            return self.bias
        if window not in self.windows:
            keys = torch.arange(self.longest, device=self.positions.device)
            far = keys <= (self.positions[: self.decoding] - window).unsqueeze(1)
            self.windows[window] = self.bias.masked_fill(far[:, None, None, :], float('-inf'))
        return self.windows[window]

    def visible(self, count: int, total: int, window: int | None) -> Tensor:
        """[count, total] bool: which of `total` keys the last `count` tokens of a prompt see."""
        key = (count, total, window)
        if key not in self.seen:
            self.seen[key] = ~_hidden(count, total, window, self.positions.device)
        return self.seen[key]


def make_plan(
    lengths: list[int],
    prompts: list[int],
    room: tuple[int, int],
    dtype: torch.dtype,
    device: torch.device,
    starts: list[int] | None = None,
    fills: list | None = None,
) -> Plan:
    """Slots that hold `lengths` tokens get one more each; so many tokens of prompts go into the slots behind.

    `starts`: how many tokens of each prompt are known (default 0); `fills` (see Plan) brings them.
    """
    decoding = len(lengths)
    owners = list(range(decoding))
    positions = list(lengths)
    starts = starts or [0] * len(prompts)
    for slot, (start, length) in enumerate(zip(starts, prompts, strict=True), start=decoding):
        owners += [slot] * length
        positions += range(start, start + length)
    place = torch.tensor(positions, device=device)
    longest, bias = 0, None
    if decoding:
        longest = max(lengths) + 1
        late = torch.arange(longest, device=device) > place[:decoding].unsqueeze(1)
        bias = torch.zeros(late.shape, dtype=dtype, device=device).masked_fill_(late, float('-inf'))[:, None, None, :]
    return Plan(torch.tensor(owners, device=device), place, decoding, prompts, starts, longest, bias, room, fills or [])


class SlotCache(Cache):
    """Storage [slots, heads, length, size] for keys and for values of every layer."""

    def __init__(self):
        super().__init__(layers=[])
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: object, **__: object):
        """Store the tokens of the current plan; what is returned goes to `slot_attention`."""
        plan: Plan = _plan.now
        keys = self._room(self.keys, layer_idx, key_states, plan)
        values = self._room(self.values, layer_idx, value_states, plan)
        for slot, start, layers in plan.fills:
            known_keys, known_values = layers[layer_idx]
            end = start + known_keys.shape[1]
            keys[slot, :, start:end], values[slot, :, start:end] = known_keys, known_values
        keys[plan.slots, :, plan.positions] = key_states[0].transpose(0, 1)
        values[plan.slots, :, plan.positions] = value_states[0].transpose(0, 1)
        plan.storage = keys, values
        return key_states, value_states

    @staticmethod
    def _room(store: dict[int, Tensor], layer: int, like: Tensor, plan: Plan) -> Tensor:
        old = store.get(layer)
        slots, length = plan.room
        if old is not None and old.shape[0] == slots and old.shape[2] == length:
            return old
        # zeros, not empty: a hidden key has weight 0, and 0 times garbage may be NaN
        new = torch.zeros(slots, like.shape[1], length, like.shape[3], dtype=like.dtype, device=like.device)
        if old is not None:
            n, m = min(slots, old.shape[0]), min(length, old.shape[2])
            new[:n, :, :m] = old[:n, :, :m]
        store[layer] = new
        return new

    def copy(self, source: int, target: int, length: int) -> None:
        """Slot `target` becomes slot `source`, whose first `length` tokens are filled."""
        for store in (self.keys, self.values):
            for tensor in store.values():
                tensor[target, :, :length] = tensor[source, :, :length]

    def read(self, slot: int, start: int, end: int) -> dict[int, tuple[Tensor, Tensor]]:
        """Copies of the keys and values of some tokens of a slot, layer by layer."""
        return {
            layer: (keys[slot, :, start:end].clone(), self.values[layer][slot, :, start:end].clone())
            for layer, keys in self.keys.items()
        }

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Nothing in front of the flat row: positions come from the plan."""
        return 0

    def token_bytes(self) -> int:
        """Bytes that one token of one slot takes in all layers; 0 before the first forward."""
        stores = [*self.keys.values(), *self.values.values()]
        return sum(t.shape[1] * t.shape[3] * t.element_size() for t in stores)


def slot_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Attention of the current plan. `query` [1, Hq, T, D], key and value [1, Hk, T, D]; returns [1, T, Hq, D].

    `s_aux` [Hq]: a learnt logit for each head that takes part in the softmax and is thrown away (attention sinks).
    """
    plan: Plan = _plan.now
    plan.saw_window |= bool(sliding_window)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    parts = []
    n = plan.decoding
    if n:
        stored = (t[:n, :, : plan.longest] for t in plan.storage)
        parts.append(_decode(query[:, :, :n], *stored, plan.hidden(sliding_window), scaling, softcap, s_aux))
    if plan.prompts:
        attend = _segment if softcap is None and s_aux is None else _plain
        pieces = (t[:, :, n:].split(plan.prompts, dim=2) for t in (query, key, value))
        for slot, (start, q, k, v) in enumerate(zip(plan.starts, *pieces, strict=True), start=n):
            if start:
                k, v = (t[slot : slot + 1, :, : start + q.shape[2]] for t in plan.storage)
            parts.append(attend(q, k, v, scaling, sliding_window, softcap, s_aux).transpose(1, 2))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1), None


def _decode(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scaling: float, softcap: float | None, sinks: Tensor | None
) -> Tensor:
    heads, count = query.shape[1], query.shape[2]
    kv_heads = key.shape[1]
    # the queries that share a key head become rows of one small matrix product: no repeated keys
    query = query[0].transpose(0, 1).reshape(count, kv_heads, heads // kv_heads, -1)
    scores = torch.matmul(query, key.transpose(2, 3)).mul_(scaling)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores + bias
    probs = _softmax(scores, None if sinks is None else sinks.view(1, kv_heads, -1, 1))
    return torch.matmul(probs.to(value.dtype), value).reshape(1, count, heads, -1)


def _softmax(scores: Tensor, sinks: Tensor | None) -> Tensor:
    if sinks is None:
        return torch.softmax(scores, -1, dtype=torch.float32)
    joined = torch.cat([scores, sinks.to(scores.dtype).expand(*scores.shape[:-1], 1)], dim=-1)
    return torch.softmax(joined, -1, dtype=torch.float32)[..., :-1]


def _hidden(count: int, total: int, window: int | None, device: torch.device) -> Tensor:
    distance = torch.arange(total - count, total, device=device).unsqueeze(1) - torch.arange(total, device=device)
    return (distance < 0) | (distance >= window) if window else distance < 0


def _segment(query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None, *_: None) -> Tensor:
    count, length = query.shape[2], key.shape[2]
    mask = None
    if window and window < length or 1 < count < length:
        mask = _plan.now.visible(count, length, window)
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        is_causal=mask is None and count > 1,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def _plain(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float,
    window: int | None,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores.masked_fill(~_plan.now.visible(query.shape[2], key.shape[2], window), float('-inf'))
    probs = _softmax(scores, None if sinks is None else sinks.view(1, -1, 1, 1))
    return torch.matmul(probs.to(value.dtype), value)


AttentionInterface.register(NAME, slot_attention)
