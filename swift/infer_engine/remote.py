"""The wire to a server that speaks OpenAI's protocol: JSON and server-sent events over HTTP, asked again where that helps.

Refused connections, 429 and 5xx are asked again with growing pauses (`Retry-After` is obeyed); other mistakes are told at once, as
one SwiftError line with the server's own words. A request in flight can be given up from another thread: the server sees us leave.
"""

from __future__ import annotations

import json
import random
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from swift.core.errors import SwiftError
from swift.core.log import get_logger

AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 529)
"""Statuses after which the same request may succeed."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds between attempts: doubled each time, with some chance in it."""


class GaveUp(SwiftError):
    """The request was cancelled by whoever asked."""


class Call:
    """One request that may be given up at any time, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._over = threading.Event()

    @property
    def over(self) -> bool:
        """Whether it was given up."""
        return self._over.is_set()

    def cancel(self) -> None:
        """Leave: a blocked read returns, and the server notices."""
        with self._lock:
            self._over.set()
            if self._socket is not None:
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    def use(self, connected: socket.socket) -> None:
        """The socket that `cancel` is to close."""
        with self._lock:
            self._socket = connected
        self.check()

    def pause(self, seconds: float) -> None:
        """Wait, unless it is given up meanwhile."""
        self._over.wait(seconds)
        self.check()

    def check(self) -> None:
        """Raises GaveUp after `cancel`."""
        if self.over:
            raise GaveUp('the request was given up')


class Remote:
    """A server at `base_url` (with or without /v1). `timeout`: seconds without a byte; `max_retries`: further attempts."""

    def __init__(self, base_url: str, api_key: str | None = None, *, timeout: float = 600.0, max_retries: int = 4):
        self.base_url = root_of(base_url)
        self._url = urlsplit(self.base_url)
        self._api_key, self._timeout, self._max_retries = api_key, timeout, max_retries

    def models(self) -> list[str]:
        """The names that the server answers to. Raises SwiftError when there is none."""
        listed = self.get('/models')
        rows = listed.get('data') if isinstance(listed, dict) else None
        names = [row['id'] for row in rows or [] if isinstance(row, dict) and row.get('id')]
        if not names:
            raise SwiftError(f'{self.base_url}/models lists no model;', 'give the name of one')
        return names

    def get(self, path: str) -> Any:
        """The JSON behind a path such as `/models`."""
        return self._json('GET', path, None, Call())

    def post(self, path: str, body: dict[str, Any], call: Call | None = None) -> Any:
        """The JSON answer to a JSON body."""
        return self._json('POST', path, body, call or Call())

    def events(self, path: str, body: dict[str, Any], call: Call) -> Iterator[dict[str, Any]]:
        """The events of a streamed answer as they come, up to `[DONE]`. Raises SwiftError when the stream breaks off."""
        connection, response = self._ask('POST', path, body, call)
        try:
            for line in response:
                call.check()
                if not line.startswith(b'data:'):
                    continue
                data = line[5:].strip()
                if data == b'[DONE]':
                    return
                event = self._parsed(data, path)
                if event.get('error'):
                    raise SwiftError(f'{self.base_url}{path} broke off: {_words_of(event)}')
                yield event
        except (OSError, HTTPException) as error:
            call.check()
            raise SwiftError(f'{self.base_url}{path} broke off: {_reason(error, self._timeout)};', 'ask again') from error
        finally:
            connection.close()
        call.check()

    def _json(self, method: str, path: str, body: dict[str, Any] | None, call: Call) -> Any:
        connection, response = self._ask(method, path, body, call)
        try:
            return self._parsed(response.read(), path)
        except (OSError, HTTPException) as error:
            call.check()
            raise SwiftError(f'{self.base_url}{path} broke off: {_reason(error, self._timeout)};', 'ask again') from error
        finally:
            connection.close()

    def _parsed(self, data: bytes, path: str) -> Any:
        try:
            return json.loads(data)
        except ValueError:
            text = data[:80].decode('utf-8', 'replace')
            hint = 'the address must be that of an OpenAI-compatible server, as http://host:8000/v1'
            raise SwiftError(f'{self.base_url}{path} answered no JSON: {text!r};', hint) from None

    def _ask(self, method: str, path: str, body: dict[str, Any] | None, call: Call) -> tuple[HTTPConnection, HTTPResponse]:
        """A response with status 2xx, and its connection. Asks again as long as that may help."""
        for attempt in range(self._max_retries + 1):
            last = attempt == self._max_retries
            connection, target = self._connection()
            call.check()
            try:
                connection.connect()
                call.use(connection.sock)
                response = self._send(connection, method, target + path, body)
                call.check()
            except GaveUp:
                connection.close()
                raise
            except TimeoutError as error:  # it works on the answer: asking again would double the work
                connection.close()
                raise SwiftError(f'{self.base_url}{path}: {_reason(error, self._timeout)};', 'raise the timeout') from error
            except (OSError, HTTPException) as error:
                connection.close()
                call.check()
                if last or isinstance(error, socket.gaierror):
                    raise SwiftError(f'{self.base_url} can not be reached: {_reason(error, self._timeout)};', 'is the server running?') from error
                pause = _pause(attempt, None)
            else:
                if 200 <= response.status < 300:
                    return connection, response
                refused, again = self._refusal(response, path), response.status in AGAIN
                pause = _pause(attempt, response.headers.get('Retry-After'))
                connection.close()
                if last or not again:
                    raise refused
            get_logger().debug('%s%s: attempt %d failed, next in %.1f s', self.base_url, path, attempt + 1, pause)
            call.pause(pause)
        raise AssertionError('the last attempt returns or raises')

    def _connection(self) -> tuple[HTTPConnection, str]:
        """A new connection, through the proxy of the environment if there is one, and what comes in front of the path."""
        url, kind = self._url, HTTPSConnection if self._url.scheme == 'https' else HTTPConnection
        proxy = urllib.request.getproxies().get(url.scheme)
        if not proxy or urllib.request.proxy_bypass(url.hostname):
            return kind(url.hostname, url.port, timeout=self._timeout), url.path
        through = urlsplit(proxy if '//' in proxy else f'http://{proxy}')
        connection = kind(through.hostname, through.port, timeout=self._timeout)
        if url.scheme == 'https':
            connection.set_tunnel(url.hostname, url.port)
            return connection, url.path
        return connection, self.base_url

    def _send(self, connection: HTTPConnection, method: str, target: str, body: dict[str, Any] | None) -> HTTPResponse:
        headers = {'Accept': 'application/json, text/event-stream', 'User-Agent': 'swift'}
        if self._api_key:
            headers['Authorization'] = f'Bearer {self._api_key}'
        data = None if body is None else json.dumps(body, ensure_ascii=False).encode('utf-8')
        if data is not None:
            headers['Content-Type'] = 'application/json'
        connection.request(method, target, data, headers)
        return connection.getresponse()

    def _refusal(self, response: HTTPResponse, path: str) -> SwiftError:
        try:
            words = _words_of(json.loads(response.read()))
        except (ValueError, OSError, HTTPException):
            words = response.reason
        hint = {401: 'give the api_key of the server', 403: 'give an api_key that may do this', 404: 'check the address and the model\'s name'}
        hint |= {413: 'shorten the request', 429: 'the server is busy: ask less at once'}
        return SwiftError(f'{self.base_url}{path} answered {response.status}: {words};', hint.get(response.status))


def root_of(url: str) -> str:
    """The address below which `/models` and `/chat/completions` lie. Raises SwiftError for what is no address."""
    text = url.strip().rstrip('/')
    text = text if '//' in text else f'http://{text}'
    parts = urlsplit(text)
    if parts.scheme not in ('http', 'https') or not parts.hostname:
        raise SwiftError(f'{url!r} is no address of a server;', 'write http://host:8000/v1')
    for tail in ('/chat/completions', '/completions', '/models'):
        text = text.removesuffix(tail)
    return text if urlsplit(text).path.strip('/') else f'{text}/v1'


def _words_of(answer: Any) -> str:
    """What an error body says, in one line."""
    found = answer
    while isinstance(found, dict):
        found = next((found[key] for key in ('error', 'message', 'detail', 'msg') if found.get(key)), json.dumps(found, ensure_ascii=False))
    if isinstance(found, list):
        found = json.dumps(found, ensure_ascii=False)
    return ' '.join(str(found).split())[:400].rstrip('.;')


def _reason(error: BaseException, timeout: float) -> str:
    if isinstance(error, TimeoutError):
        return f'no byte came for {timeout:g} s'
    return getattr(error, 'strerror', None) or str(error) or type(error).__name__


def _pause(attempt: int, asked: str | None) -> float:
    """Seconds before the next attempt; the server's own wish counts."""
    with suppress(TypeError, ValueError):
        return min(max(float(asked), 0.0), 2 * LONGEST_PAUSE)
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt) * random.uniform(0.7, 1.3)
