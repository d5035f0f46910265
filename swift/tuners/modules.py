"""Finding modules and parameters of a model: linears, embeddings, norms; freezing and counting."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

from swift.core.errors import ModelError
from swift.core.heads import head_names

_NO_ADAPTER = ('lm_head', 'embed_out', 'gate', 'router', 'score', 'classifier', 'v_head', 'pooler')
"""Last name components that all-linear leaves alone: output heads, and routers, whose scores must stay as trained."""
_NO_GRADIENT = ('indexer', 'router', 'gate', 'pooler', 'patcher', 'contact_head')
"""Parts that only choose (top-k positions, experts) or are never called in language modelling: an adapter in them would
get no gradient, and distributed training stops at parameters without one."""
_STATE_SPACE_SIGNS = ('A_log', 'conv1d', 'time_mix_key')
_STATE_SPACE_WEIGHTS = ('out_proj', 'dt_proj', 'x_proj')
"""Projections whose bare `.weight` state-space kernels read, past any adapter around the module."""
_QUANTISED = ('Linear4bit', 'Linear8bitLt', 'QuantLinear', 'WQLinear_GEMM', 'HQQLinear', 'EetqLinear', 'TorchQuantLinear')


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a plain projection that an adapter can wrap: exactly nn.Linear (a subclass with a forward of
    its own may compute something else), Falcon's copy of it, GPT-2's transposed Conv1D, or a quantised linear."""
    name = type(module).__name__
    unchanged = isinstance(module, nn.Linear) and (type(module).forward is nn.Linear.forward or name == 'FalconLinear')
    plain = type(module) is nn.Linear or unchanged or (name == 'Conv1D' and type(module).__module__ == 'transformers.pytorch_utils')
    return plain or name in _QUANTISED or name.endswith('QuantLinear')


def output_head(model: Any) -> nn.Module | None:
    """The module that makes logits; None when the model has none of that kind."""
    try:
        return model.get_output_embeddings()
    except (AttributeError, NotImplementedError):
        return None


def input_embedding(model: Any) -> nn.Module | None:
    """The token embedding; None when the model doesn't say."""
    try:
        return model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None


def name_of(model: nn.Module, wanted: nn.Module | None) -> str | None:
    """Full name of a module inside a model."""
    return next((name for name, module in model.named_modules() if module is wanted), None) if wanted is not None else None


def find_all_linears(model: nn.Module) -> list[str]:
    """Full names of the linear modules that `--target_modules all-linear` adapts.

    Every plain linear, except the output or classification head, routers, and projections that a state-space mixer reads past the
    module. Sorted as they occur in the model.
    """
    head = output_head(model)
    classifier = tuple(f'{name}.' for name in head_names(model))
    unused = set(_NO_GRADIENT)
    if not getattr(getattr(model, 'config', None), 'is_encoder_decoder', False):
        unused.add('encoder_attn')  # the decoder half of a translation model, without its encoder
    parents = dict(model.named_modules())
    found = []
    for name, module in parents.items():
        if module is head or not is_linear(module) or (classifier and f'{name}.'.startswith(classifier)):
            continue
        parent, _, last = name.rpartition('.')
        if last in _NO_ADAPTER or unused & set(parent.split('.')) or (last in _STATE_SPACE_WEIGHTS and _is_state_space(parents[parent])):
            continue
        found.append(name)
    return found


def _is_state_space(module: nn.Module) -> bool:
    return any(hasattr(module, sign) for sign in _STATE_SPACE_SIGNS)


