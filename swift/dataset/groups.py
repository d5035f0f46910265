"""Rows for embeddings, rerankers and classifiers: a text with those that belong to it and those that don't; words with tags.

A text is a string (it becomes a message of the user), a message, or messages; several texts are a list of strings or of
message lists. In the standard row they stand under `positive_messages` and `negative_messages`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from swift.core.errors import RowError
from swift.core.types import Message, Row
from swift.dataset.messages import Tags, to_messages
from swift.dataset.preference import filled, from_json

ANCHOR = ('anchor', 'query', 'question', 'sentence1')
POSITIVE = ('positive_messages', 'positive', 'positives', 'pos')
NEGATIVE = ('negative_messages', 'negative', 'negatives', 'neg')
OTHER = ('sentence2', 'document', 'passage')
"""The other text of a pair; counts only where the row has no answer."""
LISTED = ('documents', 'passages')
"""Texts of which `labels` says for each whether it belongs to the anchor (1) or not (0)."""
SCORE = ('score', 'similarity')
WORDS = ('tokens', 'words')
TAGS = ('label', 'labels', 'tags', 'ner_tags')
_NUMBERED, _DIGITS = re.compile(r'negative_?\d+'), re.compile(r'\D')
_NAMES = frozenset((*POSITIVE, *NEGATIVE, *OTHER, *LISTED))


def is_group(row: Row, auto: bool, answer: bool) -> bool:
    """Whether a row is a text with others that belong to it. `answer`: it has a response, as a conversation has."""
    found = [name for name in row if name in _NAMES and _is_texts(row[name])]
    if not found:
        return False
    if not auto:
        return any(name in (POSITIVE[0], NEGATIVE[0]) for name in found)
    if any(name in POSITIVE or name in NEGATIVE for name in found):
        return True
    return not answer and anchor_of(row) is not None


def anchor_of(row: Row) -> str | None:
    """The column that holds the text itself."""
    return next((name for name in ANCHOR if filled(row.get(name))), None)


def group(row: Row, answer: str | None, auto: bool, tags: Tags) -> Row:
    """The row with `positive_messages` and `negative_messages`; `answer`: the column of a response, which is a positive here.

    The label of a pair is its score where it has no label.
    """
    if not auto:
        return row
    made = dict(row)
    listed = next((name for name in LISTED if filled(made.get(name))), None)
    if listed is not None:
        made['positive_messages'], made['negative_messages'] = _by_label(made, listed)
        return made
    positive = next((name for name in (*POSITIVE, *OTHER, *([answer] if answer else [])) if filled(made.get(name))), None)
    negative = next((name for name in (*NEGATIVE, 'rejected_response', 'rejected') if filled(made.get(name))), None)
    numbered = sorted((name for name in made if _NUMBERED.fullmatch(name)), key=lambda name: int(_DIGITS.sub('', name)))
    if negative is None and numbered:
        negative, made[numbered[0]] = numbered[0], [made.pop(name) for name in numbered]
    for theirs, ours in ((positive, POSITIVE[0]), (negative, NEGATIVE[0])):
        made[ours] = texts(made.pop(theirs), theirs, tags) if theirs else None
    score = next((name for name in SCORE if made.get(name) is not None), None)
    if made.get('label') is None and score is not None:
        made['label'] = made.pop(score)
    return made


def _by_label(row: Row, listed: str) -> tuple[list[Any], list[Any]]:
    """(texts labelled 1, texts labelled 0); takes both columns out of the row."""
    texts, labels = row.pop(listed), row.pop('labels', None)
    if labels is None:
        labels = row.pop('label', None)
    if not isinstance(texts, (list, tuple)) or not isinstance(labels, (list, tuple)) or len(texts) != len(labels):
        sizes = [len(value) if isinstance(value, (list, tuple)) else 'no list' for value in (texts, labels)]
        raise RowError(f'{listed} and labels must be lists of one length, got {sizes[0]} and {sizes[1]}')
    if any(label not in (0, 1) for label in labels):
        raise RowError(f'labels of {listed} must be 1 (belongs to the query) or 0, got {labels}')
    return [text for text, label in zip(texts, labels, strict=True) if label], [
        text for text, label in zip(texts, labels, strict=True) if not label
    ]


def _is_texts(value: Any) -> bool:
    return isinstance(value, (str, list, tuple, Mapping)) and bool(value)


def texts(value: Any, name: str, tags: Tags) -> list[list[Message]] | None:
    """Texts of a standard column as messages each; None where there are none. Raises RowError."""
    if not filled(value):
        return None
    value = from_json(value)
    several = isinstance(value, (list, tuple)) and not all(isinstance(item, Mapping) for item in value)
    return [_text(item, name, tags) for item in (value if several else [value])]


def _text(value: Any, name: str, tags: Tags) -> list[Message]:
    if isinstance(value, str) and value:
        return [{'role': 'user', 'content': value}]
    if not value or not isinstance(value, (list, tuple, Mapping)):
        raise RowError(f'{name} must hold strings or messages, got {value!r}'[:200])
    try:
        return to_messages(value, tags)
    except RowError as error:
        raise RowError(f'{name}: {error.reason}', hint=error.hint) from error


def check_group(positives: list[list[Message]] | None, negatives: list[list[Message]] | None, row: Row, apart: bool = True) -> None:
    """Raises RowError when there are only negatives, or (`apart`: texts alone tell them apart) one text is on both sides."""
    if negatives and not positives:
        raise RowError(
            f'the columns {sorted(map(str, row))} hold negatives, but no text that belongs to it;',
            hint=f'it is read from {", ".join((*POSITIVE, *OTHER))}',
        )
    if apart and positives and negatives and any(text in positives for text in negatives):
        raise RowError('the same text is among the positives and the negatives')


def has_words(row: Row) -> str | None:
    """The column with the words of a token classification row."""
    for name in WORDS:
        value = row.get(name)
        if isinstance(value, (list, tuple)) and value and all(isinstance(word, str) for word in value):
            return name
    return None


def has_tags(row: Row, words: str) -> bool:
    """Whether a row has a list of as many tags beside its column of words."""
    lists = [row[name] for name in TAGS if isinstance(row.get(name), (list, tuple))]
    return any(len(tags) == len(row[words]) for tags in lists)


def tagged(row: Row, name: str) -> Row:
    """The standard row of words with a tag each: a message with the joined words, `tokens` and `label`. Raises RowError."""
    made = dict(row)
    words = list(made.pop(name))
    column = next((name for name in TAGS if made.get(name) is not None), None)
    labels = made.pop(column) if column else None
    if labels is not None and (not isinstance(labels, (list, tuple)) or len(labels) != len(words)):
        size = len(labels) if isinstance(labels, (list, tuple)) else f'a {type(labels).__name__}'
        raise RowError(f'{name} holds {len(words)} words, {column} {size}: there must be one for each word')
    made |= {'messages': [{'role': 'user', 'content': ' '.join(words)}], 'tokens': words}
    return made if labels is None else {**made, 'label': list(labels)}
