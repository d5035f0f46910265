"""All parts of a training put together: the one place where trainers' files meet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PrinterCallback, TrainerCallback

from swift.core.types import Actor, BatchLoader
from swift.objectives.base import Objective
from swift.trainers.callbacks.build import add_user_callbacks
from swift.trainers.checkpoint import CheckpointWriter
from swift.trainers.forward import Plan, base_of
from swift.trainers.hf_args import training_arguments
from swift.trainers.optimizers import create_optimizer
from swift.trainers.optimizers.base import chosen
from swift.trainers.state import resume_training, save_training
from swift.trainers.trainer import Trainer


def build_trainer(
    model: nn.Module,
    args: Any,
    objective: Objective,
    train_loader: BatchLoader | None,
    *,
    run_dir: str,
    eval_loaders: BatchLoader | dict[str, BatchLoader] | None = None,
    plan: Plan | None = None,
    others: Mapping[str, Actor] | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    writer: CheckpointWriter | None = None,
    save_weights: Callable[[nn.Module, str], None] | None = None,
    lorap_lr_ratio: float | None = None,
    judge: Callable[[int], dict[str, float]] | None = None,
    seed: int = 42,
    trainer_class: Callable[..., Trainer] | None = None,
) -> Trainer:
    """The Trainer of a run, ready for `train(resume_from_checkpoint=path or None)`.

    `args` is the group TrainArgs. `plan` comes from `selfcheck.plan` (None: flat rows, unchecked). `writer` None: checkpoints
    as transformers writes them. `judge(step)`: further metrics of an evaluation. `save_weights(model, folder)` writes what was trained (the tuner's `save`). User callbacks by
    name (`args.callbacks`) are added here.
    """
    base = base_of(model)
    optimizer = chosen(args, lorap_lr_ratio)
    hf_args = training_arguments(
        args,
        run_dir,
        seed=seed,
        weights=next((p.dtype for p in base.parameters() if p.is_floating_point()), torch.float32),
        use_cache=bool(getattr(base.config, 'use_cache', False)),
        lorap_lr_ratio=lorap_lr_ratio,
    )
    trainer = (trainer_class or Trainer)(
        model,
        hf_args,
        objective=objective,
        train_loader=train_loader,
        eval_loaders=eval_loaders,
        plan=plan,
        others=others,
        noise=args.neftune_noise_alpha,
        callbacks=list(callbacks),
        save_checkpoint=(lambda t: save_training(t, writer, train_loader)) if writer else None,
        save_weights=save_weights,
        resume=(lambda t, checkpoint: resume_training(t, checkpoint, train_loader)) if writer else None,
        judge=judge,
        make_optimizer=partial(create_optimizer, optimizer) if optimizer else None,
    )
    trainer.remove_callback(PrinterCallback)
    if args.callbacks:
        add_user_callbacks(trainer, args)
    return trainer
