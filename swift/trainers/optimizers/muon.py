"""Muon for matrices, AdamW for the rest (Jordan et al. 2024), by torch's own torch.optim.Muon."""

from __future__ import annotations

from typing import Any

import torch

from swift.core.errors import SwiftError
from swift.trainers.optimizers.base import OptimizerCallback
from swift.trainers.optimizers.parts import LABELS, PartRates


class Muon(OptimizerCallback):
    """Every trainable matrix inside the layers by Muon, embeddings, head, norms and biases by AdamW, one learning rate for both.

    Muon's step is scaled to AdamW's update size (`match_rms_adamw`), so --learning_rate means the same for both halves.
    """

    def create_optimizer(self) -> torch.optim.Optimizer:
        """The two optimizers as one."""
        if not hasattr(torch.optim, 'Muon'):
            raise SwiftError(f'--optimizer muon needs torch 2.9 or newer (this is {torch.__version__});', 'use --optim adamw_torch')
        model, args = self.trainer.model, self.args
        decayed = set(self.trainer.get_decay_parameter_names(model))
        outside = {id(value) for module in _heads(model) for value in module.parameters()}
        named = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
        rates = PartRates(args, model)
        inside = {id(value) for _, value in named if value.ndim == 2 and id(value) not in outside}
        groups: dict[tuple[bool, int, bool], list[Any]] = {}
        for name, value in named:
            matrix = id(value) in inside
            groups.setdefault((not matrix, rates.order(rates.label(name)), not matrix and name not in decayed), []).append(value)
        made = {
            kind: [
                {'params': values, 'weight_decay': 0.0 if plain else args.weight_decay, **rates.group(LABELS[place])}
                for (other, place, plain), values in sorted(groups.items(), key=lambda item: item[0]) if other == kind
            ]
            for kind in (False, True)
        }  # fmt: skip
        parts: list[torch.optim.Optimizer] = []
        if made[False]:
            parts.append(torch.optim.Muon(made[False], lr=args.learning_rate, weight_decay=args.weight_decay,
                                          adjust_lr_fn='match_rms_adamw'))
        if made[True]:
            parts.append(torch.optim.AdamW(made[True], lr=args.learning_rate, betas=(args.adam_beta1, args.adam_beta2),
                                           eps=args.adam_epsilon))
        return parts[0] if len(parts) == 1 else Joined(parts)


class Joined(torch.optim.Optimizer):
    """Several optimizers that step together and are saved together; schedulers see all their groups."""

    def __init__(self, parts: list[torch.optim.Optimizer]):
        self.parts = parts
        super().__init__([{'params': [value for part in parts for group in part.param_groups for value in group['params']]}], {})
        self.param_groups = [group for part in parts for group in part.param_groups]

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step of each."""
        loss = closure() if closure is not None else None
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The parts' states in order."""
        return {'parts': [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        for part, saved in zip(self.parts, state['parts'], strict=True):
            part.load_state_dict(saved)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def _heads(model: Any) -> list[torch.nn.Module]:
    """The embedding and output modules, whose matrices are lookups and not maps between activations."""
    found = [model.get_input_embeddings() if hasattr(model, 'get_input_embeddings') else None,
             model.get_output_embeddings() if hasattr(model, 'get_output_embeddings') else None]
    return [module for module in found if module is not None]
