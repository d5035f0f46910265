"""A conversation as text, before it is tokenised, and what happens to it when media take their places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from swift.template.media import Run
from swift.template.weights import Weighted

Span = tuple[int, int]


@dataclass(slots=True)
class Rendered:
    """The text of a conversation with what is trained of it, in characters."""

    text: str
    spans: list[Span]
    parts: list[Weighted] = field(default_factory=list)
    """Parts of spans with their weights; empty: every span has weight 1."""
    all: bool = False
    """Every token is trained, not only those of spans."""
    plain: bool = False
    """No chat template: the tokenizer's own special tokens are put around."""
    shown: list[tuple[str, Any]] = field(default_factory=list)
    """(kind, reference) of the media whose placeholders are in the text, in order of the messages."""

    def expanded(self, runs: Sequence[Run]) -> Rendered:
        """The text with what stands for media in their places; nothing of that is ever trained."""
        pieces, at = [], 0
        for run in runs:
            pieces += (self.text[at : run.start], run.written)
            at = run.end
        text = ''.join([*pieces, self.text[at:]])
        spans = [span for span in self.spans] if not self.all else [(0, len(self.text))]
        parts = [(*span, weight) for a, b, weight in self.parts for span in _outside([(a, b)], runs)]
        return replace(self, text=text, spans=_outside(spans, runs), parts=parts, all=False)

    def cut(self, start: int, end: int, places: Sequence[tuple[str, int, int]]) -> Rendered:
        """Characters `start` to `end` of the text, with the media that are in them whole. `places`: (kind, start, end) of placeholders."""
        spans = [(max(a, start) - start, min(b, end) - start) for a, b in self.spans if a < end and b > start]
        parts = [(max(a, start) - start, min(b, end) - start, w) for a, b, w in self.parts if a < end and b > start]
        kept = [a >= start and b <= end for _, a, b in places]
        return replace(self, text=self.text[start:end], spans=spans, parts=parts, shown=_kept(self.shown, places, kept))


def _kept(shown: Sequence[tuple[str, Any]], places: Sequence[tuple[str, int, int]], kept: Sequence[bool]) -> list[tuple[str, Any]]:
    """The media whose placeholders are kept; the n-th placeholder of a kind belongs to the n-th medium of that kind."""
    left = {kind: [keep for (k, _, _), keep in zip(places, kept, strict=True) if k == kind] for kind in {k for k, _ in shown}}
    return [(kind, reference) for kind, reference in shown if left[kind].pop(0)]


def _outside(spans: Sequence[Span], runs: Sequence[Run]) -> list[Span]:
    """The parts of spans that are outside of placeholders, where they lie in the expanded text."""
    out = []
    for a, b in spans:
        for run in runs:
            if run.start >= b:
                break
            if run.end <= a:
                continue
            if run.start > a:
                out.append((a, run.start))
            a = max(a, run.end)
        if a < b:
            out.append((a, b))
    return [(a + _shift(runs, a), b + _shift(runs, b)) for a, b in out]


def _shift(runs: Sequence[Run], place: int) -> int:
    return sum(len(run.written) - (run.end - run.start) for run in runs if run.end <= place)


def aligned(plain: Sequence[int], placeholders: Sequence[Span], full: Sequence[int]) -> list[int] | None:
    """For every token of `plain`, and its end, where it is in `full`, which has a run of tokens for every placeholder.

    `placeholders` are token ranges of `plain`. None: the rest of the text does not come out the same.
    """
    places = list(range(len(plain) + 1))
    borders = [0, *[x for span in placeholders for x in span], len(plain)]
    at = 0
    for k, (a, b) in enumerate(zip(borders[::2], borders[1::2], strict=True)):
        text = list(plain[a:b])
        last = k == len(placeholders)
        found = len(full) - len(text) if last and k else at if not k else _find(full, text, at + 1)
        if found is None or found < at or not _same(full, found, text, behind=k > 0):
            return None
        for i in range(a, b + 1):
            places[i] = found + i - a
        for i in range(borders[2 * k - 1] + 1, a) if k else ():
            places[i] = found
        at = found + len(text)
    return places


def _find(full: Sequence[int], text: list[int], start: int) -> int | None:
    return next((i for i in range(start, len(full) - len(text) + 1) if _same(full, i, text, behind=True)), None)


def _same(full: Sequence[int], at: int, text: list[int], *, behind: bool) -> bool:
    """Whether `text` stands in `full`; its first token may be another one `behind` a run, where tokenizers put a blank in front."""
    found = list(full[at : at + len(text)])
    return found == text or (behind and len(text) > 2 and found[1:] == text[1:])
