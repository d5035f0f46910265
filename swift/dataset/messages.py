"""One spelling for messages and tools, whatever the row calls its roles.

In: lists of `{"role"/"from": …, "content"/"value": …}`, JSON strings of them, pairs `{"user": …, "assistant": …}`.
Out: `Message`s with the roles system, user, assistant, tool; tool calls in OpenAI form inside the assistant's message.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from swift.core.errors import RowError, did_you_mean
from swift.core.types import Message

ROLES = {
    'system': 'system', 'developer': 'system',
    'user': 'user', 'human': 'user', 'prompter': 'user', 'instruction': 'user',
    'assistant': 'assistant', 'gpt': 'assistant', 'bot': 'assistant', 'model': 'assistant', 'ai': 'assistant',
    'chatgpt': 'assistant', 'bing': 'assistant', 'bard': 'assistant',
    'tool': 'tool', 'observation': 'tool', 'tool_response': 'tool', 'function_response': 'tool', 'function': 'tool',
    'ipython': 'tool',
    'function_call': 'tool_call', 'tool_call': 'tool_call', 'tool_calls': 'tool_call',
}  # fmt: skip
"""Spelling → role. `tool_call` is folded into the assistant's message."""
_ROLE_KEYS = ('role', 'from', 'speaker')
_CONTENT_KEYS = ('content', 'value', 'text', 'message')
_KEPT = ('reasoning_content', 'name', 'tool_call_id')


@dataclass(frozen=True)
class Tags:
    """Names that a data set declares for its own messages (`tags` of a dataset_info.json)."""

    role_key: str | None = None
    content_key: str | None = None
    roles: Mapping[str, str] | None = None
    """Further spellings: theirs → ours."""

    def role(self, name: Any) -> str:
        """Our role for their spelling. Raises RowError."""
        if self.roles and name in self.roles:
            return self.roles[name]
        key = str(name).strip().lower()
        if key not in ROLES:
            raise RowError(f'unknown role {name!r};', hint=did_you_mean(key, ROLES) or f'known: {", ".join(ROLES)}')
        return ROLES[key]


def parsed(value: Any, what: str) -> Any:
    """A list or dict that may be written as a JSON string (as CSV cells are)."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise RowError(f'{what} is a string that is not JSON ({error})') from error


def to_messages(raw: Any, tags: Tags = Tags()) -> list[Message]:
    """Messages in our spelling. Raises RowError with the number of the message."""
    raw = parsed(raw, 'messages')
    if isinstance(raw, Mapping):
        raw = [raw]
    if not isinstance(raw, (list, tuple)) or not raw:
        raise RowError('messages must be a list with at least one message')
    messages: list[Message] = []
    for number, item in enumerate(raw):
        try:
            for role, entry in _entries(item, tags):
                _append(messages, role, entry)
        except RowError as error:
            raise RowError(f'message {number}: {error.reason}', error.source, error.hint) from error
    return messages


def _entries(item: Any, tags: Tags) -> list[tuple[str, dict[str, Any]]]:
    """`(role, {"content": …, …})` of one element: a message, or a pair such as {"human": …, "assistant": …}."""
    if not isinstance(item, Mapping):
        raise RowError(f'expected an object with a role and a content, got {type(item).__name__}')
    role_key = tags.role_key or next((key for key in _ROLE_KEYS if item.get(key) is not None), None)
    if role_key is None:
        pairs = [(ROLES[str(key).lower()], {'content': value}) for key, value in item.items() if str(key).lower() in ROLES]
        if pairs:
            return pairs
        raise RowError(f'no role among its keys {sorted(map(str, item))}')
    if role_key not in item:
        raise RowError(f'no {role_key!r} among its keys {sorted(map(str, item))}')
    content_key = tags.content_key or next((key for key in _CONTENT_KEYS if key in item), None)
    entry = {key: item[key] for key in _KEPT if item.get(key) is not None}
    if item.get('tool_calls'):
        entry['tool_calls'] = _tool_calls(item['tool_calls'])
    elif item.get('function_call'):
        entry['tool_calls'] = _tool_calls(item['function_call'])
    for key in ('loss', 'loss_scale', 'weight'):
        if item.get(key) is not None:
            entry['loss'] = _loss(item[key], key)
            break
    if content_key is None and 'tool_calls' not in entry:
        raise RowError(f'no content among its keys {sorted(map(str, item))}')
    entry['content'] = item.get(content_key) if content_key is not None else None
    return [(tags.role(item[role_key]), entry)]


def _loss(value: Any, key: str) -> bool | float:
    if isinstance(value, (bool, int, float)):
        return value if isinstance(value, bool) else float(value)
    if isinstance(value, str) and value.strip().lower() in ('true', 'false'):
        return value.strip().lower() == 'true'
    raise RowError(f'{key} must be true, false or a number, got {value!r}')


def _append(messages: list[Message], role: str, entry: dict[str, Any]) -> None:
    """Add a message; calls go into the assistant's message they belong to."""
    last = messages[-1] if messages else None
    if role == 'tool_call':
        calls = _tool_calls(entry['content'])
        if last is not None and last['role'] == 'assistant' and ('loss' not in entry or entry['loss'] == last.get('loss')):
            last['tool_calls'] = last.get('tool_calls', []) + calls
            return
        role, entry = 'assistant', {**entry, 'content': '', 'tool_calls': calls}
    messages.append({'role': role, **entry, 'content': _content(entry['content'], role, 'tool_calls' in entry)})


