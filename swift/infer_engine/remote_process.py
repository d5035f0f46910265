"""A server in a process of its own: started, waited for, ended with us."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from swift.core.errors import SwiftError
from swift.core.log import get_logger
from swift.infer_engine import remote_guard
from swift.infer_engine.remote import Remote

logger = get_logger()

READY_SECONDS = 1800.0
"""How long a large model may take to load."""
_running: weakref.WeakSet[ServerProcess] = weakref.WeakSet()


class ServerProcess:
    """Runs `command`, which serves OpenAI's API on 127.0.0.1 at `port`, until `close` (or the end of this process,
    however it ends).

    `name`: how messages call it. `environment`: variables beside those of this process. The constructor returns when the server
    answers; raises SwiftError with its last words when it ends before, or does not answer within `seconds`.
    """

    def __init__(self, command: Sequence[str], port: int, name: str, *, environment: dict[str, str] | None = None, seconds: float = READY_SECONDS):
        self.name, self.port = name, port
        self.remote = Remote(f'http://127.0.0.1:{port}/v1', max_retries=2)
        self._log = tempfile.NamedTemporaryFile(prefix=f'{name}-', suffix='.log', delete=False)  # noqa: SIM115 - lives as long as the process
        logger.info('starting %s; its log: %s', name, self._log.name)
        if not shutil.which(command[0]):
            raise SwiftError(f'{name} can not be started: there is no program {command[0]};', 'give the python of its environment')
        self._process = subprocess.Popen(
            [sys.executable, '-I', remote_guard.__file__, *command], stdout=self._log, stderr=subprocess.STDOUT, stdin=subprocess.PIPE,
            start_new_session=True, env={**os.environ, **(environment or {})},
        )  # fmt: skip
        _running.add(self)
        try:
            self._wait(seconds)
        except BaseException:
            self.close()
            raise

    def _wait(self, seconds: float) -> None:
        started, quick = time.monotonic(), Remote(self.remote.base_url, timeout=10, max_retries=0)
        while True:
            if self._process.poll() is not None:
                raise SwiftError(f'{self.name} ended before it answered: {self._last_words()};', f'its log: {self._log.name}')
            with suppress(SwiftError):
                quick.models()
                logger.info('%s answers after %.0f s', self.name, time.monotonic() - started)
                return
            if time.monotonic() - started > seconds:
                raise SwiftError(f'{self.name} does not answer after {seconds:g} s;', f'its log: {self._log.name}')
            time.sleep(0.5)

    def _last_words(self) -> str:
        """The line of the log that most likely says what went wrong."""
        with open(self._log.name, encoding='utf-8', errors='replace') as file:
            lines = [line.strip() for line in file if line.strip()]
        errors = [line for line in lines if 'Error' in line or 'error:' in line]
        return (errors or lines or ['it said nothing'])[-1][-300:]

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """End it, with the processes it started."""
        _running.discard(self)
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(2 * remote_guard.GRACE + 5)
        self._process.stdin.close()
        self._log.close()


def flags_from(settings: dict[str, Any]) -> list[str]:
    """Settings by an engine's own names as words of its command line: `max_num_seqs` 8 → --max-num-seqs 8; true alone; false: left out."""
    import json

    words: list[str] = []
    for name, value in settings.items():
        flag = '--' + name.replace('_', '-')
        if isinstance(value, bool):
            words += [flag] if value else []
        elif isinstance(value, list | tuple):
            words += [flag, *map(str, value)]
        elif value is not None:
            words += [flag, json.dumps(value) if isinstance(value, dict) else str(value)]
    return words


@atexit.register
def _close_all() -> None:
    for server in list(_running):
        server.close()
