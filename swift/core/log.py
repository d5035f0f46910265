"""One logger for the house: to stderr, from the first rank only, each line short.

stdout is left to what the user asked for (answers, tables, help). `SWIFT_DEBUG=1` shows debug lines.
"""

from __future__ import annotations

import logging
import os
import sys
import threading

from swift.core.dist import is_master

_once: set[str] = set()
_once_lock = threading.Lock()


class _Stderr(logging.StreamHandler):
    """Writes to the stderr of the moment, so that redirection and test capture see every line."""

    def __init__(self):
        super().__init__(sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def debug_enabled() -> bool:
    """Whether `SWIFT_DEBUG` asks for debug lines and tracebacks."""
    return os.environ.get('SWIFT_DEBUG', '0').lower() not in ('', '0', 'false', 'no')


def get_logger(name: str = 'swift') -> logging.Logger:
    """The house logger (or a child of it). Ranks other than 0 print warnings and errors only."""
    root = logging.getLogger('swift')
    if not root.handlers:
        handler = _Stderr()
        handler.setFormatter(logging.Formatter('[%(levelname)s] %(message)s'))
        root.addHandler(handler)
        root.propagate = False
        root.setLevel(logging.DEBUG if debug_enabled() else logging.INFO if is_master() else logging.WARNING)
    return root if name == 'swift' else logging.getLogger(name if name.startswith('swift.') else f'swift.{name}')


def warn_once(message: str, *args: object) -> None:
    """Log a warning the first time this very message is given in this process."""
    text = message % args if args else message
    with _once_lock:
        if text in _once:
            return
        _once.add(text)
    get_logger().warning(text)


def info_once(message: str, *args: object) -> None:
    """Log an info line the first time this very message is given in this process."""
    text = message % args if args else message
    with _once_lock:
        if text in _once:
            return
        _once.add(text)
    get_logger().info(text)
