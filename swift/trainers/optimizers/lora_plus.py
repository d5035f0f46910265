"""LoRA+ (arXiv:2402.12354): the B matrices of an adapter learn `lorap_lr_ratio` times faster than the A matrices."""

from __future__ import annotations

from typing import Any

from swift.core.errors import SwiftError
from swift.trainers.optimizers.base import OptimizerCallback
from swift.trainers.optimizers.parts import LABELS, PartRates

DEFAULT_RATIO = 16.0
"""The paper's recommendation for lr_B / lr_A."""


class LoraPlus(OptimizerCallback):
    """B matrices at ratio · lr, everything else that learns at lr, each with and without weight decay; lr is that of the part.

    The ratio is `lorap_lr_ratio` of the training arguments, without it 16.
    """

    def groups(self) -> list[dict[str, Any]]:
        """Up to four parameter groups for each learning rate; an empty one is left out."""
        args, model = self.args, self.trainer.model
        ratio = args.lorap_lr_ratio or DEFAULT_RATIO
        if ratio <= 0:
            raise SwiftError(f'--lorap_lr_ratio must be positive, got {ratio};', 'the paper recommends 16')
        decayed = set(self.trainer.get_decay_parameter_names(model))
        rates = PartRates(args, model)
        found: dict[tuple[int, bool, bool], list[Any]] = {}
        for name, value in model.named_parameters():
            if value.requires_grad:
                fast = '.lora_B.' in name or '.lora_embedding_B.' in name
                found.setdefault((rates.order(rates.label(name)), fast, name in decayed), []).append(value)
        if not any(fast for _, fast, _ in found):
            raise SwiftError('--optimizer lorap (--lorap_lr_ratio) needs LoRA matrices, but none learn;', 'use --tuner_type lora')
        groups = []
        for (place, fast, decay), values in sorted(found.items(), key=lambda item: item[0]):
            label = LABELS[place]
            rate = rates.rate(label) * (ratio if fast else 1.0)
            groups.append({**rates.group(label), 'params': values, 'lr': rate, 'weight_decay': args.weight_decay if decay else 0.0})
        return groups
