"""Images, videos and sounds inside messages: the one form in which they pass every door.

A message that shows something has a list of parts as its content: `{"type": "text", "text": …}` and
`{"type": "image", "image": reference}` (likewise `video`, `audio`), in the order in which the model sees them. A reference is a
path, a URL, a data URI, bytes, a PIL image, a list of frames, an array: whatever `swift.media` reads. Nothing here opens one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from swift.core.errors import RowError
from swift.core.log import warn_once
from swift.core.types import Message

KINDS = ('image', 'video', 'audio')
_TAG = re.compile(r'<(image|video|audio)>')
_NESTED = {
    'image': 'image', 'image_url': 'image', 'input_image': 'image',
    'video': 'video', 'video_url': 'video', 'input_video': 'video',
    'audio': 'audio', 'audio_url': 'audio', 'input_audio': 'audio',
}  # fmt: skip
"""Type of a content part, as OpenAI and others write it → kind."""
_INNER = ('bytes', 'base64', 'data', 'path', 'url')


def bind(messages: Sequence[Message], images: Sequence = (), videos: Sequence = (), audios: Sequence = ()) -> list[Message]:
    """The messages with every medium in its place, as a part of the content.

    A tag `<image>`, `<video>`, `<audio>` in a text, or a part without a reference of its own, takes the next medium of that
    kind from the lists. Media without any tag stand in front of the first user text. A tag of a kind that the row has no
    medium of stays text. Raises RowError naming both numbers where tags and media don't match. Messages that show nothing
    are the same objects.
    """
    given = dict(zip(KINDS, map(list, (images, videos, audios)), strict=True))
    if not any(given.values()) and not any(isinstance(message.get('content'), list) for message in messages):
        return list(messages)
    out = [_in_parts(message, given) for message in messages]
    for kind, media in given.items():
        asked = sum(_waits(part, kind) for message in out for part in _parts(message))
        if media and not asked:
            out = _in_front(out, kind, media)
        elif asked != len(media):
            tags = f'{asked} <{kind}> tag{"s" if asked != 1 else ""}'
            raise RowError(f'the messages have {tags}, but {kind}s holds {len(media)};', hint=f'write one <{kind}> for each {kind}')
    rest = {kind: iter(media) for kind, media in given.items()}
    return [_filled(message, rest) for message in out]


def media_of(messages: Sequence[Message]) -> list[tuple[str, Any]]:
    """(kind, reference) of every medium of bound messages, in order."""
    return [(part['type'], part[part['type']]) for message in messages for part in _parts(message) if is_medium(part)]


def is_medium(part: Any) -> bool:
    """Whether a content part is a bound medium."""
    return isinstance(part, dict) and part.get('type') in KINDS and part.get(part['type']) is not None


def replaced(messages: Sequence[Message], change: Any) -> list[Message]:
    """Bound messages with `change(kind, reference)` in place of every reference."""
    out = []
    for message in messages:
        parts = _parts(message)
        if any(map(is_medium, parts)):
            new = [{**p, p['type']: change(p['type'], p[p['type']])} if is_medium(p) else p for p in parts]
            message = {**message, 'content': new}
        out.append(message)
    return out


def _parts(message: Message) -> list[Any]:
    content = message.get('content')
    return content if isinstance(content, list) else []


def _waits(part: Any, kind: str) -> bool:
    """Whether a part is a place for a medium that the lists are to fill."""
    return isinstance(part, dict) and part.get('type') == kind and part.get(kind) is None


def _in_parts(message: Message, given: dict[str, list]) -> Message:
    """The message with tags as parts without a reference, and references of nested parts in their one form."""
    content = message.get('content')
    if isinstance(content, str):
        parts = list(_split(content, given))
        return {**message, 'content': parts} if any(part['type'] != 'text' for part in parts) else message
    if not isinstance(content, list):
        return message
    parts = []
    for part in content:
        if isinstance(part, str):
            part = {'type': 'text', 'text': part}
        kind = _NESTED.get(part.get('type') or next((key for key in _NESTED if key in part), ''))
        if kind is not None:
            parts.append({'type': kind, kind: reference(part, kind)})
        elif isinstance(part.get('text'), str) and part.get('type', 'text') in ('text', 'input_text', 'output_text'):
            parts += _split(part['text'], given)
        else:
            parts.append(part)
    return {**message, 'content': parts}


def _split(text: str, given: dict[str, list]) -> Iterator[dict[str, Any]]:
    """Texts and places for media, in order; only tags of kinds that the row has media of are places."""
    at = 0
    for match in _TAG.finditer(text):
        kind = match.group(1)
        if given[kind]:
            if match.start() > at:
                yield {'type': 'text', 'text': text[at : match.start()]}
            yield {'type': kind, kind: None}
            at = match.end()
    if at < len(text) or not text:
        yield {'type': 'text', 'text': text[at:]}


def reference(part: dict[str, Any], kind: str) -> Any:
    """The reference in a content part of any spelling: {"image_url": {"url": …}}, {"input_audio": {"data": …}}, {"image": …}."""
    names = [name for name, of in _NESTED.items() if of == kind and part.get(name) is not None]
    value = part[names[0]] if names else next((part[key] for key in _INNER if part.get(key) is not None), None)
    if isinstance(value, dict):
        inner = next((value[key] for key in _INNER if value.get(key) is not None), None)
        return value if inner is None or 'array' in value else inner
    return value


def _in_front(messages: list[Message], kind: str, media: list) -> list[Message]:
    """The messages with places for all media of a kind before the first user text (behind those of another kind already there)."""
    index = next((i for i, message in enumerate(messages) if message.get('role') == 'user'), None)
    if index is None:
        raise RowError(f'the row has {len(media)} {kind}s, but no <{kind}> tag and no user message to show them in')
    warn_once('Rows with %ss but no <%s> tag: they are put in front of the first user text.', kind, kind)
    content = messages[index].get('content')
    parts = content if isinstance(content, list) else [{'type': 'text', 'text': content or ''}]
    at = next((i for i, part in enumerate(parts) if part.get('type') == 'text'), len(parts))
    places = [{'type': kind, kind: None} for _ in media]
    message = {**messages[index], 'content': [*parts[:at], *places, *parts[at:]]}
    return [*messages[:index], message, *messages[index + 1 :]]


def _filled(message: Message, rest: dict[str, Iterator]) -> Message:
    parts = _parts(message)
    if not any(_waits(part, kind) for part in parts for kind in KINDS):
        return message
    kinds = [part.get('type') if isinstance(part, dict) else None for part in parts]
    return {
        **message,
        'content': [
            {'type': kind, kind: next(rest[kind])} if kind in KINDS and _waits(part, kind) else part
            for kind, part in zip(kinds, parts, strict=True)
        ],
    }
