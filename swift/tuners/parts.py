"""Which module of a multimodal model belongs to what: language model, towers, aligner.

The model says it itself: `get_decoder()` is the language model, and what stands beside it are towers (vision, audio) and what
joins them to it. Where an architecture is built otherwise, a row of `parts.json` says so; for models that say nothing (code
that comes with a checkpoint), names decide.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from torch import nn

from swift.core.errors import ModelError
from swift.core.heads import head_names
from swift.tuners.modules import as_regex, find_all_linears, input_embedding, output_head
from swift.tuners.registry import is_adapter, unwrap

LLM, VIT, ALIGNER, FIXED = 'llm', 'vit', 'aligner', 'fixed'
"""FIXED is what a loss on text never reaches: codecs, vector-quantising tokenizers, parts that speak or paint."""

_MEDIA = re.compile(r'vision|visual|image|^img|video|audio|speech|acoustic|semantic|protein|^vit$|^vpm$|^apm$')
_JOIN = re.compile(
    r'project|_proj$|^proj|merger|connector|aligner|adapt|resampler|perceiver|qformer|^mlp1$|neck|embed|newline|separator|query|^vte$'
)
_JOIN_INSIDE = re.compile(r'projector|merger|connector|aligner|^mlp1$|visual_projection|vision_embed_tokens|embed_(vision|audio)|^resampler$')
_WRAPPERS = {'base_layer', 'original_module', 'token_adapter'}


class Parts:
    """Module paths of one model, each with its part. The longest path that a name starts with decides."""

    def __init__(self, prefixes: dict[str, str], root: str = ''):
        self.prefixes = prefixes
        """Path in the bare model → part; '' is the model itself."""
        self._root = root

    def of(self, name: str) -> str:
        """The part of a module or parameter, by its name in the model (wrapped or bare)."""
        name = name.removeprefix(self._root)
        pieces = [piece for piece in name.split('.') if piece not in _WRAPPERS]
        for end in range(len(pieces), -1, -1):
            part = self.prefixes.get('.'.join(pieces[:end]))
            if part is not None:
                return part
        return LLM

    def paths(self, part: str) -> list[str]:
        """The paths of a part, in the order of the model."""
        return [path for path, own in self.prefixes.items() if own == part]


def parts_of(model: Any) -> Parts:
    """The parts of a model, bare or with adapters on it."""
    outer = unwrap(model)
    bare, root = (outer.get_base_model(), 'base_model.model.') if is_adapter(outer) else (outer, '')
    names = [*(name for name, _ in bare.named_modules()), *(name for name, _ in bare.named_parameters())]
    rows = dict(_exceptions(bare, names))
    below = tuple(f'{path}.' for path in rows)
    found = {'': LLM, **{path: part for path, part in _found(bare).items() if not path.startswith(below)}, **rows}
    order = {name: number for number, name in enumerate(names)}
    parts = Parts({}, root)
    for path in sorted(found, key=lambda path: order.get(path, 0)):  # parents first: what says the same as its parent goes without saying
        if not path or parts.of(root + path) != found[path]:
            parts.prefixes[path] = found[path]
    return parts


def _found(model: Any) -> dict[str, str]:
    """Path → part, as the model's structure says, else as names do."""
    if isinstance(getattr(model, 'thinker', None), nn.Module):  # a model that also speaks: what it understands with
        return {_join('thinker', path): part for path, part in _found(model.thinker).items()}
    modules = dict(model.named_modules())
    decoder = _decoder_path(model, modules)
    container = _container(modules, decoder) if decoder is not None else None
    if container is None:
        return {name: part_of(name) for name in modules if name}
    found = dict(_beside(modules, container, decoder))
    found |= dict(_inside(modules, [path for path, part in found.items() if part == VIT]))
    ours = [name for name, module in modules.items() if module in (input_embedding(model), output_head(model))]
    return {path: part for path, part in found.items() if path not in ours}


def unreached(model: Any) -> tuple[str, ...]:
    """Paths inside towers (as `named_modules` of the model has them) whose output the language model never gets: pooling heads,
    and layers behind the one whose hidden states are taken."""
    outer = unwrap(model)
    bare, root = (outer.get_base_model(), 'base_model.model.') if is_adapter(outer) else (outer, '')
    found: list[str] = []
    for path in parts_of(model).paths(VIT):
        tower = dict(bare.named_modules()).get(path)
        if tower is not None:
            inside = [name for name, module in tower.named_modules() if type(module).__name__.endswith('AttentionPoolingHead')]
            found += [root + _join(path, name) for name in inside + _behind(getattr(bare, 'config', None), tower)]
    return tuple(found)


def _behind(config: Any, tower: nn.Module) -> list[str]:
    """Layers of a tower behind the last one of `vision_feature_layer`, and the norm after all layers."""
    if getattr(config, 'model_type', None) not in _facts()['hidden_states']:
        return []
    chosen = getattr(config, 'vision_feature_layer', None)
    chosen = getattr(config, 'vision_feature_layers', None) if chosen is None else chosen
    stacks = [(name, module) for name, module in tower.named_modules() if isinstance(module, nn.ModuleList)]
    if chosen is None or not stacks:
        return []
    name, layers = max(stacks, key=lambda item: len(item[1]))
    used = max(layer if layer >= 0 else len(layers) + 1 + layer for layer in ([chosen] if isinstance(chosen, int) else chosen))
    if used >= len(layers):
        return []
    norms = [norm for norm, _ in tower.named_modules() if norm.rpartition('.')[2] in ('post_layernorm', 'layernorm')]
    return [_join(name, str(number)) for number in range(used, len(layers))] + [norm for norm in norms if not norm.startswith(f'{name}.')]


