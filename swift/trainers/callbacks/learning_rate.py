"""Learning rates as they are: a rate that a callback changes stays changed, and every part's own is logged."""

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


def part_rates(rate: float | None, optimizer: Any) -> dict[str, float]:
    """For a log line with `learning_rate`: those of the parts with a rate of their own, as `learning_rate_vit`, `learning_rate_aligner`.

    `rate` is the logged one, of the step that ended, `optimizer` has the groups with the rates of the next step: each group's share
    of the first group's rate is the same in both.
    """
    groups = getattr(optimizer, 'param_groups', [])
    if rate is None or not groups or 'part' not in groups[0]:
        return {}
    key = 'lr' if all(group['lr'] for group in groups) else 'initial_lr'
    first = groups[0].get(key) or 1.0
    found: dict[str, float] = {}
    for group in groups:
        if group.get('part'):
            found.setdefault(f'learning_rate_{group["part"]}', rate * group.get(key, 0.0) / first)
    return found
