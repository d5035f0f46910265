"""Losses of the user's own, by `--loss_type NAME --loss_kwargs JSON`.

    @register_loss('mine')
    def mine(outputs, labels, num_items_in_batch=None): ...            # logits in, loss out
    @register_loss('mine')
    def mine(model, inputs, return_outputs=False): ...                  # forwards by itself
    @register_loss('mine')
    class Mine: __init__(self, **loss_kwargs), __call__ as one of the two above
    @register_loss('mine')
    def make(**loss_kwargs): return callable of one of the two above    # a factory

Such a loss sees padded rows [B, L] with labels aligned with input_ids (not shifted). What it returns is taken as the
mean over the labelled tokens of the micro-batch, which makes it independent of how the batch is split.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import torch

from swift.core.errors import SwiftError, did_you_mean
from swift.core.registry import Registry
from swift.core.types import Actors, Batch, Loss
from swift.objectives.base import Objective

loss_map = Registry('loss_type', {'cross_entropy': 'swift.objectives.sft:SFT'})
"""Name → function, class or factory; `loss_map['mine'] = mine` registers."""

_FORWARDS = {'model', 'inputs'}
_GIVEN = {'outputs', 'labels', 'logits'}


def register_loss(name: str) -> Callable[[Any], Any]:
    """Decorator: a loss of the user's own under `name`, for `--loss_type name`."""
    return loss_map.register(name)


class CustomLoss(Objective):
    """A user's loss as an objective. `args`: loss_kwargs (TrainArgs); `name`: where the loss is registered."""

    rows = True

    def __init__(self, args: Any, name: str):
        super().__init__(args)
        self.name = name
        self.function = build(name, dict(args.loss_kwargs or {}), args)
        self.names = _names(self.function)
        self.forwards = bool(_FORWARDS & self.names.keys())

    def loss(self, batch: Batch, actors: Actors) -> Loss:
        weight = self.weight(batch)
        model, inputs = actors.policy.module, actors.policy.inputs(batch, labels=True)
        if self.forwards:
            value = self.function(model, inputs)
        else:
            outputs = model(**{**inputs, 'labels': None})
            offers = {'num_items_in_batch': weight, 'loss_scale': batch.weights}
            open_ended = any(kind is inspect.Parameter.VAR_KEYWORD for kind in self.names.values())
            given = {name: value for name, value in offers.items() if name in self.names or open_ended}
            value = self.function(outputs, inputs['labels'], **given)
        mean = mean_of(self.name, value)
        # a batch without labels: 0 · value keeps the graph (and with it other processes) in step
        scaled = mean * weight if weight else torch.nan_to_num(mean) * 0.0
        return Loss(scaled, {})


def build(name: str, kwargs: dict[str, Any], args: Any = None) -> Callable:
    """The callable registered as `name`, given its keyword arguments; SwiftError when they don't fit."""
    entry = loss_map[name]
    try:
        if inspect.isclass(entry):
            wanted = _names(entry.__init__)
            offers = {'args': args, 'trainer': None}
            return entry(**{key: value for key, value in offers.items() if key in wanted}, **kwargs)
        if not (_FORWARDS | _GIVEN) & _names(entry).keys():
            return entry(**kwargs)
    except TypeError as error:
        raise SwiftError(f'loss_kwargs do not fit loss_type {name!r}: {error}') from error
    unknown = kwargs.keys() - _names(entry).keys()
    if unknown and inspect.Parameter.VAR_KEYWORD not in _names(entry).values():
        raise SwiftError(f'loss_type {name!r} takes no argument {sorted(unknown)[0]!r};', 'correct --loss_kwargs')
    return partial(entry, **kwargs) if kwargs else entry


def own_loss(name: str, built_in: Collection[str], args: Any) -> Callable | None:
    """The loss that a user registered for a task whose own are `built_in`; None where `name` is one of these.

    Raises SwiftError for an unknown name.
    """
    if name in built_in:
        return None
    if name not in loss_map or name == 'cross_entropy':
        known = [*built_in, *(other for other in loss_map if other != 'cross_entropy')]
        raise SwiftError(f'unknown loss_type {name!r};', did_you_mean(name, known, n=2) or f'known: {", ".join(known)}')
    return build(name, dict(args.loss_kwargs or {}), args)


class Outputs(dict):
    """What a loss gets as `outputs` where they are not the model's own: values as keys and as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def mean_of(name: str, value: Any) -> torch.Tensor:
    """The mean of what a loss returned, of the first part of a tuple. Raises SwiftError for anything but a tensor."""
    value = value[0] if isinstance(value, tuple) else value
    if not isinstance(value, torch.Tensor):
        raise SwiftError(f'loss_type {name!r} returned {type(value).__name__};', 'return a tensor')
    return value.mean()


def _names(function: Callable) -> dict[str, Any]:
    """Parameter name → kind."""
    return {name: parameter.kind for name, parameter in inspect.signature(function).parameters.items()}
