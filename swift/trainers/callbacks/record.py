"""logging.jsonl: one JSON object a log event, and a last one that sums the run up."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback

from swift.parallel.device import peak_memory
from swift.trainers.callbacks.progress import duration
from swift.trainers.resume import find_last_complete

LOG = 'logging.jsonl'


class RecordCallback(TrainerCallback):
    """Appends to `run_dir/logging.jsonl`.

    Every line carries the step, time, speed and peak memory. `facts` (model_parameter_info, …) go into the last line, which
    holds last_model_checkpoint, best_model_checkpoint, best_metric, global_step, log_history, memory and train_time.
    """

    def __init__(self, run_dir: str | None = None, facts: Mapping[str, Any] | None = None):
        self.run_dir = run_dir
        self.facts = dict(facts or {})
        self._start = 0.0
        self._first_step = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock; a continued run marks where it takes over."""
        self._start, self._first_step = time.monotonic(), state.global_step
        if state.global_step:
            self._append(args, state, {'resumed_at_step': state.global_step, 'max_steps': state.max_steps})

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """One event."""
        if logs is not None:
            self._append(args, state, {**logs, **self._progress(state)})

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The last line."""
        self._append(args, state, {**self.facts, **summary(state, self.run_dir or args.output_dir),
                                   'memory': round(peak_memory(), 3), 'train_time': round(time.monotonic() - self._start, 2)})

    def _progress(self, state: Any) -> dict[str, Any]:
        elapsed = time.monotonic() - self._start
        done = state.global_step - self._first_step
        left = elapsed / done * (state.max_steps - state.global_step) if done else None
        return {
            'global_step': state.global_step,
            'max_steps': state.max_steps,
            'global_step/max_steps': f'{state.global_step}/{state.max_steps}',
            'elapsed_time': duration(elapsed),
            'remaining_time': None if left is None else duration(left),
            'memory(GiB)': round(peak_memory(), 3),
            'train_speed(s/it)': round(elapsed / done, 4) if done else None,
        }

    def _append(self, args: Any, state: Any, record: dict[str, Any]) -> None:
        if not state.is_world_process_zero:
            return
        folder = self.run_dir or args.output_dir
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, LOG), 'a', encoding='utf-8') as stream:
            stream.write(json.dumps(record, ensure_ascii=False, default=_plain) + '\n')


def summary(state: Any, run_dir: str) -> dict[str, Any]:
    """What a finished training returns: checkpoints, best metric, step, evaluation loss, and the whole log.

    last_model_checkpoint is None when nothing was saved, best_model_checkpoint when nothing was evaluated.
    """
    losses = [record['eval_loss'] for record in state.log_history if 'eval_loss' in record]
    return {
        'last_model_checkpoint': find_last_complete(run_dir, only_model=True),
        'best_model_checkpoint': state.best_model_checkpoint,
        'best_metric': state.best_metric,
        'global_step': state.global_step,
        'eval_loss': losses[-1] if losses else None,
        'log_history': state.log_history,
    }


def _plain(value: Any) -> Any:
    """Tensors and numpy numbers as Python's."""
    return value.item() if hasattr(value, 'item') else str(value)
