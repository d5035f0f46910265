"""Values for parameters that a checkpoint lacks, when `--init_strategy` says they may be filled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

STRATEGIES: dict[str, Callable[[Tensor], Tensor]] = {
    'zero': nn.init.zeros_,
    'uniform': nn.init.uniform_,
    'normal': lambda tensor: nn.init.normal_(tensor, std=0.02),
    'xavier_uniform': nn.init.xavier_uniform_,
    'xavier_normal': nn.init.xavier_normal_,
    'kaiming_uniform': nn.init.kaiming_uniform_,
    'kaiming_normal': nn.init.kaiming_normal_,
    'orthogonal': nn.init.orthogonal_,
}
"""Name → in-place initialiser. Those that need a matrix leave vectors as the model class initialised them."""


@torch.no_grad()
def fill(model: Any, names: list[str], strategy: str) -> None:
    """Initialise the named parameters in place; computed in float32 and rounded once."""
    parameters = dict(model.named_parameters())
    for name in names:
        parameter = parameters.get(name)
        if parameter is None or (parameter.dim() < 2 and strategy.partition('_')[0] in ('xavier', 'kaiming', 'orthogonal')):
            continue
        parameter.copy_(STRATEGIES[strategy](torch.empty_like(parameter, dtype=torch.float32)))
