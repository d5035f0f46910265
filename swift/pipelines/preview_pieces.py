"""A sample cut into pieces that people read: text, trained or not, and media, each instead of its run of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from swift.core.types import IGNORE_INDEX, Sample
from swift.media.refs import name_of
from swift.template.runs import Seen, media_runs

GREEN, CYAN, OFF = '\x1b[32m', '\x1b[36m', '\x1b[0m'


@dataclass(frozen=True)
class Piece:
    """Tokens that are shown alike. `medium` None: text."""

    text: str
    tokens: int
    trained: bool = False
    weight: float = 0.0
    medium: Seen | None = None
    number: int = 0
    """Of a medium among those of its kind in the segment, from 1."""

    @property
    def label(self) -> str:
        """A medium in a few words."""
        return f'{self.medium.kind} {self.number}'

    @property
    def amount(self) -> str:
        """Its tokens in words."""
        return amount(self.tokens)


def seen_of(sample: Sample, template: Any) -> list[Seen]:
    """The media of one segment."""
    return media_runs(template, sample.input_ids, sample.media[0] if sample.media else None)


def pieces(sample: Sample, seen: Sequence[Seen], tokenizer: Any) -> list[Piece]:
    """One segment, in order. Media that could not be found among its tokens come first, as pieces of no tokens."""
    numbers: dict[str, int] = {}
    found = []
    for item in seen:
        numbers[item.kind] = numbers.get(item.kind, 0) + 1
        found.append((item, numbers[item.kind]))
    out = [Piece('', 0, medium=item, number=number) for item, number in found if not item.tokens]
    placed = [(item, number) for item, number in found if item.tokens]
    at = 0
    for ids, trained, weight in runs(sample):
        end = at + len(ids)
        while placed and placed[0][0].start < end and not trained:
            item, number = placed.pop(0)
            out += _text(ids[: max(item.start - at, 0)], trained, weight, tokenizer)
            out.append(Piece('', item.tokens, medium=item, number=number))
            ids, at = ids[max(item.end - at, 0) :], item.end
        out += _text(ids, trained, weight, tokenizer)
        at = end
    return out


def _text(ids: list[int], trained: bool, weight: float, tokenizer: Any) -> list[Piece]:
    if not ids:
        return []
    text = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return [Piece(text, len(ids), trained, weight)]


def runs(sample: Sample) -> Iterator[tuple[list[int], bool, float]]:
    """Longest runs of tokens that are alike in being trained and in weight: (ids, trained, weight)."""
    ids = np.asarray(sample.input_ids)
    trained = np.asarray(sample.labels) != IGNORE_INDEX
    weights = np.ones(len(ids)) if sample.weights is None else np.asarray(sample.weights, dtype=float)
    weights = np.where(trained, weights, 0.0)
    edges = np.flatnonzero((np.diff(trained.astype(int)) != 0) | (np.diff(weights) != 0)) + 1
    for part in np.split(np.arange(len(ids)), edges):
        if len(part):
            yield ids[part].tolist(), bool(trained[part[0]]), float(weights[part[0]])


def amount(tokens: int) -> str:
    """`1 token`, `2 tokens`."""
    return f'{tokens} token{"s" if tokens != 1 else ""}'


def media_in(parts: Sequence[Piece]) -> list[Seen]:
    """The media among pieces."""
    return [piece.medium for piece in parts if piece.medium is not None]


def text_of(parts: Sequence[Piece], color: bool) -> str:
    """The pieces for a terminal: what is trained is green, or between ⟦ and ⟧, with its weight where that is not 1; a medium is a line."""
    out = []
    for piece in parts:
        if piece.medium is not None:
            text = f'[{piece.label}: {size_words(piece.medium)}, {piece.amount}, {name_of(piece.medium.reference)}]'
            out.append(f'{CYAN}{text}{OFF}' if color else text)
            continue
        note = '' if not piece.trained or piece.weight == 1 else f'×{piece.weight:g} '
        if not piece.trained:
            out.append(piece.text)
        else:
            out.append(f'{GREEN}{note}{piece.text}{OFF}' if color else f'⟦{note}{piece.text}⟧')
    return ''.join(out)


def medium_facts(seen: Seen) -> dict[str, Any]:
    """A medium as `swift preview` returns it: kind, reference, its name, size in words, tokens."""
    return {
        'kind': seen.kind, 'reference': seen.reference, 'name': name_of(seen.reference), 'size': size_words(seen), 'tokens': seen.tokens,
    }  # fmt: skip


def size_words(seen: Seen) -> str:
    """The size as the model sees it: `640×480`, `8 frames of 640×480`, `2.5 s`."""
    if seen.kind == 'image':
        return f'{seen.size[1]}×{seen.size[0]}'
    if seen.kind == 'video':
        frames, height, width, _, _, total = seen.size
        return f'{frames} frames of {width}×{height}' + (f' (of {total})' if total != frames else '')
    return f'{seen.size[0] / seen.rate:.1f} s'
