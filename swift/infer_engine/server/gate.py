"""What every request passes first: the key, the size and the time it may have, the end of the server; and where it is counted.

Plain ASGI. The body is read here, whole, so that its limits hold; a client that leaves cancels what is done for it.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from swift.core.log import debug_enabled, get_logger
from swift.infer_engine.server.errors import ApiError
from swift.infer_engine.server.events import DONE
from swift.infer_engine.server.served import Served

logger = get_logger('swift.server')

OPEN = ('/health', '/ping', '/metrics', '/docs', '/openapi.json')
"""Paths that are answered without a key, while the model is loading and while the server ends."""

ASKING = ('/v1/chat', '/v1/completions', '/v1/embeddings', '/v1/score', '/v1/rerank')
"""Paths that need the model."""

_SURROGATE = re.compile(rb'\\u[dD][89a-fA-F]')

LINGER, PATIENCE = 4, 5.0
"""How much more of a body that is too large is read, as a multiple of the limit, and for how many seconds."""

Send = Callable[[dict[str, Any]], Awaitable[None]]


class Gate:
    """An ASGI application around another one."""

    def __init__(self, app: Any, served: Served):
        self._app, self._served = app, served

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Send) -> None:
        """Pass a request on, or answer it with what forbids it."""
        if scope['type'] != 'http':
            await self._app(scope, receive, send)
            return
        metrics, started = self._served.metrics, time.perf_counter()
        answer = _Answer(send)
        metrics.active += 1
        try:
            self._admit(scope)
            await self._timed(scope, receive, answer)
        except ApiError as error:
            await answer.fail(error)
        except Exception as error:
            what = f'{type(error).__name__}: {" ".join(str(error).split())[:300]}'
            logger.error('%s %s failed: %s', scope['method'], _shown(scope), what)
            if debug_enabled():
                logger.error('', exc_info=error)
            await answer.fail(ApiError(500, 'the server made a mistake; its log says which', code='internal_error'))
        finally:
            metrics.active -= 1
            self._told(scope, answer.status, time.perf_counter() - started)

    def _told(self, scope: dict[str, Any], status: int | None, seconds: float) -> None:
        if status is None:
            self._served.metrics.cancelled += 1
        else:
            route = scope.get('route')  # paths that nobody serves count as one: a scanner must not grow the figures without end
            self._served.metrics.request(route.path if route else 'other', status, seconds, timed=scope['path'] not in OPEN)
        if self._served.verbose and scope['path'] not in OPEN:
            client = scope['client'][0] if scope.get('client') else '-'
            logger.info('%s %s %s %s %.3f s', client, scope['method'], _shown(scope), status or 'left', seconds)

    def _admit(self, scope: dict[str, Any]) -> None:
        served = self._served
        if scope['path'] in OPEN:
            return
        if served.draining:
            raise ApiError(503, 'the server is shutting down', code='shutting_down', headers={'Connection': 'close', 'Retry-After': '5'})
        if not served.ready and scope['path'].startswith(ASKING):
            raise ApiError(503, 'the model is loading', code='loading', headers={'Retry-After': '1'})
        if served.api_key is not None:
            given = _header(scope, b'authorization')
            word, _, key = given.partition(b' ')
            if word.lower() != b'bearer' or not hmac.compare_digest(key.strip(), served.api_key.encode()):
                what = 'wrong API key' if given else 'an API key is needed'
                raise ApiError(
                    401, f'{what}: send the header Authorization: Bearer KEY', code='invalid_api_key', headers={'WWW-Authenticate': 'Bearer'}
                )

    async def _timed(self, scope: dict[str, Any], receive: Any, answer: _Answer) -> None:
        """The request within its time, and only as long as its client waits."""
        seconds = None if scope['path'] in OPEN else self._served.limits.seconds
        ends = None if seconds is None else time.monotonic() + seconds
        late = ApiError(408, f'not done after {seconds:g} seconds (--request_timeout)' if seconds else '', code='timeout')
        try:
            body = await asyncio.wait_for(self._body(scope, receive), seconds)
        except asyncio.TimeoutError:
            late.headers['Connection'] = 'close'
            raise late from None
        if body is None:
            return
        _check_text(body)
        work = asyncio.ensure_future(self._app(scope, _replay(body), answer))
        leaves = asyncio.ensure_future(_left(receive))
        try:
            left = None if ends is None else max(0.0, ends - time.monotonic())
            await asyncio.wait({work, leaves}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
            elif not leaves.done():
                raise late
            else:
                answer.status = None
        finally:
            for task in (work, leaves):
                task.cancel()
            await asyncio.wait({work, leaves})
            if not work.cancelled():
                work.exception()  # heard, or told already

    async def _body(self, scope: dict[str, Any], receive: Any) -> bytes | None:
        """The whole body; None: the client left before its end."""
        limit = self._served.limits.body
        message = f'the body is larger than {limit >> 20} MiB (--max_request_size)'
        large = ApiError(413, message, code='request_too_large', headers={'Connection': 'close'})
        length = _header(scope, b'content-length')
        if length.isdigit() and int(length) > limit:
            await _discard(receive, LINGER * limit)
            raise large
        pieces, size = [], 0
        while True:
            message = await receive()
            if message['type'] == 'http.disconnect':
                return None
            pieces.append(message.get('body', b''))
            size += len(pieces[-1])
            if size > limit:
                if message.get('more_body'):
                    await _discard(receive, LINGER * limit)
                raise large
            if not message.get('more_body'):
                return b''.join(pieces)


class _Answer:
    """Passes an answer on and notes its status, so that a failure on the way ends it in the right form."""

    def __init__(self, send: Send):
        self._send = send
        self.status: int | None = None
        self._events = self._over = False

    async def __call__(self, message: dict[str, Any]) -> None:
        if message['type'] == 'http.response.start':
            self.status = message['status']
            self._events = (b'content-type', b'text/event-stream; charset=utf-8') in message['headers']
        elif not message.get('more_body'):
            self._over = True
        await self._send(message)

    async def fail(self, error: ApiError) -> None:
        """Answer with an error; in a stream that has begun, as its last event."""
        if self._over:
            return
        self._over = True
        if self.status is None:
            self.status = error.status
            body = json.dumps(error.body, ensure_ascii=False).encode()
            headers = {'Content-Type': 'application/json', 'Content-Length': str(len(body)), **error.headers}
            raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
            await self._send({'type': 'http.response.start', 'status': error.status, 'headers': raw})
            await self._send({'type': 'http.response.body', 'body': body})
        elif self._events:
            await self._send({'type': 'http.response.body', 'body': error.event + DONE})


async def _discard(receive: Any, most: int) -> None:
    """Read on for a while, so that a client that is still sending gets to read the answer."""

    async def read() -> None:
        left = most
        while left > 0 and (message := await receive()).get('more_body'):
            left -= len(message['body'])

    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(read(), PATIENCE)


def _shown(scope: dict[str, Any]) -> str:
    """The path in one line, whatever a client put there."""
    return ascii(scope['path'])[1:-1][:200]


def _check_text(body: bytes) -> None:
    """Raises ApiError for a body that is no text: not UTF-8, or with half of a surrogate pair, which no tokenizer takes."""
    try:
        body.decode()
        if _SURROGATE.search(body):
            json.dumps(json.loads(body), ensure_ascii=False).encode()
    except UnicodeError:
        raise ApiError(400, 'the body is no UTF-8, or has half of a surrogate pair (\\ud800 …)', code='invalid_json') from None
    except (ValueError, RecursionError):
        return  # whoever reads the body says what is wrong


def _header(scope: dict[str, Any], name: bytes) -> bytes:
    return next((value for key, value in scope['headers'] if key == name), b'')


def _replay(body: bytes) -> Callable[[], Awaitable[dict[str, Any]]]:
    """`receive` for an application: the body, and then nothing, for the gate hears of clients that leave."""
    told = False

    async def receive() -> dict[str, Any]:
        nonlocal told
        if told:
            await asyncio.Event().wait()
        told = True
        return {'type': 'http.request', 'body': body, 'more_body': False}

    return receive


async def _left(receive: Any) -> None:
    while (await receive())['type'] != 'http.disconnect':
        pass
