"""One answer in the making: its tokens, its own random numbers, what ends it, whom it tells."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from swift.core.errors import SwiftError
from swift.core.types import Completion, Prompt
from swift.infer_engine.sampling import Sampler, Seen, Settings
from swift.infer_engine.text import TextStream, decode

if TYPE_CHECKING:
    from swift.infer_engine.guided import Guide


@dataclass(slots=True)
class Chunk:
    """News of one streamed answer. `completion` is None until the last piece of this choice."""

    choice: int
    text: str
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[dict] | None = None
    completion: Completion | None = None


class Row:
    """One answer to one prompt. Made by the engine, advanced by a lane; `future` gets the Completion.

    `on_chunk` hears every piece of text, or the error that ends it; None: nobody listens before the end. `guide` keeps it in a form.
    """

    def __init__(
        self,
        prompt: Prompt,
        settings: Settings,
        tokenizer: Any,
        *,
        choice: int = 0,
        adapter: str | None = None,
        on_chunk: Callable[[Chunk | BaseException], None] | None = None,
        guide: Guide | None = None,
    ):
        self.prompt, self.settings, self.choice, self.adapter = prompt, settings, choice, adapter
        self.tokens: list[int] = []
        self.future: Future[Completion] = Future()
        self.future.set_running_or_notify_cancel()  # whoever waits may give up waiting; the row itself ends in its lane
        self.cancelled = False
        self.random = random.Random(f'{settings.seed}/{choice}').random
        self.seen: Seen | None = None
        self.guide = guide
        self._tokenizer, self._on_chunk = tokenizer, on_chunk
        self._logprobs: list[dict] | None = [] if settings.logprobs else None
        self._text = TextStream(tokenizer, settings.stops) if settings.stops or on_chunk else None
        self._told = 0

    @property
    def done(self) -> bool:
        """Whether the answer is complete (or was given up)."""
        return self.future.done()

    def ready(self, vocab: int, device: torch.device) -> None:
        """Count the tokens there are, if the settings need it."""
        if self.settings.penalised and self.seen is None:
            self.seen = Seen(self.prompt.input_ids, self.tokens, vocab, device)

    def push(self, token: int, logprob: tuple[float, list[tuple[int, float]]] | None = None) -> bool:
        """Take the next token; True when the answer is complete."""
        settings = self.settings
        self.tokens.append(token)
        if self._logprobs is not None and logprob is not None:
            self._logprobs.append(self._entry(token, *logprob))
        if self.cancelled:
            return self._finish('abort')
        if token in settings.stop_ids:
            return self._finish('stop')
        if self.seen is not None:
            self.seen.add(token)
        if self._text is not None and self._text.feed(token):
            return self._finish('stop')
        if self.guide is not None and self._guided(token):
            return True
        if len(self.tokens) >= settings.max_tokens:
            return self._finish('length')
        if self._on_chunk is not None and (piece := self._text.take()):
            self._tell(piece)
        return False

    def _guided(self, token: int) -> bool:
        """Tell the guide; True when the answer is complete, or has come to a place where nothing can follow."""
        try:
            return self.guide.take(token) and self._finish('stop')
        except SwiftError as error:
            self.fail(error)
            return True

    def _entry(self, token: int, logprob: float, top: list[tuple[int, float]]) -> dict:
        name = self._tokenizer.decode
        return {
            'token_id': token,
            'token': name([token]),
            'logprob': logprob,
            'top': [(i, name([i]), value) for i, value in top[: self.settings.top_logprobs]],
        }

    def _tell(self, piece: str, completion: Completion | None = None) -> None:
        new, self._told = slice(self._told, None), len(self.tokens)
        logprobs = None if self._logprobs is None else self._logprobs[new]
        self._on_chunk(Chunk(self.choice, piece, self.tokens[new], logprobs, completion))

    def _finish(self, reason: str) -> bool:
        answer = self.tokens[:-1] if self.tokens and self.tokens[-1] in self.settings.stop_ids else self.tokens
        rest = ''
        if self._text is None:
            text = decode(self._tokenizer, answer)
        else:
            rest = self._text.finish()
            text = self._text.text
            reason = 'stop' if self._text.stopped else reason
        completion = Completion(self.tokens, text, reason, self._logprobs, len(self.prompt.input_ids))
        if self._on_chunk is not None:
            self._tell(rest, completion)
        self.future.set_result(completion)
        return True

    def abort(self) -> None:
        """End the answer with what there is."""
        if not self.done:
            self._finish('abort')

    def fail(self, error: BaseException) -> None:
        """Give up; whoever waits gets the error."""
        if not self.done:
            self.future.set_exception(error)
            if self._on_chunk is not None:
                self._on_chunk(error)


def sampler_for(rows: Sequence[Row], vocab: int, device: torch.device) -> Sampler:
    """The sampler of these rows in this order."""
    for row in rows:
        row.ready(vocab, device)
    return Sampler([r.settings for r in rows], [r.seen for r in rows], [r.random for r in rows], device, [r.guide for r in rows])


def advance(rows: Sequence[Row], logits: torch.Tensor, sampler: Sampler) -> tuple[list[int], bool]:
    """One token for every row from `logits` [n, V]; the tokens, and whether some row is complete now."""
    chosen = sampler.draw(logits)
    logprobs = sampler.logprobs(logits, chosen)
    ended = False
    for index, (row, token) in enumerate(zip(rows, chosen, strict=True)):
        ended |= row.push(token, logprobs.get(index))
    return chosen, ended
