"""What every engine offers, whatever generates: requests in, OpenAI-shaped answers out, in order.

A backend writes `generate` (prompts to completions); one that can show tokens as they come also writes `stream`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import uuid
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice
from typing import Any

from swift.core.errors import SwiftError
from swift.core.media import media_of
from swift.core.types import Completion, Conversation, Prompt, Template
from swift.infer_engine.protocol import (
    AdapterRequest,
    ChatCompletionResponse,
    ChatCompletionResponseChoice,
    ChatCompletionStreamResponse,
    ChatMessage,
    InferRequest,
    RequestConfig,
    UsageInfo,
)
from swift.infer_engine.row import Chunk
from swift.infer_engine.streaming import DeltaParser, as_said

READ_AHEAD = 64
"""Prompts of a long job that are handed to `generate` together."""

OneOrEach = Any
"""One value for all requests, or a list with one value for each."""


class InferEngine(ABC):
    """Answers conversations with a model. `template` writes prompts and reads completions; `name` is the model's."""

    def __init__(self, template: Template, name: str, max_model_len: int | None = None):
        self.template, self.name, self.max_model_len = template, name, max_model_len
        self._reading = threading.Lock()
        """Held while the processor of the model is at work: it is not made for several threads."""

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self.template.tokenizer

    # -- what a backend writes

    @abstractmethod
    def generate(
        self,
        prompts: Sequence[Prompt],
        configs: Sequence[RequestConfig],
        adapters: Sequence[AdapterRequest | None],
        on_done: Callable[[int], None] | None = None,
    ) -> list[list[Completion] | SwiftError]:
        """For each prompt the `n` completions its config asks for. `on_done(index)` is told of finished prompts.

        A SwiftError in the place of completions says what is wrong with that prompt (a picture can't be read, say).
        """

    def generate_each(
        self, asked: Iterable[tuple[Prompt, RequestConfig, AdapterRequest | None]]
    ) -> Iterator[list[Completion] | SwiftError]:
        """`generate` for any number of prompts, one result after the other, in order, reading ahead as it goes."""
        asked = iter(asked)
        while some := list(islice(asked, READ_AHEAD)):
            yield from self.generate(*(list(column) for column in zip(*some, strict=True)))

    def stream(
        self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None
    ) -> Iterator[Chunk]:
        """Pieces of the completions as they come; the last piece of each choice carries its completion."""
        found = self.generate([prompt], [config], [adapter])[0]
        if isinstance(found, SwiftError):
            raise found
        for choice, completion in enumerate(found):
            yield Chunk(choice, completion.text, completion.token_ids, completion.logprobs, completion)

    # -- what a user calls

    def infer(
        self,
        infer_requests: Sequence[InferRequest | Conversation | dict],
        request_config: OneOrEach = None,
        *,
        adapter_request: OneOrEach = None,
        use_tqdm: bool | None = None,
        strict: bool = True,
    ) -> list[ChatCompletionResponse | SwiftError] | list[Iterator[ChatCompletionStreamResponse]]:
        """Answers in the order of the requests.

        `request_config` and `adapter_request`: one for all, or a list with one for each. With `stream=True` in the
        config the result is a list of iterators, one for each request, all of them running at once. A request that
        can't be answered (its prompt is too long, a message is malformed) raises SwiftError before anything is
        generated; `strict=False` puts the error in its place instead. `use_tqdm` None: when stderr is a terminal.
        """
        requests = [_request(request) for request in infer_requests]
        configs = [config.check() for config in _each(request_config, len(requests), RequestConfig(), 'request_config')]
        adapters = _each(adapter_request, len(requests), None, 'adapter_request')
        if len({config.stream for config in configs}) > 1:
            raise SwiftError('request_config: some requests stream and some do not;', 'call infer once for each kind')
        prompts = [self._prompt(request, index, strict) for index, request in enumerate(requests)]
        if configs and configs[0].stream:
            return [
                _failed(p) if isinstance(p, SwiftError) else self._streamed(p, c, a)
                for p, c, a in zip(prompts, configs, adapters, strict=True)
            ]
        good = [index for index, prompt in enumerate(prompts) if not isinstance(prompt, SwiftError)]
        with _Progress(len(good), use_tqdm) as progress:
            found = self.generate(
                [prompts[i] for i in good], [configs[i] for i in good], [adapters[i] for i in good], progress.tick
            )
        answers: list[Any] = list(prompts)
        for index, completions in zip(good, found, strict=True):
            if isinstance(completions, SwiftError):
                answers[index] = _numbered(completions, index)
                if strict:
                    raise answers[index]
            else:
                answers[index] = self._response(prompts[index], configs[index], adapters[index], completions)
        return answers

    def infer_each(
        self,
        asked: Iterable[tuple[InferRequest | Conversation, RequestConfig] | SwiftError],
        *,
        adapter_request: AdapterRequest | None = None,
    ) -> Iterator[ChatCompletionResponse | SwiftError]:
        """Answers of a job of any length, in order, each as soon as it and those before it are complete.

        A request that can't be answered comes out as its SwiftError; an error that goes in comes out in its place.
        """
        places: deque[Any] = deque()

        def prompts() -> Iterator[tuple[Prompt, RequestConfig, AdapterRequest | None]]:
            for index, item in enumerate(asked):
                prompt = item if isinstance(item, SwiftError) else self._prompt(item[0], index, False)
                places.append(prompt if isinstance(prompt, SwiftError) else (prompt, item[1].check()))
                if not isinstance(prompt, SwiftError):
                    yield prompt, item[1], adapter_request

        for completions in self.generate_each(prompts()):
            while isinstance(places[0], SwiftError):
                yield places.popleft()
            prompt, config = places.popleft()
            wrong = isinstance(completions, SwiftError)
            yield completions if wrong else self._response(prompt, config, adapter_request, completions)
        yield from places

    async def infer_async(
        self,
        infer_request: InferRequest | Conversation | dict,
        request_config: RequestConfig | None = None,
        *,
        adapter_request: AdapterRequest | None = None,
    ) -> ChatCompletionResponse | AsyncIterator[ChatCompletionStreamResponse]:
        """One answer, or with `stream=True` an async iterator of its pieces. Calls that overlap are batched."""
        config = (request_config or RequestConfig()).check()
        request = _request(infer_request)
        if _shows(request):  # files are opened, or fetched: not on the event loop
            prompt = await asyncio.to_thread(self._prompt, request, 0, True)
        else:
            prompt = self._prompt(request, 0, True)
        if config.stream:
            return self._streamed_async(prompt, config, adapter_request)
        completions = await self.generate_async(prompt, config, adapter_request)
        return self._response(prompt, config, adapter_request, completions)

    async def generate_async(
        self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None
    ) -> list[Completion]:
        """`generate` for one prompt without blocking the event loop. Backends with their own queue override it. Raises SwiftError."""
        found = (await asyncio.to_thread(self.generate, [prompt], [config], [adapter]))[0]
        if isinstance(found, SwiftError):
            raise found
        return found

    async def stream_async(
        self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None
    ) -> AsyncIterator[Chunk]:
        """`stream` without blocking the event loop."""
        pieces = self.stream(prompt, config, adapter)
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            yield piece

    # -- in between

    def _prompt(self, request: InferRequest | Conversation, index: int, strict: bool) -> Prompt | SwiftError:
        try:
            conversation = request.conversation() if isinstance(request, InferRequest) else request
            with self._reading if media_of(conversation.messages) else nullcontext():
                prompt = self.template.prompt(conversation)
            self._check_length(prompt)
            return prompt
        except SwiftError as error:
            wrapped = _numbered(error, index)
            if strict:
                raise wrapped from None
            return wrapped

    def _check_length(self, prompt: Prompt) -> None:
        length, limit = len(prompt.input_ids), self.max_model_len
        if limit is None or length < limit:
            return
        shown, advice = '', 'shorten the conversation'
        if prompt.media:
            text = len(self.tokenizer.encode(prompt.media['text'], add_special_tokens=False))
            kinds = [kind for kind, _ in prompt.media['media']]
            names = ' and '.join(f'{kinds.count(k)} {k}{"s" * (kinds.count(k) > 1)}' for k in dict.fromkeys(kinds))
            shown = f', about {max(length - text + len(kinds), 0)} of them for {names},'
            advice += ', or read less of the media (max_pixels, nframes, …)'
        raise SwiftError(f'the prompt has {length} tokens{shown} and the model takes {limit} (max_model_len), the answer included;', advice)

    def _model_name(self, adapter: AdapterRequest | None) -> str:
        return adapter.name if adapter else self.name

    def _response(
        self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None, completions: list[Completion]
    ) -> ChatCompletionResponse:
        choices = []
        for index, completion in enumerate(completions):
            message = to_message(self.template.decode(as_said(completion, self.tokenizer)))
            reason = 'tool_calls' if message.tool_calls and completion.finish_reason == 'stop' else completion.finish_reason
            choices.append(
                ChatCompletionResponseChoice(
                    index=index,
                    message=message,
                    finish_reason=reason,
                    logprobs=to_logprobs(completion.logprobs),
                    token_ids=completion.token_ids if config.return_details else None,
                )
            )
        return ChatCompletionResponse(
            model=self._model_name(adapter),
            choices=choices,
            usage=_usage(prompt, completions),
            prompt_token_ids=prompt.input_ids if config.return_details else None,
        )

    def _streamed(
        self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None
    ) -> Iterator[ChatCompletionStreamResponse]:
        pieces = self.stream(prompt, config, adapter)  # runs from now on, not from the first `next`
        assemble = _Assembly(self, prompt, config, adapter)
        return (response for piece in pieces for response in assemble(piece))

    async def _streamed_async(
        self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None
    ) -> AsyncIterator[ChatCompletionStreamResponse]:
        assemble = _Assembly(self, prompt, config, adapter)
        async for piece in self.stream_async(prompt, config, adapter):
            for response in assemble(piece):
                yield response


