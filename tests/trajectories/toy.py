"""A whole training of the tiny model in a second: the real Trainer, loader, objective, checkpoints and callbacks."""

from __future__ import annotations

import random
from typing import Any

import torch

from swift.arguments.train import TrainArgs
from swift.arguments.tuner import TunerArgs
from swift.core.dist import rank, world_size
from swift.core.types import Sample
from swift.dataset.loader import make_loader
from swift.objectives import get_objective
from swift.trainers import selfcheck
from swift.trainers.callbacks.build import build_callbacks
from swift.trainers.checkpoint import CheckpointWriter
from swift.trainers.factory import build_trainer
from swift.trainers.trainer import Trainer
from swift.tuners import prepare_tuner, save_tuner
from tests.helpers.tiny import build_model


class Rows(list):
    """Samples in a list, with the lengths that packing asks for."""

    @property
    def lengths(self) -> list[int]:
        return [len(sample) for sample in self]


def make_rows(count: int = 26, seed: int = 0) -> Rows:
    """Random chats of 8 to 40 tokens; the second half of each is the answer."""
    draw = random.Random(seed)
    rows = Rows()
    for number in range(count):
        ids = [draw.randrange(3, 600) for _ in range(draw.randrange(8, 40))]
        half = len(ids) // 2
        rows.append(Sample(ids, [-100] * half + ids[half:], source=f'rows.jsonl:{number + 1}'))
    return rows


def make_trainer(run_dir: str, *, tuner: str = 'lora', packing: bool = False, rows: Any = None, callbacks: Any = None,
                 val: Any = None, padded: bool = False, dropout: float = 0.1, lorap: float | None = None, tuner_args: dict | None = None, **train: Any) -> Trainer:
    """A Trainer as the pipeline builds it, with dropout, 2 epochs and a checkpoint a step unless told otherwise."""
    settings = dict(num_train_epochs=2.0, per_device_train_batch_size=2, gradient_accumulation_steps=2, learning_rate=1e-2,
                    save_steps=1, logging_steps=3, report_to=[], weight_decay=0.01, lr_scheduler_type='cosine')
    args = TrainArgs(**{**settings, **train})
    torch.manual_seed(1)
    model = build_model(attention_dropout=dropout if tuner == 'full' else 0.0)
    adapter = {'lora_dropout': dropout, 'lora_rank': 4, 'target_modules': ['q_proj', 'v_proj', 'down_proj']}
    model = prepare_tuner(model, TunerArgs(tuner_type=tuner, **{**(adapter if tuner == 'lora' else {}), **(tuner_args or {})}))
    rows = make_rows() if rows is None else rows
    objective = get_objective('sft', args)
    plan = selfcheck.plan(model, list(make_rows(4)), flat=not padded)

    def collate(samples):
        return objective.collate(samples, padded=not plan.flat)

    where = dict(rank=rank(), world_size=world_size(), seed=7)
    loader = make_loader(rows, collate, batch_size=args.per_device_train_batch_size, packing_length=64 if packing else None, **where)
    return build_trainer(
        model, args, objective, loader, run_dir=run_dir, plan=plan, seed=42 + rank(),
        eval_loaders=None if val is None else make_loader(val, collate, batch_size=2, shuffle=False, **where),
        callbacks=build_callbacks(args, run_dir) if callbacks is None else callbacks,
        writer=CheckpointWriter(run_dir, save_total_limit=args.save_total_limit, links=args.create_checkpoint_symlink),
        save_weights=save_tuner,
        lorap_lr_ratio=lorap,
    )  # fmt: skip


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Everything that learned."""
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters() if value.requires_grad}


def curve(trainer: Trainer) -> list[dict[str, float]]:
    """The log without what depends on the clock."""
    return without_clock(trainer.state.log_history)


def without_clock(lines: list[dict[str, float]]) -> list[dict[str, float]]:
    """Log lines without what depends on the clock."""
    clock = ('runtime', 'per_second', 'total_flos', 'train_loss')
    return [{key: value for key, value in line.items() if not any(word in key for word in clock)} for line in lines]
