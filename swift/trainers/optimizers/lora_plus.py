"""LoRA+ (arXiv:2402.12354): the B matrices of an adapter learn `lorap_lr_ratio` times faster than the A matrices."""

from __future__ import annotations

from typing import Any

from swift.core.errors import SwiftError
from swift.trainers.optimizers.base import OptimizerCallback

DEFAULT_RATIO = 16.0
"""The paper's recommendation for lr_B / lr_A."""


class LoraPlus(OptimizerCallback):
    """Groups the adapter's weights by matrix; everything else that learns keeps the plain learning rate.

    The ratio is `lorap_lr_ratio` of the training arguments; without it 16.
    """

    def groups(self) -> list[dict[str, Any]]:
        """A and the rest at lr, B at ratio · lr; each with and without weight decay."""
        ratio = getattr(self.args, 'lorap_lr_ratio', None) or DEFAULT_RATIO
        return lora_plus_groups(self.trainer.model, self.args.learning_rate, ratio, self.args.weight_decay,
                                set(self.trainer.get_decay_parameter_names(self.trainer.model)))


def lora_plus_groups(model: Any, learning_rate: float, ratio: float, weight_decay: float, decayed: set[str]) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer. `decayed` are the names that weight decay applies to."""
    buckets: dict[tuple[bool, bool], list[Any]] = {}
    for name, value in model.named_parameters():
        if value.requires_grad:
            fast = 'lora_B' in name or 'lora_embedding_B' in name
            buckets.setdefault((fast, name in decayed), []).append(value)
    if not any(fast for fast, _ in buckets):
        raise SwiftError('--optimizer lorap (--lorap_lr_ratio) needs LoRA matrices, but none learn;', 'use --tuner_type lora')
    return [
        {'params': values, 'lr': learning_rate * (ratio if fast else 1.0), 'weight_decay': weight_decay if decay else 0.0}
        for (fast, decay), values in sorted(buckets.items())
    ]
