"""Texts as embedding and reranker models get them: by the tokenizer's own encoding, or by the chat template; and cut to fit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from swift.core.errors import RowError, RowTooLong
from swift.core.types import Message, Template


def text_of(messages: Sequence[Message]) -> str:
    """The contents of messages one after another: an instruction in a system message stands directly in front of the text."""
    said = ''.join(_content(message) for message in messages)
    if not said.strip():
        raise RowError('a text of this row is empty')
    return said


def _content(message: Message) -> str:
    content = message.get('content') or ''
    if isinstance(content, str):
        return content
    if any(part.get('type', 'text') != 'text' for part in content):
        raise RowError('a text of this row holds media, which embeddings and rerankers of text can not read')
    return ''.join(part['text'] for part in content)


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


def encode_texts(texts: Sequence[Sequence[Message]], template: Template, *, end: bool) -> list[list[int] | RowError]:
    """Ids of every text, at most `max_length`, or the RowError that says why not.

    Without chat template: what `tokenizer(text)` gives. With it: the rendered messages. `end`: close with eos what the tokenizer
    leaves open. Longer texts are cut by `truncation_strategy`, special tokens at both ends kept.
    """
    tokenizer = template.tokenizer
    results: list[list[int] | RowError | None] = [None] * len(texts)
    said: list[str] = []
    for number, messages in enumerate(texts):
        try:
            plain = text_of(messages)
            said.append(template.apply_chat_template(list(messages)) if template.use_chat_template else plain)
        except RowError as error:
            results[number] = error
    encoded = iter(tokenizer(said, add_special_tokens=False)['input_ids'] if said else ())
    own = Specials((), ()) if template.use_chat_template else Specials.of(tokenizer)
    eos = ending(tokenizer) if end else None
    for number, error in enumerate(results):
        if error is None:
            ids = next(encoded)
            after = own.after or (() if eos is None or ids[-1:] == [eos] else (eos,))
            before = () if tuple(ids[: len(own.before)]) == own.before else own.before
            results[number] = cut(ids, before, after, template)
    return results


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


def fitted(render: Callable[[str], list[int]], document: str, template: Template) -> list[int]:
    """`render(document)`, the document cut by `truncation_strategy` until the whole has at most `max_length` tokens.

    Raises RowTooLong where the strategy is delete, or what is not the document is too long already.
    """
    limit, ids = template.max_length, render(document)
    if limit is None or len(ids) <= limit:
        return ids
    if template.truncation_strategy == 'delete':
        raise RowTooLong(f'query and document have {len(ids)} tokens, more than max_length {limit}')
    tokenizer = template.tokenizer
    pieces = tokenizer(document, add_special_tokens=False)['input_ids']
    size = len(ids)
    keep = len(pieces) - (len(ids) - limit)
    while keep > 0:
        kept = pieces[:keep] if template.truncation_strategy == 'right' else pieces[-keep:]
        ids = render(tokenizer.decode(kept))
        if len(ids) <= limit:
            return ids
        keep -= len(ids) - limit
    raise RowTooLong(f'the row has {size} tokens, and no document fits beside its query within max_length {limit}')


def name_of(ids: Sequence[int]) -> int:
    """A number that is the same for the same tokens."""
    return _number(torch.as_tensor(ids, dtype=torch.int64).numpy().tobytes())


def name_of_text(text: str) -> int:
    """A number that is the same for the same text."""
    return _number(text.encode())


def _number(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), 'little', signed=True)


def segment_ends(lengths: Tensor, width: int | None) -> Tensor:
    """[S] flat position of the last token of every segment; `width` is the row length of a padded batch, None for a flat one."""
    if width is None:
        return lengths.cumsum(0) - 1
    return torch.arange(len(lengths)) * width + lengths - 1
