"""TR-DPO: the reference follows the policy (Gorbatovski et al. 2024, arXiv:2404.09656)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from swift.core.dist import is_master
from swift.core.errors import CheckpointError
from swift.core.log import get_logger

logger = get_logger()

FILE = 'reference_model.safetensors'
"""The reference in a checkpoint: where it has got to can't be known from the policy's weights."""


class SyncReferenceCallback(TrainerCallback):
    """Every `steps` optimizer steps: reference = alpha · policy + (1 - alpha) · reference (equation 5: soft; alpha 1 is the hard update).

    `weights()` gives the policy's weights by their names in `reference`, one after the other. The reference's own
    weights move in place; arithmetic is float32.
    """

    def __init__(self, reference: nn.Module, weights: Callable[[], Iterator[tuple[str, Tensor]]], *, steps: int, alpha: float):
        self.reference, self.weights, self.steps, self.alpha = reference, weights, steps, alpha

    @torch.no_grad()
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Before the step's evaluation and checkpoint."""
        if state.global_step % self.steps:
            return
        places = dict(self.reference.named_parameters())
        for name, value in self.weights():
            place = places.get(name)  # a tied weight has one name there
            if place is not None:
                place.copy_(place.float().lerp_(value.to(place.device, torch.float32), self.alpha))
        logger.info('step %d: the reference took in %g of the policy', state.global_step, self.alpha)

    def write_part(self, folder: str) -> None:
        """Its share of a checkpoint."""
        if is_master():
            from safetensors.torch import save_file

            values = {name: value.detach().cpu().contiguous() for name, value in self.reference.named_parameters()}
            save_file(values, os.path.join(folder, FILE), metadata={'format': 'pt'})

    @torch.no_grad()
    def read_part(self, folder: str) -> None:
        """Put the reference to where it was. Raises CheckpointError when the checkpoint doesn't say or it is another model."""
        from safetensors import safe_open

        path = os.path.join(folder, FILE)
        if not os.path.isfile(path):
            raise CheckpointError(f'{folder} was written without --sync_ref_model true: it has no {FILE};',
                                  'resume without the flag, or take its weights alone with --resume_only_model true')
        places = dict(self.reference.named_parameters())
        with safe_open(path, framework='pt') as stored:
            names = set(stored.keys())
            if names != set(places) or any(stored.get_slice(name).get_shape() != list(places[name].shape) for name in names):
                raise CheckpointError(f'{path} holds another reference than this run has;', 'resume with the --ref_model of that run')
            for name in names:
                places[name].copy_(stored.get_tensor(name))
