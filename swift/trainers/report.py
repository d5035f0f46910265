"""Sending figures to trackers: `--report_to tensorboard wandb mlflow swanlab trackio`.

Each tracker is one small class with `log(figures, step)` and `finish(summary)`; its package is imported when the first figure is
logged, so none delays the first step. A package that is missing is said before training, by `check_trackers`.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from transformers import TrainerCallback

from swift.core.errors import MissingDependencyError
from swift.core.log import get_logger
from swift.core.registry import Registry

Figures = dict[str, float]


class Tracker(Protocol):
    """Where the figures of one run go. Built with the run's settings; `finish` is called once, also after a failure."""

    def log(self, figures: Figures, step: int) -> None: ...

    def finish(self, summary: Mapping[str, Any]) -> None: ...


class RunFacts:
    """What trackers are told about a run: folder, name, and the settings that make runs comparable."""

    def __init__(self, run_dir: str, name: str | None = None, config: Mapping[str, Any] | None = None,
                 logging_dir: str | None = None, projects: Mapping[str, str | None] | None = None):
        self.run_dir = os.path.abspath(run_dir)
        self.name = name or os.path.basename(self.run_dir)
        self.config = {key: _plain(value) for key, value in (config or {}).items()}
        self.logging_dir = logging_dir or os.path.join(self.run_dir, 'runs')
        self.options = {key: value for key, value in (projects or {}).items() if value is not None}
        """Settings of single trackers by flag name: wandb_project, mlflow_tracking_uri, swanlab_mode, …"""

    @staticmethod
    def of(args: Any, run_dir: str, config: Mapping[str, Any]) -> RunFacts:
        """From the group TrainArgs; `config` is everything worth comparing (the flat arguments)."""
        names = ('wandb_project', 'mlflow_tracking_uri', 'swanlab_project', 'swanlab_workspace', 'swanlab_exp_name', 'swanlab_mode')
        return RunFacts(run_dir, args.run_name, config, args.logging_dir, {name: getattr(args, name, None) for name in names})


class TensorBoard:
    """Event files below `runs/`."""

    def __init__(self, facts: RunFacts):
        import json

        from torch.utils.tensorboard import SummaryWriter

        os.makedirs(facts.logging_dir, exist_ok=True)
        self.writer = SummaryWriter(log_dir=facts.logging_dir)
        self.writer.add_text('args', '```json\n' + json.dumps(facts.config, indent=1, default=str) + '\n```')

    def log(self, figures: Figures, step: int) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def finish(self, summary: Mapping[str, Any]) -> None:
        self.writer.close()


class WandB:
    """Weights & Biases; WANDB_PROJECT, WANDB_MODE, … as wandb reads them. The summary carries eval_loss and the other last figures."""

    def __init__(self, facts: RunFacts):
        import wandb

        project = facts.options.get('wandb_project') or os.environ.get('WANDB_PROJECT') or 'swift'
        self.run = wandb.init(project=project, name=facts.name, config=facts.config, dir=facts.run_dir)

    def log(self, figures: Figures, step: int) -> None:
        self.run.log({**figures, 'train/global_step': step}, step=step)

    def finish(self, summary: Mapping[str, Any]) -> None:
        self.run.summary.update(dict(summary))
        self.run.finish()


class MLflow:
    """MLflow; `--mlflow_tracking_uri` or MLFLOW_TRACKING_URI, else the file mlflow.db in the run folder."""

    def __init__(self, facts: RunFacts):
        import mlflow

        uri = facts.options.get('mlflow_tracking_uri') or os.environ.get('MLFLOW_TRACKING_URI')
        self.client = mlflow.MlflowClient(uri or f'sqlite:///{os.path.join(facts.run_dir, "mlflow.db")}')
        name = os.environ.get('MLFLOW_EXPERIMENT_NAME', 'swift')
        experiment = self.client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self.client.create_experiment(name)
        self.run_id = self.client.create_run(number, run_name=facts.name).info.run_id
        for key, value in facts.config.items():
            self.client.log_param(self.run_id, key, str(value)[:500])

    def log(self, figures: Figures, step: int) -> None:
        for name, value in figures.items():
            self.client.log_metric(self.run_id, name, value, step=step)

    def finish(self, summary: Mapping[str, Any]) -> None:
        for name, value in summary.items():
            self.client.log_metric(self.run_id, name, value)
        self.client.set_terminated(self.run_id)


