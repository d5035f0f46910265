"""Samples, loaders and a trainer small enough to run whole trainings in a test."""

from __future__ import annotations

import tempfile
from functools import partial
from typing import Any

import torch

from swift.arguments.train import TrainArgs
from swift.core.types import Sample
from swift.objectives import get_objective
from swift.trainers.factory import build_trainer
from swift.trainers.selfcheck import plan
from tests.helpers.tiny import build_model


def random_samples(count: int, *, shortest: int = 4, longest: int = 40, vocab: int = 600, seed: int = 0, weights: bool = False):
    """Random tokens; the first third of each sample is prompt."""
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for number in range(count):
        size = int(torch.randint(shortest, longest, (1,), generator=generator))
        ids = torch.randint(3, vocab, (size,), generator=generator).tolist()
        factors = (torch.rand(size, generator=generator) + 0.5).tolist() if weights else None
        labels = [-100] * (size // 3) + ids[size // 3 :]
        samples.append(Sample(ids, labels, factors, channel='ab'[number % 2], source=f'random.jsonl:{number + 1}'))
    return samples


class Listed(list):
    """Samples in a list, as `make_loader` wants them."""

    @property
    def lengths(self) -> list[int]:
        return [len(sample) for sample in self]


class ListLoader:
    """A BatchLoader over a list, in order."""

    def __init__(self, samples, batch_size: int, collate):
        self.samples, self.batch_size, self.collate, self.epoch = samples, batch_size, collate, 0

    def __len__(self) -> int:
        return -(-len(self.samples) // self.batch_size)

    def __iter__(self):
        for start in range(0, len(self.samples), self.batch_size):
            yield self.collate(self.samples[start : start + self.batch_size])

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        return {'epoch': self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state['epoch']


def train_args(**settings: Any) -> TrainArgs:
    """A short quiet training."""
    defaults = dict(num_train_epochs=1, learning_rate=1e-3, logging_steps=1, save_strategy='no', report_to=[])
    return TrainArgs(**{**defaults, **settings})


def make_trainer(samples, *, model=None, batch_size: int = 4, padded: bool = False, eval_samples=None, method='sft', parts=None,
                 **settings: Any):  # fmt: skip
    """A Trainer on the tiny model; `settings` are fields of TrainArgs, `parts` further arguments of build_trainer."""
    model = model if model is not None else build_model()
    args = train_args(**settings)
    objective = get_objective(method, args)
    chosen = plan(model, samples, flat=not padded)
    collate = partial(objective.collate, padded=not chosen.flat)
    evaluation = ListLoader(eval_samples, 2, collate) if eval_samples else None
    return build_trainer(
        model, args, objective, ListLoader(samples, batch_size, collate), plan=chosen, eval_loaders=evaluation,
        **{'run_dir': tempfile.mkdtemp(), **(parts or {})},
    )  # fmt: skip


def log_lines(trainer, *names: str) -> list[tuple[float, ...]]:
    """The named figures of every training log line."""
    return [tuple(line[name] for name in names) for line in trainer.state.log_history if 'loss' in line]
