"""One file per training method: encode, collate, weight, loss. `get_objective(name, args)` is the door."""

from __future__ import annotations

from typing import Any

from swift.core.registry import Registry

OBJECTIVES = Registry('training method', {'sft': 'swift.objectives.sft:SFT', 'pt': 'swift.objectives.sft:SFT'})
"""Name → Objective class."""


def get_objective(name: str, args: Any):
    """The objective `name`, built complete from its own argument group.

    For `sft` and `pt` a `loss_type` other than None or cross_entropy selects a registered loss of the user's own.
    """
    loss_type = getattr(args, 'loss_type', None)
    if name in ('sft', 'pt') and loss_type not in (None, 'cross_entropy'):
        from swift.objectives.custom import CustomLoss

        return CustomLoss(args)
    return OBJECTIVES[name](args)
