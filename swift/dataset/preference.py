"""Rows with a better and a worse answer: `chosen` and `rejected` in every form they come in.

An answer is a string, one message, the messages that follow the prompt, or a whole conversation. Of rejected answers there may
be several: a list of strings, or a list of message lists.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from swift.core.errors import RowError
from swift.core.types import Message, Row
from swift.dataset import media
from swift.dataset.messages import Tags, parsed, to_messages

REJECTED = ('rejected', 'rejected_response', 'rejected_messages')
"""Columns of rejected answers; in the last one they are whole conversations."""
CHOSEN = ('chosen', 'response (and its other names)', 'the last message of messages')
Pair = tuple[list[Message], 'list[Message] | None', 'list[list[Message]] | None']


def preference(row: Row, messages: list[Message], tags: Tags) -> Pair:
    """(conversation with the chosen answer, with the rejected one or None, with further rejected ones or None).

    Raises RowError for a row with one side only, and for a rejected answer that is the chosen one.
    """
    chosen = row.get('chosen')
    name = next((name for name in REJECTED if filled(row.get(name))), None)
    if name is None and not filled(chosen):
        return messages, None, None
    if filled(chosen):
        messages = answered(messages, spoken(_one(chosen)), tags, 'chosen')
    if name is None:
        raise _one_sided(row, 'chosen', 'rejected answer', REJECTED)
    if not messages or messages[-1]['role'] != 'assistant':
        raise _one_sided(row, name, 'chosen answer', CHOSEN)
    rejected = [_rejected(row, messages, name, item, tags) for item in _several(row[name], name)]
    for number, other in enumerate(rejected):
        label = name if len(rejected) == 1 else f'{name}[{number}]'
        if other[-1]['role'] != 'assistant':
            raise RowError(f'{label} must end with an answer of the assistant, it ends with the {other[-1]["role"]}')
        if other == messages and not media.filled(row, 'rejected'):
            raise RowError(f'{label} is the same as the chosen answer: there is nothing to prefer')
    return messages, rejected[0], rejected[1:] or None


def _one_sided(row: Row, has: str, lacks: str, names: tuple[str, ...]) -> RowError:
    return RowError(f'the columns {sorted(map(str, row))} hold {has}, but no {lacks};', hint=f'it is read from {", ".join(names)}')


def filled(value: Any) -> bool:
    """Whether a column holds something."""
    return value is not None and value != '' and value != []


def margin(value: Any) -> float:
    """How much better the chosen answer is, as a number. Raises RowError."""
    try:
        if isinstance(value, bool) or not math.isfinite(float(value)):
            raise ValueError
        return float(value)
    except (TypeError, ValueError):
        raise RowError(f'margin must be a number, got {value!r}') from None


def _rejected(row: Row, messages: list[Message], name: str, item: Any, tags: Tags) -> list[Message]:
    if name == 'rejected_messages':
        return with_system(to_messages(item, tags), row.get('system'))
    return answered(messages, spoken(item), tags, name)


def _several(value: Any, name: str) -> list[Any]:
    """The rejected answers of a column, one by one."""
    if name == 'rejected_messages':
        value = parsed(value, name)
    if isinstance(value, (list, tuple)) and all(isinstance(item, (str, list, tuple)) for item in value):
        if not all(value):
            raise RowError(f'{name} holds an empty answer')
        return list(value)
    return [value]


def _one(value: Any) -> Any:
    """The chosen answer; a list with one string is that string."""
    if isinstance(value, (list, tuple)) and any(isinstance(item, (str, list, tuple)) for item in value):
        if len(value) > 1:
            raise RowError(f'chosen must be one answer, got {len(value)}')
        return value[0]
    return value


def answered(messages: list[Message], answer: Any, tags: Tags = Tags(), name: str = 'the answer') -> list[Message]:
    """The conversation with its last answer replaced by `answer`: a string, a message, messages, or a whole conversation."""
    prompt = messages[:-1] if messages and messages[-1]['role'] == 'assistant' else messages
    if isinstance(answer, str):
        return [*prompt, {'role': 'assistant', 'content': answer}]
    if not isinstance(answer, (Mapping, list, tuple)):
        raise RowError(f'{name} must be a string or messages, got {type(answer).__name__}')
    try:
        made = to_messages(answer, tags)
    except RowError as error:
        raise RowError(f'{name}: {error.reason}', hint=error.hint) from error
    if len(made) == 1 or made[0]['role'] not in ('user', 'system'):
        return [*prompt, *made]
    given = prompt[0]['content'] if prompt and prompt[0]['role'] == 'system' else None
    return made if made[0]['role'] == 'system' else with_system(made, given)


_TURN = re.compile(r'\n*(Human|Assistant): ?')
_JSON = re.compile(r'\s*(\[\s*)*\{\s*"(role|from|content|value)"\s*:')


def spoken(value: Any) -> Any:
    """Messages of a text that holds some: a transcript such as `Human: … Assistant: …`, or their JSON. Anything else as it is."""
    if not isinstance(value, str):
        return value
    if _TURN.match(value):
        parts = _TURN.split(value)[1:]
        return [
            {'role': 'user' if role == 'Human' else 'assistant', 'content': text.strip()}
            for role, text in zip(parts[::2], parts[1::2], strict=True)
        ]
    return from_json(value)


def from_json(value: Any) -> Any:
    """Messages of a string that is their JSON, as a cell of a CSV file is. Anything else as it is."""
    if isinstance(value, str) and _JSON.match(value):
        with contextlib.suppress(ValueError):
            return json.loads(value)
    return value


def with_system(messages: list[Message], system: Any) -> list[Message]:
    """The messages with `system` in front. Raises RowError when they have another one already."""
    if system is None or system == '':
        return messages
    if not isinstance(system, str):
        raise RowError(f'system must be a string, got {type(system).__name__}')
    if messages and messages[0]['role'] == 'system':
        if messages[0]['content'] != system:
            raise RowError('the row has a system column and another system message; keep one')
        return messages
    return [{'role': 'system', 'content': system}, *messages]
