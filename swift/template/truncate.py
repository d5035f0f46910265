"""Samples of at most max_length tokens, none without a token that is trained."""

from __future__ import annotations

from swift.core.errors import RowError, RowTooLong, TemplateError
from swift.core.types import IGNORE_INDEX

Piece = tuple[list[int], list[int], list[float] | None]
"""ids, labels, weights."""


def fit(
    ids: list[int], labels: list[int], weights: list[float] | None, limit: int | None, strategy: str, plain: bool
) -> list[Piece]:
    """The row as one piece, or as several (`split`, plain text only), by `--truncation_strategy`.

    Raises RowTooLong where the strategy is delete, RowError where no trained token is left. The first token of a piece
    is never trained, since nothing precedes it.
    """
    size = len(ids)
    if limit is None or size <= limit:
        borders = [(0, size)]
    elif strategy == 'delete':
        raise RowTooLong(f'the row has {size} tokens, more than max_length {limit}')
    elif strategy == 'left':
        borders = [(size - limit, size)]
    elif strategy == 'right':
        borders = [(0, limit)]
    elif plain:
        borders = [(a, min(a + limit, size)) for a in range(0, size, limit)]
    else:
        raise TemplateError(SPLIT_NEEDS_TEXT, 'add --use_chat_template false, or choose delete, left or right')
    pieces = [
        (ids[a:b], labels[a:b], None if weights is None else weights[a:b])
        for a, b in borders
        if max(labels[a + 1 : b], default=IGNORE_INDEX) != IGNORE_INDEX
    ]
    if pieces:
        return pieces
    if limit is not None and size > limit:
        raise RowError(f'no trained token is left within max_length {limit} (the row has {size} tokens)')
    raise RowError('no token of this row is trained')


SPLIT_NEEDS_TEXT = '--truncation_strategy split is for plain-text pre-training only;'
