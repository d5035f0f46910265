"""Which towers of a multimodal model recompute their activations in the backward pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from swift.core.errors import ModelError
from swift.tuners.parts import VIT, parts_of
from swift.tuners.registry import is_adapter, unwrap


def checkpoint_towers(model: Any, whole: bool, towers: bool | None, settings: Mapping[str, Any] | None = None) -> None:
    """Switch checkpointing of the vision and audio towers, after the trainer has switched it on everywhere (`whole`) or nowhere.

    `towers`: `--vit_gradient_checkpointing` (None: as `whole`); `settings`: keyword arguments of torch.utils.checkpoint. A tower
    that learns nothing keeps no activations, so it is never checkpointed, and its inputs need no gradient either. Raises
    ModelError when a tower is asked for that can't do it.
    """
    model = unwrap(model)
    bare = model.get_base_model() if is_adapter(model) else model
    modules, parts = dict(bare.named_modules()), parts_of(bare)
    found = {path: modules[path] for path in parts.paths(VIT) if path in modules}
    trained = {
        path for path in found
        if any(p.requires_grad and parts.of(f'{path}.{name}') == VIT for name, p in found[path].named_parameters())
    }  # fmt: skip
    settings = {'use_reentrant': False, **(settings or {})}
    settings = {name: value for name, value in settings.items() if name not in ('every_n_layers', 'offload')}
    if found and whole:
        _only_where_it_learns(bare, [found[path] for path in trained], bool(settings['use_reentrant']))
    for path, tower in found.items():
        wanted = (whole if towers is None else towers) and path in trained
        if wanted and not whole:
            _enable(path, tower, settings)
        elif not wanted:
            _disable(tower)


def _enable(path: str, tower: nn.Module, settings: dict[str, Any]) -> None:
    if not getattr(tower, 'supports_gradient_checkpointing', False):
        raise ModelError(f'--vit_gradient_checkpointing true: {path} ({type(tower).__name__}) can not do it;', 'drop the flag.')
    tower.activation_checkpointing_enable(activation_checkpointing_kwargs=settings)
    if not settings['use_reentrant']:
        tower.disable_input_require_grads()


def _disable(tower: nn.Module) -> None:
    if any(hasattr(module, 'gradient_checkpointing') for module in tower.modules()) and hasattr(tower, 'activation_checkpointing_disable'):
        tower.activation_checkpointing_disable()


def _only_where_it_learns(bare: Any, trained: list[nn.Module], reentrant: bool) -> None:
    """transformers makes the inputs of every tower need a gradient when it switches checkpointing on, which sends the backward pass
    through frozen towers. Only the reentrant kind of checkpointing needs that, and only where something learns."""
    if not getattr(bare, '_require_grads_hooks', None):
        return
    bare.disable_input_require_grads()
    if reentrant:
        for module in (bare.get_decoder(), *trained):
            if hasattr(module, 'enable_input_require_grads'):
                module.enable_input_require_grads()
