"""The engine behind a URL: any OpenAI-compatible server answers; it is sent messages, and its own template makes the prompt."""

from __future__ import annotations

import asyncio
import queue
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from swift.core.errors import RowError, SwiftError
from swift.core.types import Completion, Conversation, Prompt
from swift.infer_engine.base import InferEngine
from swift.infer_engine.client_messages import asked, chat_settings, pieces_of, response_of
from swift.infer_engine.protocol import (
    AdapterRequest,
    ChatCompletionResponse,
    ChatCompletionStreamResponse,
    InferRequest,
    RequestConfig,
)
from swift.infer_engine.remote import Call, Remote
from swift.infer_engine.row import Chunk

CHAT = '/chat/completions'


@dataclass(slots=True)
class Asked(Prompt):
    """What a server is asked: messages instead of tokens."""

    input_ids: list[int] = field(default_factory=list)
    body: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Said(Completion):
    """One choice of a server's answer, and the whole answer."""

    whole: ChatCompletionResponse | None = None


class ClientEngine(InferEngine):
    """Answers through an OpenAI-compatible server.

    `base_url`: its address, as http://127.0.0.1:8000/v1. `model`: the name it knows; None: the first that it lists. An adapter request
    asks for the model of that name. `concurrency`: requests that are under way at once. `system`: the system prompt
    of conversations that have none. `extra`: further fields of every request body.
    Raises SwiftError, one line, for whatever the server refuses.
    """

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = 600.0,
        max_retries: int = 4,
        concurrency: int = 64,
        system: str | None = None,
        extra: dict[str, Any] | None = None,
    ):
        if concurrency < 1:
            raise SwiftError(f'concurrency={concurrency} must be at least 1;', 'it is the number of requests at once')
        self.remote = Remote(base_url, api_key, timeout=timeout, max_retries=max_retries)
        super().__init__(None, model or self._first_model())
        self._extra, self._system = dict(extra or {}), system
        self._concurrency = concurrency
        self._pool = ThreadPoolExecutor(concurrency, 'swift-client')

    @property
    def tokenizer(self) -> None:
        """The server has it."""
        return None

    def models(self) -> list[str]:
        """The names that the server answers to."""
        listed = self.remote.get('/models')
        rows = listed.get('data') if isinstance(listed, dict) else None
        return [row['id'] for row in rows or [] if isinstance(row, dict) and row.get('id')]

    def _first_model(self) -> str:
        if not (names := self.models()):
            raise SwiftError(f'{self.remote.base_url}/models lists no model;', 'give the name of one')
        return names[0]

    # -- what InferEngine asks of a backend

    def generate(
        self,
        prompts: Sequence[Prompt],
        configs: Sequence[RequestConfig],
        adapters: Sequence[AdapterRequest | None],
        on_done: Callable[[int], None] | None = None,
    ) -> list[list[Completion] | SwiftError]:
        """The choices of each answer. Only prompts that hold messages (as `infer` makes them) can be asked."""
        calls = [Call() for _ in prompts]
        futures = [self._pool.submit(self._answer, *each) for each in zip(prompts, configs, adapters, calls, strict=True)]
        if on_done:
            for index, future in enumerate(futures):
                future.add_done_callback(lambda _, index=index: on_done(index))
        try:
            return [future.result() for future in futures]
        finally:
            for future, call in zip(futures, calls, strict=True):
                if not future.done():
                    future.cancel()
                    call.cancel()

    def generate_each(
        self, asked: Iterable[tuple[Prompt, RequestConfig, AdapterRequest | None]]
    ) -> Iterator[list[Completion] | SwiftError]:
        """`generate` for any number of prompts, in order, so many at once as `concurrency` says."""
        asked, running = iter(asked), deque()
        try:
            while True:
                for item in islice(asked, max(0, 2 * self._concurrency - len(running))):
                    call = Call()
                    running.append((self._pool.submit(self._answer, *item, call), call))
                if not running:
                    return
                done = running[0][0].result()
                running.popleft()
                yield done
        finally:
            for future, call in running:
                future.cancel()
                call.cancel()

    def stream(self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None) -> Iterator[Chunk]:
        """Pieces of text as they come. `infer` with stream=True also tells reasoning and tool calls."""
        for piece in self._streamed(prompt, config, adapter):
            choice = piece.choices[0]
            ended = Completion([], '', choice.finish_reason) if choice.finish_reason else None
            yield Chunk(choice.index, choice.delta.content or '', [], None, ended)

    async def generate_async(self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None) -> list[Completion]:
        """`generate` for one prompt without blocking the event loop; a cancelled task leaves the server."""
        call = Call()
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._pool, self._answer, prompt, config, adapter, call)
        except asyncio.CancelledError:
            call.cancel()
            raise
        if isinstance(found, SwiftError):
            raise found
        return found

    # -- conversation → request body, answer → response

    def _prompt(self, request: InferRequest | Conversation, index: int, strict: bool) -> Prompt | SwiftError:
        try:
            conversation = request.conversation() if isinstance(request, InferRequest) else request
            return Asked(body=asked(conversation, self._system))
        except SwiftError as error:
            reason = error.reason if isinstance(error, RowError) else error.message
            wrapped = SwiftError(f'request {index}: {reason}', error.hint)
            if strict:
                raise wrapped from None
            return wrapped

    def _body(self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None) -> dict[str, Any]:
        if not isinstance(prompt, Asked):
            raise SwiftError('a server is sent messages, not tokens;', 'call infer with the conversation')
        return {'model': self._model_name(adapter), **prompt.body, **chat_settings(config), **self._extra}

    def _answer(
        self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None, call: Call
    ) -> list[Completion] | SwiftError:
        try:
            call.check()
            whole = response_of(self.remote.post(CHAT, self._body(prompt, config, adapter), call), self.remote.base_url)
        except SwiftError as error:
            return error
        read = whole.usage.prompt_tokens
        return [Said(c.token_ids or [], c.message.content or '', c.finish_reason, None, read, whole) for c in whole.choices]

    def _response(
        self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None, completions: list[Completion]
    ) -> ChatCompletionResponse:
        return completions[0].whole

    # -- streaming

    def _pump(self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None, call: Call, put: Callable[[Any], Any]) -> None:
        """Put every piece, then None; or the error that ends the answer."""
        try:
            call.check()
            body = self._body(prompt, config, adapter) | {'stream': True, 'stream_options': {'include_usage': True}}
            for piece in pieces_of(self.remote.events(CHAT, body, call), config.n):
                put(piece)
            put(None)
        except BaseException as error:
            put(error)

    def _streamed(
        self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None
    ) -> Iterator[ChatCompletionStreamResponse]:
        pieces: queue.SimpleQueue[Any] = queue.SimpleQueue()
        call = Call()
        self._pool.submit(self._pump, prompt, config, adapter, call, pieces.put)  # runs from now on, read or not
        return _read(pieces, call)

    async def _streamed_async(
        self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None
    ) -> AsyncIterator[ChatCompletionStreamResponse]:
        loop, pieces, call = asyncio.get_running_loop(), asyncio.Queue(), Call()
        self._pool.submit(
            self._pump, prompt, config, adapter, call, lambda piece: loop.call_soon_threadsafe(pieces.put_nowait, piece)
        )
        try:
            while (piece := await pieces.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            call.cancel()


def _read(pieces: queue.SimpleQueue, call: Call) -> Iterator[ChatCompletionStreamResponse]:
    try:
        while (piece := pieces.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
    finally:  # whoever stops reading stops the answer
        call.cancel()
