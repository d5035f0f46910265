"""The same numbers by this package, and helpers that run an objective without a trainer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from swift.arguments import resolve
from swift.arguments.commands import RLHFArguments
from swift.core.types import Actors, Batch, Loss, Sample
from swift.objectives import get_objective
from swift.trainers.attention import use_segments
from swift.trainers.forward import ModelActor
from tests.objectives.trl.batch import tiny_model


def objective(method: str, **settings: Any):
    """A method of swift rlhf with the defaults of the command line."""
    return get_objective(method, resolve(RLHFArguments(rlhf_type=method, **settings)))


@cache
def actors() -> Actors:
    """Policy and reference of the golden numbers."""
    models = [tiny_model(reference=reference) for reference in (False, True)]
    for model in models:
        use_segments(model)
    return Actors(*(ModelActor(model) for model in models))


def run(method: Any, steps: Sequence[Sequence[Sample]], *, padded: bool = False, prepared: bool = True,
        alter: Callable[[Batch], None] | None = None, who: Actors | None = None) -> dict[str, Any]:  # fmt: skip
    """One optimizer step of micro-batches (lists of samples): mean loss, gradient, its norm, metrics (item by item)."""
    who = who or actors()
    who.policy.module.zero_grad(set_to_none=True)
    batches = [method.collate(samples, padded=padded) for samples in steps]
    if prepared:
        with torch.no_grad():
            method.prepare(batches, who, lambda tensor: tensor)
    weight, total, metrics = sum(method.weight(batch) for batch in batches), 0.0, {}
    for batch in batches:
        if alter:
            alter(batch)
        loss: Loss = method.loss(batch, who)
        (loss.sum / weight).backward()
        total += loss.sum.item() / weight
        for name, values in loss.metrics.items():
            metrics.setdefault(name, []).append(values)
    parameters = [p for p in who.policy.module.parameters() if p.grad is not None]
    gradient = torch.cat([p.grad.reshape(-1) for p in parameters]) if parameters else torch.zeros(1)
    return {
        'loss': total, 'gradient': gradient.clone(), 'grad_norm': gradient.double().norm().item(),
        'metrics': {name: torch.cat(values) for name, values in metrics.items()},
    }  # fmt: skip


def mean(values: Tensor) -> float:
    return values.double().mean().item()