class SwanLab:
    """SwanLab; SWANLAB_API_KEY as swanlab reads it."""

    def __init__(self, facts: RunFacts):
        import swanlab

        options = facts.options
        mode = os.environ.get('SWANLAB_MODE') or options.get('swanlab_mode', 'cloud')
        settings = {
            'project': options.get('swanlab_project') or os.environ.get('SWANLAB_PROJECT') or 'swift',
            'workspace': options.get('swanlab_workspace'),
            'experiment_name': options.get('swanlab_exp_name') or facts.name,
            'config': facts.config,
            'logdir': os.path.join(facts.run_dir, 'swanlog'),
            'mode': mode,
        }
        self.run = swanlab.init(**{name: value for name, value in settings.items() if value is not None})

    def log(self, figures: Figures, step: int) -> None:
        self.run.log(figures, step=step)

    def finish(self, summary: Mapping[str, Any]) -> None:
        self.run.finish()


class Trackio:
    """trackio; TRACKIO_PROJECT, TRACKIO_SPACE_ID as it reads them."""

    def __init__(self, facts: RunFacts):
        import trackio

        self.run = trackio.init(project=os.environ.get('TRACKIO_PROJECT', 'swift'), name=facts.name, config=facts.config)
        self.finish_run = trackio.finish

    def log(self, figures: Figures, step: int) -> None:
        self.run.log(figures, step=step)

    def finish(self, summary: Mapping[str, Any]) -> None:
        self.finish_run()


trackers_map: Registry = Registry('tracker for --report_to', {
    'tensorboard': TensorBoard, 'wandb': WandB, 'mlflow': MLflow, 'swanlab': SwanLab, 'trackio': Trackio,
})
"""Name → class built with RunFacts. The name is also the package it needs, for those defined here."""

_PACKAGES = ('tensorboard', 'wandb', 'mlflow', 'swanlab', 'trackio')


def check_trackers(names: Sequence[str]) -> list[str]:
    """The trackers to use, `none` removed; raises SwiftError for an unknown one, MissingDependencyError for a missing package."""
    wanted = [name for name in dict.fromkeys(names or []) if name not in ('none', '')]
    if 'all' in wanted:
        wanted = [name for name in _PACKAGES if importlib.util.find_spec(name) is not None]
    for name in wanted:
        if name in _PACKAGES and importlib.util.find_spec(name) is None:
            raise MissingDependencyError(name, f'--report_to {name}')
        trackers_map[name]  # an unknown name is answered with the nearest
    return wanted


class ReportCallback(TrainerCallback):
    """Sends every log event to the trackers, from the first process only.

    A tracker that fails (no network, quota) is dropped with one warning; it does not end the training.
    """

    def __init__(self, names: Sequence[str], facts: RunFacts):
        self.names = check_trackers(names)
        self.facts = facts
        self._trackers: dict[str, Tracker] | None = None
        self._last: Figures = {}

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """One event."""
        if not state.is_world_process_zero or not logs or not self.names:
            return
        if self._trackers is None:
            self._trackers = {}
            for name in self.names:
                self._try(name, lambda name=name: self._trackers.update({name: trackers_map[name](self.facts)}))
        figures = tracker_names(logs)
        self._last.update({key: value for key, value in logs.items() if isinstance(value, (int, float))})
        for name, tracker in list(self._trackers.items()):
            self._try(name, lambda tracker=tracker: tracker.log(figures, state.global_step))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the trackers, with the last figures as summary."""
        summary = {key: value for key, value in self._last.items() if key in ('loss', 'train_loss') or key.startswith('eval_')}
        for name, tracker in list((self._trackers or {}).items()):
            self._try(name, lambda tracker=tracker: tracker.finish(summary))
        self._trackers = None

    def _try(self, name: str, action: Any) -> None:
        try:
            action()
        except Exception as error:
            (self._trackers or {}).pop(name, None)
            get_logger().warning('--report_to %s: %s: %s; this run is no longer reported there', name, type(error).__name__, error)


def tracker_names(logs: Mapping[str, Any]) -> Figures:
    """`eval_loss` → `eval/loss`, `loss` → `train/loss`; values that aren't numbers are left out."""
    figures = {}
    for name, value in logs.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            figures[f'eval/{name[5:]}' if name.startswith('eval_') else f'train/{name.removeprefix("train_")}'] = float(value)
    return figures


def _plain(value: Any) -> Any:
    """A value every tracker can store."""
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else str(value)
