"""A background thread that answers rows while there are any, and is gone when there are none."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from swift.core.errors import SwiftError
from swift.infer_engine.lanes import Lane
from swift.infer_engine.row import Row

GRACE = 30.0
"""Seconds that the end of the process waits for the step that is being computed."""

_workers: weakref.WeakSet[Worker] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """A thread that the interpreter kills inside of torch takes the process down with SIGABRT."""
    for worker in list(_workers):
        worker.end()


class Worker:
    """Rows go in from any thread; each adapter (and each way of batching) has a lane, and lanes take turns.

    `lane_for(row)` names and builds lanes; `running()` is entered around the whole time the thread works;
    `turn(lane name)` is entered around each step, to put the right adapter on.
    """

    def __init__(
        self,
        lane_for: Callable[[Row], tuple[object, Callable[[], Lane]]],
        running: Callable[[], AbstractContextManager],
        turn: Callable[[object], None],
    ):
        self._lane_for, self._running, self._turn = lane_for, running, turn
        self._state = threading.Condition()
        self._inbox: deque[Row] = deque()
        self._open = 0
        """Rows that were submitted and are not done."""
        self._alive = self._ending = False
        _workers.add(self)

    def end(self) -> None:
        """Give up what is not answered yet, and wait until the thread is gone."""
        with self._state:
            self._ending = True
            self._state.wait_for(lambda: not self._alive, GRACE)

    def submit(self, rows: Sequence[Row]) -> None:
        """Let these rows be answered, in this order where places are short."""
        with self._state:
            self._open += len(rows)
            self._inbox.extend(rows)
            if not self._alive:
                self._alive = True
                threading.Thread(target=self._run, name='swift-engine', daemon=True).start()
        for row in rows:
            row.future.add_done_callback(self._closed)

    def settle(self) -> None:
        """Wait until the thread has put the model back as it was, unless it has other rows to answer."""
        with self._state:
            self._state.wait_for(lambda: not self._alive or self._open)

    def _closed(self, _: object) -> None:
        with self._state:
            self._open -= 1
            self._state.notify_all()

    def _run(self) -> None:
        while True:
            lanes: dict[object, Lane] = {}
            try:
                with self._running():
                    while self._collect(lanes):
                        for name in list(lanes):
                            self._step(lanes, name)
                            if self._ending:
                                raise SwiftError('the answer was given up: the process ends')
            except BaseException as error:  # the model could not be prepared, or not be put back
                self._fail_all(error, lanes)
            with self._state:
                if not self._inbox:
                    self._alive = False
                    self._state.notify_all()
                    return

    def _fail_all(self, error: BaseException, lanes: dict[object, Lane]) -> None:
        with self._state:
            rows = list(self._inbox)
            self._inbox.clear()
        for row in rows:
            row.fail(error)
        for lane in lanes.values():
            lane.fail(error)

    def _step(self, lanes: dict[object, Lane], name: object) -> None:
        lane = lanes[name]
        try:
            self._turn(name)
            lane.step()
        except BaseException as error:
            lane.fail(error)
        if not lane.busy:
            del lanes[name]

    def _collect(self, lanes: dict[object, Lane]) -> bool:
        """Sort what came in into lanes; False when the thread has nothing left to do."""
        with self._state:
            rows = list(self._inbox)
            self._inbox.clear()
        if not rows and not lanes:
            return False
        for row in rows:
            try:
                name, build = self._lane_for(row)
                if name not in lanes:
                    lanes[name] = build()
                lanes[name].add(row)
            except BaseException as error:
                row.fail(error)
        return True
