"""Texts as embedding and reranker models get them: by the tokenizer's own encoding, or by the chat template; and cut to fit.

A text that shows something is always rendered by the chat template, where there is one: it knows how the model is shown media.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from swift.core.errors import RowError, RowTooLong
from swift.core.media import is_medium, media_of
from swift.core.types import Conversation, Message, Template

Part = dict[str, Any]
"""A text or a medium, as in the content of a message."""


@dataclass(frozen=True)
class Text:
    """A text as a model reads it."""

    ids: list[int]
    shown: dict[str, Any] | None = None
    """What it shows, as in a stored `Sample`. None: nothing."""


def text_of(messages: Sequence[Message]) -> str:
    """The contents of messages one after another: an instruction in a system message stands directly in front of the text.

    Raises RowError for an empty text and for one that shows something.
    """
    parts = parts_of(messages)
    if any(map(is_medium, parts)):
        raise RowError('a text of this row shows something where only words can stand')
    return parts[0]['text']


def parts_of(messages: Sequence[Message]) -> list[Part]:
    """The contents of messages one after another: media, and between them the texts that follow each other as one. Raises RowError
    where there is neither a medium nor a word."""
    parts: list[Part] = []
    for message in messages:
        content = message.get('content') or ''
        for part in [{'type': 'text', 'text': content}] if isinstance(content, str) else content:
            if is_medium(part):
                parts.append(part)
                continue
            if part.get('type', 'text') != 'text':
                raise RowError(f'a text of this row has a part of type {part["type"]!r}, which can not be read')
            words = part.get('text') or ''
            if parts and not is_medium(parts[-1]):
                parts[-1] = {'type': 'text', 'text': parts[-1]['text'] + words}
            elif words:
                parts.append({'type': 'text', 'text': words})
    if not any(is_medium(part) or part['text'].strip() for part in parts):
        raise RowError('a text of this row is empty')
    return parts


def content_of(parts: Sequence[Part]) -> str | list[Part]:
    """Parts as the content of a message: the text itself where nothing is shown."""
    return list(parts) if any(map(is_medium, parts)) else ''.join(part['text'] for part in parts)


@dataclass(frozen=True)
class Specials:
    """Ids that the tokenizer itself puts before and after a text."""

    before: tuple[int, ...]
    after: tuple[int, ...]

    @staticmethod
    def of(tokenizer: Any) -> Specials:
        """Found by encoding a letter with and without them."""
        bare = tokenizer('a', add_special_tokens=False)['input_ids']
        full = tokenizer('a')['input_ids']
        at = next((at for at in range(len(full) - len(bare) + 1) if full[at : at + len(bare)] == bare), 0)
        return Specials(tuple(full[:at]), tuple(full[at + len(bare) :]))


def ending(tokenizer: Any) -> int | None:
    """The token that is appended to every text of a model whose last token stands for the text: eos. None: the tokenizer ends
    texts by itself, or has no eos."""
    return None if Specials.of(tokenizer).after else tokenizer.eos_token_id


def encode_texts(texts: Sequence[Sequence[Message]], template: Template, *, end: bool) -> list[Text | RowError]:
    """Every text as tokens, at most `max_length`, or the RowError that says why not.

    Without chat template: what `tokenizer(text)` gives. With it, and for a text that shows something: the rendered messages. `end`:
    close with eos what the tokenizer leaves open. Longer texts are cut by `truncation_strategy`, special tokens at both ends kept.
    """
    tokenizer = template.tokenizer
    results: list[Text | RowError | None] = [None] * len(texts)
    said: list[str] = []
    eos = ending(tokenizer) if end else None
    for number, messages in enumerate(texts):
        try:
            if media_of(messages):
                results[number] = showing(messages, template, end)
                continue
            plain = text_of(messages)
            text = template.apply_chat_template(list(messages)) if template.use_chat_template else plain
            template.shown(text, Conversation(list(messages)))  # no token that stands for a medium
            said.append(text)
        except RowError as error:
            results[number] = error
    encoded = iter(tokenizer(said, add_special_tokens=False)['input_ids'] if said else ())
    own = Specials((), ()) if template.use_chat_template else Specials.of(tokenizer)
    for number, found in enumerate(results):
        if found is None:
            ids = next(encoded)
            after = own.after or (() if eos is None or ids[-1:] == [eos] else (eos,))
            before = () if tuple(ids[: len(own.before)]) == own.before else own.before
            kept = cut(ids, before, after, template)
            results[number] = kept if isinstance(kept, RowError) else Text(kept)
    return results


def showing(messages: Sequence[Message], template: Template, end: bool) -> Text:
    """A text that shows something. Raises RowError."""
    parts_of(messages)
    tokenizer = template.tokenizer
    if not template.chat_template:
        return plainly(messages, template, ending(tokenizer) if end else None)
    text = template.apply_chat_template(list(messages))
    open_end = end and tokenizer.eos_token and not text.endswith(tokenizer.eos_token)
    return fit_shown(text, Conversation(list(messages)), Specials((), (tokenizer.eos_token_id,) if open_end else ()), template)


def plainly(messages: Sequence[Message], template: Template, eos: int | None = None) -> Text:
    """A text that shows something, without a chat template: between the tokenizer's own special tokens. Raises RowError."""
    specials, talk = Specials.of(template.tokenizer), Conversation(list(messages), text=True)
    return fit_shown(template.prompt(talk).text, talk, Specials(specials.before, specials.after or (() if eos is None else (eos,))), template)


