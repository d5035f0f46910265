"""Texts that belong together: what a row with a query and its response is to an embedding or a reranker; rows encoded as groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from swift.core.errors import RowError
from swift.core.types import Conversation, Message

Item = TypeVar('Item')
Found = TypeVar('Found')


def in_groups(
    groups: Sequence[Sequence[Item] | RowError], encode: Callable[[list[Item]], Sequence[Found | RowError]]
) -> list[list[Found] | RowError]:
    """What `encode` makes of the items of every group, all of them encoded at once. A group that is a mistake, or has one, is that mistake."""
    encoded = iter(encode([item for group in groups if not isinstance(group, RowError) for item in group]))
    results: list[list[Found] | RowError] = []
    for group in groups:
        if isinstance(group, RowError):
            results.append(group)
            continue
        found = [next(encoded) for _ in group]
        results.append(next((item for item in found if isinstance(item, RowError)), found))
    return results


def as_group(talk: Conversation) -> Conversation:
    """The conversation with its answer as a text that belongs to the question, and rejected answers as texts that don't.

    A row with positives, or without an answer, stays as it is.
    """
    answered = len(talk.messages) > 1 and talk.messages[-1]['role'] == 'assistant'
    if talk.positives or not answered or talk.text:
        return talk
    rejected = [talk.rejected, *(talk.negatives or [])] if talk.rejected is not None else []
    negatives = [_text(messages) for messages in rejected] or None
    return replace(talk, messages=talk.messages[:-1], positives=[_text(talk.messages)], rejected=None, negatives=negatives)


def _text(messages: list[Message]) -> list[Message]:
    return [{'role': 'user', 'content': messages[-1]['content']}]
