"""Messages as data sets have them → messages as chat templates expect them (the way transformers hands them over)."""

from __future__ import annotations

import json
from typing import Any

from swift.core.errors import RowError

_REASONING = ('reasoning_content', 'thinking', 'reasoning')
_PLAIN = {'role', 'content', 'loss'}


def tidy_messages(messages: list[dict], *, string_arguments: bool = False) -> list[dict]:
    """A new list: no None content, reasoning under every name templates use, tool calls in OpenAI form.

    Messages that need no change are the same objects. Raises RowError.
    """
    return [
        m if m.keys() <= _PLAIN and type(m['content']) is str else _tidy(m, i, string_arguments)
        for i, m in enumerate(messages)
    ]


def _tidy(message: dict, index: int, string_arguments: bool) -> dict:
    if not isinstance(message.get('role'), str):
        raise RowError(f'message {index} has no role')
    message = {**message}
    if message.get('content') is None:
        message['content'] = ''
    message['content'] = _one_text(message['content'])
    reasoning = next((message[key] for key in _REASONING if message.get(key) is not None), None)
    if reasoning is not None:
        message = {'thinking': reasoning, **message, 'reasoning_content': reasoning}
    if message.get('tool_calls') is None:
        message.pop('tool_calls', None)
    else:
        message['tool_calls'] = [_tidy_call(c, index, string_arguments) for c in message['tool_calls']]
    return message


def _one_text(content: Any) -> Any:
    """Parts that are texts alone as one text, which every template prints; anything else as it is."""
    parts = content if isinstance(content, list) else [None]
    texts = [part.get('text') if isinstance(part, dict) and part.get('type') == 'text' else part for part in parts]
    return ''.join(texts) if all(isinstance(text, str) for text in texts) else content


def _tidy_call(call: Any, index: int, string_arguments: bool) -> dict:
    if not isinstance(call, dict):
        raise RowError(f'message {index}: a tool call must be an object, not {type(call).__name__}')
    function = call.get('function', call)
    if not isinstance(function, dict) or not isinstance(function.get('name'), str):
        raise RowError(f'message {index}: a tool call needs function.name')
    arguments = function.get('arguments', {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments) if arguments.strip() else {}
        except ValueError:
            return {**call, 'type': 'function', 'function': {**function, 'arguments': arguments}}  # as it was written
    if string_arguments:
        arguments = json.dumps(arguments, ensure_ascii=False)
    inner = {'name': function['name'], 'arguments': arguments}
    rest = {k: v for k, v in call.items() if k not in ('function', 'name', 'arguments')}
    return {**rest, 'type': 'function', 'function': {**(function if function is not call else {}), **inner}}


def tidy_tools(tools: Any) -> list[dict] | None:
    """Function schemas in OpenAI form; JSON strings are decoded, bare functions wrapped. None: no tools."""
    if isinstance(tools, str):
        tools = _decode(tools)
    if not tools:
        return None
    if isinstance(tools, dict):
        tools = [tools]
    out = []
    for tool in tools:
        if isinstance(tool, str):
            tool = _decode(tool)
        if not isinstance(tool, dict):
            raise RowError(f'a tool must be an object with a function schema, not {type(tool).__name__}')
        out.append(tool if 'function' in tool or 'type' in tool else {'type': 'function', 'function': tool})
    return out


def _decode(text: str) -> Any:
    try:
        return json.loads(text) if text.strip() else None
    except ValueError as e:
        raise RowError(f'tools is a string that is not JSON ({e})') from e


def with_system(messages: list[dict], system: str | None) -> list[dict]:
    """The messages with `system` in front where they have no system message of their own."""
    if not system or (messages and messages[0]['role'] == 'system'):
        return messages
    return [{'role': 'system', 'content': system}, *messages]


def system_into_user(messages: list[dict]) -> list[dict]:
    """The system message put in front of the first user message, for templates that refuse the role."""
    if not messages or messages[0]['role'] != 'system':
        return messages
    system, *rest = messages
    for i, message in enumerate(rest):
        if message['role'] == 'user':
            content = message['content']
            if isinstance(content, list):
                content = [{'type': 'text', 'text': f'{system["content"]}\n\n'}, *content]
            else:
                content = f'{system["content"]}\n\n{content}'
            return [*rest[:i], {**message, 'content': content}, *rest[i + 1 :]]
    return rest


def content_text(message: dict) -> str:
    """The text of a message's content, parts joined."""
    content = message.get('content')
    if isinstance(content, list):
        return ''.join(p.get('text') or '' for p in content if isinstance(p, dict))
    return content or ''