class _Assembly:
    """Pieces of one request's choices → stream responses that share an id."""

    def __init__(self, engine: InferEngine, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None):
        self._prompt = prompt
        self._open = config.n
        self._completions: list[Completion] = []
        self._logprobs: list[list[dict]] = [[] for _ in range(config.n)]
        self._parsers = [
            DeltaParser(engine.template, prompt, [*prompt.stop, *config.stops], to_message) for _ in range(config.n)
        ]
        self._blank = ChatCompletionStreamResponse(
            model=engine._model_name(adapter), choices=[], id=f'chatcmpl-{uuid.uuid4().hex}'
        )

    def __call__(self, piece: Chunk) -> Iterator[ChatCompletionStreamResponse]:
        usage = None
        if piece.completion is not None:
            self._open -= 1
            self._completions.append(piece.completion)
            usage = None if self._open else _usage(self._prompt, self._completions)
        choices = self._parsers[piece.choice].feed(piece)
        self._logprobs[piece.choice] += piece.logprobs or []
        for choice in choices:
            if waiting := self._logprobs[piece.choice]:
                choice.logprobs, self._logprobs[piece.choice] = to_logprobs(waiting), []
            yield replace(self._blank, choices=[choice], usage=usage if choice.finish_reason else None)


class _Progress:
    """A bar on stderr that counts finished requests, where somebody watches."""

    def __init__(self, total: int, show: bool | None):
        show = sys.stderr.isatty() and total > 1 if show is None else show
        self._bar = None
        if show:
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit='answer', dynamic_ncols=True, smoothing=0.1)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def tick(self, index: int) -> None:
        """One more request is complete."""
        if self._bar is not None:
            self._bar.update()


