"""The weights that a model with an adapter computes with, one module at a time: W + s·B·A and what replaces whole modules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from swift.core.errors import ModelError
from swift.tuners.registry import is_adapter, unwrap
from swift.tuners.switch import is_peft_layer

_WRAPPED = {'base_layer', 'original_module', 'token_adapter'}
"""Names that PEFT puts into the path of a module that it wraps."""


@torch.no_grad()
def effective_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """(name in the bare base model, weight as the model computes with it) of every parameter of the base model.

    An adapted weight is merged in float32 and is gone with the next step of the iteration; the model keeps its own bits.
    """
    model = unwrap(model)
    if not is_adapter(model):
        yield from ((name, value.detach()) for name, value in model.named_parameters())
        return
    base = model.get_base_model()
    found: dict[int, tuple[str, list[Any]]] = {}
    for path, module in base.named_modules():
        if is_peft_layer(module) and not _inside_adapter(path):
            inner = _innermost(module)
            found.setdefault(id(inner), (_bare(path), []))[1].append(module)
    seen: set[str] = set()
    for path, layers in found.values():
        for name, value in _merged(layers):
            seen.add(f'{path}.{name}')
            yield f'{path}.{name}', value
    for path, parameter in base.named_parameters():
        if not _inside_adapter(path) and _bare(path) not in seen:
            yield _bare(path), parameter.detach()


def check_separable(model: Any) -> None:
    """Raise ModelError where no weights of the base model could compute what base and adapter do, or where they can't be read."""
    model = unwrap(model)
    base = model.get_base_model() if is_adapter(model) else model
    if getattr(base, 'is_quantized', False) or getattr(base, 'quantization_method', None):
        raise ModelError('the weights of a quantised model can not be moved;', 'load it unquantised, or drop --sync_ref_model.')
    holders: dict[int, int] = {}
    for module in base.modules():
        for parameter in module.parameters(recurse=False):
            holders[id(parameter)] = holders.get(id(parameter), 0) + 1
    for path, module in base.named_modules():
        if hasattr(module, 'lora_A') and any(holders[id(p)] > 1 for p in _innermost(module).parameters(recurse=False)):
            raise ModelError(f'the adapter on {_bare(path)}, which shares its weight with another module, makes two weights of one;',
                             'leave it out of --target_modules, or drop --sync_ref_model.')


def _bare(path: str) -> str:
    return '.'.join(part for part in path.split('.') if part not in _WRAPPED)


def _inside_adapter(path: str) -> bool:
    """Whether a path leads into what PEFT added, not to what was there."""
    return any(part.startswith(('lora_', 'modules_to_save', 'trainable_tokens_')) for part in path.split('.'))


def _innermost(layer: Any) -> nn.Module:
    while is_peft_layer(layer):
        layer = layer.original_module if hasattr(type(layer), 'original_module') or 'original_module' in layer._modules else layer.base_layer
    return layer


def _merged(layers: list[Any]) -> Iterator[tuple[str, Tensor]]:
    """Effective parameters of one module with PEFT's layers around it, outermost first."""
    replaced = next((layer for layer in layers if 'modules_to_save' in layer._modules), None)
    if replaced is not None and replaced.active_adapters:
        yield from replaced.modules_to_save[replaced.active_adapters[0]].named_parameters()
        return
    inner = _innermost(layers[0])
    own = {name: parameter.data for name, parameter in inner.named_parameters()}
    mergers = [layer for layer in layers if hasattr(layer, 'merge') and layer.active_adapters]
    try:
        for name, parameter in inner.named_parameters():
            parameter.data = own[name].float() if own[name].dtype in (torch.float16, torch.bfloat16) else own[name].clone()
        for layer in reversed(mergers):
            layer.merge()
        values = {name: parameter.data.clone() for name, parameter in inner.named_parameters()}
    finally:  # what `unmerge` computes is thrown away: the numbers that come back are the very ones that were there
        for layer in mergers:
            if layer.merged:
                layer.unmerge()
        for name, parameter in inner.named_parameters():
            parameter.data = own[name]
    yield from values.items()
