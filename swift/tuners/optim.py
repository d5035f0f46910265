"""Parameter groups for the optimizer: weight decay where it belongs, and LoRA+'s faster B matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from swift.core.errors import ModelError

if TYPE_CHECKING:
    from swift.arguments.tuner import TunerArgs


def optimizer_groups(model: nn.Module, args: TunerArgs, *, lr: float, weight_decay: float = 0.0) -> list[dict[str, Any]]:
    """Groups of trainable parameters with `lr` and `weight_decay`, each parameter in exactly one.

    Biases and normalisation weights are not decayed. With `--lorap_lr_ratio` λ the B matrices of adapters learn at
    λ·lr (LoRA+, arXiv:2402.12354). Empty groups are left out.
    """
    if args.lorap_lr_ratio is not None and args.lorap_lr_ratio <= 0:
        raise ModelError(f'--lorap_lr_ratio must be positive, got {args.lorap_lr_ratio}.')
    plain = _undecayed(model)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        fast = args.lorap_lr_ratio is not None and ('.lora_B.' in name or '.lora_embedding_B' in name)
        key = (lr * args.lorap_lr_ratio if fast else lr, 0.0 if name in plain else weight_decay)
        groups.setdefault(key, []).append(parameter)
    return [{'params': params, 'lr': rate, 'weight_decay': decay} for (rate, decay), params in groups.items()]


def _undecayed(model: nn.Module) -> set[str]:
    """Names of biases and of everything inside normalisation modules."""
    names = {name for name, _ in model.named_parameters() if name.endswith('bias')}
    for path, module in model.named_modules():
        if 'norm' in type(module).__name__.lower():
            names |= {f'{path}.{name}' for name, _ in module.named_parameters(recurse=False)}
    return names
