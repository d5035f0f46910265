"""The reference model of a preference objective: the adapter switched off, or a model of its own that never learns."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from swift.core.types import Actor


@dataclass(frozen=True)
class Reference:
    """What a training gets from its reference."""

    plan: Any
    """How both models are run (`trainers.forward.Plan`)."""
    data: Any
    """The samples; with log-probabilities computed in advance, they carry them."""
    actors: Mapping[str, Actor] = field(default_factory=dict)
    """Role → actor, for the Trainer. Empty: the objective needs none (any more)."""
    callbacks: Sequence[Any] = ()


NO_REFERENCE = Reference(None, None)


def build_reference(args: Any, model: Any, plan: Any, first: Any, data: Any, objective: Any) -> Reference:
    """The reference that `args` (RlhfArgs) asks for, run the way of `plan`; `first`: samples for the start-up check."""
    from swift.model.load import load_model
    from swift.trainers import selfcheck
    from swift.trainers.forward import ModelActor
    from swift.tuners import is_adapter

    if is_adapter(model) and not args.ref_model:
        return Reference(plan, data, {'reference': ModelActor(model, plan, around=lambda: adapter_off(model))})
    reference = load_model(args, for_training=True).model.eval().requires_grad_(False)
    own = selfcheck.plan(reference, first, flat=plan.flat)
    if plan.flat and not own.flat:
        plan = selfcheck.plan(model, first, flat=False)
    return Reference(plan, data, {'reference': ModelActor(reference, own)})


@contextlib.contextmanager
def adapter_off(model: Any) -> Iterator[None]:
    """The base model as it was: adapters switched off and dropout too."""
    with model.disable_adapter():
        yield
