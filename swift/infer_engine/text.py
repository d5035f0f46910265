"""Tokens of one answer → text as it grows: never half a character, never half a stop text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

BROKEN = '\ufffd'


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of tokens, special ones left out, exactly as the bytes say."""
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def held(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end of `text` may be the beginning of one of the `stops`."""
    longest = 0
    for stop in stops:
        for length in range(min(len(stop) - 1, len(text)), longest, -1):
            if text.endswith(stop[:length]):
                longest = length
                break
    return longest


class TextStream:
    """Detokenises one answer piece by piece.

    A window of two pieces is decoded at each token, so that spaces between words come out as in the whole text.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()):
        self._tokenizer, self._stops = tokenizer, tuple(stops)
        self._ids: list[int] = []
        self._start = self._read = self._given = 0
        self._before = ''
        self.text = ''
        """What is certain so far; cut before the stop text once `stopped`."""
        self.stopped = False

    def feed(self, token: int) -> bool:
        """Add a token; True once a stop text is complete."""
        self._ids.append(token)
        after = decode(self._tokenizer, self._ids[self._start :])
        if len(after) > len(self._before) and not after.endswith(BROKEN):
            self._grow(after[len(self._before) :])
            self._start, self._read = self._read, len(self._ids)
            self._before = decode(self._tokenizer, self._ids[self._start : self._read])
        return self.stopped

    def _grow(self, piece: str) -> None:
        old = len(self.text)
        self.text += piece
        places = [
            place for stop in self._stops if (place := self.text.find(stop, max(0, old - len(stop) + 1))) >= 0
        ]
        if places:
            self.text = self.text[: min(places)]
            self.stopped = True

    def take(self) -> str:
        """News that can be shown: everything certain but what may be the beginning of a stop text."""
        end = len(self.text) if self.stopped else len(self.text) - held(self.text, self._stops)
        piece = self.text[self._given : end]
        self._given = max(self._given, end)
        return piece

    def finish(self) -> str:
        """No more tokens: settle `text` and return what was not shown yet."""
        if not self.stopped:
            whole = decode(self._tokenizer, self._ids)
            self._grow(whole[len(self.text) :] if whole.startswith(self.text) else '')
        piece = self.text[self._given :]
        self._given = len(self.text)
        return piece
