"""Row → Conversation: the shapes that are recognised, and the classes to build further ones from.

A preprocessor takes a row of whatever columns and gives a *standard row*: `messages` (or `text`), and optionally
`system`, `tools`, `images`, `videos`, `audios`, `chosen` and `rejected`, `rejected_messages` or `rejected_response`,
`positive_messages` and `negative_messages`, `label`, `channel`; every other column stays beside it. `conversation()` makes the
typed object of that, with its media in their places (`media.py`), and checks it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from swift.core.errors import RowError
from swift.core.types import Conversation, Message, Row
from swift.dataset import groups, media
from swift.dataset.bad_rows import SkipRow
from swift.dataset.messages import Tags, parsed, to_messages, to_tools
from swift.dataset.preference import REJECTED, filled, margin, preference, spoken, with_system

QUERY = ('query', 'prompt', 'instruction', 'question', 'problem', 'input', 'sentence')
RESPONSE = ('response', 'output', 'completion', 'answer', 'target', 'targets', 'solution')
MESSAGES = ('messages', 'conversations', 'conversation')
_OTHER_NAMES = {'system_prompt': 'system', 'image': 'images', 'video': 'videos', 'audio': 'audios', 'kto_tag': 'label'}
"""Other spelling → standard name."""
_ONE_MEDIUM = frozenset(media.COLUMNS)
_STANDARD = {
    'messages', 'text', 'system', 'tools', *media.OWN, *media.OTHERS, 'chosen', 'rejected', 'rejected_messages',
    'rejected_response', 'positive_messages', 'negative_messages', 'label', 'channel',
}  # fmt: skip
SHAPES = (
    'messages [{role, content}], conversations [{from, value}], instruction (+input) +output, query +response (+history), '
    'prompt +completion, question +answer, prompt/messages +chosen +rejected, anchor/query +positive (+negative), '
    'sentence1 +sentence2 (+score), text or sentence (+label), tokens +labels, text'
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
    columns = {key: value for key, value in row.items() if key not in _STANDARD}
    shows = media.has_media(row)
    rejected = positives = negatives = None
    if text is not None:
        if not isinstance(text, str) or not text:
            raise RowError('text must be a string that is not empty', source)
        messages: list[Message] = [{'role': 'assistant', 'content': text}]
    else:
        messages = with_system(to_messages(get('messages'), tags), get('system'))
        messages, rejected, negatives = preference(row, messages, tags)
        if rejected is None and shows and media.filled(row, 'rejected'):
            rejected = list(messages)
        if rejected is not None:
            if columns.get('margin') is not None:
                columns['margin'] = margin(columns['margin'])
        elif get('positive_messages') is not None or get('negative_messages') is not None:
            positives, negatives = (groups.texts(get(name), name, tags) for name in ('positive_messages', 'negative_messages'))
            groups.check_group(positives, negatives, row, apart=not shows)
        shows = shows or media.has_parts(messages, rejected, *(positives or ()), *(negatives or ()))
        if get('text') is not None:
            columns['text'] = row['text']
    channel = get('channel')
    talk = Conversation(
        messages,
        tools=to_tools(get('tools')),
        rejected=rejected,
        positives=positives,
        negatives=negatives,
        label=get('label'),
        channel=None if channel is None else str(channel),
        text=text is not None,
        columns=columns,
        source=source,
    )
    return media.shown(talk, row) if shows else talk


def to_row(talk: Conversation) -> Row:
    """The standard row of a conversation: what `conversation` reads back as the same. Columns that JSON can't hold are texts.

    Media stand inside the messages; those in memory become files of the cache. Plain text has tags, and columns of media.
    """
    talk = media.kept(talk)
    row: Row = {'messages': talk.messages}
    if talk.text:
        row = {'text': media.tagged_text(talk.messages[0]), 'images': talk.images, 'videos': talk.videos, 'audios': talk.audios}
        row = {key: value for key, value in row.items() if value}
    rejected = talk.rejected is not None
    optional = {
        'tools': talk.tools,
        'rejected_messages': [talk.rejected, *talk.negatives] if rejected and talk.negatives else talk.rejected,
        'positive_messages': talk.positives, 'negative_messages': None if rejected else talk.negatives, 'channel': talk.channel,
    }  # fmt: skip
    row.update({key: value for key, value in optional.items() if value})
    if talk.label is not None:
        row['label'] = talk.label
    return json.loads(json.dumps({**talk.columns, **row}, ensure_ascii=False, default=str))


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
    """Rows with plain `text`, for pre-training; with a label, to classify."""

    def preprocess(self, row: Row) -> Row | None:
        row = row if _ONE_MEDIUM.isdisjoint(row) else self.common(row)
        return {**(_labelled(row) if self.auto else row), 'messages': None}


def _labelled(row: Row) -> Row:
    """The row with its `labels` as label."""
    if row.get('label') is not None or row.get('labels') is None:
        return row
    return {**{key: value for key, value in row.items() if key != 'labels'}, 'label': row['labels']}


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
        if groups.is_group(row, self.auto, self.first(row, RESPONSE) is not None):
            return self._group
        if self.first(row, MESSAGES):
            return self._messages.preprocess
        if self.auto and (words := groups.has_words(row)) and (groups.has_tags(row, words) or not self.first(row, QUERY)):
            return self._words
        if row.get('instruction') is not None and ('input' in row or 'output' in row):
            return self._alpaca.preprocess
        if query := self.first(row, QUERY):
            return self._response.preprocess if query != 'sentence' else self._sentence
        if any(filled(row.get(name)) for name in ('chosen', *REJECTED)):
            return self._chosen_only
        if row.get('text') is not None:
            return self._text.preprocess
        if self.auto and _labelled(row).get('label') is not None and media.fills(row):
            return self._media_only
        raise unknown_shape(row)

    def _media_only(self, row: Row) -> Row:
        """Media with a label: to classify."""
        return {**_labelled(self.common(row)), 'messages': [{'role': 'user', 'content': []}]}

    def _chosen_only(self, row: Row) -> Row:
        """chosen and rejected hold whole conversations: messages, or a transcript with Human: and Assistant: turns."""
        row = self.common(row)
        chosen, name = spoken(row.get('chosen')), next((name for name in REJECTED if filled(row.get(name))), None)
        if filled(chosen) and name is not None:
            if isinstance(chosen, str):
                raise unknown_shape(row)
            other = row.pop(name)
            several = isinstance(other, (list, tuple)) and any(isinstance(item, (str, list)) for item in other)
            row['rejected_messages'] = [spoken(item) for item in other] if several else spoken(other)
            del row['chosen']
            return {**row, 'messages': chosen}
        preference(row, [], self.tags)  # raises: one side is missing
        raise unknown_shape(row)

    def _group(self, row: Row) -> Row:
        """A text with those that belong to it and those that don't."""
        row = self.common(row)
        if self.first(row, MESSAGES):
            made = self._messages.preprocess(groups.group(row, None, self.auto, self.tags))
            assert made is not None
            return made
        name = (groups.anchor_of(row) if self.auto else None) or self.first(row, QUERY)
        if name is None:
            raise unknown_shape(row)
        anchor = row.pop(name)
        return said(groups.group(row, self.first(row, RESPONSE), self.auto, self.tags), anchor, None)

    def _words(self, row: Row) -> Row:
        """Words with a tag each."""
        return groups.tagged(row, groups.has_words(row) or '')

    def _sentence(self, row: Row) -> Row | None:
        """A sentence to classify."""
        return self._response.preprocess(_labelled(row))


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
