"""A learning rate that a callback changes stays changed."""

from __future__ import annotations

from typing import Any

from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback


class KeepLearningRate(TrainerCallback):
    """Scales the schedule when a callback has changed `optimizer.param_groups[…]['lr']`.

    The schedules of transformers compute each step's rate anew from the base rate, so without this a change made in
    `on_evaluate` would last one step. Saved with the scheduler, hence also after a resume.
    """

    def on_step_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, lr_scheduler: Any = None, **kwargs: Any) -> None:
        """Compare with what the schedule had set, before it sets the next."""
        if not isinstance(lr_scheduler, LambdaLR) or optimizer is None:
            return
        for number, (group, wanted) in enumerate(zip(optimizer.param_groups, lr_scheduler.get_last_lr(), strict=True)):
            now, wanted = float(group['lr']), float(wanted)
            if now != wanted and wanted > 0:
                lr_scheduler.base_lrs[number] *= now / wanted
                lr_scheduler._last_lr[number] = now  # what the log of this step shows
