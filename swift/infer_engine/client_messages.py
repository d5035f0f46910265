"""Conversations and settings as OpenAI's JSON, and its answers as ours."""

from __future__ import annotations

import base64
import json
import mimetypes
import os
from collections.abc import Iterator, Sequence
from typing import Any

from swift.core.errors import RowError, SwiftError
from swift.core.media import is_medium
from swift.core.types import Conversation, Message
from swift.infer_engine.protocol import (
    ChatCompletionResponse,
    ChatCompletionResponseChoice,
    ChatCompletionResponseStreamChoice,
    ChatCompletionStreamResponse,
    ChatMessage,
    DeltaMessage,
    RequestConfig,
    UsageInfo,
)
from swift.media.refs import name_of, source, suffix_of

PLAIN = ('max_tokens', 'temperature', 'top_p', 'top_k', 'min_p', 'repetition_penalty', 'seed', 'stop_token_ids')
"""Fields of a RequestConfig that are sent by their own name when they are not None."""
DEFAULTS = {'presence_penalty': 0.0, 'frequency_penalty': 0.0, 'ignore_eos': False, 'n': 1}
"""Fields that are sent when they differ from what a server does anyway."""
_AUDIO = {'.mp3': 'mp3', '.wav': 'wav', '.flac': 'flac', '.ogg': 'ogg', '.m4a': 'm4a'}


def settings_of(config: RequestConfig) -> dict[str, Any]:
    """The fields of a request body that say how the answer is drawn. Raises SwiftError for what no server is known to do."""
    if config.num_beams > 1 or config.length_penalty != 1.0:
        raise SwiftError('num_beams, length_penalty: a server is not asked for beam search;', 'use the transformers engine, or leave them out')
    body = {name: value for name in PLAIN if (value := getattr(config, name)) is not None}
    body |= {name: value for name, usual in DEFAULTS.items() if (value := getattr(config, name)) != usual}
    if config.stops:
        body['stop'] = config.stops
    return body | _form(config)


def _form(config: RequestConfig) -> dict[str, Any]:
    """What asks for the form of the answer: a schema as OpenAI has it, which all servers know; the rest by vLLM's names."""
    form = config.form()
    if form is None:
        return {}
    if form.field == 'guided_json':
        return {'response_format': {'type': 'json_schema', 'json_schema': {'name': 'answer', 'schema': json.loads(form.text)}}}
    return {form.field: getattr(config, form.field)}


def chat_settings(config: RequestConfig) -> dict[str, Any]:
    """`settings_of` and what only the chat protocol has."""
    body = settings_of(config)
    if config.logprobs:
        body |= {'logprobs': True, 'top_logprobs': config.top_logprobs or 0}
    if config.return_details:
        body['return_token_ids'] = True
    if config.stream:
        body |= {'stream': True, 'stream_options': {'include_usage': True}}
    return body


def asked(conversation: Conversation, system: str | None = None) -> dict[str, Any]:
    """`messages` (and `tools`) of a request body; what the conversation shows is in it, as data URIs.

    `system`: the system prompt of a conversation that has none. Raises RowError naming a file that can't be read.
    """
    messages = conversation.messages
    if system and messages[0]['role'] != 'system':
        messages = [{'role': 'system', 'content': system}, *messages]
    body: dict[str, Any] = {'messages': _with_call_ids([_message(message) for message in messages])}
    if conversation.tools:
        body['tools'] = [tool if tool.get('type') == 'function' else {'type': 'function', 'function': tool} for tool in conversation.tools]
    return body


def _message(message: Message) -> dict[str, Any]:
    """One message; thoughts are not sent back, since servers refuse or ignore them."""
    out = {key: value for key, value in message.items() if key in ('role', 'content', 'name', 'tool_call_id', 'tool_calls') and value is not None}
    if isinstance(out.get('content'), list):
        out['content'] = [_part(part) for part in out['content']]
    if out.get('tool_calls'):
        out['tool_calls'] = [_call(call) for call in out['tool_calls']]
    out.setdefault('content', None if out.get('tool_calls') else '')
    return out


