"""Engines whose work is done behind a wire: many requests under way at once, each in a thread that mostly waits."""

from __future__ import annotations

import asyncio
import queue
from abc import abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

from swift.core.errors import SwiftError
from swift.core.types import Completion, Prompt
from swift.infer_engine.base import InferEngine
from swift.infer_engine.protocol import AdapterRequest, RequestConfig
from swift.infer_engine.remote import Call, Remote


class RemoteEngine(InferEngine):
    """Asks `remote`, `concurrency` requests at once. A subclass writes `_ask` (a whole answer) and `_follow` (its pieces)."""

    def __init__(self, remote: Remote, template: Any, name: str, max_model_len: int | None = None, *, concurrency: int = 64):
        if concurrency < 1:
            raise SwiftError(f'concurrency={concurrency} must be at least 1;', 'it is the number of requests at once')
        super().__init__(template, name, max_model_len)
        self.remote = remote
        self._concurrency = concurrency
        self._pool = ThreadPoolExecutor(concurrency, 'swift-remote')

    @abstractmethod
    def _ask(self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None, call: Call) -> list[Completion]:
        """The choices of one answer. Raises SwiftError."""

    @abstractmethod
    def _follow(self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None, call: Call) -> Iterator[Any]:
        """The pieces of one answer as they come. Raises SwiftError."""

    def generate(
        self,
        prompts: Sequence[Prompt],
        configs: Sequence[RequestConfig],
        adapters: Sequence[AdapterRequest | None],
        on_done: Callable[[int], None] | None = None,
    ) -> list[list[Completion] | SwiftError]:
        """The choices of each answer, or why the server refuses."""
        asked = [self._sent(*each) for each in zip(prompts, configs, adapters, strict=True)]
        if on_done:
            for index, (future, _) in enumerate(asked):
                future.add_done_callback(lambda _, index=index: on_done(index))
        try:
            return [future.result() for future, _ in asked]
        finally:
            _give_up(asked)

    def generate_each(
        self, asked: Iterable[tuple[Prompt, RequestConfig, AdapterRequest | None]]
    ) -> Iterator[list[Completion] | SwiftError]:
        """`generate` for any number of prompts, in order, so many at once as `concurrency` says."""
        asked, running = iter(asked), deque()
        try:
            while True:
                for item in islice(asked, max(0, 2 * self._concurrency - len(running))):
                    running.append(self._sent(*item))
                if not running:
                    return
                done = running[0][0].result()
                running.popleft()
                yield done
        finally:
            _give_up(running)

    async def generate_async(self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None) -> list[Completion]:
        """`generate` for one prompt without blocking the event loop; a cancelled task leaves the server."""
        future, call = self._sent(prompt, config, adapter)
        try:
            found = await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            call.cancel()
            raise
        if isinstance(found, SwiftError):
            raise found
        return found

    def _sent(self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None) -> tuple[Any, Call]:
        call = Call()

        def ask() -> list[Completion] | SwiftError:
            try:
                call.check()
                return self._ask(prompt, config, adapter, call)
            except SwiftError as error:
                return error

        return self._pool.submit(ask), call

    # -- streaming

    def _pump(self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None, call: Call, put: Callable[[Any], Any]) -> None:
        """Put every piece, then None; or the error that ends the answer."""
        try:
            call.check()
            for piece in self._follow(prompt, config, adapter, call):
                put(piece)
            put(None)
        except BaseException as error:
            put(error)

    def _pieces(self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None) -> Iterator[Any]:
        """`_follow` in a thread: it runs from now on, read or not, and ends when nobody reads any more."""
        pieces: queue.SimpleQueue[Any] = queue.SimpleQueue()
        call = Call()
        self._pool.submit(self._pump, prompt, config, adapter, call, pieces.put)
        return _read(pieces, call)

    async def _pieces_async(self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None) -> AsyncIterator[Any]:
        """`_pieces` on the event loop."""
        loop, pieces, call = asyncio.get_running_loop(), asyncio.Queue(), Call()

        def put(piece: Any) -> None:
            if not call.over:  # whoever left may have taken the loop along
                loop.call_soon_threadsafe(pieces.put_nowait, piece)

        self._pool.submit(self._pump, prompt, config, adapter, call, put)
        try:
            while (piece := await pieces.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            call.cancel()


def _read(pieces: queue.SimpleQueue, call: Call) -> Iterator[Any]:
    try:
        while (piece := pieces.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
    finally:  # whoever stops reading stops the answer
        call.cancel()


def _give_up(asked: Iterable[tuple[Any, Call]]) -> None:
    """Leave the server with what is not done."""
    for future, call in asked:
        if not future.done():
            future.cancel()
            call.cancel()
