"""The engine behind a URL: any OpenAI-compatible server answers; it is sent messages, and its own template makes the prompt."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

from swift.core.errors import RowError, SwiftError
from swift.core.types import Completion, Conversation, Prompt
from swift.infer_engine.client_messages import asked, chat_settings, pieces_of, response_of
from swift.infer_engine.protocol import (
    AdapterRequest,
    ChatCompletionResponse,
    ChatCompletionStreamResponse,
    InferRequest,
    RequestConfig,
)
from swift.infer_engine.remote import Call, Remote
from swift.infer_engine.remote_engine import RemoteEngine
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


class ClientEngine(RemoteEngine):
    """Answers through an OpenAI-compatible server.

    `base_url`: its address, as http://127.0.0.1:8000/v1. `model`: the name it knows; None: the first that it lists. An adapter request
    asks for the model of that name. `concurrency`: requests that are under way at once. `system`: the system prompt of conversations
    that have none. `extra`: further fields of every request body. Raises SwiftError, one line, for whatever the server refuses.
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
        remote = Remote(base_url, api_key, timeout=timeout, max_retries=max_retries)
        super().__init__(remote, None, model or remote.models()[0], concurrency=concurrency)
        self._extra, self._system = dict(extra or {}), system

    @property
    def tokenizer(self) -> None:
        """The server has it."""
        return None

    def stream(self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None) -> Iterator[Chunk]:
        """Pieces of text as they come. `infer` with stream=True also tells reasoning and tool calls."""
        for piece in self._pieces(prompt, config, adapter):
            choice = piece.choices[0]
            ended = Completion([], '', choice.finish_reason) if choice.finish_reason else None
            yield Chunk(choice.index, choice.delta.content or '', [], None, ended)

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

    def _ask(self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None, call: Call) -> list[Completion]:
        whole = response_of(self.remote.post(CHAT, self._body(prompt, config, adapter), call), self.remote.base_url)
        read = whole.usage.prompt_tokens
        return [Said(c.token_ids or [], c.message.content or '', c.finish_reason, None, read, whole) for c in whole.choices]

    def _follow(
        self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None, call: Call
    ) -> Iterator[ChatCompletionStreamResponse]:
        body = self._body(prompt, config, adapter) | {'stream': True, 'stream_options': {'include_usage': True}}
        return pieces_of(self.remote.events(CHAT, body, call), config.n)

    def _response(
        self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None, completions: list[Completion]
    ) -> ChatCompletionResponse:
        return completions[0].whole

    def _streamed(
        self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None
    ) -> Iterator[ChatCompletionStreamResponse]:
        return self._pieces(prompt, config, adapter)

    def _streamed_async(
        self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None
    ) -> AsyncIterator[ChatCompletionStreamResponse]:
        return self._pieces_async(prompt, config, adapter)
