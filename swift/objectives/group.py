"""Conversations as texts that belong together: what a row with a query and its response is to an embedding or a reranker."""

from __future__ import annotations

from dataclasses import replace

from swift.core.types import Conversation, Message


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
