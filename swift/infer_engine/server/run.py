"""The server as a process or for a while: a socket, an event loop, an end that lets accepted requests finish."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import uvicorn

from swift.core.errors import SwiftError
from swift.core.log import get_logger
from swift.infer_engine.server.served import Served

logger = get_logger('swift.server')

KEEP_ALIVE = 75
"""Seconds that an idle connection stays open: longer than clients keep theirs, or both ends would race for the last request."""

POLL = 0.05
"""Seconds between looks at whether the last request is done."""


class _Uvicorn(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the Server's own business."""
        yield


class Server:
    """Listens from its construction on; `run` answers. `port` 0 takes a free one, `self.port` says which.

    `keyfile` and `certfile`: HTTPS. Raises SwiftError where the address can't be had.
    """

    def __init__(
        self, served: Served, *, host: str = '127.0.0.1', port: int = 0, keyfile: str | None = None, certfile: str | None = None,
        log_level: str = 'warning',
    ):  # fmt: skip
        self.served, self.host, self._interval = served, host, 0
        self._socket = _listening(host, port)
        self.port = self._socket.getsockname()[1]
        self._scheme = 'https' if certfile else 'http'
        self._ssl = {'ssl_keyfile': keyfile, 'ssl_certfile': certfile} if certfile else {}
        self._log_level = log_level
        self._loop: asyncio.AbstractEventLoop | None = None
        self._uvicorn: _Uvicorn | None = None
        self._failure: BaseException | None = None

    @property
    def url(self) -> str:
        """Where requests go, as in the `base_url` of OpenAI's client."""
        shown = '127.0.0.1' if self.host in ('0.0.0.0', '::') else f'[{self.host}]' if ':' in self.host else self.host
        return f'{self._scheme}://{shown}:{self.port}/v1'

    @property
    def started(self) -> bool:
        """Whether requests are answered."""
        return self._uvicorn is not None and self._uvicorn.started

    def run(self, *, signals: bool = False, log_interval: float = 0) -> None:
        """Answer until `stop`, or with `signals` until SIGTERM or SIGINT; a second one ends the process at once.

        `log_interval`: seconds between lines that say how much is done; 0: none. Raises what `fail` was told.
        """
        self._interval = log_interval
        asyncio.run(self._main(signals))
        if self._failure is not None:
            raise self._failure

    @staticmethod
    def settle() -> None:
        """Everything is loaded: what is there now is never looked through for garbage again, which stops all answers for a quarter of a second."""
        gc.freeze()

    def stop(self) -> None:
        """Finish what was accepted, then end; from any thread."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._drain)

    def fail(self, error: BaseException) -> None:
        """End with an error: there is nothing to answer with."""
        self._failure = error
        self.stop()

    async def _main(self, signals: bool) -> None:
        from swift.infer_engine.server.app import build_app

        self._loop = asyncio.get_running_loop()
        config = uvicorn.Config(
            build_app(self.served), log_config=None, log_level=self._log_level, access_log=False, server_header=False, lifespan='off',
            ws='none', timeout_keep_alive=KEEP_ALIVE, **self._ssl,
        )  # fmt: skip
        self._uvicorn = _Uvicorn(config)
        if signals:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._loop.add_signal_handler(number, self._signalled, number)
        if self._failure is not None:
            self._drain()
        told = asyncio.ensure_future(self._tell()) if self._interval else None
        try:
            await self._uvicorn.serve(sockets=[self._socket])
        finally:
            if told:
                told.cancel()
            self._socket.close()

    def _signalled(self, number: int) -> None:
        if self.served.draining:
            logger.warning('a second signal: %d requests are given up', self.served.metrics.active)
            os._exit(128 + number)
        self._drain()

    def _drain(self) -> None:
        if self.served.draining or self._uvicorn is None:
            return
        self.served.draining = True
        self._ending = asyncio.ensure_future(self._finish())

    async def _finish(self) -> None:
        if self.served.metrics.active:
            await asyncio.sleep(POLL)  # those whose answer is on its way already are not worth a line
        if active := self.served.metrics.active:
            logger.info('%d requests are finished before the end; a second signal ends at once', active)
        while self.served.metrics.active:
            await asyncio.sleep(POLL)
        self._uvicorn.should_exit = True

    async def _tell(self) -> None:
        """Lines about what is going on, while something is."""
        before = self._figures()
        while True:
            await asyncio.sleep(self._interval)
            now = self._figures()
            read, written, answers = (b - a for a, b in zip(before, now, strict=True))
            before = now
            if answers or self.served.metrics.active:
                gauges = {name: value() for name, (_, value) in self.served.metrics.gauges.items()}
                logger.info(
                    '%.0f tokens/s written, %.0f read; %d answers; %d running, %d waiting', written / self._interval, read / self._interval,
                    answers, gauges['answers_running'], gauges['answers_waiting'],
                )  # fmt: skip

    def _figures(self) -> tuple[int, int, int]:
        return self.served.metrics.read, self.served.metrics.written, self.served.metrics.answers


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(2048)
        return listening
    except OSError as error:
        raise SwiftError(f'{host}:{port} can not be listened on ({error.strerror or error});', 'give another --port or --host') from None


@contextmanager
def in_background(server: Server) -> Iterator[Server]:
    """The server answers in a thread of its own until the block is left; then accepted requests are finished."""
    thread = threading.Thread(target=server.run, name='swift-server', daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise SwiftError('the server did not start;', 'see the messages before')
            time.sleep(0.01)
        yield server
    finally:
        server.stop()
        thread.join()


@contextmanager
def running(served: Served, **settings: Any) -> Iterator[Server]:
    """A new server in the background. `settings` are those of Server."""
    with in_background(Server(served, **settings)) as server:
        yield server
