"""POST /v1/chat/completions: a conversation in, what the assistant says out, whole or in pieces."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from starlette.responses import Response

from swift.core.errors import SwiftError, did_you_mean
from swift.core.types import Conversation
from swift.infer_engine.forced import call_grammar
from swift.infer_engine.protocol import InferRequest, RequestConfig
from swift.infer_engine.server.errors import ApiError, from_swift
from swift.infer_engine.server.events import Events, event, json_response
from swift.infer_engine.server.fields import ChatRequest, Message, refuse
from swift.infer_engine.server.media import admitted
from swift.infer_engine.server.served import Served, ServedModel

TEXTS = ('text', 'input_text', 'output_text')
SHOWN = ('image_url', 'video_url', 'input_audio', 'image', 'video', 'audio', 'input_image', 'input_video', 'audio_url')
"""Types of the parts of a message."""


async def answer(served: Served, request: ChatRequest) -> Response:
    """The answer to a request, or a stream of its pieces."""
    engine = served.generator('/v1/chat/completions')
    model = served.model(request.model)
    refuse(request)
    talk, config = conversation(served, request), settings(served, request)
    if config.stream:
        return await _streamed(served, request, model, talk, config)
    try:
        with served.places(config.n):
            found = await engine.infer_async(talk, config, adapter_request=model.adapter)
    except SwiftError as error:
        raise from_swift(error) from error
    usage = vars(found.usage)
    served.metrics.tokens(usage['prompt_tokens'], usage['completion_tokens'], len(found.choices))
    choices = [_choice(choice, request) for choice in found.choices]
    served.keep(lambda: kept(request, choices, usage))
    return json_response(
        {'id': found.id, 'object': found.object, 'created': found.created, 'model': model.name, 'choices': choices, 'usage': usage}
    )


def conversation(served: Served, request: ChatRequest) -> Conversation:
    """What the template reads. Raises ApiError naming the message at fault."""
    messages = [as_said(message, f'messages[{index}]') for index, message in enumerate(request.messages)]
    tools = [tool.model_dump(exclude_none=True) for tool in request.tools or []]
    if request.tool_choice == 'none':
        tools = []  # what the model does not see it does not call
    if request.tool_choice not in (None, 'none') and not tools:
        raise ApiError(400, 'tool_choice: there are no tools to choose from', param='tool_choice', code='invalid_value')
    media = {name: value for name in ('images', 'videos', 'audios', 'objects') if (value := getattr(request, name))}
    try:
        talk = InferRequest(messages, tools=tools or None, **media).conversation()
    except SwiftError as error:
        raise from_swift(error, None if 'messages[' in str(error) else 'messages') from error
    return admitted(talk, served.media_root, served.media_hosts)


def as_said(message: Message, where: str = 'messages') -> dict[str, Any]:
    """A message as templates know it. Raises ApiError for a part of the content that nobody reads."""
    said = message.model_dump(exclude_none=True, exclude={'refusal', 'annotations', 'audio', 'function_call'})
    for call in said.get('tool_calls') or ():
        call.pop('index', None)
    if said['role'] == 'developer':
        said['role'] = 'system'
    if 'content' not in said and not (said.get('tool_calls') or said.get('reasoning_content')):
        raise ApiError(400, f'{where}.content: this field is required', param=f'{where}.content', code='missing_field')
    if isinstance(said.get('content'), list):
        said['content'] = _parts(said['content'], f'{where}.content')
    return said


def _parts(parts: list[dict[str, Any]], where: str) -> str | list[dict[str, Any]]:
    """Parts that show something stay parts; texts alone are one text, which every template reads."""
    for index, part in enumerate(parts):
        kind, place = part.get('type'), f'{where}[{index}]'
        if kind in TEXTS:
            if not isinstance(part.get('text'), str):
                raise ApiError(400, f'{place}.text: a text is needed', param=f'{place}.text', code='invalid_value')
        elif kind not in SHOWN:
            near = did_you_mean(str(kind), [*TEXTS, *SHOWN]) or f'known: {", ".join([TEXTS[0], *SHOWN])}'
            raise ApiError(400, f'{place}.type: there are no parts of type {kind!r:.60}; {near}', param=f'{place}.type', code='invalid_value')
    if all(part['type'] in TEXTS for part in parts):
        return ''.join(part['text'] for part in parts)
    return [{'type': 'text', 'text': part['text']} if part['type'] in TEXTS else _sound(part) for part in parts]


def _sound(part: dict[str, Any]) -> dict[str, Any]:
    """The data of a sound as such, so that it is never taken for the name of a file; other parts as they are."""
    given = part.get('input_audio')
    if not isinstance(given, dict) or not isinstance(given.get('data'), str) or given['data'].startswith(('data:', 'http://', 'https://')):
        return part
    return {'type': 'audio', 'audio': f'data:audio/{given.get("format") or "wav"};base64,{given["data"]}'}


def settings(served: Served, request: ChatRequest) -> RequestConfig:
    """How the answers are generated."""
    top = request.top_logprobs or 0
    if top and not request.logprobs:
        raise ApiError(400, 'top_logprobs: needs "logprobs": true', param='top_logprobs', code='invalid_value')
    if top > served.limits.logprobs:
        raise ApiError(400, f'top_logprobs: at most {served.limits.logprobs} (--max_logprobs)', param='top_logprobs', code='invalid_value')
    if request.stream_options and not request.stream:
        raise ApiError(400, 'stream_options: needs "stream": true', param='stream_options', code='invalid_value')
    config = request.config(served.usual, logprobs=bool(request.logprobs), top_logprobs=top)
    config.max_tokens = request.max_completion_tokens or config.max_tokens
    if request.response_format and request.response_format.type != 'text':
        config.response_format = request.response_format.model_dump(by_alias=True, exclude_none=True)
    if request.tool_choice not in (None, 'none', 'auto'):
        config.guided_grammar = _forced(served, request, config)
    return config


def _forced(served: Served, request: ChatRequest, config: RequestConfig) -> str:
    """The grammar of the call that the model must write."""
    tools = [tool.model_dump(exclude_none=True) for tool in request.tools or []]
    try:
        if config.form() is not None:
            raise SwiftError('tool_choice: a call that must be written has its own form;', 'leave out response_format and guided_…')
        return call_grammar(served.engine.template, tools, None if request.tool_choice == 'required' else request.tool_choice.function.name)
    except SwiftError as error:
        raise ApiError(400, str(error), param='tool_choice', code='invalid_value') from error


def _choice(choice: Any, request: ChatRequest) -> dict[str, Any]:
    """One answer as the API shows it."""
    message = _uncalled(choice, choice.message, request)
    said: dict[str, Any] = {'role': 'assistant', 'content': message.content, 'refusal': None}
    if message.reasoning_content is not None:
        said['reasoning_content'] = message.reasoning_content
    if message.tool_calls:
        said['tool_calls'] = _calls(message.tool_calls, request)
    return {'index': choice.index, 'message': said, 'finish_reason': choice.finish_reason, 'logprobs': choice.logprobs}


def _uncalled(choice: Any, message: Any, request: ChatRequest) -> Any:
    """Where calls are ruled out, a call that the model writes nevertheless is text."""
    if request.tool_choice != 'none' or not message.tool_calls:
        return message
    functions = [call['function'] for call in message.tool_calls]
    text = '\n'.join(f'{{"name": {json.dumps(one["name"])}, "arguments": {one["arguments"]}}}' for one in functions)
    if choice.finish_reason == 'tool_calls':
        choice.finish_reason = 'stop'
    return replace(message, content=(message.content or '') + text, tool_calls=None)


def _calls(calls: list[dict], request: ChatRequest) -> list[dict]:
    return calls[:1] if request.parallel_tool_calls is False else calls


async def _streamed(served: Served, request: ChatRequest, model: ServedModel, talk: Conversation, config: RequestConfig) -> Response:
    """The first piece is waited for, so that mistakes of the request come out as such, not inside of a stream."""
    started = time.perf_counter()
    pieces = _pieces(served, model, talk, config)
    try:
        first = await anext(pieces)
    except SwiftError as error:
        raise from_swift(error) from error
    served.metrics.first_token.add(time.perf_counter() - started)
    return Events(_events(served, request, model, first, pieces))


async def _pieces(served: Served, model: ServedModel, talk: Conversation, config: RequestConfig) -> AsyncIterator[Any]:
    with served.places(config.n):
        pieces = await served.engine.infer_async(talk, config, adapter_request=model.adapter)
        try:
            async for piece in pieces:
                yield piece
        finally:
            await pieces.aclose()


async def _events(served: Served, request: ChatRequest, model: ServedModel, first: Any, pieces: AsyncIterator[Any]) -> AsyncIterator[bytes]:
    """The stream's events. The usage, if it is asked for, has an event of its own at the end."""
    log = _Log(request) if served.result_path else None
    usage = None
    try:
        async for piece in _joined(first, pieces):
            usage = piece.usage or usage
            shown = _piece(piece, model, request)
            if log:
                log.add(piece)
            yield event(shown)
    except SwiftError as error:
        raise from_swift(error) from error
    finally:
        await pieces.aclose()
    if usage is not None:
        served.metrics.tokens(usage.prompt_tokens, usage.completion_tokens, request.n or served.usual.n)
        if log:
            served.keep(lambda: kept(request, log.choices(), vars(usage)))
        if request.wants_usage:
            yield event({**_head(first, model), 'choices': [], 'usage': vars(usage)})