def _content(value: Any, role: str, calls: bool) -> Any:
    if isinstance(value, str):
        return value
    if value is None:
        if calls:
            return ''
        raise RowError(f'the content of the {role} is null')
    if isinstance(value, list) and all(isinstance(part, (str, Mapping)) for part in value):
        return [{'type': 'text', 'text': part} if isinstance(part, str) else _without_none(part) for part in value]
    if role == 'tool' and isinstance(value, (Mapping, list)):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    raise RowError(f'the content of the {role} must be a string or a list of parts, got {type(value).__name__}')


def _without_none(part: Mapping) -> dict[str, Any]:
    """Arrow fills the keys that a part lacks with None."""
    return {key: value for key, value in part.items() if value is not None}


def _tool_calls(raw: Any) -> list[dict[str, Any]]:
    calls = parsed(raw, 'a tool call')
    if isinstance(calls, Mapping):
        calls = [calls]
    if not isinstance(calls, list) or not calls:
        raise RowError('a tool call must be an object or a list of objects')
    return [_tool_call(call) for call in calls]


def _tool_call(call: Any) -> dict[str, Any]:
    call = parsed(call, 'a tool call')
    function = call.get('function', call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get('name'), str):
        raise RowError(f'a tool call needs a name and arguments, got {str(call)[:80]}')
    arguments = function.get('arguments', function.get('parameters'))
    arguments = parsed(arguments, 'the arguments of a tool call') if arguments else {}
    if not isinstance(arguments, Mapping):
        raise RowError(f'the arguments of the tool call {function["name"]!r} must be an object')
    made: dict[str, Any] = {'type': 'function', 'function': {'name': function['name'], 'arguments': dict(arguments)}}
    if call.get('id'):
        made['id'] = call['id']
    return made


def to_tools(raw: Any) -> list[dict] | None:
    """Function schemas in OpenAI form, or None when the row has none. Raises RowError."""
    if raw is None or (isinstance(raw, str) and not raw.strip()):
        return None
    tools = parsed(raw, 'tools')
    if isinstance(tools, Mapping):
        tools = [tools]
    if not tools:
        return None
    if not isinstance(tools, list):
        raise RowError(f'tools must be a list of function schemas, got {type(tools).__name__}')
    return [_tool(tool) for tool in tools]


def _tool(tool: Any) -> dict[str, Any]:
    tool = parsed(tool, 'a tool')
    if not isinstance(tool, Mapping):
        raise RowError(f'a tool must be an object, got {type(tool).__name__}')
    if isinstance(tool.get('function'), Mapping):
        return {'type': 'function', **tool}
    if 'name' not in tool:
        raise RowError(f'a tool needs a name, it has {sorted(map(str, tool))}')
    return {'type': 'function', 'function': dict(tool)}
