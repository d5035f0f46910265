"""Row → Conversation: the shapes that are recognised, and the classes to build further ones from.

A preprocessor takes a row of whatever columns and gives a *standard row*: `messages` (or `text`), and optionally
`tools`, `images`, `videos`, `audios`, `rejected_messages` or `rejected_response`, `label`, `channel`; every other
column stays beside it. `conversation()` makes the typed object of that and checks it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from swift.core.errors import RowError
from swift.core.types import Conversation, Message, Row
from swift.dataset.bad_rows import SkipRow
from swift.dataset.messages import Tags, parsed, to_messages, to_tools

QUERY = ('query', 'prompt', 'instruction', 'question', 'problem', 'input')
RESPONSE = ('response', 'output', 'completion', 'answer', 'target', 'targets', 'solution')
SYSTEM = ('system', 'system_prompt')
MESSAGES = ('messages', 'conversations', 'conversation')
MEDIA = {
    'images': ('images', 'image'),
    'videos': ('videos', 'video'),
    'audios': ('audios', 'audio'),
}
_STANDARD = {
    'messages', 'text', 'tools', 'images', 'videos', 'audios', 'rejected_messages', 'rejected_response', 'label', 'channel',
}  # fmt: skip
SHAPES = (
    'messages [{role, content}], conversations [{from, value}], instruction (+input) +output, query +response (+history), '
    'prompt +completion, question +answer, prompt/messages +chosen +rejected, text'
)


def unknown_shape(row: Row) -> RowError:
    """The error for a row of no known shape: its keys, the accepted shapes, the remedy."""
    return RowError(
        f'columns {sorted(map(str, row))} are no known shape;',
        hint=f'accepted: {SHAPES}; map yours with --columns \'{{"theirs": "query"}}\'',
    )


def conversation(row: Row, source: str | None = None) -> Conversation:
    """The typed conversation of a standard row. Raises RowError."""
    extra = {key: value for key, value in row.items() if key not in _STANDARD}
    text = row.get('text') if row.get('messages') is None else None
    if text is not None:
        if not isinstance(text, str) or not text:
            raise RowError('text must be a string that is not empty', source)
        messages: list[Message] = [{'role': 'assistant', 'content': text}]
    else:
        if row.get('text') is not None:
            extra['text'] = row['text']
        messages = to_messages(row.get('messages'))
    rejected = row.get('rejected_messages')
    if rejected is not None:
        rejected = to_messages(rejected)
    elif row.get('rejected_response') is not None:
        rejected = _answered(messages, row['rejected_response'])
    channel = row.get('channel')
    return Conversation(
        messages,
        tools=to_tools(row.get('tools')),
        images=_media(row.get('images')),
        videos=_media(row.get('videos')),
        audios=_media(row.get('audios')),
        rejected=rejected,
        label=row.get('label'),
        channel=None if channel is None else str(channel),
        text=text is not None,
        columns=extra,
        source=source,
    )


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
    said = to_messages(answer, tags)
    return said if len(said) > 1 and said[0]['role'] in ('user', 'system') else [*prompt, *said]


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
            return conversation(made, source)
        except RowError as error:
            raise error.at(source) if not isinstance(error, SkipRow) else SkipRow(error.reason, source) from error

    def renamed(self, row: Row) -> Row:
        """The row with `columns` applied. Raises RowError when none of the columns to rename is there."""
        if not self.columns:
            return dict(row)
        if not any(theirs in row for theirs in self.columns):
            raise RowError(
                f'none of the mapped columns {sorted(self.columns)} is among {sorted(map(str, row))};',
                hint='columns reads {"name in the file": "our name"}',
            )
        taken = set(self.columns.values())
        kept = {key: value for key, value in row.items() if key not in self.columns and key not in taken}
        return {**kept, **{ours: row[theirs] for theirs, ours in self.columns.items() if theirs in row}}

    def first(self, row: Row, names: tuple[str, ...]) -> str | None:
        """The first of `names` that the row fills."""
        return next((name for name in (names if self.auto else names[:1]) if row.get(name) is not None), None)

    def take_common(self, row: Row) -> tuple[Row, str | None]:
        """(row without system and with media under standard names, its system prompt)."""
        row = dict(row)
        for standard, names in MEDIA.items():
            name = self.first(row, names)
            if name is not None:
                row[standard] = row.pop(name)
        system_name = self.first(row, SYSTEM)
        system = row.pop(system_name) if system_name else None
        if system is not None and not isinstance(system, str):
            raise RowError(f'{system_name} must be a string, got {type(system).__name__}')
        return row, system or None


class MessagesPreprocessor(RowPreprocessor):
    """Rows with `messages` or `conversations`; also preference rows with chosen and rejected beside them."""

    def preprocess(self, row: Row) -> Row | None:
        name = self.first(row, MESSAGES)
        if name is None:
            raise unknown_shape(row)
        row, system = self.take_common(row)
        messages = with_system(to_messages(row.pop(name), self.tags), system)
        return preference({**row, 'messages': messages}, self.tags)


class ResponsePreprocessor(RowPreprocessor):
    """Rows with a query and a response under any of their usual names, and optionally system and history."""

    def preprocess(self, row: Row) -> Row | None:
        row, system = self.take_common(row)
        query_name = self.first(row, QUERY)
        response_name = self.first(row, RESPONSE)
        if query_name is None:
            raise unknown_shape(row)
        query = row.pop(query_name)
        response = row.get(response_name) if response_name == 'solution' else row.pop(response_name, None)
        return standard(row, system, query, response, self.tags)


class AlpacaPreprocessor(RowPreprocessor):
    """Rows with instruction, input (joined with a line break) and output; optionally system and history."""

    def preprocess(self, row: Row) -> Row | None:
        row, system = self.take_common(row)
        instruction, more = row.pop('instruction', None), row.pop('input', None)
        output = row.pop('output', None)
        if output is None:
            name = self.first(row, RESPONSE)
            output = row.pop(name) if name else None
        if not instruction and not more:
            raise RowError('instruction and input are both empty')
        query = '\n'.join(part for part in (instruction, more) if part)
        return standard(row, system, query, output, self.tags)


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
        row, system = self._messages.take_common(row)
        chosen, rejected = (transcript(row.pop(name)) for name in ('chosen', 'rejected'))
        messages = with_system(to_messages(chosen, self.tags), system)
        return {**row, 'messages': messages, 'rejected_messages': with_system(to_messages(rejected, self.tags), system)}


class ChangedRows(AutoPreprocessor):
    """A user's function on every row: it gets the row with `messages` (made where the row has none)."""

    def __init__(self, inner: RowPreprocessor, function: Callable[[Row], Row | None]):
        super().__init__()
        self.inner, self.function = inner, function

    def preprocess(self, row: Row) -> Row | None:
        row = self.inner.renamed(row)
        if row.get('messages') is None:
            made = self.inner.preprocess(dict(row))
            if made is None:
                return None
            row = {**row, **({} if made.get('messages') is None else {'messages': made['messages']})}
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


