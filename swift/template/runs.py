"""Where media lie among the tokens of a sample or a prompt, and what the model gets of them: for those who show samples to people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from swift.media import load
from swift.template.rendered import Rendered, aligned


@dataclass(frozen=True)
class Seen:
    """One medium of a sample. `start`, `end`: its tokens; both 0 where they can't be told from the text around them."""

    kind: str
    reference: Any
    size: tuple
    """As the model sees it: image (height, width); video (frames, height, width, …); audio (samples,)."""
    start: int = 0
    end: int = 0
    rate: int = 16_000
    """Samples of a second of sound, as the model hears it."""

    @property
    def tokens(self) -> int:
        """How many tokens stand for it."""
        return self.end - self.start


def media_kinds(template: Any) -> tuple[str, ...]:
    """Which of image, video, audio the model takes."""
    reader = getattr(getattr(template, 'showing', None), 'reader', None)  # a template of the user's own may read text only
    return () if reader is None else tuple(reader.kinds)


def media_runs(template: Any, ids: Sequence[int], stored: dict[str, Any] | None) -> list[Seen]:
    """Every medium of a segment, in the order of its tokens. `stored`: what a stored sample or a prompt says that it shows."""
    if not stored:
        return []
    reader, shown = template.showing.reader, [tuple(item) for item in stored['media']]
    places = reader.places(stored['text'], shown)
    rest = {kind: iter([item for item in shown if item[0] == kind]) for kind, _, _ in places}
    ordered = [next(rest[kind]) for kind, _, _ in places]
    spans = token_runs(template, ids, stored)
    return [Seen(kind, ref, _size(reader, kind, ref), *span, reader.rate) for (kind, ref), span in zip(ordered, spans, strict=True)]


def load_seen(template: Any, seen: Seen) -> Any:
    """The medium within the budgets: a PIL picture, a Video, or [samples] float32. Raises RowError naming the file."""
    reader = template.showing.reader
    made = load(seen.kind, seen.reference, reader.budget, reader.rate)
    if seen.kind == 'image' and (made.height, made.width) != seen.size:
        made = made.resize(seen.size[::-1])
    return made


def processor_ids(template: Any, stored: dict[str, Any]) -> list[int]:
    """The tokens that the model's own processor makes of a text and the media it shows, read in full. Raises RowError naming a file."""
    reader = template.showing.reader
    media = [(kind, load(kind, reference, reader.budget, reader.rate)) for kind, reference in stored['media']]
    return list(map(int, reader.processed(stored['text'], media)['input_ids'][0]))


def _size(reader: Any, kind: str, reference: Any) -> tuple:
    return reader.seen_size(reference) if kind == 'image' else reader.sizes([(kind, reference)])[0][1]


def token_runs(template: Any, ids: Sequence[int], stored: dict[str, Any]) -> list[tuple[int, int]]:
    """(start, end) among `ids` for every medium of a segment, in the order of the text; (0, 0) for one that can't be told."""
    showing, ids, text = template.showing, list(ids), stored['text']
    shown = [tuple(item) for item in stored['media']]
    runs = showing.reader.runs(text, shown)
    if runs is None:
        spans = [(a, b) for _, a, b in showing.reader.places(text, shown)]
        [plain] = showing.tokens.batch([text], [spans], [[]])
        where = aligned(plain.ids, plain.spans, ids)
        return [(where[a], where[b]) for a, b in plain.spans] if where else [(0, 0)] * len(spans)
    full, spans, shift = Rendered(text, []).expanded(runs).text, [], 0
    for run in runs:
        spans.append((run.start + shift, run.start + shift + len(run.written)))
        shift += len(run.written) - (run.end - run.start)
    [row] = showing.tokens.batch([full], [spans], [[]])
    found, at = [], 0
    for first, last in row.spans:
        found.append(_found(ids, row.ids[first:last], at) or (0, 0))
        at = found[-1][1] or at
    return found


_BORDERS = ((0, 0), (1, 0), (0, 1), (1, 1))
"""Tokens at the start and the end of a run that may have become one with the text beside it."""


def _found(ids: list[int], run: list[int], at: int) -> tuple[int, int] | None:
    """Where a run of tokens lies in `ids`, from `at` on: the whole run, or without its borders what is there before it."""
    best = None
    for left, right in _BORDERS:
        core = run[left : len(run) - right]
        start = _find(ids, core, at) if core else None
        if start is not None and (best is None or start + len(core) <= best[0]):
            best = (start, start + len(core))
    return best


def _find(ids: list[int], run: list[int], start: int) -> int | None:
    """Where a run of tokens begins in `ids`, from `start` on."""
    while True:
        try:
            start = ids.index(run[0], start)
        except ValueError:
            return None
        if ids[start : start + len(run)] == run:
            return start
        start += 1
