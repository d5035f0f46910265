"""Row → Conversation: the shapes that are recognised, and the classes to build further ones from.

A preprocessor takes a row of whatever columns and gives a *standard row*: `messages` (or `text`), and optionally
`system`, `tools`, `images`, `videos`, `audios`, `chosen` and `rejected`, `rejected_messages` or `rejected_response`, `label`,
`channel`; every other column stays beside it. `conversation()` makes the typed object of that and checks it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from swift.core.errors import RowError
from swift.core.types import Conversation, Message, Row
from swift.dataset.bad_rows import SkipRow
from swift.dataset.messages import Tags, parsed, to_messages, to_tools

QUERY = ('query', 'prompt', 'instruction', 'question', 'problem', 'input')
RESPONSE = ('response', 'output', 'completion', 'answer', 'target', 'targets', 'solution')
MESSAGES = ('messages', 'conversations', 'conversation')
_OTHER_NAMES = {'system_prompt': 'system', 'image': 'images', 'video': 'videos', 'audio': 'audios'}
"""Other spelling → standard name."""
_STANDARD = {
    'messages', 'text', 'system', 'tools', 'images', 'videos', 'audios', 'chosen', 'rejected', 'rejected_messages',
    'rejected_response', 'label', 'channel',
}  # fmt: skip
SHAPES = (
    'messages [{role, content}], conversations [{from, value}], instruction (+input) +output, query +response (+history), '
    'prompt +completion, question +answer, prompt/messages +chosen +rejected, text'
)


class ShapeError(RowError):
    """A row whose columns don't fit what is asked of it: a mistake of the data set rather than of the row."""

    def at(self, source: str | None) -> RowError:
        return self if self.source or not source else ShapeError(self.reason, source, self.hint)

    def __reduce__(self):
        return ShapeError, (self.reason, self.source, self.hint)


def unknown_shape(row: Row) -> ShapeError:
    """The error for a row of no known shape: its keys, the accepted shapes, the remedy."""
    return ShapeError(
        f'columns {sorted(map(str, row))} are no known shape;',
        hint=f'accepted: {SHAPES}; map yours with --columns \'{{"theirs": "query"}}\'',
    )


def conversation(row: Row, source: str | None = None, tags: Tags = Tags()) -> Conversation:
    """The typed conversation of a standard row. Raises RowError."""
    get = row.get
    text = get('text') if get('messages') is None else None
    rejected = None
    if text is not None:
        if not isinstance(text, str) or not text:
            raise RowError('text must be a string that is not empty', source)
        messages: list[Message] = [{'role': 'assistant', 'content': text}]
    else:
        messages = with_system(to_messages(get('messages'), tags), get('system'))
        messages, rejected = _preference(row, messages, tags)
    columns = {key: value for key, value in row.items() if key not in _STANDARD}
    if text is None and get('text') is not None:
        columns['text'] = row['text']
    channel = get('channel')
    return Conversation(
        messages,
        tools=to_tools(get('tools')),
        images=_media(get('images')),
        videos=_media(get('videos')),
        audios=_media(get('audios')),
        rejected=rejected,
        label=get('label'),
        channel=None if channel is None else str(channel),
        text=text is not None,
        columns=columns,
        source=source,
    )


def to_row(talk: Conversation) -> Row:
    """The standard row of a conversation: what `conversation` reads back as the same. Columns that JSON can't hold are texts."""
    row: Row = {'text': talk.messages[0]['content']} if talk.text else {'messages': talk.messages}
    optional = {
        'tools': talk.tools, 'images': talk.images, 'videos': talk.videos, 'audios': talk.audios,
        'rejected_messages': talk.rejected, 'channel': talk.channel,
    }  # fmt: skip
    row.update({key: value for key, value in optional.items() if value})
    if talk.label is not None:
        row['label'] = talk.label
    return json.loads(json.dumps({**talk.columns, **row}, ensure_ascii=False, default=str))


def _preference(row: Row, messages: list[Message], tags: Tags) -> tuple[list[Message], list[Message] | None]:
    """(messages with the chosen answer, messages with the rejected one or None)."""
    if row.get('chosen') is not None and row.get('rejected') is not None:
        return tuple(_answered(messages, transcript(row[name]), tags) for name in ('chosen', 'rejected'))  # type: ignore
    if row.get('rejected_messages') is not None:
        return messages, with_system(to_messages(row['rejected_messages'], tags), row.get('system'))
    if row.get('rejected_response') is not None:
        return messages, _answered(messages, row['rejected_response'], tags)
    return messages, None


