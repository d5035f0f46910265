"""Rows that show something: the media of their columns become parts of the messages, and relative paths find their files.

A column (`images`, `videos`, `audios`) holds a reference or a list of them, also as the JSON text of a CSV cell. A reference is
a path, a URL, a data URI, base64, bytes, `{"bytes", "path"}` as Hugging Face has it, a PIL image, an array, or (a video) a list
of frames. The same columns behind `rejected_`, `positive_` and `negative_` belong to the other texts of a row. Nothing is opened.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from swift.core.errors import RowError
from swift.core.media import KINDS, bind, media_of, reference, replaced
from swift.core.types import Conversation, Message, Row

Media = Sequence[list[Any]]
"""References by kind, in the order of KINDS: images, videos, audios."""
COLUMNS = {'image': 'images', 'video': 'videos', 'audio': 'audios'}
OWN = tuple(COLUMNS.values())
OTHERS = tuple(f'{owner}_{column}' for owner in ('rejected', 'positive', 'negative') for column in OWN)
_NAMES = frozenset((*OWN, *OTHERS))
_SUFFIXES = {
    'image': ('.png', '.jpg', '.jpeg', '.gif', '.bmp', '.webp', '.tif', '.tiff', '.dcm'),
    'video': ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg', '.flv', '.wmv'),
    'audio': ('.wav', '.mp3', '.flac', '.ogg', '.m4a', '.opus', '.aac'),
}
_SUFFIX_KIND = {suffix: kind for kind, suffixes in _SUFFIXES.items() for suffix in suffixes}


def kind_of(path: str) -> str | None:
    """The kind of medium that a file's suffix says; None for other files."""
    return _SUFFIX_KIND.get(os.path.splitext(path)[1].lower())


# ---- columns


def has_media(row: Row) -> bool:
    """Whether a standard row has a column for media."""
    return not _NAMES.isdisjoint(row)


def fills(row: Row) -> bool:
    """Whether a row has media of its own, under any of their names."""
    return any(references(row.get(name), name) for name in (*COLUMNS, *OWN))


def filled(row: Row, owner: str) -> list[str]:
    """The columns of media that a row fills for `owner` (rejected, positive, negative)."""
    return [name for name in (f'{owner}_{column}' for column in OWN) if references(row.get(name), name)]


def references(value: Any, name: str) -> list[Any]:
    """The references in a column. Raises RowError for one that is empty."""
    value = _from_json(value)
    several = isinstance(value, (list, tuple))
    items = [_reference(item, name) for item in (value if several else [value])]
    if not several and _missing(items[0]):
        return []
    empty = next((number for number, item in enumerate(items) if _missing(item)), None)
    if empty is not None:
        raise RowError(f'{name}[{empty}] is empty')
    return items


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, (str, bytes, list)) and not value)


