"""Many callers, one text each: `await batcher.predict(text)` in any number of tasks, answered in batches."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from swift.core.errors import SwiftError
from swift.core.types import Prompt
from swift.infer_engine.base import InferEngine
from swift.infer_engine.protocol import RequestConfig


class DynamicBatcher:
    """Answers texts that come at the same time together, and gives every caller its own answer, without the prompt.

    `model`: an engine, or a loaded model with its `tokenizer`. A text is continued as it is; with `chat=True` it is a user's message.
    A batch starts when `max_batch_size` texts wait, or `max_wait_time` seconds after the first of them.
    `request_config`: how answers are drawn (the seed's 512 tokens at temperature 0.7 where nothing is said).
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        max_batch_size: int = 8,
        max_wait_time: float = 0.01,
        *,
        request_config: RequestConfig | None = None,
        chat: bool = False,
    ):
        if max_batch_size < 1:
            raise SwiftError(f'max_batch_size={max_batch_size} must be at least 1;', 'it is the number of texts in a batch')
        self.max_batch_size, self.max_wait_time = max_batch_size, max_wait_time
        self._engine = model if isinstance(model, InferEngine) else _engine_of(model, tokenizer, max_batch_size)
        self._config = (request_config or RequestConfig(max_tokens=512, temperature=0.7)).check()
        self._chat = chat
        self.running = False
        self._waiting: dict[asyncio.AbstractEventLoop, deque[tuple[str, asyncio.Future]]] = {}
        """Texts that no batch has yet, by the event loop of their callers."""

    def start(self) -> None:
        """Take texts from now on."""
        self.running = True

    def stop(self) -> None:
        """Take no more texts; those that were taken are answered. The model is then as it was before."""
        self.running = False
        self._engine.generate([], [], [])  # returns when the engine has put down the model

    async def predict(self, text: str) -> str:
        """The answer to this text. Raises SwiftError when the batcher is not started, or the text can't be answered."""
        if not self.running:
            raise SwiftError('the batcher is not running;', 'call start() first')
        loop = asyncio.get_running_loop()
        waiting, answer = self._waiting.setdefault(loop, deque()), loop.create_future()
        waiting.append((text, answer))
        if len(waiting) >= self.max_batch_size:
            self._begin(loop)
        elif len(waiting) == 1:
            loop.call_later(self.max_wait_time, self._begin, loop)
        return await answer

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start a batch with what waits."""
        waiting = self._waiting.get(loop) or ()
        batch = [waiting.popleft() for _ in range(min(self.max_batch_size, len(waiting)))]
        if not waiting:
            self._waiting.pop(loop, None)
        for text, answer in batch:
            task = loop.create_task(self._answer(text))
            task.add_done_callback(lambda done, answer=answer: _settle(answer, done))
            answer.add_done_callback(lambda _, task=task: task.cancel())  # a caller that left needs no answer

    async def _answer(self, text: str) -> str:
        """The engine puts what is asked at the same time into one batch."""
        if self._chat:
            answer = await self._engine.infer_async({'messages': [{'role': 'user', 'content': text}]}, self._config)
            return answer.choices[0].message.content or ''
        ids = self._engine.tokenizer.encode(text)
        if not ids:
            raise SwiftError('the text is empty;', 'give at least one word')
        return (await self._engine.generate_async(Prompt(ids, text), self._config, None))[0].text


def _settle(answer: asyncio.Future, done: asyncio.Task) -> None:
    if answer.done() or done.cancelled():
        return
    if error := done.exception():
        answer.set_exception(error)
    else:
        answer.set_result(done.result())


def _engine_of(model: Any, tokenizer: Any, size: int) -> InferEngine:
    from swift.infer_engine.transformers import TransformersEngine
    from swift.template import get_template

    if tokenizer is None:
        raise SwiftError('a loaded model comes without a tokenizer;', 'pass both, or an engine')
    return TransformersEngine(model, template=get_template(tokenizer), max_batch_size=size)
