"""Static batches through transformers' `generate`: models with other states than keys and values, media, beams.

`generate` runs the model; tokens are still chosen by our own sampler, row by row, so settings, seeds, stops,
log-probabilities and streaming are the same as with continuous batching. Only beam search chooses by itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, StoppingCriteria

from swift.core.errors import SwiftError
from swift.core.types import Media, Prompt
from swift.infer_engine.media import Shelf, as_inputs, kinds_of
from swift.infer_engine.probe import batches_like_alone
from swift.infer_engine.row import Row, advance, sampler_for


class _Choose(LogitsProcessor):
    """Leaves one token possible in each row: the one that our sampler drew."""

    def __init__(self, rows: list[Row], pad: int):
        self._rows, self._pad = rows, pad
        self._live: list[int] = []
        self._sampler = None

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        for row in self._rows:
            if row.cancelled and not row.done:
                row.abort()
        live = [index for index, row in enumerate(self._rows) if not row.done]
        chosen = [self._pad] * len(self._rows)
        if live:
            rows = [self._rows[index] for index in live]
            if self._sampler is None or live != self._live:
                self._sampler, self._live = sampler_for(rows, scores.shape[-1], scores.device), live
            tokens, _ = advance(rows, scores[torch.tensor(live, device=scores.device)], self._sampler)
            for index, token in zip(live, tokens, strict=True):
                chosen[index] = token
        only = torch.full_like(scores, float('-inf'))
        return only.scatter_(1, torch.tensor(chosen, device=scores.device).unsqueeze(1), 0)


class _Done(StoppingCriteria):
    def __init__(self, rows: list[Row]):
        self._rows = rows

    def __call__(self, input_ids: torch.LongTensor, scores: Any, **_: Any) -> torch.BoolTensor:
        return torch.tensor([row.done or row.cancelled for row in self._rows], device=input_ids.device)


class StaticLane:
    """Batches of waiting rows, each run to its end.

    `pads`: whether rows of different length may share a batch. `read`: what a prompt shows, as tensors; rows that show something
    share a batch of at most `media_tokens` tokens, if `joins` says (or the first batch of their kind shows) that the model then
    gives each of them its own logits.
    """

    def __init__(
        self, model: Any, max_rows: int, pads: bool, read: Callable[[Prompt], Media], media_tokens: int, joins: dict[Any, bool]
    ):
        self._model, self._max_rows, self._pads = model, max_rows, pads
        self._media_tokens, self._joins = media_tokens, joins
        self._shelf = Shelf(read)
        self._waiting: deque[Row] = deque()
        self._rows: list[Row] = []

    def add(self, row: Row) -> None:
        """Let a row wait for the next batch."""
        self._waiting.append(row)

    @property
    def busy(self) -> bool:
        """Whether any row waits."""
        return bool(self._waiting)

    def fail(self, error: BaseException) -> None:
        """Give every row the error and forget them."""
        for row in [*self._rows, *self._waiting]:
            row.fail(error)
        self._rows = []
        self._waiting.clear()
        self._shelf.keep(())

    def step(self) -> None:
        """One batch, to its end."""
        self._rows = self._next()
        if self._rows:
            (self._beams if self._rows[0].settings.num_beams > 1 else self._sample)(self._rows)
        self._rows = []
        self._shelf.keep(row.prompt for row in self._waiting)

    def _next(self) -> list[Row]:
        rows: list[Row] = []
        longest, passed = 0, deque()
        while self._waiting and len(rows) < self._max_rows:
            row = self._waiting.popleft()
            longest = max(longest, len(row.prompt.input_ids))
            if row.cancelled:
                row.abort()
            elif rows and row.prompt.media and (len(rows) + 1) * longest > self._media_tokens:
                passed.append(row)
                break
            elif rows and not self._together(rows[0], row):
                passed.append(row)
            elif self._readable(row):
                rows.append(row)
        self._waiting.extendleft(reversed(passed))
        return self._tried(rows)

    def _together(self, first: Row, row: Row) -> bool:
        if first.settings.num_beams > 1:  # the choices of one request come from one search
            return row.prompt is first.prompt and row.settings is first.settings
        if row.settings.num_beams > 1 or (kinds := kinds_of(row.prompt)) != kinds_of(first.prompt):
            return False
        same = len(row.prompt.input_ids) == len(first.prompt.input_ids)
        return self._joins.get((kinds, same), True) if kinds else self._pads or same

    def _readable(self, row: Row) -> bool:
        """Read what a row shows. A row of which that can't be done fails alone."""
        try:
            self._shelf.of(row.prompt)
            return True
        except SwiftError as error:
            row.fail(error)
            return False

    def _tried(self, rows: list[Row]) -> list[Row]:
        """The rows, if they can share a batch with what they show; else the first one, and the others wait again."""
        kinds = kinds_of(rows[0].prompt) if len(rows) > 1 else None
        if not kinds or rows[0].settings.num_beams > 1:
            return rows
        by_length = sorted(rows, key=lambda row: len(row.prompt.input_ids))
        pair = [by_length[0], by_length[-1]]
        key = (kinds, len(pair[0].prompt.input_ids) == len(pair[1].prompt.input_ids))
        if key not in self._joins:
            self._joins[key] = batches_like_alone(self._model, self._inputs(pair), [self._inputs([row]) for row in pair])
        if self._joins[key]:
            return rows
        self._waiting.extendleft(reversed(rows[1:]))
        return rows[:1]

    def _inputs(self, rows: list[Row]) -> dict[str, Any]:
        shown = [self._shelf.of(row.prompt) for row in rows]
        return as_inputs(self._model, [row.prompt.input_ids for row in rows], shown, _pad_id(self._model))

    def _sample(self, rows: list[Row]) -> None:
        config = _plain_config(self._model, max(row.settings.max_tokens for row in rows))
        self._model.generate(
            **self._inputs(rows),
            generation_config=config,
            logits_processor=[_Choose(rows, config.pad_token_id)],
            stopping_criteria=[_Done(rows)],
        )
        for row in rows:
            row.abort()

    def _beams(self, rows: list[Row]) -> None:
        settings = rows[0].settings
        config = _plain_config(self._model, settings.max_tokens)
        config.update(
            num_beams=settings.num_beams,
            num_return_sequences=len(rows),
            length_penalty=settings.length_penalty,
            repetition_penalty=settings.repetition_penalty,
            eos_token_id=sorted(settings.stop_ids) or config.eos_token_id,
        )
        if settings.temperature > 0:
            config.update(
                do_sample=True,
                temperature=settings.temperature,
                top_k=settings.top_k,
                top_p=settings.top_p,
                min_p=settings.min_p or None,
            )
        devices = [self._model.device] if self._model.device.type == 'cuda' else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(settings.seed)
            inputs = self._inputs(rows[:1])
            found = self._model.generate(**inputs, generation_config=config)
        for row, tokens in zip(rows, found[:, inputs['input_ids'].shape[1] :].tolist(), strict=True):
            for token in tokens:
                if row.push(token):
                    break
            row.abort()


def _pad_id(model: Any) -> int:
    pad = model.generation_config.pad_token_id
    return 0 if pad is None else pad


def _plain_config(model: Any, max_tokens: int) -> GenerationConfig:
    """A config that leaves the logits alone. What is None here would be filled from the model's own defaults."""
    return GenerationConfig(
        max_new_tokens=max_tokens,
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        min_length=0,
        pad_token_id=_pad_id(model),
        # no token: rows end when our own rules say so
        eos_token_id=model.config.get_text_config().vocab_size + 1,
    )
