"""Pieces on their way from the engine's thread to an event loop. However many come at once, the loop is woken once."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Any


class Mailbox:
    """Posts from any thread to queues of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self.loop = loop
        self._waiting: deque[tuple[asyncio.Queue, Any]] = deque()
        self._called = False

    def post(self, queue: asyncio.Queue, piece: Any) -> None:
        """Let the loop put a piece into its queue. What comes for a loop that has ended is nobody's."""
        self._waiting.append((queue, piece))
        if not self._called:  # after the append: a delivery that is under way sees the piece, or has said that it saw none
            self._called = True
            with suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._called = False
        while self._waiting:
            queue, piece = self._waiting.popleft()
            queue.put_nowait(piece)
