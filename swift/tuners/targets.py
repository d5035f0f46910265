"""From `--target_modules`, `--target_regex`, `--target_parameters`, `--modules_to_save` to names in this model."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from torch import nn

from swift.core.errors import ModelError, did_you_mean
from swift.core.heads import SEQUENCE, TOKEN, head_kind, head_names
from swift.core.log import get_logger
from swift.tuners.modules import (
    as_regex,
    find_all_linears,
    find_embedding,
    find_norm,
    input_embedding,
    is_linear,
    name_of,
    output_head,
)
from swift.tuners.parts import VIT, get_multimodal_target_regex, parts_of

logger = get_logger(__name__)

if TYPE_CHECKING:
    from swift.arguments.tuner import TunerArgs

_ALL = ('all-linear', 'all_linear', 'all', 'ALL', 'DEFAULT', 'AUTO')


def target_modules(
    model: nn.Module, args: TunerArgs, *, multimodal: bool = False, skipped: frozenset[str] = frozenset()
) -> list[str] | str:
    """What PEFT's `target_modules` should be: short name endings where they say exactly the same, else an expression.

    `skipped` are last name components that all-linear leaves out beside its own. Raises ModelError for a name that matches nothing (with the nearest one), so a typo never trains less in silence.
    """
    if args.target_regex:
        return _checked_regex(model, args.target_regex)
    named = [name for name in args.target_modules if name not in _ALL]
    wanted: list[str] = []
    for target in args.target_modules:
        found = _expand(model, target, args if multimodal else None)
        wanted += [name for name in found if target not in _ALL or name.rpartition('.')[2] not in skipped]
    if multimodal and named:
        _tell_towers(model, wanted, args)
    return shortest(model, list(dict.fromkeys(wanted)))


def _tell_towers(model: nn.Module, wanted: list[str], args: TunerArgs) -> None:
    """Names such as q_proj are often those of a vision tower's layers too."""
    parts = parts_of(model)
    count = sum(parts.of(name) == VIT for name in set(wanted))
    if count and args.freeze_vit:
        logger.info('--target_modules names %d modules of the vision and audio towers too; llm.*.NAME means the language model only', count)


def _checked_regex(model: nn.Module, expression: str) -> str:
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise ModelError(f'--target_regex {expression!r} is not a regular expression: {error}.') from None
    if not any(pattern.fullmatch(name) for name, _ in model.named_modules()):
        example = ', '.join(find_all_linears(model)[:2])
        raise ModelError(f'--target_regex {expression!r} matches no module;', f'names look like {example}.')
    return expression


def _expand(model: nn.Module, target: str, args: TunerArgs | None) -> list[str]:
    """Full names that one entry of --target_modules means. `args`: of a multimodal model, whose frozen parts all-linear leaves out."""
    if target in _ALL:
        if args is not None:
            pattern = re.compile(get_multimodal_target_regex(model, args.freeze_llm, args.freeze_vit, args.freeze_aligner))
            return [name for name in find_all_linears(model) if pattern.match(name)]
        return find_all_linears(model)
    if target == 'all-embedding':
        return find_embedding(model)
    names = [name for name, _ in model.named_modules() if name]
    if any(sign in target for sign in '*?['):
        parts = parts_of(model)
        found = [name for name, module in model.named_modules() if is_linear(module) and _glob(name, target, parts.of(name))]
    else:
        found = [name for name in names if name == target or name.endswith('.' + target)]
    if not found:
        linears = sorted({name.rpartition('.')[2] for name in find_all_linears(model)})
        hint = did_you_mean(target.rpartition('.')[2], linears) or f'linear layers here: {", ".join(linears)}'
        raise ModelError(f'--target_modules {target!r} matches no module;', hint)
    return found


def _glob(name: str, target: str, own: str) -> bool:
    """Wildcards over full names, or over their end; a leading `llm.`, `vit.` or `aligner.` means that part."""
    part, _, rest = target.partition('.')
    if part in ('llm', 'vit', 'aligner') and rest:
        return own == part and (fnmatchcase(name, rest) or fnmatchcase(name, f'*.{rest}'))
    return fnmatchcase(name, target) or fnmatchcase(name, f'*.{target}')


