"""What the launched processes of test_group do; the first argument says which."""

import os
import signal
import sys
import time

from swift.core.errors import SwiftError
from swift.parallel import group


def say(line: str) -> None:
    """One write for the whole line, so that the lines of two processes do not mix in their common pipe."""
    os.write(1, f'{line}\n'.encode())


def main() -> None:
    task = sys.argv[1]
    assert group.start_group(device_type='cpu') and group.active()
    rank = int(os.environ['RANK'])
    if task == 'talk':
        assert group.broadcast({'run': rank}) == {'run': 0}
        assert group.gather(rank * 10) == [0, 10]
        group.barrier()
        try:
            group.first_error(SwiftError('disk full') if rank == 1 else None)
        except SwiftError as error:
            say(f'rank {rank}: {error}')
        say(f'rank {rank} threads {os.environ["OMP_NUM_THREADS"]}')
    elif task == 'mistake':
        if rank == 0:
            print('--model is missing', file=sys.stderr)
        raise SystemExit(2)
    elif task == 'wait':
        def saved(number, frame):
            time.sleep(0.5)  # a checkpoint takes a while
            say(f'rank {rank} saved')
            raise SystemExit(128 + number)

        signal.signal(signal.SIGTERM, saved)
        group.barrier()
        say('waiting')
        time.sleep(60)
    elif task == 'killed' and rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    group.stop_group()


main()