def _from_json(value: Any) -> Any:
    """Lists and objects of a CSV cell; a file name may begin with a bracket too."""
    if isinstance(value, str) and value.lstrip()[:1] in ('[', '{'):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _reference(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        return dict(value) if value.get('array') is not None else reference(dict(value), next(kind for kind in KINDS if kind in name))
    return [_reference(item, 'images') for item in value] if isinstance(value, (list, tuple)) else value


# ---- binding


def shown(talk: Conversation, row: Row) -> Conversation:
    """The conversation with the media of its row in their places, in every text of it.

    Whole conversations (the rejected ones) show what the messages show, or their own `rejected_images`. Raises RowError where
    tags and media don't match, with both numbers.
    """
    own = [references(row.get(name), name) for name in OWN]
    messages = _bound_text(talk.messages, own) if talk.text else bind(talk.messages, *own)
    rejected, positives, negatives = talk.rejected, talk.positives, talk.negatives
    if rejected is not None:
        texts = [rejected, *(negatives or [])]
        media = _of_rejected(row, own, len(texts))
        rejected, *more = [_bound(text, given, 'rejected') for text, given in zip(texts, media, strict=True)]
        negatives = more or None
        _check_unused(row, ('positive', 'negative'))
    else:
        positives, negatives = _bound_texts(row, 'positive', positives), _bound_texts(row, 'negative', negatives)
    return replace(talk, messages=messages, rejected=rejected, positives=positives, negatives=negatives, **_flat(messages))


def _bound(messages: Sequence[Message], media: Media, name: str) -> list[Message]:
    try:
        return bind(messages, *media)
    except RowError as error:
        raise RowError(f'{name}: {error.reason}', hint=error.hint) from error


def _bound_text(messages: Sequence[Message], media: Media) -> list[Message]:
    """Plain text is nobody's turn: the rule for media without tags puts them in front of it."""
    made = bind([{**message, 'role': 'user'} for message in messages], *media)
    return [{**message, 'role': old['role']} for message, old in zip(made, messages, strict=True)]


def _of_rejected(row: Row, own: Media, count: int) -> Iterator[list[list[Any]]]:
    """Media of each of `count` rejected conversations: a list for all of them, or a list of lists with one for each."""
    by_kind = []
    for name, shared in zip(OWN, own, strict=True):
        value = _from_json(row.get(f'rejected_{name}'))
        if not references(value, f'rejected_{name}'):
            by_kind.append([shared] * count)
        elif _is_nested(value):
            by_kind.append(_one_each(value, count, f'rejected_{name}'))
        else:
            by_kind.append([references(value, f'rejected_{name}')] * count)
    return (list(media) for media in zip(*by_kind, strict=True))


def _bound_texts(row: Row, owner: str, texts: list[list[Message]] | None) -> list[list[Message]] | None:
    if texts is None:
        _check_unused(row, (owner,))
        return None
    by_kind = [_spread(row.get(f'{owner}_{COLUMNS[kind]}'), texts, kind, f'{owner}_{COLUMNS[kind]}') for kind in KINDS]
    media = zip(*by_kind, strict=True)
    return [_bound(text, given, f'{owner} {number}') for number, (text, given) in enumerate(zip(texts, media, strict=True))]


def _spread(value: Any, texts: list[list[Message]], kind: str, name: str) -> list[list[Any]]:
    """Media of each text: a list of lists has one for each text; a plain list follows the tags, or gives one to each."""
    value = _from_json(value)
    if _is_nested(value):
        return _one_each(value, len(texts), name)
    media = references(value, name)
    if len(texts) == 1 or not media:
        return [media] * len(texts)
    counts = [sum(_places(message, kind) for message in text) for text in texts]
    if not any(counts) and len(media) == len(texts):
        counts = [1] * len(texts)
    if sum(counts) != len(media):
        raise RowError(f'the {len(texts)} texts have {sum(counts)} <{kind}> tags, but {name} holds {len(media)};',
                       hint=f'give {name} as a list of lists, one for each text')  # fmt: skip
    rest = iter(media)
    return [[next(rest) for _ in range(count)] for count in counts]


def _places(message: Message, kind: str) -> int:
    content = message.get('content')
    if isinstance(content, str):
        return content.count(f'<{kind}>')
    parts = [part for part in content or [] if isinstance(part, Mapping)]
    tags = sum(part['text'].count(f'<{kind}>') for part in parts if isinstance(part.get('text'), str))
    return tags + sum(part.get('type') == kind and reference(dict(part), kind) is None for part in parts)


def _is_nested(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and any(isinstance(item, (list, tuple)) for item in value)


def _one_each(value: Sequence[Any], count: int, name: str) -> list[list[Any]]:
    if len(value) != count:
        raise RowError(f'{name} holds {len(value)} lists for {count} text{"s" if count != 1 else ""}')
    return [references(item, f'{name}[{number}]') for number, item in enumerate(value)]


def _check_unused(row: Row, owners: Sequence[str]) -> None:
    for owner in owners:
        if names := filled(row, owner):
            raise RowError(f'the row has {names[0]}, but no {owner} text that shows them;', hint=f'give it, such as "{owner}": "<image>"')


# ---- conversations that are bound


def with_references(talk: Conversation, change: Callable[[str, Any], Any]) -> Conversation:
    """The conversation with `change(kind, reference)` in place of every reference, in every text of it."""
    messages = replaced(talk.messages, change)
    positives, negatives = (
        None if texts is None else [replaced(text, change) for text in texts] for texts in (talk.positives, talk.negatives)
    )
    rejected = None if talk.rejected is None else replaced(talk.rejected, change)
    return replace(talk, messages=messages, rejected=rejected, positives=positives, negatives=negatives, **_flat(messages))


def _flat(messages: Sequence[Message]) -> dict[str, list[Any]]:
    """The references of messages as Conversation keeps them: a list a kind, in order."""
    media = media_of(messages)
    return {column: [ref for kind, ref in media if kind == of] for of, column in COLUMNS.items()}


def is_shown(talk: Conversation) -> bool:
    """Whether any text of a conversation shows something."""
    if talk.images or talk.videos or talk.audios:
        return True
    if talk.rejected is None and talk.positives is None:
        return False
    others = [*([talk.rejected] if talk.rejected else []), *(talk.positives or []), *(talk.negatives or [])]
    return any(has_parts(text) and media_of(text) for text in others)


def has_parts(*texts: Sequence[Message] | None) -> bool:
    """Whether the content of a message in one of the texts is a list of parts."""
    for messages in texts:
        for message in messages or ():
            if type(message['content']) is list:
                return True
    return False


def kept(talk: Conversation) -> Conversation:
    """The conversation with references that JSON can hold: what lies in memory becomes a file of the cache."""
    return with_references(talk, lambda _, ref: _kept(ref)) if is_shown(talk) else talk


def _kept(ref: Any) -> Any:
    if isinstance(ref, str) or (isinstance(ref, list) and all(isinstance(frame, str) for frame in ref)):
        return ref
    from swift.media import storable

    return storable(ref)


def tagged_text(message: Message) -> str:
    """The text of a plain-text row with a tag where each medium stands."""
    content = message['content']
    if isinstance(content, str):
        return content
    return ''.join(part['text'] if part['type'] == 'text' else f'<{part["type"]}>' for part in content)


# ---- files


class Located:
    """Another preprocessor, whose relative media paths become absolute: below `root`, else beside the data file.

    Rows of a `metadata.jsonl` (or csv, parquet) beside media files show the file of their column `file_name`.
    """

    def __init__(self, inner: Any, root: str | None = None):
        self.inner, self.root = inner, root

    def __call__(self, row: Row, source: str | None = None) -> Conversation:
        """The conversation of a row. Raises RowError."""
        if 'file_name' in row and source and _is_about_files(source):
            row = _of_file(row)
        talk = self.inner(row, source)
        if not is_shown(talk):
            return talk
        from swift.media import located

        folder = os.path.dirname(source) or os.curdir if source else None
        try:
            return with_references(talk, lambda _, ref: located(ref, folder, self.root))
        except RowError as error:
            raise error.at(source) from error


def _is_about_files(path: str) -> bool:
    """Whether the rows of a file name the media beside it."""
    return os.path.basename(path).startswith('metadata.')


def _of_file(row: Row) -> Row:
    name = row['file_name']
    column = COLUMNS[kind_of(str(name)) or 'image']
    if row.get(column) is not None:
        return row
    return {**{key: value for key, value in row.items() if key != 'file_name'}, column: name}


def whereabouts(files: Sequence[Any], convert: Any) -> list[str]:
    """The folders that decide what relative media paths mean: part of a data set's identity. [] where nothing is shown."""
    told = _renames_media(convert)
    paths = [file.shown for file in files if hasattr(file, 'path') and (told or file.mentions_media or _is_about_files(file.shown))]
    return [*(os.path.dirname(os.path.abspath(path)) for path in paths), os.getcwd()] if paths else []


def _renames_media(convert: Any) -> bool:
    """Whether a preprocessor makes media of columns that are called otherwise, or may do so."""
    while convert is not None:
        names = set((getattr(convert, 'columns', None) or {}).values())
        if names & _NAMES or getattr(convert, 'function', None) or not type(convert).__module__.startswith('swift.'):
            return True
        convert = getattr(convert, 'inner', None)
    return False