def _call(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get('function', call)
    arguments = function.get('arguments', {})
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {**({'id': call['id']} if call.get('id') else {}), 'type': 'function', 'function': {'name': function['name'], 'arguments': text}}


def _with_call_ids(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Calls and their results get ids where they have none: results answer the open calls in order."""
    count, waiting = 0, []
    for message in messages:
        for call in message.get('tool_calls') or []:
            count += 1
            call.setdefault('id', f'call_{count}')
            waiting.append(call['id'])
        if message['role'] == 'tool':
            message.setdefault('tool_call_id', waiting[0] if waiting else 'call_0')
            if message['tool_call_id'] in waiting:
                waiting.remove(message['tool_call_id'])
    return messages


def _part(part: Any) -> dict[str, Any]:
    if not is_medium(part):
        return {'type': 'text', 'text': part} if isinstance(part, str) else part
    kind, reference = part['type'], part[part['type']]
    if kind == 'audio':
        data, suffix = _bytes_of(reference, kind)
        return {'type': 'input_audio', 'input_audio': {'data': base64.b64encode(data).decode(), 'format': _AUDIO.get(suffix, 'wav')}}
    return {'type': f'{kind}_url', f'{kind}_url': {'url': _url(kind, reference)}}


def _url(kind: str, reference: Any) -> str:
    """A web address as it is (the server fetches it), everything else as a data URI."""
    if isinstance(reference, str) and reference.startswith(('http://', 'https://', 'data:')):
        return reference
    data, suffix = _bytes_of(reference, kind)
    mime = mimetypes.types_map.get(suffix) or {'image': 'image/png', 'video': 'video/mp4'}[kind]
    return f'data:{mime};base64,{base64.b64encode(data).decode()}'


def _bytes_of(reference: Any, kind: str) -> tuple[bytes, str]:
    """The bytes of a medium and the suffix of their format."""
    from swift.media.refs import storable

    if isinstance(reference, list | tuple):
        raise RowError(f'a {kind} given as {name_of(list(reference))} can not be sent to a server', hint='give one file')
    if hasattr(reference, 'getexif') or hasattr(reference, 'shape') or isinstance(reference, dict):
        reference = storable(reference)
    found = source(reference)
    if isinstance(found, str):
        with open(found, 'rb') as file:
            data = file.read()
        return data, suffix_of(data[:256]) or os.path.splitext(found)[1].lower()
    return found, suffix_of(found) or ''


# ---------------------------------------------------------------- answers


def response_of(answer: dict[str, Any], url: str) -> ChatCompletionResponse:
    """A whole answer. Raises SwiftError when it has no choices."""
    if not isinstance(answer, dict) or not isinstance(answer.get('choices'), list):
        raise SwiftError(f'{url} answered without choices: {json.dumps(answer)[:120]};', 'the address must be that of an OpenAI-compatible server')
    choices = []
    for number, choice in enumerate(answer['choices']):
        message = choice.get('message') or {}
        said = ChatMessage('assistant', message.get('content'), message.get('tool_calls') or None, _thoughts(message))
        choices.append(
            ChatCompletionResponseChoice(
                choice.get('index', number), said, choice.get('finish_reason') or 'stop', choice.get('logprobs'), choice.get('token_ids')
            )
        )
    return ChatCompletionResponse(
        answer.get('model', ''), sorted(choices, key=lambda c: c.index), usage_of(answer), answer.get('id') or 'chatcmpl-0',
        created=answer.get('created') or 0, prompt_token_ids=answer.get('prompt_token_ids'),
    )  # fmt: skip


def usage_of(answer: dict[str, Any]) -> UsageInfo:
    """Tokens read and written, as the server counts them; zeros where it does not say."""
    usage = answer.get('usage') or {}
    read, written = usage.get('prompt_tokens') or 0, usage.get('completion_tokens') or 0
    return UsageInfo(read, written, usage.get('total_tokens') or read + written)


def pieces_of(events: Iterator[dict[str, Any]], count: int) -> Iterator[ChatCompletionStreamResponse]:
    """Streamed events as ours: one choice in each, whole tool calls, and the usage on the last piece of all."""
    calls: list[dict[int, dict]] = [{} for _ in range(count)]
    left, last, model, name = count, None, '', 'chatcmpl-0'
    usage: UsageInfo | None = None
    for event in events:
        model, name = event.get('model') or model, event.get('id') or name
        usage = usage_of(event) if event.get('usage') else usage
        for choice in event.get('choices') or []:
            index, delta, reason = choice.get('index', 0), choice.get('delta') or {}, choice.get('finish_reason')
            _gather(calls[index], delta.get('tool_calls') or [])
            news = DeltaMessage(delta.get('role'), delta.get('content'), None, _thoughts(delta))
            if reason and calls[index]:
                news.tool_calls = [call for _, call in sorted(calls[index].items())]
            piece = ChatCompletionStreamResponse(
                model, [ChatCompletionResponseStreamChoice(index, news, reason, choice.get('logprobs'))], id=name, created=event.get('created') or 0
            )
            left -= bool(reason)
            if reason and not left:
                last = piece  # the usage comes in an event of its own
            elif reason or any((news.role, news.content, news.reasoning_content)):
                yield piece
    if last is not None:
        last.usage = usage or UsageInfo(0, 0, 0)
        yield last
    elif left:
        raise SwiftError('the stream ended before the answer did;', 'ask again')


def _gather(calls: dict[int, dict], fragments: Sequence[dict]) -> None:
    """Fragments of tool calls, joined by their index."""
    for fragment in fragments:
        call = calls.setdefault(fragment.get('index', len(calls)), {'id': '', 'type': 'function', 'function': {'name': '', 'arguments': ''}})
        call['id'] = fragment.get('id') or call['id']
        function = fragment.get('function') or {}
        call['function']['name'] += function.get('name') or ''
        call['function']['arguments'] += function.get('arguments') or ''


def _thoughts(message: dict[str, Any]) -> str | None:
    return message.get('reasoning_content') or message.get('reasoning') or None
