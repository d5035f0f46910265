"""Which share of a model's parameters training can reach, and which groups it misses."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from swift.tuners.modules import stored_size
from swift.tuners.registry import unwrap

_ADAPTER_PARTS = ('.lora_', '.modules_to_save.', '.trainable_tokens_')


@dataclass(frozen=True)
class Group:
    """Parameters whose names differ in layer numbers only."""

    name: str
    count: int
    """Number of weights."""
    tensors: int
    stacked: bool
    """Every tensor holds several experts (3-D), which `--target_modules` does not reach."""


@dataclass(frozen=True)
class Coverage:
    """What training reaches. `str()` is the few lines that are printed."""

    total: int
    """Weights of the base model."""
    covered: int
    """Base weights that an adapter changes, or that are trained themselves."""
    trainable: int
    """Weights that receive gradients."""
    missed: tuple[Group, ...]
    """Groups out of reach, largest first."""

    @property
    def share(self) -> float:
        """covered / total."""
        return self.covered / self.total if self.total else 0.0

    @property
    def suggestion(self) -> list[str]:
        """Values for `--target_parameters` that would reach stacked experts."""
        return list(dict.fromkeys('.'.join(group.name.split('.')[-2:]) for group in self.missed if group.stacked))

    def __str__(self) -> str:
        lines = [
            f'trainable: {self.trainable:,} of {self.total:,} parameters ({100 * self.trainable / max(self.total, 1):.2f} %); '
            f'training reaches {100 * self.share:.1f} % of the weights'
        ]
        large = [group for group in self.missed if group.count >= 0.01 * self.total]
        if large:
            shown = ', '.join(f'{group.name} ({100 * group.count / self.total:.1f} %)' for group in large[:5])
            lines.append(f'not reached: {shown}')
        if self.suggestion:
            lines.append(f'experts are not trained; to train them: --target_parameters {" ".join(self.suggestion)}')
        return '\n'.join(lines)


def coverage(model: Any) -> Coverage:
    """Count what an adapter (or full training with frozen parts) can change.

    A base weight is covered when its module carries an adapter, when it is replaced by a trained copy
    (modules_to_save), or when it is trainable itself. Rows of single tokens count as such.
    """
    model = unwrap(model)
    wrapped = _adapted_parameters(model)
    kernels = {id(module.weight) for module in model.modules() if isinstance(module, nn.Conv1d)}  # three dimensions too, but no experts
    total = covered = trainable = 0
    groups: dict[str, list] = {}
    for name, parameter in model.named_parameters():
        size = stored_size(parameter)
        trainable += size if parameter.requires_grad else 0
        if any(part in f'.{name}' for part in _ADAPTER_PARTS):
            continue
        total += size
        if parameter.requires_grad or id(parameter) in wrapped:
            covered += size
            continue
        key = re.sub(r'(?<=\.)\d+(?=\.)', '*', _plain(name))
        group = groups.setdefault(key, [0, 0, True])
        group[0] += size
        group[1] += 1
        group[2] &= parameter.dim() == 3 and id(parameter) not in kernels and (size > 10_000 or 'expert' in key)
    missed = [Group(key, count, tensors, stacked) for key, (count, tensors, stacked) in groups.items()]
    return Coverage(total, covered, trainable, tuple(sorted(missed, key=lambda group: -group.count)))


def _plain(name: str) -> str:
    """The name in the bare model of a parameter inside PEFT's wrappers."""
    return name.removeprefix('base_model.model.').replace('.base_layer', '').replace('.original_module', '')


def _adapted_parameters(model: nn.Module) -> set[int]:
    """ids of the base parameters that an adapter or a trained copy stands for."""
    found: set[int] = set()
    for module in model.modules():
        if hasattr(module, 'parameter_name') and hasattr(module, 'get_param') and hasattr(module, 'lora_A'):
            found.add(id(module.get_param()))
        elif hasattr(module, 'lora_A') and hasattr(module, 'get_base_layer'):
            found.update(_own(module.get_base_layer(), ('weight', 'weight_v', 'qweight')))
        elif hasattr(module, 'modules_to_save') and hasattr(module, 'original_module'):
            found.update(id(parameter) for parameter in module.original_module.parameters())
    return found


def _own(module: nn.Module, names: Iterable[str]) -> set[int]:
    return {id(getattr(module, name)) for name in names if getattr(module, name, None) is not None}
