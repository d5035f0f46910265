"""Stop when the evaluation no longer improves."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from swift.core.log import get_logger


class EarlyStopCallback(TrainerCallback, ExportableState):
    """Ends training after `interval` evaluations in a row without a better `metric_for_best_model` (--early_stop_interval).

    `threshold` is how much better it must be. The count is part of every checkpoint, so a resumed run stops where the
    uninterrupted one would have.
    """

    def __init__(self, interval: int = 1, threshold: float = 0.0):
        self.interval = interval
        self.threshold = threshold
        self.count = 0
        self.best: float | None = None

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **kwargs: Any) -> Any:
        """Compare the metric with the best so far."""
        name = args.metric_for_best_model or 'loss'
        value = (metrics or {}).get(name if name.startswith('eval_') else f'eval_{name}')
        if value is None:
            return control
        gain = None if self.best is None else (value - self.best if args.greater_is_better else self.best - value)
        if gain is None or gain > self.threshold:
            self.best, self.count = value, 0
            return control
        self.count += 1
        if self.count >= self.interval:
            get_logger().info('early stop at step %d: %s has not improved on %.4g for %d evaluations',
                              state.global_step, name, self.best, self.count)
            control.should_training_stop = True
        return control

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {'args': {'interval': self.interval, 'threshold': self.threshold},
                'attributes': {'count': self.count, 'best': self.best}}
