"""The reference inside the model that is trained: adapters off, another adapter on, or the adapter as it started.

Each function gives a context manager; while it is open the model computes as the reference does, without gradients and
without dropout. Afterwards every module is exactly as it was, also after an exception. No `requires_grad` changes on the way
(PEFT's own `disable_adapter` turns it off and on again for every adapter, which processes in step and compiled graphs notice,
and which would let frozen adapters learn), so only the two attributes that PEFT's layers read in their forward are set.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from swift.core.errors import ModelError

View = Callable[[], contextlib.AbstractContextManager[None]]
Values = Sequence[tuple[nn.Parameter, Tensor]]


def adapters_off(model: Any) -> View:
    """The base model as it is now, which is as it was: base parameters that learn (biases) are kept as they are at this moment."""
    kept = [(parameter, parameter.detach().clone()) for parameter in _learning_base(model)]
    return lambda: _switched(model, lambda layer: {'_disable_adapters': True}, kept)


def other_adapter(model: Any, name: str) -> View:
    """The base model with the adapter `name` instead of the one that learns."""
    kept = [(parameter, parameter.detach().clone()) for parameter in _learning_base(model)]
    return lambda: _switched(model, lambda layer: {'_active_adapter': having(layer, name), '_disable_adapters': False}, kept)


def can_share(model: Any, directory: str) -> bool:
    """Whether a stored adapter can be put beside the one that learns. Not where it replaces whole modules, or either trains rows
    of new tokens: PEFT can't always do that for two adapters in one model."""
    from swift.tuners.peft import read_json

    stored = read_json(os.path.join(directory, 'adapter_config.json'))
    rows = stored.get('trainable_token_indices') or any(config.trainable_token_indices for config in model.peft_config.values())
    return stored.get('peft_type') == 'LORA' and not stored.get('modules_to_save') and not rows


def add_frozen(model: Any, directory: str, name: str) -> None:
    """Put a stored adapter beside the one that learns, for `other_adapter`; what learns and what is active stays as it is.

    Raises CheckpointError when a stored weight has no place, ModelError when PEFT can't hold the two in one model.
    """
    from swift.tuners.registry import load_adapter

    with _same_learners(model) as learning:
        load_adapter(model, directory, names=[name])
    if {key: id(value) for key, value in learning.items()} != {key: id(value) for key, value in _learners(model).items()}:
        raise ModelError(f'the adapter {directory} and the one that is trained change the same modules in different ways;',
                         'name its base model in --ref_model too: the reference is then a model of its own.')


def remove(model: Any, name: str) -> None:
    """Take an adapter of `add_frozen` away again."""
    with _same_learners(model):
        model.delete_adapter(name)


@contextlib.contextmanager
def _same_learners(model: Any) -> Iterator[dict[str, nn.Parameter]]:
    """PEFT activates and unfreezes as it sees fit when adapters come and go: afterwards the same is active and learns as before."""
    learning, active = _learners(model), model.active_adapters
    yield learning
    for layer in model.modules():
        if is_peft_layer(layer):
            layer._active_adapter = [own for adapter in active for own in having(layer, adapter)]
    wanted = {id(parameter) for parameter in learning.values()}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in wanted)


def _learners(model: Any) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def having(layer: Any, name: str) -> list[str]:
    """`[name]` where the layer has this adapter. Without: [], since a layer of trained tokens fails on a name that it does not have."""
    return [name] if name in layer._get_available_adapters() else []


def as_started(model: Any, start: Callable[[], Mapping[nn.Parameter, Tensor]]) -> View:
    """The model with the adapter it started from: `start()` tells the values of parameters (asked each time, it may change on resume)."""
    return lambda: _switched(model, lambda layer: {}, list(start().items()))


def split_start(model: Any) -> Callable[[], Mapping[nn.Parameter, Tensor]] | None:
    """For `as_started`: the start of an adapter that was taken out of the base weights (PiSSA, OLoRA). None: it was not."""
    from swift.tuners.peft import adapter_state, start_of

    if start_of(model) is None:
        return None
    known: dict[str, Any] = {}

    def start() -> Mapping[nn.Parameter, Tensor]:
        stored = start_of(model)
        if known.get('stored') is not stored:  # the first time, and after a resume that put another start back
            owners = {parameter.data_ptr(): parameter for parameter in model.parameters()}
            places = {key: owners[value.data_ptr()] for key, value in adapter_state(model).items()}
            known['values'] = {places[key]: value.to(places[key]) for key, value in stored.items()}
            known['stored'] = stored
        return known['values']

    return start


def present(model: Any) -> Callable[[], Mapping[nn.Parameter, Tensor]]:
    """For `as_started`: everything that learns, as it is at this moment."""
    values = {parameter: parameter.detach().clone() for parameter in model.parameters() if parameter.requires_grad}
    return lambda: values


@contextlib.contextmanager
def _switched(model: nn.Module, settings: Callable[[Any], Mapping[str, Any]], values: Values) -> Iterator[None]:
    """`settings(layer)` on PEFT's layers, `values` in parameters, evaluation mode everywhere; then all as before."""
    before: list[tuple[nn.Module, str, Any]] = []
    data: list[tuple[nn.Parameter, Tensor]] = []
    try:
        for module in model.modules():
            if module.training:
                before.append((module, 'training', True))
                module.training = False
            for name, value in settings(module).items() if is_peft_layer(module) else ():
                before.append((module, name, getattr(module, name)))
                setattr(module, name, value)
        for parameter, value in values:
            data.append((parameter, parameter.data))
            parameter.data = value
        if data:
            torch.clear_autocast_cache()  # which knows a parameter's value in half precision by the parameter, not by its data
        with torch.no_grad():
            yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
        for parameter, value in data:
            parameter.data = value
        if data:
            torch.clear_autocast_cache()


def is_peft_layer(module: nn.Module) -> bool:
    """Whether PEFT put this module around one of the model's (asked without importing PEFT)."""
    return hasattr(type(module), 'adapter_layer_names')


def _learning_base(model: Any) -> list[nn.Parameter]:
    """Parameters that learn and that a forward with the adapters off still uses."""
    base = model.get_base_model()
    adapter = {id(p) for module in base.modules() if is_peft_layer(module) for p in _adapter_parameters(module)}
    return [parameter for parameter in base.parameters() if parameter.requires_grad and id(parameter) not in adapter]


def _adapter_parameters(layer: Any) -> Iterator[nn.Parameter]:
    for path in layer.adapter_layer_names:
        held = layer
        for name in path.split('.'):
            held = getattr(held, name, None)
        if isinstance(held, nn.Module):
            yield from held.parameters()
        elif isinstance(held, nn.ParameterDict):
            yield from held.values()