def get_multimodal_target_regex(
    model: nn.Module, freeze_llm: bool = False, freeze_vit: bool = True, freeze_aligner: bool = True
) -> str:
    """A regular expression over the full names of the linear modules in the parts that are not frozen."""
    frozen = {part for part, flag in ((LLM, freeze_llm), (VIT, freeze_vit), (ALIGNER, freeze_aligner), (FIXED, True)) if flag}
    parts, idle = parts_of(model), tuple(f'{path}.' for path in unreached(model))
    names = [name for name in find_all_linears(model) if parts.of(name) not in frozen and not f'{name}.'.startswith(idle)]
    if not names:
        raise ModelError('freeze_llm, freeze_vit and freeze_aligner together leave no linear layer to train.')
    return as_regex(names)


def freeze_parts(model: nn.Module, freeze_llm: bool, freeze_vit: bool, freeze_aligner: bool) -> None:
    """`requires_grad` off in the parts that are frozen, and in what a loss on text never reaches. A new head always learns."""
    frozen = {part for part, flag in ((LLM, freeze_llm), (VIT, freeze_vit), (ALIGNER, freeze_aligner), (FIXED, True)) if flag}
    parts, idle = parts_of(model), tuple(f'{path}.' for path in unreached(model))
    heads = tuple(f'{name}.' for name in head_names(model))
    for name, parameter in model.named_parameters():
        if (parts.of(name) in frozen and not (heads and name.startswith(heads))) or name.startswith(idle):
            parameter.requires_grad_(False)


def part_of(name: str) -> str:
    """`vit`, `aligner` or `llm`: what a module is by its name alone."""
    pieces = name.split('.')
    if 'language_model' in pieces:
        return LLM
    if any(_JOIN_INSIDE.search(piece) for piece in pieces):
        return ALIGNER
    return VIT if any(_MEDIA.search(piece) for piece in pieces) else LLM


def _decoder_path(model: Any, modules: dict[str, nn.Module]) -> str | None:
    """Where the language model is; None: the model doesn't say."""
    try:
        decoder = model.get_decoder()
    except (AttributeError, NotImplementedError):
        return None
    return next((name for name, module in modules.items() if module is decoder), None) if decoder is not model else None


def _container(modules: dict[str, nn.Module], decoder: str) -> str | None:
    """The module in which towers stand beside the language model (or in which they are, where it is the language model itself)."""
    pieces = decoder.split('.')
    above = ['.'.join(pieces[:end]) for end in range(len(pieces), -1, -1)]
    for wanted in (_MEDIA, re.compile('^encoder$')):
        for path in above[0 if wanted is _MEDIA else 1 :]:
            if any(wanted.search(child) for child, _ in modules[path].named_children() if not _holds(path, child, decoder)):
                return path
    return None


def _holds(path: str, child: str, decoder: str) -> bool:
    return f'{decoder}.'.startswith(f'{_join(path, child)}.')


def _beside(modules: dict[str, nn.Module], container: str, decoder: str) -> Iterator[tuple[str, str]]:
    """The parts of what stands beside the language model, single parameters included."""
    alone = container != decoder
    for child, module in modules[container].named_children():
        if _holds(container, child, decoder) or not any(True for _ in module.parameters()):
            continue
        if _JOIN.search(child) and (alone or _MEDIA.search(child) or _JOIN_INSIDE.search(child)):
            yield _join(container, child), ALIGNER
        elif _MEDIA.search(child) or (alone and ('encoder' in child or 'tower' in child)):
            yield _join(container, child), VIT
        elif alone and child not in ('lm_head', 'score', 'classifier', 'objective'):
            yield _join(container, child), ALIGNER
    if alone:
        for name, _ in modules[container].named_parameters(recurse=False):
            yield _join(container, name), ALIGNER


def _inside(modules: dict[str, nn.Module], towers: list[str]) -> Iterator[tuple[str, str]]:
    """What joins a tower to the language model from within the tower (mergers)."""
    for path in towers:
        for name, module in modules[path].named_children():
            if re.search(r'merger|projector|connector|aligner', name) and any(True for _ in module.parameters()):
                yield _join(path, name), ALIGNER


@lru_cache
def _facts() -> dict[str, Any]:
    """`parts`: model type → path ending → part, where structure and names mislead; `*` is for every model. `hidden_states`: model types
    that take the hidden states of `vision_feature_layer` instead of the tower's output."""
    with open(os.path.join(os.path.dirname(__file__), 'parts.json'), encoding='utf-8') as file:
        return json.load(file)


def _exceptions(model: Any, names: list[str]) -> Iterator[tuple[str, str]]:
    """What `parts.json` says about this model type."""
    kind = getattr(getattr(model, 'config', None), 'model_type', None)
    rows = {**_facts()['parts']['*'], **_facts()['parts'].get(kind, {})}
    for name in names:
        for ending, part in rows.items():
            if name == ending or name.endswith('.' + ending):
                yield name, part


def _join(path: str, child: str) -> str:
    return f'{path}.{child}' if path else child