async def _joined(first: Any, rest: AsyncIterator[Any]) -> AsyncIterator[Any]:
    yield first
    async for piece in rest:
        yield piece


def _head(piece: Any, model: ServedModel) -> dict[str, Any]:
    return {'id': piece.id, 'object': piece.object, 'created': piece.created, 'model': model.name}


def _piece(piece: Any, model: ServedModel, request: ChatRequest) -> dict[str, Any]:
    choices = []
    for choice in piece.choices:
        choice.delta = _uncalled(choice, choice.delta, request)
        delta = {name: value for name, value in vars(choice.delta).items() if value is not None}
        if 'tool_calls' in delta:
            delta['tool_calls'] = [{'index': index, **call} for index, call in enumerate(_calls(delta['tool_calls'], request))]
        choices.append({'index': choice.index, 'delta': delta, 'finish_reason': choice.finish_reason, 'logprobs': choice.logprobs})
    head = {**_head(piece, model), 'choices': choices}
    return {**head, 'usage': None} if request.wants_usage else head


class _Log:
    """Puts the pieces of a stream together again, for the file of results."""

    def __init__(self, request: ChatRequest):
        self._request = request
        self._said: dict[int, dict[str, Any]] = {}

    def add(self, piece: Any) -> None:
        """Take one more piece."""
        for choice in piece.choices:
            said = self._said.setdefault(choice.index, {'role': 'assistant', 'content': None, 'finish_reason': None})
            for name in ('content', 'reasoning_content'):
                if news := getattr(choice.delta, name):
                    said[name] = (said.get(name) or '') + news
            if choice.delta.tool_calls:
                said['tool_calls'] = _calls(choice.delta.tool_calls, self._request)
            said['finish_reason'] = choice.finish_reason or said['finish_reason']

    def choices(self) -> list[dict[str, Any]]:
        """The choices as an answer without stream has them."""
        found = []
        for index, said in sorted(self._said.items()):
            message = {name: value for name, value in said.items() if name != 'finish_reason'}
            found.append({'index': index, 'message': message, 'finish_reason': said['finish_reason']})
        return found


def kept(request: ChatRequest, choices: list[dict[str, Any]], usage: dict[str, Any]) -> dict[str, Any]:
    """One line of the file of results."""
    asked = request.model_dump(exclude_none=True)
    message = choices[0]['message']
    return {
        'response': message.get('content'), 'finish_reason': choices[0]['finish_reason'],
        'messages': [*asked.pop('messages'), message], 'model': asked.pop('model'), 'choices': choices, 'usage': usage, 'request': asked,
    }  # fmt: skip