def find_embedding(model: nn.Module) -> list[str]:
    """Full names of the embedding modules."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Embedding)]


def find_norm(model: nn.Module) -> list[str]:
    """Full names of the normalisation modules (LayerNorm, RMSNorm in all their classes)."""
    return [name for name, module in model.named_modules() if 'norm' in type(module).__name__.lower() and name]


def as_regex(names: Iterable[str]) -> str:
    """A compact regular expression that matches these names in full; layer numbers become alternatives.

    `a.0.q, a.1.q, b` → `^(a\\.(0|1)\\.q|b)$`.
    """
    groups: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for name in names:
        numbers = tuple(re.findall(r'(?<=\.)\d+(?=\.|$)', name))
        pattern = tuple(re.split(r'(?<=\.)\d+(?=\.|$)', name))
        groups.setdefault(pattern, []).append(numbers)
    branches = []
    for pattern, numbers in groups.items():
        columns = [sorted(set(column), key=int) for column in zip(*numbers, strict=True)]
        size = 1
        for column in columns:
            size *= len(column)
        if size == len(set(numbers)):
            slots = [re.escape(pattern[0])]
            for column, text in zip(columns, pattern[1:], strict=True):
                slots += [column[0] if len(column) == 1 else f'({"|".join(column)})', re.escape(text)]
            branches.append(''.join(slots))
        else:
            branches += [re.escape(''.join(_weave(pattern, row))) for row in numbers]
    return f'^({"|".join(branches)})$'


def _weave(pattern: tuple[str, ...], row: tuple[str, ...]) -> Iterator[str]:
    yield pattern[0]
    for number, text in zip(row, pattern[1:], strict=True):
        yield number
        yield text


def activate_parameters(
    model: nn.Module, trainable_parameters: Iterable[str] = (), trainable_parameters_regex: str | None = None
) -> int:
    """Make parameters trainable by the start of their name or by a regular expression; returns how many tensors."""
    starts, pattern = tuple(trainable_parameters), _compile(trainable_parameters_regex, 'trainable_parameters_regex')
    return _switch(model, starts, pattern, True, 'trainable_parameters')


def freeze_parameters(
    model: nn.Module,
    freeze_parameters_ratio: float = 0.0,
    freeze_parameters: Iterable[str] = (),
    freeze_parameters_regex: str | None = None,
) -> int:
    """Freeze a share of the parameters from the input side, by the start of their name, or by a regular expression.

    The ratio counts parameters in the order of the model: with 0.5, tensors are frozen as long as no more than half of
    all parameters are. Returns how many tensors the names matched.
    """
    if not 0.0 <= freeze_parameters_ratio <= 1.0:
        raise ModelError(f'--freeze_parameters_ratio must be between 0 and 1, got {freeze_parameters_ratio}.')
    total, seen = sum(p.numel() for p in model.parameters()), 0
    for parameter in model.parameters():
        seen += parameter.numel()
        if freeze_parameters_ratio > 0 and seen <= total * freeze_parameters_ratio:
            parameter.requires_grad_(False)
    starts, pattern = tuple(freeze_parameters), _compile(freeze_parameters_regex, 'freeze_parameters_regex')
    return _switch(model, starts, pattern, False, 'freeze_parameters')


def _compile(pattern: str | None, flag: str) -> re.Pattern | None:
    if not pattern:
        return None
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ModelError(f'--{flag} {pattern!r} is not a regular expression: {error}.') from None


def _switch(model: nn.Module, starts: tuple[str, ...], pattern: re.Pattern | None, on: bool, flag: str) -> int:
    used, count = set(), 0
    for name, parameter in model.named_parameters():
        hits = {start for start in starts if name.startswith(start)}
        matched = pattern is not None and pattern.search(name) is not None
        if hits or matched:
            used |= hits
            count += 1
            if parameter.is_floating_point():
                parameter.requires_grad_(on)
    idle = [start for start in starts if start not in used]
    if idle or (pattern is not None and not count):
        example = ', '.join(name for name, _ in list(model.named_parameters())[:2])
        what = repr(idle[0]) if idle else f'the expression {pattern.pattern!r}'
        raise ModelError(f'--{flag}: no parameter matches {what};', f'names look like {example}.')
    return count


def get_model_parameter_info(model: nn.Module, name: str | None = None) -> str:
    """One line: class, parameters in millions, how many are trainable, buffers."""
    total = sum(stored_size(p) for p in model.parameters())
    trainable = sum(stored_size(p) for p in model.parameters() if p.requires_grad)
    buffers = sum(b.numel() for b in model.buffers())
    share = 100 * trainable / total if total else 0.0
    return (
        f'{name or type(model).__name__}: {total / 1e6:.4f}M Params ({trainable / 1e6:.4f}M Trainable '
        f'[{share:.4f}%]), {buffers / 1e6:.4f}M Buffers.'
    )


def stored_size(parameter: nn.Parameter) -> int:
    """Number of weights of a parameter; two for each byte of a 4-bit one, the gathered size under ZeRO-3."""
    count = parameter.numel() or getattr(parameter, 'ds_numel', 0)
    return 2 * count if type(parameter).__name__ == 'Params4bit' else count
