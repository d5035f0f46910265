"""Classification heads beside an adapter: trained in float32 whatever the model's own type."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from swift.core.heads import head_names

_HALVES = (torch.bfloat16, torch.float16)


def train_in_float32(model: Any, name: str = 'default') -> None:
    """Make the trained copy of a classification head float32, and let it take what the half-precision layers give it.

    A head is learned from nothing, in small steps, most of which bfloat16 would round away. `model` carries PEFT's adapter `name`.
    """
    base = model.get_base_model()
    for path in head_names(base):
        copies = getattr(base.get_submodule(path), 'modules_to_save', {})
        if name in copies and any(parameter.dtype in _HALVES for parameter in copies[name].parameters()):
            copies[name].float()
            copies[name].register_forward_pre_hook(_as_float32)


def _as_float32(module: nn.Module, args: tuple) -> tuple:
    return tuple(value.float() if isinstance(value, torch.Tensor) and value.dtype in _HALVES else value for value in args)
