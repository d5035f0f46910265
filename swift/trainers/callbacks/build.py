"""The callbacks of a training, from its arguments, in the order they must be called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback

from swift.trainers.callbacks.early_stop import EarlyStopCallback
from swift.trainers.callbacks.interrupt import InterruptCallback
from swift.trainers.callbacks.learning_rate import KeepLearningRate
from swift.trainers.callbacks.plots import PlotCallback
from swift.trainers.callbacks.progress import ProgressCallback
from swift.trainers.callbacks.record import RecordCallback
from swift.trainers.callbacks.registry import make_callback
from swift.trainers.callbacks.towers import TowerCheckpointing
from swift.trainers.report import ReportCallback, RunFacts


def build_callbacks(
    args: Any,
    run_dir: str,
    *,
    config: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
    command: str = 'sft',
) -> list[TrainerCallback]:
    """Everything but the user's own callbacks, which need the trainer (`add_user_callbacks`).

    `args` is the group TrainArgs, `config` the flat arguments for trackers, `facts` the extra keys of the last line of
    logging.jsonl, `command` the swift command that a stopped run is continued with. InterruptCallback comes last.
    """
    callbacks: list[TrainerCallback] = []
    if args.early_stop_interval:
        callbacks.append(EarlyStopCallback(args.early_stop_interval))
    callbacks += [ProgressCallback(), RecordCallback(run_dir, facts)]
    report = ReportCallback(args.report_to, RunFacts.of(args, run_dir, config or {}))
    if report.names:
        callbacks.append(report)
    callbacks += [TowerCheckpointing(args), PlotCallback(run_dir), KeepLearningRate(), InterruptCallback(command, save=args.save_strategy != 'no')]
    return callbacks


def add_user_callbacks(trainer: Any, args: Any) -> None:
    """Make `--callbacks NAME …` and put them before InterruptCallback, so that an interrupted run still calls their `on_train_end`."""
    for name in args.callbacks or []:
        trainer.add_callback(make_callback(name, args, trainer))
    last = trainer.pop_callback(InterruptCallback)
    if last is not None:
        trainer.add_callback(last)
