"""Checkpointing of the vision and audio towers apart from the language model."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from swift.tuners.checkpointing import checkpoint_towers


class TowerCheckpointing(TrainerCallback):
    """`--vit_gradient_checkpointing`; `args` is the group TrainArgs. Does nothing to models without towers."""

    def __init__(self, args: Any):
        self.whole, self.towers = args.gradient_checkpointing, args.vit_gradient_checkpointing
        self.settings = dict(args.gradient_checkpointing_kwargs)

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """After transformers has switched checkpointing on, before the first step."""
        if self.whole or self.towers:
            checkpoint_towers(model, self.whole, self.towers, self.settings)
