"""POST /v1/completions: texts or token ids are continued as they are, without a chat template."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from swift.core.errors import SwiftError
from swift.core.types import Completion, Prompt
from swift.infer_engine.protocol import RequestConfig
from swift.infer_engine.server.errors import ApiError, from_swift
from swift.infer_engine.server.events import Events, event, json_response
from swift.infer_engine.server.fields import CompletionRequest, refuse
from swift.infer_engine.server.served import Served, ServedModel

if TYPE_CHECKING:
    from swift.infer_engine.row import Chunk

USUAL_TOKENS = 16
"""Tokens of an answer to a request that names no number, as OpenAI has it."""


async def answer(served: Served, request: CompletionRequest) -> Response:
    """The continuations of every prompt, or a stream of their pieces."""
    served.generator('/v1/completions')
    model = served.model(request.model)
    refuse(request)
    prompts, config = prompts_of(served, request), settings(served, request)
    head = {'id': f'cmpl-{uuid.uuid4().hex}', 'object': 'text_completion', 'created': int(time.time()), 'model': model.name}
    if config.stream:
        return await _streamed(served, request, model, prompts, config, head)
    try:
        with served.places(config.n * len(prompts)):
            found = await _all([served.engine.generate_async(prompt, config, model.adapter) for prompt in prompts])
    except SwiftError as error:
        raise from_swift(error, 'prompt') from error
    choices = [
        _choice(number * config.n + index, prompts[number], completion, request)
        for number, completions in enumerate(found)
        for index, completion in enumerate(completions)
    ]
    usage = _usage(prompts, [completion for completions in found for completion in completions])
    _done(served, request, choices, usage)
    return json_response({**head, 'choices': choices, 'usage': usage})


async def _all(jobs: list[Any]) -> list[Any]:
    """The results of all, or the first failure, after which none goes on."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def prompts_of(served: Served, request: CompletionRequest) -> list[Prompt]:
    """Every prompt as tokens. Raises ApiError for ids that the model has not."""
    given = request.prompt if isinstance(request.prompt, list) and not isinstance(request.prompt[0], int) else [request.prompt]
    engine, prompts = served.engine, []
    for number, text in enumerate(given):
        if isinstance(text, str):
            ids = list(engine.tokenizer.encode(text))
        else:
            ids, text = text, engine.tokenizer.decode(_known(engine, text)) if text else ''
        where = f'prompt[{number}]' if len(given) > 1 else 'prompt'
        if not ids:
            raise ApiError(400, f'{where} is empty', param=where, code='invalid_value')
        if engine.max_model_len is not None and len(ids) >= engine.max_model_len:
            raise ApiError(
                400, f'{where} has {len(ids)} tokens and the model takes {engine.max_model_len}, the answer included; shorten it',
                param=where, code='context_length_exceeded',
            )  # fmt: skip
        prompts.append(Prompt(ids, text))
    return prompts


def _known(engine: Any, ids: list[int]) -> list[int]:
    size = len(engine.tokenizer)
    if wrong := next((i for i in ids if i >= size), None):
        raise ApiError(400, f'prompt: the token {wrong} is none of the {size} that the model has', param='prompt', code='invalid_value')
    return ids


def settings(served: Served, request: CompletionRequest) -> RequestConfig:
    """How the continuations are generated."""
    if request.logprobs is not None and request.logprobs > served.limits.logprobs:
        raise ApiError(400, f'logprobs: at most {served.limits.logprobs} (--max_logprobs)', param='logprobs', code='invalid_value')
    if request.logprobs is not None and request.echo:
        raise ApiError(400, 'logprobs: not with echo: those of the prompt are not computed', param='logprobs', code='unsupported_value')
    if request.best_of not in (None, request.n or 1):
        raise ApiError(400, 'best_of is not supported; ask for n answers and choose', param='best_of', code='unsupported_value')
    if request.stream_options and not request.stream:
        raise ApiError(400, 'stream_options: needs "stream": true', param='stream_options', code='invalid_value')
    config = request.config(served.usual, logprobs=request.logprobs is not None, top_logprobs=request.logprobs)
    config.max_tokens = request.max_tokens or served.usual.max_tokens or USUAL_TOKENS
    return config


def _choice(index: int, prompt: Prompt, completion: Completion, request: CompletionRequest) -> dict[str, Any]:
    text = (prompt.text if request.echo else '') + completion.text
    return {'index': index, 'text': text, 'finish_reason': completion.finish_reason, 'logprobs': _logprobs(completion.logprobs, 0)}


