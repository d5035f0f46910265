"""A cache of word ids for byte-level BPE tokenizers: several times faster than encoding texts whole.

Such a tokenizer first cuts a text at special tokens and then, with a regular expression, into words that are encoded
one by one. Where a space stands between two other characters there is always a cut before it, whatever stands around.
So the ids of a text are the ids of its chunks between such spaces, one after another. Only tokenizers for which this
holds by construction are taken; and now and then a text is encoded both ways and compared.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import chain
from typing import Any

_SAFE = re.compile(r'(?<=\S) (?=\S)')
_LIMIT, _LONGEST = 400_000, 32
_CHECKED_FIRST, _CHECKED_EVERY = 24, 512


def chunkable(backend: Any) -> bool:
    """Whether words of this tokenizer never hold a character followed by a space, and are encoded one by one."""
    model = backend.model
    if type(model).__name__ != 'BPE' or model.dropout or model.continuing_subword_prefix or model.end_of_word_suffix:
        return False
    normalizer = _facts(backend.normalizer)
    if normalizer is not None and normalizer['type'] != 'NFC':
        return False
    for token in backend.get_added_tokens_decoder().values():
        if token.lstrip or token.rstrip or token.single_word or re.search(r'\s', token.content):
            return False
    return _cuts_before_spaces(_facts(backend.pre_tokenizer))


def _facts(part: Any) -> dict | None:
    """A part of the tokenizer as its JSON has it."""
    return None if part is None else json.loads(part.__getstate__())


def _cuts_before_spaces(step: dict | None) -> bool:
    if step is None:
        return False
    if step['type'] == 'Sequence':
        steps = step['pretokenizers']
        return any(map(_cuts_before_spaces, steps)) and all(map(_only_cuts, steps))
    if step['type'] == 'ByteLevel':
        return bool(step.get('use_regex')) and not step.get('add_prefix_space')
    if step['type'] == 'Split':
        pattern = step['pattern'].get('Regex', '')
        return step['behavior'] == 'Isolated' and not step.get('invert') and _pattern_is_safe(pattern)
    return False


def _only_cuts(step: dict) -> bool:
    """A step that can only cut further, and does not look at more than its own piece."""
    if step['type'] == 'ByteLevel':
        return not step.get('add_prefix_space')
    if step['type'] == 'Split':
        return step['behavior'] == 'Isolated'
    return step['type'] == 'Digits'


def _pattern_is_safe(pattern: str) -> bool:
    """The family of GPT-style word patterns: a space can only be the first character of a word or among white space."""
    return r'\s+(?!\S)' in pattern and r'\p{L}' in pattern and '.' not in re.sub(r'\\.', '', pattern)


class ChunkCache:
    """Word ids of one backend tokenizer."""

    def __init__(self, backend: Any, specials: Sequence[str]):
        """`specials`: added tokens that occur often, such as those that the chat template prints."""
        self._backend = backend
        vocabulary = {t.content: i for i, t in backend.get_added_tokens_decoder().items() if not t.normalized}
        known = sorted((s for s in set(specials) if s in vocabulary), key=len, reverse=True)
        self._specials = {s: [vocabulary[s]] for s in known}
        self.endings = tuple(known)
        """A text may be cut after these."""
        self._cut = re.compile('(' + '|'.join(map(re.escape, known)) + ')') if known else None
        self._first: dict[str, list[int]] = {'': []}
        self._later: dict[str, list[int]] = {}
        self._seen = 0
        self.trusted = True

    def ids(self, text: str) -> list[int]:
        """Ids of a text, nothing added."""
        out: list[int] = []
        parts = self._cut.split(text) if self._cut else [text]
        for i, part in enumerate(parts):
            if i % 2:
                out += self._specials[part]
            elif part:
                out += self._words(part)
        self._seen += 1
        if self._seen <= _CHECKED_FIRST or self._seen % _CHECKED_EVERY == 0:
            whole = self._backend.encode(text, add_special_tokens=False).ids
            if whole != out:
                self.trusted = False
                return whole
        return out

    def _words(self, part: str) -> list[int]:
        first, *later = _SAFE.split(part)
        start = self._first.get(first)
        if start is None:
            start = self._backend.encode(first, add_special_tokens=False).ids
            if len(first) <= _LONGEST:
                self._first[first] = start
        try:
            return [*start, *chain.from_iterable(map(self._later.__getitem__, later))]
        except KeyError:
            known = self._learn(later)
            return [*start, *chain.from_iterable(map(known.__getitem__, later))]

    def _learn(self, words: list[str]) -> dict[str, list[int]]:
        """Ids of all these words; short ones are kept (long ones, as in Chinese text, hardly ever come again)."""
        if len(self._later) + len(self._first) > _LIMIT:
            self._later.clear()
            self._first = {'': []}
        known = {w: self._later.get(w) for w in words}
        new = [w for w, ids in known.items() if ids is None]
        encoded = self._backend.encode_batch_fast([f' {w}' for w in new], add_special_tokens=False)
        known.update((w, e.ids) for w, e in zip(new, encoded, strict=True))
        self._later.update((w, known[w]) for w in new if len(w) <= _LONGEST)
        return known