def _media(value: Any) -> list[Any]:
    if value is None or value == '':
        return []
    if isinstance(value, str) and value.startswith('['):
        value = parsed(value, 'media')
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _answered(messages: list[Message], answer: Any, tags: Tags = Tags()) -> list[Message]:
    """The conversation with its last answer replaced by `answer`: a string, a message, or messages."""
    prompt = messages[:-1] if messages and messages[-1]['role'] == 'assistant' else messages
    if isinstance(answer, str):
        return [*prompt, {'role': 'assistant', 'content': answer}]
    answered = to_messages(answer, tags)
    if len(answered) == 1 or answered[0]['role'] not in ('user', 'system'):
        return [*prompt, *answered]
    given = prompt[0]['content'] if prompt and prompt[0]['role'] == 'system' else None
    return answered if answered[0]['role'] == 'system' else with_system(answered, given)


class RowPreprocessor:
    """Base of all preprocessors: subclass it and write `preprocess(row) -> standard row or None`.

    `columns` renames columns first (theirs → ours). None leaves the row out on purpose. `auto` False switches off
    the other spellings of columns: only the first name of each list counts.
    """

    def __init__(self, *, columns: Mapping[str, str] | None = None, tags: Tags = Tags(), auto: bool = True):
        self.columns, self.tags, self.auto = dict(columns or {}), tags, auto

    def preprocess(self, row: Row) -> Row | None:
        """The standard row of a row; None leaves it out."""
        return row

    def __call__(self, row: Row, source: str | None = None) -> Conversation:
        """The conversation of a row. Raises RowError (SkipRow where `preprocess` gave None)."""
        try:
            made = self.preprocess(self.renamed(row))
            if made is None:
                raise SkipRow('left out by its preprocessor')
            if isinstance(made, Conversation):
                made.source = made.source or source
                return made
            return conversation(made, source, self.tags)
        except RowError as error:
            raise error.at(source) if not isinstance(error, SkipRow) else SkipRow(error.reason, source) from error

    def renamed(self, row: Row) -> Row:
        """The row with `columns` applied. Raises RowError when none of the columns to rename is there."""
        if not self.columns:
            return dict(row)
        if not any(theirs in row for theirs in self.columns):
            raise ShapeError(
                f'none of the mapped columns {sorted(self.columns)} is among {sorted(map(str, row))};',
                hint='columns reads {"name in the file": "our name"}',
            )
        taken = set(self.columns.values())
        kept = {key: value for key, value in row.items() if key not in self.columns and key not in taken}
        return {**kept, **{ours: row[theirs] for theirs, ours in self.columns.items() if theirs in row}}

    def first(self, row: Row, names: tuple[str, ...]) -> str | None:
        """The first of `names` that the row fills."""
        for name in names if self.auto else names[:1]:
            if row.get(name) is not None:
                return name
        return None

    def common(self, row: Row) -> Row:
        """The row with media and the system prompt under their standard names."""
        if not self.auto:
            return row
        made = dict(row)
        for name in row.keys() & _OTHER_NAMES.keys():
            if made.get(_OTHER_NAMES[name]) is None:
                made[_OTHER_NAMES[name]] = made.pop(name)
        return made


class MessagesPreprocessor(RowPreprocessor):
    """Rows with `messages` or `conversations`; also preference rows with chosen and rejected beside them."""

    def preprocess(self, row: Row) -> Row | None:
        name = self.first(row, MESSAGES)
        if name is None:
            raise unknown_shape(row)
        row = self.common(row)
        if name != 'messages':
            row['messages'] = row.pop(name)
        return row


class ResponsePreprocessor(RowPreprocessor):
    """Rows with a query and a response under any of their usual names, and optionally system and history."""

    def preprocess(self, row: Row) -> Row | None:
        query_name, response_name = self.first(row, QUERY), self.first(row, RESPONSE)
        if query_name is None:
            raise unknown_shape(row)
        row = self.common(row)
        query = row.pop(query_name)
        response = row.get('solution') if response_name == 'solution' else row.pop(response_name, None)
        return said(row, query, response)


class AlpacaPreprocessor(RowPreprocessor):
    """Rows with instruction, input (joined with a line break) and output; optionally system and history."""

    def preprocess(self, row: Row) -> Row | None:
        row = self.common(row)
        instruction, more = row.pop('instruction', None), row.pop('input', None)
        output_name = self.first(row, ('output', *RESPONSE))
        output = row.pop(output_name) if output_name else None
        if not instruction and not more:
            raise RowError('instruction and input are both empty')
        return said(row, '\n'.join(part for part in (instruction, more) if part), output)


