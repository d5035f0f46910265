"""Answers as they go out: JSON, or server-sent events.

Every piece is an event, but a stream is written to at most once in PAUSE seconds, with all events that wait: writing costs more than
the token itself where many clients listen, and nobody reads faster.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import Response

from swift.infer_engine.server.errors import ApiError

DONE = b'data: [DONE]\n\n'

PAUSE = 0.04
"""Seconds between two writes of one stream."""

_encode = json.JSONEncoder(ensure_ascii=False, separators=(',', ':')).encode


def json_response(value: Any, status: int = 200) -> Response:
    """JSON as the API writes it."""
    return Response(_json(value), status, media_type='application/json')


def event(value: dict[str, Any]) -> bytes:
    """One event."""
    return b'data: ' + _json(value) + b'\n\n'


def _json(value: Any) -> bytes:
    return _encode(value).encode()


class Events(Response):
    """Sends events as they come, then [DONE]; a mistake found on the way is the last event instead."""

    media_type = 'text/event-stream'

    def __init__(self, events: AsyncIterator[bytes]):
        super().__init__(headers={'Cache-Control': 'no-cache', 'X-Accel-Buffering': 'no'})
        del self.headers['content-length']
        self._events = events
        self._waiting: list[bytes] = []
        self._news = asyncio.Event()
        self._over = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """The answer to one request. Ends the iterator when it is cancelled, whatever it waits for."""
        await send({'type': 'http.response.start', 'status': 200, 'headers': self.raw_headers})
        reading = asyncio.ensure_future(self._read())
        try:
            while not self._over or self._waiting:
                if not self._waiting:
                    self._news.clear()
                    await self._news.wait()
                pieces, self._waiting = self._waiting, []
                if pieces:
                    await send({'type': 'http.response.body', 'body': b''.join(pieces), 'more_body': True})
                    if not self._over:
                        await asyncio.wait({reading}, timeout=PAUSE)
            reading.result()
            await send({'type': 'http.response.body', 'body': b'', 'more_body': False})
        finally:
            if not reading.done():
                reading.cancel()
                await asyncio.wait([reading])

    async def _read(self) -> None:
        try:
            async for piece in self._events:
                self._waiting.append(piece)
                self._news.set()
            self._waiting.append(DONE)
        except ApiError as error:
            self._waiting += [error.event, DONE]
        finally:
            self._over = True
            self._news.set()
            await self._events.aclose()
