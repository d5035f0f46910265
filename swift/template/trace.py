"""Who said which character: one rendering with invisible marks around every string of the messages.

A mark is a pair of characters of a private-use plane around the non-space core of a string; strings are cut at
markup such as `<think>`, which stays bare so that templates which look for it still find it. The marked rendering
counts only if it is the plain rendering once the marks are taken out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from swift.template.jinja import Renderer

_AREAS = ((0xF0000, re.compile('[\U000f0000-\U000ffffd]')), (0x100000, re.compile('[\U00100000-\U0010fffd]')))
"""The supplementary private use areas: 65,534 characters each, two for every string. The second one is for data
that holds characters of the first."""
_LIMIT = 32_000
MARKUP = re.compile(r'<[^<>\s]{1,60}>|\[/?[A-Z][A-Z_]*\]')
"""What looks like a control token. Marks never touch it."""

OTHER = -1
"""Owner of a string that belongs to no message (tool definitions)."""


@dataclass(slots=True)
class Trace:
    """A rendering and the places where the strings of the messages came out."""

    text: str
    pieces: list[tuple[int, int, int]]
    """(start, end, message index) in order of the text; OTHER for tool definitions."""

    def of(self, index: int) -> list[tuple[int, int]]:
        """The pieces of one message."""
        return [(a, b) for a, b, owner in self.pieces if owner == index]


class _Marker:
    """Wraps strings and remembers who owns which mark."""

    def __init__(self, area: int) -> None:
        self.first, self.pattern = _AREAS[area]
        self.owners: list[int] = []
        self.names: set[int] = set()
        """Marks of function names: a tool's result may repeat the name of the call, which is then nobody's word."""

    def wrap(self, text: str, owner: int) -> str:
        if not MARKUP.sub('', text).strip():  # nothing but markup: then it is the words
            return self._core(text, owner)
        out = []
        at = 0
        for match in MARKUP.finditer(text):
            out.append(self._core(text[at : match.start()], owner))
            out.append(match.group())
            at = match.end()
        out.append(self._core(text[at:], owner))
        return ''.join(out)

    def _core(self, text: str, owner: int) -> str:
        core = text.strip()
        if not core or len(self.owners) >= _LIMIT:
            return text
        start = text.find(core)
        mark = self.first + 2 * len(self.owners)
        self.owners.append(owner)
        return f'{text[:start]}{chr(mark)}{core}{chr(mark + 1)}{text[start + len(core) :]}'

    def wrap_values(self, value: Any, owner: int) -> Any:
        """Every string value in nested lists and dicts (keys stay)."""
        if isinstance(value, str):
            return self.wrap(value, owner)
        if isinstance(value, dict):
            return {key: self.wrap_values(item, owner) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.wrap_values(item, owner) for item in value]
        return value


LEVELS = ('all', 'no names', 'content')
"""What is marked: everything; all but function names and tool definitions (templates look them up); content only."""

_REASONING = ('reasoning_content', 'thinking', 'reasoning')


def _mark_content(marker: _Marker, content: Any, owner: int) -> Any:
    if isinstance(content, str):
        return marker.wrap(content, owner)
    if isinstance(content, list):
        return [
            {**part, 'text': marker.wrap(part['text'], owner)}
            if isinstance(part, dict) and isinstance(part.get('text'), str)
            else part
            for part in content
        ]
    return content


def _mark_call(marker: _Marker, call: Any, owner: int, names: bool) -> Any:
    if not isinstance(call, dict):
        return call
    call = dict(call)
    inner = call.get('function')
    target = dict(inner) if isinstance(inner, dict) else call
    if names and isinstance(target.get('name'), str):
        before = len(marker.owners)
        target['name'] = marker.wrap(target['name'], owner)
        marker.names.update(range(before, len(marker.owners)))
    if 'arguments' in target:
        target['arguments'] = marker.wrap_values(target['arguments'], owner)
    if target is not call:
        call['function'] = target
    return call


def _mark_message(marker: _Marker, message: dict, owner: int, level: str) -> dict:
    message = dict(message)
    if 'content' in message:
        message['content'] = _mark_content(marker, message['content'], owner)
    if level != 'content':
        for key in _REASONING:
            if isinstance(message.get(key), str):
                message[key] = marker.wrap(message[key], owner)
        if message.get('tool_calls'):
            message['tool_calls'] = [_mark_call(marker, c, owner, level == 'all') for c in message['tool_calls']]
    return message


def _free_area(plain: str, messages: list[dict]) -> int | None:
    """An area of mark characters that the data does not hold, or None."""
    for area, (_, pattern) in enumerate(_AREAS):
        if not pattern.search(plain) and not any(pattern.search(s) for m in messages for s in strings(m)):
            return area
    return None


def strings(message: dict) -> Iterator[str]:
    """The strings of a message that a template may print: content, reasoning, names and arguments of tool calls."""
    content = message.get('content')
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        yield from (p['text'] for p in content if isinstance(p, dict) and isinstance(p.get('text'), str))
    for key in _REASONING:
        if isinstance(message.get(key), str):
            yield message[key]
    for call in message.get('tool_calls') or ():
        function = call.get('function', call) if isinstance(call, dict) else {}
        yield from _strings_of(function.get('name'))
        yield from _strings_of(function.get('arguments'))


def _strings_of(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings_of(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings_of(item)


def trace(
    render: Renderer,
    messages: list[dict],
    tools: list | None,
    *,
    generation_prompt: bool = False,
    plain: str | None = None,
) -> Trace | None:
    """The rendering with the places of every string, or None where no marking leaves the text as it is.

    `plain` is the plain rendering if the caller has it. Raises TemplateError where the template refuses the messages.
    """
    if plain is None:
        plain = render(messages, tools, generation_prompt=generation_prompt)
    area = _free_area(plain, messages)
    for level in LEVELS if area is not None else ():
        marker = _Marker(area)
        marked_messages = [_mark_message(marker, m, i, level) for i, m in enumerate(messages)]
        marked_tools = marker.wrap_values(tools, OTHER) if tools and level == 'all' else tools
        marked = render.attempt(marked_messages, marked_tools, generation_prompt=generation_prompt)
        if marked is None:
            continue
        text, pieces = _unmark(marked, marker)
        if text == plain:
            return Trace(text, pieces)
    return None


def _unmark(marked: str, marker: _Marker) -> tuple[str, list[tuple[int, int, int]]]:
    """Take the marks out: the text, and (start, end, owner) of every pair. A mark that lost its partner is a point."""
    owners = marker.owners
    out: list[str] = []
    pieces: list[tuple[int, int, int]] = []
    at = length = 0
    opened: tuple[int, int] | None = None  # (mark, position)
    printed: set[int] = set()
    for match in marker.pattern.finditer(marked):
        out.append(marked[at : match.start()])
        length += match.start() - at
        at = match.end()
        number, closing = divmod(ord(match.group()) - marker.first, 2)
        if number >= len(owners) or number in printed:
            continue
        if not closing:
            if opened is not None:
                pieces.append((opened[1], opened[1], owners[opened[0]]))
            opened = (number, length)
        elif opened is not None and opened[0] == number:
            pieces.append((opened[1], length, owners[number]))
            opened = None
            if number in marker.names:
                printed.add(number)
        else:
            pieces.append((length, length, owners[number]))
    if opened is not None:
        pieces.append((opened[1], opened[1], owners[opened[0]]))
    out.append(marked[at:])
    return ''.join(out), pieces
