"""A background thread that answers rows while there are any, and is gone when there are none."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from swift.infer_engine.lanes import Lane
from swift.infer_engine.row import Row


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
        self._lock = threading.Lock()
        self._inbox: deque[Row] = deque()
        self._thread: threading.Thread | None = None

    def submit(self, rows: Sequence[Row]) -> None:
        """Let these rows be answered, in this order where places are short."""
        with self._lock:
            self._inbox.extend(rows)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name='swift-engine', daemon=True)
                self._thread.start()

    def _run(self) -> None:
        lanes: dict[object, Lane] = {}
        try:
            with self._running():
                while self._collect(lanes):
                    for name in list(lanes):
                        self._step(lanes, name)
        except BaseException as error:  # the model could not even be prepared
            with self._lock:
                rows, self._thread = list(self._inbox), None
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
        with self._lock:
            rows = list(self._inbox)
            self._inbox.clear()
            if not rows and not lanes:
                self._thread = None
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
