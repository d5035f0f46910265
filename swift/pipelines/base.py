"""What every pipeline does before its own work: settle arguments, load plugins, seed, and time the run."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator
from typing import Any

import swift
from swift.core.dist import is_master
from swift.core.errors import SwiftError
from swift.core.log import debug_enabled, get_logger
from swift.core.plugins import load_plugins

logger = get_logger()


class SwiftPipeline:
    """One command. `SwiftSft(args).main()` runs it; `args` is None (sys.argv), a list of words, a mapping, or an Arguments instance.

    A subclass names its `command` and implements `run()`, which returns the result.
    """

    command = ''

    def __init__(self, args: Any = None):
        self.args = self._parse_args(args)
        load_plugins(getattr(self.args, 'external_plugins', None))

    def _parse_args(self, args: Any) -> Any:
        from swift.arguments import parse_args

        return parse_args(self.command, args)  # settled arguments come back as they are

    def main(self) -> Any:
        """Run the command and return its result."""
        started = time.time()
        if is_master():
            logger.debug('swift %s: %s', swift.__version__, self.command)
        with quiet_libraries():
            result = self.run()
        logger.debug('%s took %.1f s', self.command, time.time() - started)
        return result

    def run(self) -> Any:
        """The command's own work."""
        raise SwiftError(f'{type(self).__name__} has no run() method;', 'a pipeline implements run()')


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep notices that libraries address to programmers (deprecations) out of a run's log, unless SWIFT_DEBUG asks for them."""
    if debug_enabled():
        yield
        return
    with warnings.catch_warnings():
        for category in (FutureWarning, DeprecationWarning, PendingDeprecationWarning):
            warnings.simplefilter('ignore', category)
        yield


def seed_everything(seed: int, *, deterministic: bool = False) -> None:
    """Seed python, numpy and torch (every device) alike on all ranks; dropout differs by rank through the trainer."""
    import random

    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    if deterministic:
        torch.use_deterministic_algorithms(True, warn_only=True)