def shortest(model: nn.Module, wanted: list[str]) -> list[str] | str:
    """The shortest way to say these modules and no others: name endings, else a regular expression."""
    every = [name for name, _ in model.named_modules() if name]
    chosen = set(wanted)
    for parts in (1, 2, 3):
        endings = sorted({'.'.join(name.split('.')[-parts:]) for name in wanted})
        if any(ending[0].isdigit() for ending in endings):
            continue
        reached = {name for name in every if any(name == end or name.endswith('.' + end) for end in endings)}
        if reached == chosen:
            return endings
    return as_regex(wanted)


def tower_ranks(model: nn.Module, modules: list[str] | str, rank: int | None) -> dict[str, int]:
    """PEFT's `rank_pattern` for `--vit_lora_rank`: the adapted modules of the vision and audio towers in one expression → rank."""
    if rank is None:
        return {}
    named = [modules] if isinstance(modules, str) else [rf'(.*\.)?{re.escape(name)}' for name in modules]
    parts = parts_of(model)
    inside = [name for name, _ in model.named_modules() if parts.of(name) == VIT and any(re.fullmatch(p, name) for p in named)]
    if not inside:
        raise ModelError('--vit_lora_rank has no effect: no adapter is in a vision or audio tower;', 'give --freeze_vit false, or drop it.')
    return {as_regex(inside).strip('^$'): rank}


def target_parameters(model: nn.Module, wanted: list[str]) -> list[str] | None:
    """Checked names of bare parameters; None when none were asked for."""
    if not wanted:
        return None
    names = [name for name, _ in model.named_parameters()]
    for target in wanted:
        if not any(name == target or name.endswith('.' + target) for name in names):
            stacked = sorted({_ending(name) for name, p in model.named_parameters() if p.dim() == 3})
            hint = did_you_mean(target, stacked) or (f'3-D parameters here: {", ".join(stacked)}' if stacked else None)
            raise ModelError(f'--target_parameters {target!r} matches no parameter;', hint)
    return list(wanted)


def _ending(name: str) -> str:
    return '.'.join(name.split('.')[-2:])


def modules_to_save(model: nn.Module, wanted: list[str]) -> list[str] | None:
    """Names for PEFT's `modules_to_save`, with `embedding`, `lm_head`, `all-embedding`, `all-norm` understood."""
    if not wanted:
        return None
    names = [name for name, _ in model.named_modules() if name]
    chosen: list[str] = []
    for entry in wanted:
        if entry in ('embedding', 'embed_tokens', 'wte') and input_embedding(model) is not None:
            chosen.append(_last(model, input_embedding(model)))
        elif entry in ('lm_head', 'head') and output_head(model) is not None:
            chosen.append(_last(model, output_head(model)))
        elif entry == 'all-embedding':
            chosen += sorted({name.rpartition('.')[2] for name in find_embedding(model)})
        elif entry == 'all-norm':
            chosen += sorted({name.rpartition('.')[2] for name in find_norm(model)})
        elif any(name == entry or name.endswith('.' + entry) for name in names):
            chosen.append(entry)
        else:
            known = {name.rpartition('.')[2] for name in names}
            raise ModelError(f'--modules_to_save {entry!r} matches no module;', did_you_mean(entry, known))
    return list(dict.fromkeys(chosen))


_PEFT_HEADS = ('classifier', 'score')
"""Names that PEFT trains in full by itself in classifiers."""


def with_head(model: nn.Module, saved: list[str] | None) -> list[str] | None:
    """`modules_to_save` with the classification head, which is always trained in full; without the names that PEFT adds itself."""
    names = list(dict.fromkeys([*(saved or []), *head_names(model)]))
    if head_kind(model) in (SEQUENCE, TOKEN):
        names = [name for name in names if name not in _PEFT_HEADS]
    return names or None


def found_names(model: nn.Module, names: list[str]) -> list[str]:
    """Those of `modules_to_save` that the model has, each once."""
    every = [name for name, _ in model.named_modules()]
    return [name for name in dict.fromkeys(names) if any(own == name or own.endswith('.' + name) for own in every)]


def _last(model: nn.Module, module: Any) -> str:
    return (name_of(model, module) or '').rpartition('.')[2]
