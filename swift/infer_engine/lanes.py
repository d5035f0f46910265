"""Rows of one adapter, answered together: continuous batching over slots, or static batches through `generate`."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Sequence
from itertools import chain, islice
from typing import Any, Protocol

import torch

from swift.infer_engine.cache import SlotCache, make_plan
from swift.infer_engine.row import Row, advance, sampler_for

GRAIN = 64
"""Slot lengths are multiples of this."""


class Lane(Protocol):
    """What the worker asks of either kind."""

    def add(self, row: Row) -> None: ...

    @property
    def busy(self) -> bool: ...

    def step(self) -> None: ...

    def fail(self, error: BaseException) -> None: ...


class SlotLane:
    """Continuous batching: each step is one flat forward in which running rows decode and waiting prompts are read.

    At most `max_rows` run at once; a step reads new prompts up to `prompt_tokens` tokens (at least one prompt).
    `most_tokens`: slots times slot length that memory has room for (None: no limit); beyond it the latest rows go
    back to wait and are read again later, prompt and answer so far.
    """

    def __init__(self, model: Any, max_rows: int, prompt_tokens: int, most_tokens: int | None = None):
        self._model, self._max_rows, self._prompt_tokens, self._most_tokens = model, max_rows, prompt_tokens, most_tokens
        self._device = model.device
        self._dtype = model.dtype
        self._waiting: deque[Row] = deque()
        self._joining: list[Row] = []
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
        for row in [*self._rows, *self._joining, *self._waiting]:
            row.fail(error)
        self._joining, self._rows, self._lengths, self._cache, self._room = [], [], [], SlotCache(), (0, 0)
        self._waiting.clear()

    def step(self) -> None:
        """One forward and one token for every running row."""
        self._keep_within_budget()
        self._joining = self._admit()
        if not (self._rows or self._joining):
            return
        leaders, followers = _distinct(self._joining)
        prompts = [_to_read(row) for row in leaders]
        self._make_room(
            len(self._rows) + len(self._joining), max([n + 1 for n in self._lengths] + [len(p) for p in prompts])
        )
        plan = make_plan(self._lengths, [len(p) for p in prompts], self._room, self._dtype, self._device)
        logits = self._forward([*(row.tokens[-1] for row in self._rows), *chain.from_iterable(prompts)], plan)
        self._lengths = [n + 1 for n in self._lengths]
        if self._joining:
            logits = self._join(leaders, followers, logits)
        if self._sampler is None:
            self._sampler = sampler_for(self._rows, logits.shape[-1], logits.device)
        _, ended = advance(self._rows, logits, self._sampler)
        if ended:
            self._compact()

    def _join(self, leaders: list[Row], followers: list[tuple[Row, int]], logits: torch.Tensor) -> torch.Tensor:
        """Leaders have been read into the slots behind the old ones; followers get copies. Logits of all rows."""
        old = len(self._rows)
        self._rows += leaders
        self._lengths += [len(_to_read(row)) for row in leaders]
        for row, leader in followers:
            self._cache.copy(old + leader, len(self._rows), self._lengths[old + leader])
            self._rows.append(row)
            self._lengths.append(self._lengths[old + leader])
        if followers:
            pick = [*range(old + len(leaders)), *(old + leader for _, leader in followers)]
            logits = logits[torch.tensor(pick, device=logits.device)]
        self._joining, self._sampler = [], None
        return logits

    def _forward(self, tokens: list[int], plan: Any) -> torch.Tensor:
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

    def _admit(self) -> list[Row]:
        """Waiting rows that start now."""
        new, tokens = [], 0
        if not self._waiting:
            return new
        free = self._allowed() - len(self._rows)
        while self._waiting and len(new) < free:
            row = self._waiting[0]
            if row.cancelled:
                self._waiting.popleft().abort()
                continue
            length = len(row.prompt.input_ids) + len(row.tokens)
            if new and tokens + length > self._prompt_tokens:
                break
            tokens += length
            new.append(self._waiting.popleft())
        return new

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


def _distinct(rows: Sequence[Row]) -> tuple[list[Row], list[tuple[Row, int]]]:
    """Rows with different tokens to read, and the others, each with the index of the one that reads the same."""
    leaders: list[Row] = []
    followers: list[tuple[Row, int]] = []
    known: dict[tuple[int, ...], int] = {}
    for row in rows:
        key = tuple(_to_read(row))
        if key in known:
            followers.append((row, known[key]))
        else:
            known[key] = len(leaders)
            leaders.append(row)
    return leaders, followers
