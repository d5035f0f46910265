"""LoRA+ (arXiv:2402.12354): the B matrices of an adapter learn `lorap_lr_ratio` times faster than the A matrices."""

from __future__ import annotations

from typing import Any

from swift.arguments.tuner import TunerArgs
from swift.core.errors import SwiftError
from swift.trainers.optimizers.base import OptimizerCallback
from swift.tuners import optimizer_groups

DEFAULT_RATIO = 16.0
"""The paper's recommendation for lr_B / lr_A."""


class LoraPlus(OptimizerCallback):
    """Parameter groups by the tuner's own rule; `lorap_lr_ratio` of the training arguments, without it 16."""

    def groups(self) -> list[dict[str, Any]]:
        """A and the rest at lr, B at ratio · lr; each with and without weight decay."""
        model, args = self.trainer.model, self.args
        if not any('lora_B' in name or 'lora_embedding_B' in name for name, value in model.named_parameters() if value.requires_grad):
            raise SwiftError('--optimizer lorap (--lorap_lr_ratio) needs LoRA matrices, but none learn;', 'use --tuner_type lora')
        ratio = getattr(args, 'lorap_lr_ratio', None) or DEFAULT_RATIO
        return optimizer_groups(model, TunerArgs(lorap_lr_ratio=ratio), lr=args.learning_rate, weight_decay=args.weight_decay)
