"""Images, videos and sounds in a typed conversation: a tag asks for its file, a path or URL in front of a message is shown with it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlparse

from swift.core.errors import RowError, SwiftError
from swift.core.media import KINDS, bind
from swift.dataset.media import kind_of

_WORD = re.compile(r'\s*(?:"([^"]+)"|\'([^\']+)\'|((?:\\.|[^\s\\])+))(?=\s|$)')
_TAG = re.compile('|'.join(f'<{kind}>' for kind in KINDS))


class ChatMedia:
    """What the next message shows. `kinds`: those that the model takes; `ask(question)` gives a line (EOFError: there is none).

    `root`: folder of relative paths; None: the working directory. `patient`: ask again after a wrong path.
    """

    def __init__(self, kinds: Sequence[str], ask: Callable[[str], str], *, root: str | None = None, patient: bool = False):
        self.kinds = tuple(kinds)
        self._ask, self._root, self._patient = ask, root, patient
        self.waiting: list[tuple[str, str]] = []
        """(kind, reference) of media that came without words."""

    @property
    def help(self) -> str:
        """How to show something; '' for a model that reads text only."""
        if not self.kinds:
            return ''
        tags, things = ', '.join(f'<{kind}>' for kind in self.kinds), ' or '.join(self.kinds)
        return f'To show something, write {tags} in a message and give its path when asked, or begin a message with the path or URL of the {things}.'

    def message(self, text: str) -> dict[str, Any] | None:
        """The user's message with what it shows; None where there are only media, which wait for the next message, or the user gave up.

        Raises SwiftError naming a file that can't be read.
        """
        media, words = self._leading(text)
        for kind, reference in media:
            self._check(kind, reference)
        self.waiting += media
        if not words.strip():
            return None
        given = {kind: [ref for of, ref in self.waiting if of == kind] for kind in KINDS}
        have = {kind: len(refs) for kind, refs in given.items()}
        for tag in _TAG.findall(words) if self.kinds else ():
            kind = tag[1:-1]
            have[kind] -= 1
            if have[kind] < 0:
                reference = self._asked(kind, len(given[kind]) + 1)
                if reference is None:
                    return None
                given[kind].append(reference)
        tags = [f'<{kind}>' for kind, _ in self.waiting if f'<{kind}>' not in words]  # what came without words stands before them
        message = bind([{'role': 'user', 'content': ''.join(tags) + words}], *(given[kind] for kind in KINDS))[0]
        self.waiting = []
        return message

    def _asked(self, kind: str, number: int) -> str | None:
        """The path of a medium; None: the user gave up."""
        if kind not in self.kinds:
            raise SwiftError(f'the message has <{kind}>, but the model takes {" and ".join(f"{k}s" for k in self.kinds)} only')
        while True:
            try:
                words = self._ask(f'<<<[{kind} {number}: path or URL] ').strip()
            except EOFError:
                words = ''
            if not words:
                raise SwiftError(f'no path was given for the {kind} of this message, which is dropped')
            match = _WORD.fullmatch(words)
            reference = self._located(_unquoted(match) if match else words)
            try:
                self._check(kind, reference)
                return reference
            except RowError as error:
                if not self._patient:
                    raise
                print(f'swift infer: {error}; give another path, or nothing to drop the message', file=sys.stderr)

    def _located(self, reference: str) -> str:
        from swift.media import located

        return located(reference, None, self._root)

    @staticmethod
    def _check(kind: str, reference: str) -> None:
        from swift.media import size_of

        size_of(kind, reference)

    def _leading(self, text: str) -> tuple[list[tuple[str, str]], str]:
        """Media that a message begins with, and its words."""
        found: list[tuple[str, str]] = []
        while match := _WORD.match(text):
            word = _unquoted(match)
            kind = _kind(word)
            if kind not in self.kinds or not self._is_meant(word):
                break
            found.append((kind, self._located(word)))
            text = text[match.end() :].lstrip()
        return found, text

    def _is_meant(self, word: str) -> bool:
        """Whether a word with the suffix of a medium is to be opened: it exists, or can't be anything else than a path."""
        return word.startswith(('/', './', '../', '~', 'http://', 'https://', 'file://', 'data:')) or os.path.exists(self._located(word))


def _unquoted(match: re.Match) -> str:
    """A path as terminals paste it: in quotes, or with blanks behind backslashes."""
    quoted = match[1] or match[2]
    return quoted if quoted else re.sub(r'\\(.)', r'\1', match[3])


def _kind(word: str) -> str | None:
    if word.startswith('data:'):
        return next((kind for kind in KINDS if word.startswith(f'data:{kind}/')), None)
    return kind_of(urlparse(word).path if '://' in word else word)
