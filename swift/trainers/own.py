"""Parameters of a method's own (`Objective.module`): they learn with the model and lie beside its weights, never inside them.

The training hangs them into the model as `objective`, so that the optimizer, the processes and the clipping of gradients see
them. A checkpoint keeps them in a file of their own: what it holds besides loads in plain transformers and PEFT.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from swift.core.errors import CheckpointError
from swift.trainers.optimizers.muon import Joined
from swift.tuners.registry import unwrap

NAME = 'objective'
FILE = 'objective.safetensors'


def attach(model: nn.Module, module: nn.Module) -> None:
    """Hang the method's parameters into the model, on its device."""
    model.add_module(NAME, module.to(next(model.parameters()).device))


@contextmanager
def aside(model: nn.Module) -> Iterator[nn.Module | None]:
    """The method's parameters, out of the model for as long as the context is open. None: it has none."""
    model = unwrap(model)
    module = model._modules.pop(NAME, None)
    try:
        yield module
    finally:
        if module is not None:
            model.add_module(NAME, module)


def save_own(module: nn.Module, folder: str) -> None:
    """Write the parameters into a checkpoint."""
    from safetensors.torch import save_file

    weights = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    save_file(weights, os.path.join(folder, FILE), metadata={'format': 'pt'})


@torch.no_grad()
def load_own(module: nn.Module, folder: str) -> None:
    """Fill the parameters with those of a checkpoint. Raises CheckpointError when they don't fit."""
    from safetensors.torch import load_file

    path = os.path.join(folder, FILE)
    if not os.path.isfile(path):
        raise CheckpointError(f'{folder} has no {FILE}: it was trained by a method without parameters of its own;', 'resume with the flags of that run')
    stored, own = load_file(path), module.state_dict()
    shapes = {name: list(value.shape) for name, value in stored.items()}
    wanted = {name: list(value.shape) for name, value in own.items()}
    if shapes != wanted:
        raise CheckpointError(f'{path} holds {shapes}, this run has {wanted};', 'resume with the tasks and the routing of that run')
    for name, value in own.items():
        value.copy_(stored[name])


def own_rate(optimizer: torch.optim.Optimizer, module: nn.Module, rate: float) -> None:
    """Give the method's parameters a learning rate of their own, and no weight decay: a group of theirs, the last one."""
    mine = {id(parameter) for parameter in module.parameters()}
    for group in optimizer.param_groups:
        group['params'] = [value for value in group['params'] if id(value) not in mine]
    added = {'params': list(module.parameters()), 'lr': rate, 'weight_decay': 0.0}
    part = optimizer.parts[-1] if isinstance(optimizer, Joined) else optimizer
    part.add_param_group(added)
    if part is not optimizer:
        optimizer.param_groups.append(part.param_groups[-1])
