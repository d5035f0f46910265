"""Conversations of many requests → numbers, batched: what comes in while the model runs is its next batch."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from swift.core.errors import SwiftError
from swift.core.types import Conversation

if TYPE_CHECKING:
    from swift.infer_engine.scoring import ScoringEngine

TOGETHER = 512
"""Most conversations that are handed to the engine at once."""


class ScoreQueue:
    """A ScoringEngine for many askers. `task`: embedding, reranker, seq_cls, rm, …; `tokenizer` cuts texts, for usage."""

    def __init__(self, engine: ScoringEngine, task: str, tokenizer: Any):
        self.engine, self.task, self.tokenizer = engine, task, tokenizer
        self._waiting: deque[tuple[Sequence[Conversation], Future]] = deque()
        self._state = threading.Lock()
        self._alive = False

    async def ask(self, talks: Sequence[Conversation]) -> list[dict[str, Any] | SwiftError]:
        """The result of every conversation, or why it has none."""
        future: Future = Future()
        with self._state:
            self._waiting.append((talks, future))
            if not self._alive:
                self._alive = True
                threading.Thread(target=self._run, name='swift-scoring', daemon=True).start()
        return await asyncio.wrap_future(future)

    def _run(self) -> None:
        while some := self._next():
            try:
                results = iter(self.engine.infer([talk for talks, _ in some for talk in talks]))
                answers = [[next(results) for _ in talks] for talks, _ in some]
            except BaseException as error:
                for _, future in some:
                    future.set_exception(error)
                continue
            for (_, future), answer in zip(some, answers, strict=True):
                future.set_result(answer)

    def _next(self) -> list[tuple[Sequence[Conversation], Future]]:
        """Requests that run together; none: the thread ends."""
        with self._state:
            some: list[tuple[Sequence[Conversation], Future]] = []
            count = 0
            while self._waiting and (not some or count + len(self._waiting[0][0]) <= TOGETHER):
                item = self._waiting.popleft()
                if item[1].set_running_or_notify_cancel():  # else its client is gone
                    some.append(item)
                    count += len(item[0])
            self._alive = bool(some)
            return some
