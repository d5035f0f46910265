"""Draws images/*.png when a checkpoint is written and at the end."""

from __future__ import annotations

import os
from typing import Any

from transformers import TrainerCallback

from swift.core.log import get_logger


class PlotCallback(TrainerCallback):
    """Curves of loss, learning rate and evaluation as PNG below `run_dir/images`.

    Drawing needs matplotlib, whose import costs a second: it happens at the end and at most once a minute before.
    """

    def __init__(self, run_dir: str | None = None, every: float = 60.0):
        self.run_dir = run_dir
        self.every = every
        self._last: float | None = None

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Draw what there is so far, if the last drawing is old (the first waits for the same time)."""
        import time

        now = time.monotonic()
        if self._last is None:
            self._last = now
        elif now - self._last >= self.every:
            self._last = now
            self._draw(args, state)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Draw the whole run."""
        self._draw(args, state)

    def _draw(self, args: Any, state: Any) -> None:
        if not state.is_world_process_zero:
            return
        from swift.trainers.plots import draw

        try:
            draw(state.log_history, os.path.join(self.run_dir or args.output_dir, 'images'))
        except OSError as error:  # a picture is not worth a training
            get_logger().warning('no plots: %s', error)