class TextPreprocessor(RowPreprocessor):
    """Rows with plain `text`, for pre-training."""

    def preprocess(self, row: Row) -> Row | None:
        return {**row, 'messages': None}


class AutoPreprocessor(RowPreprocessor):
    """Recognises the shape of every row by its columns."""

    def __init__(self, *, columns: Mapping[str, str] | None = None, tags: Tags = Tags(), auto: bool = True):
        super().__init__(columns=columns, tags=tags, auto=auto)
        shared = {'tags': tags, 'auto': auto}
        self._messages, self._alpaca = MessagesPreprocessor(**shared), AlpacaPreprocessor(**shared)
        self._response, self._text = ResponsePreprocessor(**shared), TextPreprocessor(**shared)

    def preprocess(self, row: Row) -> Row | None:
        return self._choose(row)(row)

    def _choose(self, row: Row) -> Callable[[Row], Row | None]:
        if self.first(row, MESSAGES):
            return self._messages.preprocess
        if row.get('instruction') is not None and ('input' in row or 'output' in row):
            return self._alpaca.preprocess
        if self.first(row, QUERY):
            return self._response.preprocess
        if row.get('chosen') is not None and row.get('rejected') is not None:
            return self._chosen_only
        if row.get('text') is not None:
            return self._text.preprocess
        raise unknown_shape(row)

    def _chosen_only(self, row: Row) -> Row:
        """chosen and rejected hold whole conversations: messages, or a transcript with Human: and Assistant: turns."""
        row = self.common(row)
        chosen, rejected = (transcript(row.pop(name)) for name in ('chosen', 'rejected'))
        return {**row, 'messages': chosen, 'rejected_messages': rejected}


class ChangedRows(AutoPreprocessor):
    """A user's function on every row: it gets the row with `messages` (made where the row has none)."""

    def __init__(self, inner: RowPreprocessor, function: Callable[[Row], Row | None]):
        super().__init__()
        self.inner, self.function = inner, function

    def preprocess(self, row: Row) -> Row | None:
        row = self.inner.renamed(row)
        made = self.inner.preprocess(dict(row))
        if made is None:
            return None
        if made.get('messages') is not None:
            row['messages'] = to_messages(made['messages'], self.inner.tags)
        changed = self.function(row)
        return None if changed is None else super().preprocess(dict(changed))


_TURN = re.compile(r'\n*(Human|Assistant): ?')


def transcript(value: Any) -> Any:
    """Messages of a text such as `Human: … Assistant: …`; any other value as it is."""
    if not isinstance(value, str) or not _TURN.match(value):
        return value
    parts = _TURN.split(value)[1:]
    return [
        {'role': 'user' if role == 'Human' else 'assistant', 'content': text.strip()}
        for role, text in zip(parts[::2], parts[1::2], strict=True)
    ]


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


def said(row: Row, query: Any, response: Any) -> Row:
    """The standard row of a query, its response (either may be messages) and what else the row holds.

    An empty response counts as none: the row is then a prompt.
    """
    messages = earlier(row.pop('history', None))
    plain = isinstance(query, (str, int, float))
    messages += [{'role': 'user', 'content': str(query)}] if plain else parsed_list(query)
    if isinstance(response, list) and response and all(isinstance(item, str) for item in response):
        response = response[0]
    if isinstance(response, (str, int, float)):
        messages += [] if response == '' else [{'role': 'assistant', 'content': str(response)}]
    elif response:
        messages += parsed_list(response)
    row['messages'] = messages
    return row


def parsed_list(value: Any) -> list[Any]:
    """Messages given as a list, or as one message."""
    if isinstance(value, (list, tuple)):
        return list(value)
    if isinstance(value, Mapping):
        return [value]
    raise RowError(f'expected a string or messages, got {type(value).__name__}')


def earlier(history: Any) -> list[Any]:
    """Messages of earlier turns: pairs [[query, response], …], or messages."""
    history = parsed(history, 'history') if history else None
    if not history:
        return []
    if not isinstance(history, (list, tuple)):
        raise RowError(f'history must be a list, got {type(history).__name__}')
    if isinstance(history[0], Mapping):
        return list(history)
    messages: list[Any] = []
    for number, turn in enumerate(history):
        if not isinstance(turn, (list, tuple)) or len(turn) != 2:
            raise RowError(f'history[{number}] must be a pair [query, response]')
        messages += [{'role': 'user', 'content': turn[0]}, {'role': 'assistant', 'content': turn[1]}]
    return messages
