"""torchrun with readable endings; started by `launch.exec_torchrun` as `python -m swift.parallel.torchrun …`.

Differences from `python -m torch.distributed.run`: the exit code is the first failed process's own, without a second traceback
below the process's own message; SIGINT and SIGTERM are passed on to every process, which save a checkpoint and end by themselves
(however long that takes), instead of being killed after 30 seconds; a second signal is passed on too and ends them at once.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from types import FrameType


def main(argv: list[str] | None = None) -> int:
    """Run torchrun with `argv` and return the exit code of the job."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    if os.environ.get('SWIFT_DEBUG', '0').lower() in ('', '0', 'false', 'no'):
        logging.getLogger('torch.distributed.elastic').setLevel(logging.CRITICAL)  # what matters is said below
        logging.getLogger('torch.distributed.elastic.multiprocessing.api').setLevel(logging.CRITICAL)
    words = list(sys.argv[1:] if argv is None else argv)
    forward = _Forward()
    if '--signals-to-handle' in run.get_args_parser().format_help():
        words = ['--signals-to-handle', 'SIGQUIT', *words]  # the others are ours
        forward.install()
    try:
        run.main(words)
    except ChildFailedError as error:
        return forward.code or _exit_code(error)
    except SignalException as stopped:
        return 128 + int(stopped.sigval)
    except Exception as error:
        if not _is_rendezvous(error):
            raise
        print(f'[ERROR] the nodes did not find each other: {type(error).__name__}: {error}; check that NNODES, MASTER_ADDR and '
              'MASTER_PORT are the same on every node, that NODE_RANK differs, and that node 0 can be reached', file=sys.stderr)
        return 1
    return forward.code


class _Forward:
    """Passes signals on to the processes of the job and remembers the first one."""

    def __init__(self):
        self.code = 0

    def install(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.code = self.code or 128 + number
        for pid in _children():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue


def _children() -> list[int]:
    """Process ids of this process's direct children."""
    import psutil

    return [child.pid for child in psutil.Process().children()]


def _exit_code(error: BaseException) -> int:
    """The code of the process that failed first; 128 + signal for one that was killed."""
    _, failure = error.get_first_failure()
    code = failure.exitcode
    if code < 0:
        name = signal.Signals(-code).name
        print(f'[ERROR] process {failure.local_rank} (pid {failure.pid}) was ended by {name}'
              + ('; the machine may be out of memory' if -code == signal.SIGKILL else ''), file=sys.stderr)
        return 128 - code
    return code or 1


def _is_rendezvous(error: BaseException) -> bool:
    import torch.distributed as dist
    from torch.distributed.elastic.rendezvous.api import RendezvousError

    return isinstance(error, (RendezvousError, dist.DistError, TimeoutError))


if __name__ == '__main__':
    raise SystemExit(main())