def to_message(message: dict[str, Any]) -> ChatMessage:
    """The template's message in the shape of the API: arguments of calls as JSON text, every call with an id."""
    calls = []
    for call in message.get('tool_calls') or []:
        function = call['function']
        arguments = function.get('arguments')
        calls.append(
            {
                'id': call.get('id') or f'call_{uuid.uuid4().hex[:24]}',
                'type': 'function',
                'function': {
                    'name': function['name'],
                    'arguments': arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False),
                },
            }
        )
    return ChatMessage('assistant', message.get('content'), calls or None, message.get('reasoning_content') or None)


def to_logprobs(entries: list[dict] | None) -> dict[str, list[dict]] | None:
    """Log-probabilities in the shape of the API."""
    if entries is None:
        return None

    def one(token_id: int, token: str, logprob: float) -> dict[str, Any]:
        return {'token': token, 'token_id': token_id, 'logprob': logprob, 'bytes': list(token.encode('utf-8'))}

    return {
        'content': [
            {**one(e['token_id'], e['token'], e['logprob']), 'top_logprobs': [one(*top) for top in e['top']]}
            for e in entries
        ]
    }


def _usage(prompt: Prompt, completions: list[Completion]) -> UsageInfo:
    read, written = len(prompt.input_ids), sum(len(c.token_ids) for c in completions)
    return UsageInfo(read, written, read + written)


def _request(request: InferRequest | Conversation | dict) -> InferRequest | Conversation:
    if isinstance(request, InferRequest | Conversation):
        return request
    if isinstance(request, dict) and 'messages' in request:
        known = InferRequest.__dataclass_fields__
        return InferRequest(**{key: value for key, value in request.items() if key in known})
    raise SwiftError(f'a request must be an InferRequest, not {type(request).__name__};', 'InferRequest(messages=[…])')


def _shows(request: InferRequest | Conversation) -> bool:
    """Whether a request may show something."""
    if request.images or request.videos or request.audios:
        return True
    messages = request.messages if isinstance(request.messages, list) else []
    return any(isinstance(message, dict) and isinstance(message.get('content'), list) for message in messages)


def _each(value: Any, count: int, default: Any, name: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        return [default if value is None else value] * count
    if len(value) != count:
        raise SwiftError(f'{name}: {len(value)} values for {count} requests;', 'give one, or one for each request')
    return [default if item is None else item for item in value]


def _numbered(error: SwiftError, index: int) -> SwiftError:
    """The error with the number of the request it belongs to."""
    return SwiftError(f'request {index}: {error.message}', error.hint)


def _failed(error: SwiftError) -> Iterator[Any]:
    """An iterator that raises when it is read."""
    raise error
    yield