def fit_shown(text: str, talk: Conversation, specials: Specials, template: Template) -> Text:
    """A rendered text that shows something between special tokens, cut by `truncation_strategy` to `max_length`. Raises RowError."""
    limit, around = template.max_length, len(specials.before) + len(specials.after)
    if limit is not None and limit <= around:
        raise RowError(f'max_length {limit} leaves no room for a text between its special tokens')
    prompt = template.shown(text, talk, limit and limit - around, specials.before)
    ids = list(prompt.input_ids)
    ids = ids[len(specials.before) :] if tuple(ids[: len(specials.before)]) == specials.before else ids
    kept = cut(ids, specials.before, specials.after, template)
    if isinstance(kept, RowError):
        raise kept
    if not ids:
        raise RowError(f'nothing of the text is left within max_length {limit}: what it shows is longer')
    return Text(kept, prompt.media)


def cut(ids: list[int], before: tuple[int, ...], after: tuple[int, ...], template: Template) -> list[int] | RowError:
    """`ids` between its special tokens, cut by `truncation_strategy` to `max_length`; RowTooLong where the strategy is delete."""
    limit, size = template.max_length, len(ids) + len(before) + len(after)
    if limit is not None and size > limit:
        if template.truncation_strategy == 'delete':
            return RowTooLong(f'a text of the row has {size} tokens, more than max_length {limit}')
        room = limit - len(before) - len(after)
        if room < 1:
            return RowError(f'max_length {limit} leaves no room for a text between its special tokens')
        ids = ids[:room] if template.truncation_strategy == 'right' else ids[-room:]
    return [*before, *ids, *after]


def fitted(render: Callable[[list[Part]], Text], document: list[Part], template: Template) -> Text:
    """`render(document)`, the words of the document cut by `truncation_strategy` until the whole has at most `max_length` tokens.

    Raises RowTooLong where the strategy is delete, or what is not a word of the document is too long already.
    """
    limit, text = template.max_length, render(document)
    size = len(text.ids)
    if limit is None or size <= limit:
        return text
    if template.truncation_strategy == 'delete':
        raise RowTooLong(f'query and document have {size} tokens, more than max_length {limit}')
    words = [None if is_medium(part) else template.tokenizer(part['text'], add_special_tokens=False)['input_ids'] for part in document]
    shows = any(ids is None for ids in words)
    keep = sum(len(ids) for ids in words if ids) - (size - limit)
    while keep > 0 or (shows and keep == 0):
        text = render(_shortened(document, words, keep, template))
        if len(text.ids) <= limit:
            return text
        keep -= len(text.ids) - limit
    raise RowTooLong(f'the row has {size} tokens, and no document fits beside its query within max_length {limit}')


def _shortened(document: list[Part], words: list[list[int] | None], keep: int, template: Template) -> list[Part]:
    """The document with `keep` tokens of its words, the first (`right`) or the last of them, and all that it shows."""
    right, kept = template.truncation_strategy == 'right', []
    pairs = list(zip(document, words, strict=True))
    for part, ids in pairs if right else pairs[::-1]:
        if ids is not None:
            ids = ids[:keep] if right else ids[max(0, len(ids) - keep) :]
            keep -= len(ids)
            part = {'type': 'text', 'text': template.tokenizer.decode(ids)}
        if ids is None or ids:
            kept.append(part)
    return kept if right else kept[::-1]


def name_of(ids: Sequence[int], shown: str = '') -> int:
    """A number that is the same for the same tokens that show the same (`name_of_shown`)."""
    return _number(torch.as_tensor(ids, dtype=torch.int64).numpy().tobytes() + shown.encode())


def name_of_shown(shown: dict[str, Any] | None, count: int | None = None) -> str:
    """A short text that is the same for the same media (the first `count` of them); '' where nothing is shown."""
    if shown is None:
        return ''
    return hashlib.blake2b(json.dumps(shown['media'][:count]).encode(), digest_size=8).hexdigest()


def name_of_query(messages: Sequence[Message], text: Text) -> int:
    """A number that is the same for the same query, of which `text` begins with what it shows."""
    words = ''.join('\0' if is_medium(part) else part['text'] for part in parts_of(messages))
    count = len(media_of(messages))
    return _number((words + (name_of_shown(text.shown, count) if count else '')).encode())


def _number(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), 'little', signed=True)


def segment_ends(lengths: Tensor, width: int | None) -> Tensor:
    """[S] flat position of the last token of every segment; `width` is the row length of a padded batch, None for a flat one."""
    if width is None:
        return lengths.cumsum(0) - 1
    return torch.arange(len(lengths)) * width + lengths - 1
