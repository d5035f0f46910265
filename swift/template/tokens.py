"""Text with character spans → token ids with token ranges, for every kind of tokenizer.

A token is in the range of a span iff it overlaps the span. The text before a span gets the very ids it would get as
an inference prompt: where the tokenizer would join characters across the start of a span, the text is cut there.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from swift.template.chunks import ChunkCache, chunkable

Range = tuple[int, int]


@dataclass(slots=True)
class Encoded:
    """Token ids of one text, the token range of every span, and of every mark (a part of a span)."""

    ids: list[int]
    spans: list[Range]
    marks: list[Range]


class Tokens:
    """Encodes texts with one tokenizer; fast tokenizers through their offsets, others through their own prefixes."""

    def __init__(self, tokenizer: Any, specials: Sequence[str] = ()):
        """`specials`: added tokens that texts are full of (those of the chat template)."""
        self.tokenizer = tokenizer
        self.specials = tuple(specials)
        self.backend = getattr(tokenizer, 'backend_tokenizer', None) if getattr(tokenizer, 'is_fast', False) else None
        self._chunks: ChunkCache | None = None
        if self.backend is not None and chunkable(self.backend):
            self._chunks = ChunkCache(self.backend, self.specials)

    def __reduce__(self):
        return Tokens, (self.tokenizer, self.specials)

    def ids(self, text: str) -> list[int]:
        """Ids of `text` alone, nothing added."""
        if self.backend is not None:
            self._bare()
            return self.backend.encode(text, add_special_tokens=False).ids
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def batch(
        self,
        texts: Sequence[str],
        spans: Sequence[Sequence[Range]],
        marks: Sequence[Sequence[Range]] | None = None,
    ) -> list[Encoded]:
        """Every text with the token ranges of its spans (token overlaps) and marks (token ends there)."""
        marks = marks if marks is not None else [()] * len(texts)
        if self.backend is None:
            return [self._slow(*row) for row in zip(texts, spans, marks, strict=True)]
        self._bare()
        results = [self._chunked(*row) for row in zip(texts, spans, marks, strict=True)]
        rest = [i for i, result in enumerate(results) if result is None]
        encodings = self.backend.encode_batch([texts[i] for i in rest], add_special_tokens=False)
        for i, encoding in zip(rest, encodings, strict=True):
            results[i] = self._fast(encoding, texts[i], spans[i], marks[i])
        return results  # type: ignore[return-value]

    def _chunked(self, text: str, spans: Sequence[Range], marks: Sequence[Range]) -> Encoded | None:
        """Through the cache of words, where spans end in special tokens; None: not possible."""
        chunks = self._chunks
        if chunks is None or not chunks.trusted or marks:
            return None
        ids: list[int] = []
        ranges = []
        at = 0
        for a, b in spans:
            if b < len(text) and not text.endswith(chunks.endings, a, b):
                return None
            ids += chunks.ids(text[at:a])
            first = len(ids)
            ids += chunks.ids(text[a:b])
            ranges.append((first, len(ids)))
            at = b
        if at < len(text):
            ids += chunks.ids(text[at:])
        return Encoded(ids, ranges, []) if chunks.trusted else None

    def _bare(self) -> None:
        """The backend keeps truncation and padding from the last call of anybody: neither is wanted here."""
        if self.backend.truncation is not None:
            self.backend.no_truncation()
        if self.backend.padding is not None:
            self.backend.no_padding()

    def _fast(self, encoding: Any, text: str, spans: Sequence[Range], marks: Sequence[Range]) -> Encoded:
        ids = encoding.ids
        size = len(ids)
        ranges = []
        for a, b in spans:
            first = encoding.char_to_token(a) if a else 0
            last = encoding.char_to_token(b) if b < len(text) else size
            if first is None or last is None:
                return self._by_offsets(encoding, text, spans, marks)
            if a and encoding.token_to_chars(first)[0] < a:
                return self._cut(text, spans, marks)
            if last < size and encoding.token_to_chars(last)[0] < b:
                last += 1
            ranges.append((first, last))
        return Encoded(ids, ranges, _inside(encoding.offsets, marks) if marks else [])

    def _by_offsets(self, encoding: Any, text: str, spans: Sequence[Range], marks: Sequence[Range]) -> Encoded:
        """The same where a border falls on a character without a token of its own (dropped, or trimmed white space)."""
        offsets = encoding.offsets
        size = len(offsets)
        ranges = []
        for a, b in spans:
            first = next((i for i, (_, end) in enumerate(offsets) if end > a), size)
            last = next((i for i in range(first, size) if offsets[i][0] >= b and offsets[i][1] > b), size)
            if first < size and offsets[first][0] < a < offsets[first][1]:
                return self._cut(text, spans, marks)
            ranges.append((first, last))
        return Encoded(encoding.ids, ranges, _inside(offsets, marks))

    def _cut(self, text: str, spans: Sequence[Range], marks: Sequence[Range]) -> Encoded:
        """Encode the text in pieces that begin where spans begin, as the model will see it: prompt, then answer."""
        ends = dict(spans)
        whole = Encoded([], [], [])
        for begin, stop in pairwise([0, *[a for a, _ in spans if a], len(text)]):
            inner = [(0, ends[begin] - begin)] if begin in ends else []
            own = [(a - begin, b - begin) for a, b in marks if begin <= a < stop]
            piece = text[begin:stop]
            if self.backend is None:
                part = self._slow(piece, inner, own)
            else:
                part = self._fast(self.backend.encode(piece, add_special_tokens=False), piece, inner, own)
            shift = len(whole.ids)
            whole.spans += [(x + shift, y + shift) for x, y in part.spans]
            whole.marks += [(x + shift, y + shift) for x, y in part.marks]
            whole.ids += part.ids
        return whole

    def _slow(self, text: str, spans: Sequence[Range], marks: Sequence[Range]) -> Encoded:
        """Without offsets: a border lies where the ids of the text up to it stop agreeing with those of the whole."""
        ids = self.ids(text)
        ranges = []
        for a, b in spans:
            first, clean = self._agree(ids, text[:a])
            if not clean:
                return self._cut(text, spans, marks)
            last, clean = self._agree(ids, text[:b])
            ranges.append((first, last if clean else min(last + 1, len(ids))))
        return Encoded(ids, ranges, [(self._agree(ids, text[:a])[0], self._agree(ids, text[:b])[0]) for a, b in marks])

    def _agree(self, ids: list[int], prefix: str) -> tuple[int, bool]:
        """How many ids `prefix` shares with the whole text, and whether that is all of them."""
        own = self.ids(prefix) if prefix else []
        shared = next((i for i, (x, y) in enumerate(zip(ids, own, strict=False)) if x != y), min(len(ids), len(own)))
        return shared, shared == len(own)


def _inside(offsets: Sequence[Range], marks: Sequence[Range]) -> list[Range]:
    """For every mark the tokens that end in it: a token often begins with the space before a word."""
    ends = [b for _, b in offsets]
    return [(bisect_right(ends, a), bisect_right(ends, b)) for a, b in marks]
