"""Adapters that do not start at nothing: PiSSA and OLoRA, which take them out of the base weights, and LoftQ."""

from __future__ import annotations

import copy
import os
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from swift.core.errors import ModelError


def as_difference(weights: dict[str, Tensor], start: dict[str, Tensor], config: Any) -> tuple[dict[str, Tensor], Any]:
    """Adapter relative to the original base: W + s(BA - B₀A₀) = W + s [B, -B₀] [A; A₀]."""
    stored = {}
    for key, value in weights.items():
        if '.lora_A.' in key or '.lora_embedding_A' in key:
            stored[key] = torch.cat([value.detach().cpu(), start[key].to(value.dtype)], dim=0)
        elif '.lora_B.' in key or '.lora_embedding_B' in key:
            stored[key] = torch.cat([value.detach().cpu(), -start[key].to(value.dtype)], dim=1)
        else:
            stored[key] = value
    config = copy.deepcopy(config)
    scaling = config.lora_alpha / (config.r**0.5 if config.use_rslora else config.r)
    for key, rank in config.rank_pattern.items():
        alpha = config.alpha_pattern.get(key, config.lora_alpha)
        config.rank_pattern[key], config.alpha_pattern[key] = 2 * rank, 2 * alpha * (rank**0.5 if config.use_rslora else 1)
    config.r, config.use_rslora = 2 * config.r, False
    config.lora_alpha = scaling * config.r
    config.init_lora_weights = True
    return stored, config


def halves(stored: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(the adapter as it was being trained, the adapter it started from) out of a stored difference."""
    now: dict[str, Tensor] = {}
    start: dict[str, Tensor] = {}
    for key, value in stored.items():
        if '.lora_A.' in key or '.lora_embedding_A' in key:
            now[key], start[key] = (half.clone() for half in value.chunk(2, dim=0))
        elif '.lora_B.' in key or '.lora_embedding_B' in key:
            now[key], start[key] = (half.clone() for half in value.chunk(2, dim=1))
            start[key].neg_()
        else:
            now[key] = value
    return now, start


@torch.no_grad()
def add_to_base(model: Any, name: str, sign: float) -> None:
    """Add `sign` times what the adapter stands for to the base weights, in float32 rounded once."""
    for layer in model.modules():
        if hasattr(layer, 'lora_A') and name in layer.lora_A:
            base = layer.get_base_layer().weight
            delta = layer.scaling[name] * (layer.lora_B[name].weight.float() @ layer.lora_A[name].weight.float())
            delta = delta.T if getattr(layer, 'fan_in_fan_out', False) else delta
            base.data = (base.data.float() + sign * delta).to(base.dtype)


@torch.no_grad()
def loftq(model: Any, name: str = 'default') -> None:
    """Start the adapters at the rounding error of a 4-bit base: s·B·A is the best rank-r part of W - Q(W).

    One step of LoftQ (arXiv:2310.08659) with the base kept as it is quantised; W is read from the unquantised files.
    """
    from peft.utils.integrations import dequantize_module_weight

    layers = {
        key.removeprefix('base_model.model.'): layer
        for key, layer in model.named_modules()
        if hasattr(layer, 'lora_A') and type(layer.get_base_layer()).__name__ == 'Linear4bit'
    }
    if not layers:
        raise ModelError(
            '--init_weights loftq makes up for the rounding of a 4-bit base, and this model is not quantised;',
            'load it with bitsandbytes in 4 bits, or take another --init_weights.',
        )
    home = model.get_base_model().name_or_path
    for key, layer in layers.items():
        wanted = original_weight(home, f'{key}.weight')
        error = wanted.float() - dequantize_module_weight(layer.get_base_layer()).float().cpu()
        u, s, v = torch.linalg.svd(error, full_matrices=False)
        rank, root = layer.r[name], s.sqrt()
        layer.lora_A[name].weight.copy_(root[:rank, None] * v[:rank])
        layer.lora_B[name].weight.copy_(u[:, :rank] * root[:rank] / layer.scaling[name])


def original_weight(home: str, key: str) -> Tensor:
    for entry in sorted(os.listdir(home)) if os.path.isdir(home) else []:
        if entry.endswith('.safetensors'):
            with safe_open(os.path.join(home, entry), framework='pt') as file:
                if key in file.keys() and not any(other.startswith(f'{key}.') for other in file.keys()):  # noqa: SIM118
                    return file.get_tensor(key)
    raise ModelError(
        f'--init_weights loftq compares with the unquantised weights, and {home} has no {key};',
        'quantise while loading (quantization_config in --model_kwargs), not beforehand.',
    )