def with_system(messages: list[Message], system: str | None) -> list[Message]:
    """The messages with `system` in front. Raises RowError when they have another one already."""
    if system is None:
        return messages
    if messages and messages[0]['role'] == 'system':
        if messages[0]['content'] != system:
            raise RowError('the row has a system column and another system message; keep one')
        return messages
    return [{'role': 'system', 'content': system}, *messages]


def standard(row: Row, system: str | None, query: Any, response: Any, tags: Tags) -> Row:
    """The standard row of a query, its response and what else the row holds. Empty responses count as none."""
    messages = history_messages(row.pop('history', None), tags)
    messages += to_messages(query, tags) if not isinstance(query, str) else [{'role': 'user', 'content': query}]
    if isinstance(response, str):
        messages += [{'role': 'assistant', 'content': response}] if response else []
    elif isinstance(response, (int, float)):
        messages.append({'role': 'assistant', 'content': str(response)})
    elif isinstance(response, list) and response and all(isinstance(item, str) for item in response):
        messages.append({'role': 'assistant', 'content': response[0]})
    elif response:
        said = to_messages(response, tags)
        messages = said if said[0]['role'] in ('user', 'system') else messages + said
    return preference({**row, 'messages': with_system(messages, system)}, tags)


def history_messages(history: Any, tags: Tags) -> list[Message]:
    """Messages of earlier turns: pairs [[query, response], …], or messages."""
    history = parsed(history, 'history') if history else None
    if not history:
        return []
    if not isinstance(history, (list, tuple)):
        raise RowError(f'history must be a list, got {type(history).__name__}')
    if isinstance(history[0], Mapping):
        return to_messages(history, tags)
    messages: list[Message] = []
    for number, turn in enumerate(history):
        if not isinstance(turn, (list, tuple)) or len(turn) != 2:
            raise RowError(f'history[{number}] must be a pair [query, response]')
        messages += [{'role': 'user', 'content': turn[0]}, {'role': 'assistant', 'content': turn[1]}]
    return messages


def preference(row: Row, tags: Tags) -> Row:
    """The row with chosen as its answer and rejected as `rejected_messages`, if it has them."""
    if row.get('chosen') is not None and row.get('rejected') is not None:
        prompt, chosen, rejected = row['messages'], row.pop('chosen'), row.pop('rejected')
        row['messages'] = _answered(prompt, transcript(chosen), tags)
        row['rejected_messages'] = _answered(prompt, transcript(rejected), tags)
    elif row.get('rejected_messages') is None and row.get('rejected_response') is not None:
        row['rejected_messages'] = _answered(row['messages'], row.pop('rejected_response'), tags)
    if row.get('rejected_messages') is not None and not row['rejected_messages']:
        raise RowError('rejected is empty')
    return row
