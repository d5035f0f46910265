"""Run as a script: `python remote_guard.py COMMAND …` starts a server and ends it, with all its processes, when whoever started us is gone.

That is seen by the end of our stdin, so it holds for `kill -9` too; SIGTERM asks for the same.
"""

import os
import signal
import subprocess
import sys
import threading

GRACE = 20.0
"""Seconds between the request to end and the end."""


def main() -> int:
    """Returns the exit code of the command."""
    server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True)
    once = threading.Lock()

    def end(*_: object) -> None:
        if not once.acquire(blocking=False):
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(server.pid, number)
                server.wait(GRACE)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        os._exit(0)

    def watch() -> None:
        while os.read(0, 4096):
            pass
        end()

    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=end).start())
    threading.Thread(target=watch, daemon=True).start()
    return server.wait()


if __name__ == '__main__':
    raise SystemExit(main())
