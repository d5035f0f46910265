"""Rows answered together by continuous batching over slots; `static` has the other way."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, Protocol

import torch

from swift.infer_engine.cache import Plan, SlotCache, make_plan
from swift.infer_engine.prefixes import Prefixes
from swift.infer_engine.row import Row, advance, sampler_for

GRAIN = 64
"""Slot lengths are multiples of this."""
WORTH = 64
"""A prompt that shares so many more tokens with one that is being read waits a step for them."""


class Lane(Protocol):
    """What the worker asks of either kind."""

    def add(self, row: Row) -> None: ...

    @property
    def busy(self) -> bool: ...

    def step(self) -> None: ...

    def fail(self, error: BaseException) -> None: ...


@dataclass(slots=True)
class _Reading:
    """A prompt that is read in this step, for one row or several: its tokens, and how many are known, with their pieces."""

    rows: list[Row]
    tokens: list[int]
    known: int
    pieces: list[tuple[int, Any]] = field(default_factory=list)

    @property
    def new(self) -> list[int]:
        return self.tokens[self.known :] if self.known else self.tokens


class SlotLane:
    """Continuous batching: each step is one flat forward in which running rows decode and waiting prompts are read.

    At most `max_rows` run at once; a step reads new prompts up to `prompt_tokens` tokens (at least one prompt).
    `most_tokens`: slots times slot length that memory has room for (None: no limit); beyond it the latest rows go
    back to wait and are read again later, prompt and answer so far.
    `prefixes`: what is known of prompts, read and added to. `wear(runs)` is called before each forward with the adapters of its tokens, as
    (adapter, how many tokens) one after the other; None: nothing is to be put on.
    """

    def __init__(
        self,
        model: Any,
        max_rows: int,
        prompt_tokens: int,
        most_tokens: int | None = None,
        prefixes: Prefixes | None = None,
        wear: Callable[[list[tuple[str | None, int]]], None] | None = None,
    ):
        self._prefixes, self._wear = prefixes or Prefixes(0), wear
        self._model, self._max_rows, self._prompt_tokens, self._most_tokens = model, max_rows, prompt_tokens, most_tokens
        self._device = model.device
        self._dtype = model.dtype
        self._waiting: deque[Row] = deque()
        self._joining: list[_Reading] = []
        self._rows: list[Row] = []
        self._lengths: list[int] = []
        """Tokens of each row that are in its slot: all but the last one generated."""
        self._cache = SlotCache()
        self._room = (0, 0)
        self._sampler = None
        self._selects = 'logits_to_keep' in inspect.signature(_base(model).forward).parameters

    def add(self, row: Row) -> None:
        """Let a row wait for a slot."""
        self._waiting.append(row)

    @property
    def busy(self) -> bool:
        """Whether any row waits or runs."""
        return bool(self._rows or self._waiting)

    def fail(self, error: BaseException) -> None:
        """Give every row the error and forget them."""
        for row in [*self._rows, *(row for reading in self._joining for row in reading.rows), *self._waiting]:
            row.fail(error)
        self._joining, self._rows, self._lengths, self._cache, self._room = [], [], [], SlotCache(), (0, 0)
        self._waiting.clear()

    def step(self) -> None:
        """One forward and one token for every running row."""
        self._keep_within_budget()
        self._joining = self._admit()
        if not (self._rows or self._joining):
            return
        joining = self._joining
        self._make_room(
            len(self._rows) + sum(len(reading.rows) for reading in joining),
            max([n + 1 for n in self._lengths] + [len(reading.tokens) for reading in joining]),
        )
        if self._wear is not None:
            runs = [(row.adapter, 1) for row in self._rows]
            self._wear(runs + [(reading.rows[0].adapter, len(reading.new)) for reading in joining])
        tokens = chain((row.tokens[-1] for row in self._rows), *(reading.new for reading in joining))
        logits = self._forward(list(tokens), self._plan(joining))
        self._lengths = [n + 1 for n in self._lengths]
        if joining:
            logits = self._join(joining, logits)
        if self._sampler is None:
            self._sampler = sampler_for(self._rows, logits.shape[-1], logits.device)
        _, ended = advance(self._rows, logits, self._sampler)
        if ended:
            self._compact()

    def _plan(self, joining: list[_Reading]) -> Plan:
        news, starts = [len(reading.new) for reading in joining], [reading.known for reading in joining]
        fills = [
            (slot, place, layers)
            for slot, reading in enumerate(joining, start=len(self._rows))
            for place, layers in reading.pieces
        ]
        return make_plan(self._lengths, news, self._room, self._dtype, self._device, starts, fills)

    def _join(self, joining: list[_Reading], logits: torch.Tensor) -> torch.Tensor:
        """Prompts have been read into the slots behind the old ones; equal rows get copies. Logits of all rows."""
        old = len(self._rows)
        pick = list(range(old + len(joining)))
        for slot, reading in enumerate(joining, start=old):
            self._rows.append(reading.rows[0])
            self._lengths.append(len(reading.tokens))
            self._prefixes.reused += reading.known
            self._prefixes.add(reading.rows[0].adapter, reading.tokens, self._cache, slot)
        for slot, reading in enumerate(joining, start=old):
            for row in reading.rows[1:]:
                self._cache.copy(slot, len(self._rows), len(reading.tokens))
                self._rows.append(row)
                self._lengths.append(len(reading.tokens))
                pick.append(slot)
        if len(pick) > old + len(joining):
            logits = logits[torch.tensor(pick, device=logits.device)]
        self._joining, self._sampler = [], None
        return logits

    def _forward(self, tokens: list[int], plan: Plan) -> torch.Tensor:
        """Logits [rows, V] of the last token of every row."""
        ends = None
        if plan.prompts:
            ends, place = list(range(plan.decoding)), plan.decoding - 1
            for length in plan.prompts:
                place += length
                ends.append(place)
            ends = torch.tensor(ends, device=self._device)
        keep = {'logits_to_keep': ends} if ends is not None and self._selects else {}
        with plan:
            logits = self._model(
                input_ids=torch.tensor([tokens], device=self._device),
                position_ids=plan.positions.unsqueeze(0),
                past_key_values=self._cache,
                use_cache=True,
                **keep,
            ).logits[0]
        return logits[ends] if ends is not None and not self._selects else logits

    def _admit(self) -> list[_Reading]:
        """Waiting rows that start now, equal ones together."""
        readings: dict[Any, _Reading] = {}
        if not self._waiting:
            return []
        free, tokens = self._allowed() - len(self._rows), 0
        while self._waiting and free > 0:
            row = self._waiting[0]
            if row.cancelled:
                self._waiting.popleft().abort()
                continue
            text = _to_read(row)
            key = (row.adapter, tuple(text))
            if key in readings:
                readings[key].rows.append(self._waiting.popleft())
            else:
                reading = _Reading([row], text, *self._prefixes.find(row.adapter, text[:-1]))
                if readings and (tokens + len(reading.new) > self._prompt_tokens or self._better_later(reading, readings.values())):
                    break
                tokens += len(reading.new)
                readings[key] = reading
                self._waiting.popleft()
            free -= 1
        return list(readings.values())

    def _better_later(self, reading: _Reading, others: Iterable[_Reading]) -> bool:
        """Whether much of a prompt is being read by another one right now."""
        reach = reading.known + WORTH
        if not self._prefixes.budget or len(reading.tokens) <= reach:
            return False
        start, adapter = reading.tokens[:reach], reading.rows[0].adapter
        return any(other.rows[0].adapter == adapter and other.tokens[:reach] == start for other in others)

    def _allowed(self) -> int:
        """How many rows may run, given the memory and the longest row in sight."""
        if self._most_tokens is None:
            return self._max_rows
        soon = list(islice(self._waiting, self._max_rows))
        longest = max([n + 1 for n in self._lengths] + [len(_to_read(row)) for row in soon], default=1)
        return max(1, min(self._max_rows, self._most_tokens // self._grown(longest)))

    def _keep_within_budget(self) -> None:
        if self._most_tokens is None or not self._rows or max(self._lengths) + 1 <= self._room[1]:
            return
        allowed = self._allowed()
        while len(self._rows) > allowed:
            self._waiting.appendleft(self._rows.pop())
            self._lengths.pop()
            self._sampler = None

    def _grown(self, longest: int) -> int:
        """Slot length for a longest row of so many tokens. Growing copies everything, so it goes well beyond."""
        reach = max((_reach(row) for row in (*self._rows, *islice(self._waiting, self._max_rows))), default=longest)
        return _rounded(max(longest, min(reach, longest + max(longest // 4, 256))))

    def _make_room(self, rows: int, longest: int) -> None:
        slots, length = self._room
        if longest > length:
            length = self._grown(longest)
            slots = rows  # a good moment to give back what finished rows left
        if rows > slots:
            slots = max(rows, min(self._allowed(), rows + len(self._waiting)))
        self._room = (slots, length)

    def _compact(self) -> None:
        """Take finished rows out; the last rows move into their slots."""
        for index in reversed(range(len(self._rows))):
            if self._rows[index].done:
                row, length = self._rows[index], self._lengths[index]
                self._prefixes.add(row.adapter, _to_read(row)[:length], self._cache, index)
                last = len(self._rows) - 1
                if index < last:
                    self._cache.copy(last, index, self._lengths[last])
                    self._rows[index], self._lengths[index] = self._rows[last], self._lengths[last]
                self._rows.pop()
                self._lengths.pop()
        self._sampler = None
        if not self.busy:
            self._cache, self._room = SlotCache(), (0, 0)


def _base(model: Any) -> Any:
    """The model under an adapter wrapper."""
    return model.get_base_model() if hasattr(model, 'get_base_model') else model


def _to_read(row: Row) -> list[int]:
    return row.prompt.input_ids + row.tokens if row.tokens else row.prompt.input_ids


def _reach(row: Row) -> int:
    """Most tokens that a row can come to have."""
    return len(row.prompt.input_ids) + row.settings.max_tokens


def _rounded(length: int) -> int:
    return -(-length // GRAIN) * GRAIN