def _logprobs(entries: list[dict] | None, offset: int) -> dict[str, list] | None:
    """Log-probabilities in the form that this API has; `offset`: characters in front of the first token."""
    if entries is None:
        return None
    found: dict[str, list] = {'tokens': [], 'token_logprobs': [], 'top_logprobs': [], 'text_offset': []}
    for entry in entries:
        found['tokens'].append(entry['token'])
        found['token_logprobs'].append(entry['logprob'])
        found['top_logprobs'].append({token: value for _, token, value in reversed(entry['top'])})
        found['text_offset'].append(offset)
        offset += len(entry['token'])
    return found


def _usage(prompts: list[Prompt], completions: list[Completion]) -> dict[str, int]:
    read, written = sum(len(prompt.input_ids) for prompt in prompts), sum(len(completion.token_ids) for completion in completions)
    return {'prompt_tokens': read, 'completion_tokens': written, 'total_tokens': read + written}


def _done(served: Served, request: CompletionRequest, choices: list[dict[str, Any]], usage: dict[str, int]) -> None:
    served.metrics.tokens(usage['prompt_tokens'], usage['completion_tokens'], len(choices))

    def row() -> dict[str, Any]:
        asked = request.model_dump(exclude_none=True)
        return {
            'response': choices[0]['text'], 'finish_reason': choices[0]['finish_reason'], 'prompt': asked.pop('prompt'),
            'model': asked.pop('model'), 'choices': choices, 'usage': usage, 'request': asked,
        }  # fmt: skip

    served.keep(row)


# ---- in pieces


async def _streamed(
    served: Served, request: CompletionRequest, model: ServedModel, prompts: list[Prompt], config: RequestConfig, head: dict[str, Any]
) -> Response:
    started = time.perf_counter()
    pieces = _pieces(served, model, prompts, config)
    try:
        first = await anext(pieces)
    except SwiftError as error:
        raise from_swift(error, 'prompt') from error
    served.metrics.first_token.add(time.perf_counter() - started)
    return Events(_events(served, request, prompts, config, head, first, pieces))


async def _pieces(served: Served, model: ServedModel, prompts: list[Prompt], config: RequestConfig) -> AsyncIterator[tuple[int, Chunk]]:
    """(number of the prompt, news) of all prompts, as they come."""
    if len(prompts) == 1:  # nothing to merge
        with served.places(config.n):
            chunks = served.engine.stream_async(prompts[0], config, model.adapter)
            try:
                async for chunk in chunks:
                    yield 0, chunk
            finally:
                await chunks.aclose()
        return
    news: asyncio.Queue[Any] = asyncio.Queue()

    async def read(number: int) -> None:
        try:
            async for chunk in served.engine.stream_async(prompts[number], config, model.adapter):
                news.put_nowait((number, chunk))
        except Exception as error:
            news.put_nowait(error)

    with served.places(config.n * len(prompts)):
        tasks = [asyncio.ensure_future(read(number)) for number in range(len(prompts))]
        left = config.n * len(prompts)
        try:
            while left:
                item = await news.get()
                if isinstance(item, Exception):
                    raise item
                left -= item[1].completion is not None
                yield item
        finally:
            for task in tasks:
                task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.wait(tasks)


async def _events(
    served: Served, request: CompletionRequest, prompts: list[Prompt], config: RequestConfig, head: dict[str, Any],
    first: tuple[int, Chunk], pieces: AsyncIterator[tuple[int, Chunk]],
) -> AsyncIterator[bytes]:  # fmt: skip
    done: dict[int, Completion] = {}
    lengths: dict[int, int] = {}
    try:
        async for number, chunk in _joined(first, pieces):
            index = number * config.n + chunk.choice
            text = prompts[number].text if request.echo and index not in lengths else ''
            choice = {'index': index, 'text': text + chunk.text, 'finish_reason': None, 'logprobs': _logprobs(chunk.logprobs, lengths.get(index, 0))}
            lengths[index] = lengths.get(index, 0) + len(chunk.text)
            if chunk.completion is not None:
                done[index] = chunk.completion
                choice['finish_reason'] = chunk.completion.finish_reason
            yield event({**head, 'choices': [choice], **({'usage': None} if request.wants_usage else {})})
    except SwiftError as error:
        raise from_swift(error, 'prompt') from error
    finally:
        await pieces.aclose()
    usage = _usage(prompts, list(done.values()))
    _done(served, request, [_choice(index, prompts[index // config.n], done[index], request) for index in sorted(done)], usage)
    if request.wants_usage:
        yield event({**head, 'choices': [], 'usage': usage})


async def _joined(first: Any, rest: AsyncIterator[Any]) -> AsyncIterator[Any]:
    yield first
    async for piece in rest:
        yield piece
