"""Putting the weights of a checkpoint back into the model that is being trained: strictly, or not at all."""

from __future__ import annotations

import os
from typing import Any

import torch

from swift.core.errors import CheckpointError
from swift.tuners.base import WEIGHTS_FILE, Tuner
from swift.tuners.registry import is_adapter, unwrap


@torch.no_grad()
def restore_weights(model: Any, directory: str) -> None:
    """Fill the prepared `model` (adapter, full, or a user's tuner) with what `save_tuner` wrote during the same run.

    Every weight that learns must be found with its shape; otherwise CheckpointError names the first that isn't.
    """
    model = unwrap(model)
    if isinstance(model, Tuner):
        from safetensors.torch import load_file

        _copy(load_file(os.path.join(directory, WEIGHTS_FILE)), dict(model.named_parameters()), directory)
    elif is_adapter(model):
        _restore_adapter(model, directory)
    else:
        _restore_model(model, directory)


def _restore_adapter(model: Any, directory: str) -> None:
    from swift.tuners import peft

    problem = peft.restore(model, directory, model.active_adapters[0])
    if problem is not None:
        raise CheckpointError(f'the adapter {directory} does not fit: {problem}', 'resume with the tuner settings of that run')


def _restore_model(model: Any, directory: str) -> None:
    """By key where the file has the model's own keys, else through transformers' loader, which knows how they were renamed."""
    own = model.state_dict()
    files = _weight_files(directory)
    keys = {key for path in files for key in _keys(path)}
    tied = set(getattr(model, 'all_tied_weights_keys', None) or {}) | {
        key for key in own if key not in keys and any(own[key].data_ptr() == own[other].data_ptr() for other in keys & set(own))
    }
    if files and keys <= set(own) and set(own) - keys <= tied:
        from safetensors.torch import load_file

        for path in files:
            _copy(load_file(path), own, directory, whole=False)
        return
    fresh = type(model).from_pretrained(directory, dtype=next(model.parameters()).dtype)
    _copy(fresh.state_dict(), own, directory)


def _weight_files(directory: str) -> list[str]:
    return sorted(
        os.path.join(directory, name) for name in os.listdir(directory)
        if name.startswith('model') and name.endswith('.safetensors')
    )  # fmt: skip


def _keys(path: str) -> list[str]:
    from safetensors import safe_open

    with safe_open(path, framework='pt') as stream:
        return list(stream.keys())


def _copy(stored: dict[str, torch.Tensor], places: dict[str, torch.Tensor], directory: str, whole: bool = True) -> None:
    lost = [key for key in stored if key not in places or places[key].shape != stored[key].shape]
    if whole:
        lost += [key for key, value in places.items() if getattr(value, 'requires_grad', False) and key not in stored]
    if lost:
        raise CheckpointError(f'the weights in {directory} do not fit: {len(lost)} have no equal (first: {lost[0]});',
                              'resume with the model and tuner settings of that run')
    for key, value in stored.items():
        places[key].copy_(value)
