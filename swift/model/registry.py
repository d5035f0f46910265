"""Which models have a name: families known as data, and what users register.

    register_model(ModelMeta('my_llava', [ModelGroup([Model('org/my-llava')])], template='llava1_5_hf'))

    @register_model('my-model-7b')
    def my_model():
        return ModelMeta(model_id='org/my-model-7b', template='chatml')

A family is only a set of facts (ids, template name, architectures): a model of an unknown family loads just as well.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from swift.core.errors import ModelError, did_you_mean
from swift.core.registry import Registry

_FACTS = os.path.join(os.path.dirname(__file__), 'families.json')
_OLD_NAMES = {'codeqwen-7b': 'codeqwen1.5-7b', 'codeqwen-7b-chat': 'codeqwen1.5-7b-chat'}
"""Checkpoint names of ms-swift 2.x that are not the lower-case id of a checkpoint."""


@dataclass(frozen=True)
class Model:
    """One checkpoint: its id on ModelScope and on the Hugging Face hub (the same unless given), or a local path."""

    ms_model_id: str | None = None
    hf_model_id: str | None = None
    model_path: str | None = None
    ms_revision: str | None = None
    hf_revision: str | None = None

    @property
    def ids(self) -> tuple[str, ...]:
        """Every id under which the checkpoint is known."""
        return tuple(dict.fromkeys(name for name in (self.ms_model_id, self.hf_model_id) if name))

    def id(self, use_hf: bool = False) -> str | None:
        """The id on the asked hub, or on the other one where it exists only there; a local path wins."""
        names = (self.hf_model_id, self.ms_model_id) if use_hf else (self.ms_model_id, self.hf_model_id)
        return self.model_path or next((name for name in names if name), None)


@dataclass(frozen=True)
class ModelGroup:
    """Checkpoints that share a template and requirements."""

    models: list[Model] = field(default_factory=list)
    template: str | None = None
    ignore_patterns: list[str] | None = None
    requires: list[str] | None = None
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ModelMeta:
    """Facts about a family of checkpoints.

    `get_function(model_dir, info, model_kwargs, load_model=True, *, model_meta=None) -> (model | None, processor)`
    replaces the standard loading; None: transformers' Auto classes load it. `model_id`, `arch` and `task` are the
    short form of one checkpoint.
    """

    model_type: str | None = None
    model_groups: list[ModelGroup | Any] = field(default_factory=list)
    get_function: Callable[..., Any] | None = None
    template: str | None = None
    architectures: list[str] = field(default_factory=list)
    model_arch: str | None = None
    is_multimodal: bool = False
    requires: list[str] = field(default_factory=list)
    additional_saved_files: list[str] = field(default_factory=list)
    task_type: str | None = None
    model_id: str | None = None
    arch: str | None = None
    task: str | None = None
    tags: list[str] = field(default_factory=list)

    @property
    def models(self) -> list[Model]:
        """Every checkpoint of the family."""
        named = [Model(self.model_id, self.model_id)] if self.model_id else []
        return named + [model for group in self.model_groups if isinstance(group, ModelGroup) for model in group.models]

    def template_of(self, model: Model | None) -> str | None:
        """Template name of one checkpoint: its group's, else the family's."""
        for group in self.model_groups:
            if isinstance(group, ModelGroup) and group.template and model in group.models:
                return group.template
        return self.template


class _Families(Registry):
    """The registry of ModelMeta, filled from families.json when it is first asked."""

    def __init__(self) -> None:
        super().__init__('model_type')
        self._loaded = False

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        with open(_FACTS, encoding='utf-8') as file:
            facts = json.load(file)
        for name, fact in facts.items():
            self._entries.setdefault(name, _from_facts(name, fact))

    def __getitem__(self, name: str) -> Any:
        self._load()
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        self._load()
        return super().__contains__(name)

    def __iter__(self) -> Iterator[str]:
        self._load()
        return super().__iter__()

    def __len__(self) -> int:
        self._load()
        return super().__len__()

    def __setitem__(self, name: str, value: Any) -> None:
        if callable(value) and not isinstance(value, ModelMeta):  # models_map['mine'] = function, as a decorator would
            value = _complete(value(), name)
        super().__setitem__(name, value)


def _from_facts(name: str, fact: dict[str, Any]) -> ModelMeta:
    return ModelMeta(
        model_type=name,
        model_groups=[ModelGroup([Model(*ids) for ids in fact['models']])],
        template=fact.get('template'),
        architectures=fact.get('architectures', []),
        model_arch=fact.get('model_arch'),
        is_multimodal=fact.get('multimodal', False),
        requires=fact.get('requires', []),
        task_type=fact.get('task_type'),
    )


MODEL_MAPPING: Registry = _Families()
"""model_type → ModelMeta."""
models_map = MODEL_MAPPING


def register_model(meta: ModelMeta | str, *, exist_ok: bool = False) -> Any:
    """Register a family: `register_model(ModelMeta(...))`, or `@register_model('name')` on a function that returns one.

    Returns the ModelMeta (call) or the function unchanged (decorator). A name that is taken is an error unless
    `exist_ok`.
    """
    if isinstance(meta, ModelMeta):
        return _add(_complete(meta, None), exist_ok)
    if not isinstance(meta, str):
        raise ModelError(f'register_model takes a ModelMeta or a name, not {type(meta).__name__}.')

    def decorate(function: Callable[[], ModelMeta]) -> Callable[[], ModelMeta]:
        made = function()
        if not isinstance(made, ModelMeta):
            raise ModelError(f'@register_model({meta!r}): the function must return a ModelMeta, not {type(made).__name__}.')
        _add(_complete(made, meta), exist_ok)
        return function

    return decorate


def _complete(meta: ModelMeta, name: str | None) -> ModelMeta:
    """The meta with its name filled in and `arch` / `task` understood."""
    model_type = name or meta.model_type or (meta.model_id or '').rpartition('/')[2].lower()
    if not model_type:
        raise ModelError('a ModelMeta needs a model_type (or a model_id).')
    groups = [group if isinstance(group, ModelGroup) else ModelGroup([]) for group in meta.model_groups]
    return replace(meta, model_type=model_type, model_groups=groups, model_arch=meta.model_arch or meta.arch)


def _add(meta: ModelMeta, exist_ok: bool) -> ModelMeta:
    if meta.model_type in MODEL_MAPPING and not exist_ok and MODEL_MAPPING[meta.model_type] != meta:
        raise ModelError(
            f'model_type {meta.model_type!r} is registered already;', 'choose another name, or pass exist_ok=True.'
        )
    MODEL_MAPPING.replace(meta.model_type, meta)
    return meta


def get_model_list() -> list[str]:
    """Names that `--model_type` accepts as a family: the built-in ones and those registered, sorted."""
    return sorted(MODEL_MAPPING)


def normalise(name: str) -> str:
    """A checkpoint's name without owner, case and punctuation: `Qwen/Qwen2.5-7B-Instruct` → `qwen257binstruct`."""
    base = name.rstrip('/').rpartition('/')[2].lower().replace('1half', '1.5')
    return re.sub(r'[^a-z0-9]', '', re.sub(r'^meta-', '', base))


def find_checkpoint(name: str) -> tuple[ModelMeta, Model] | None:
    """The family and checkpoint that a hub id, its basename, or a 2.x alias such as `qwen2-7b-instruct` means."""
    wanted = normalise(_OLD_NAMES.get(name.lower(), name))
    nearly = None
    for meta in MODEL_MAPPING.values():
        for model in meta.models:
            if any(known.lower() == name.lower() for known in model.ids):
                return meta, model
            if nearly is None and any(normalise(known) == wanted for known in model.ids):
                nearly = meta, model
    return nearly


def find_family(model_type: str | None, name: str | None, architecture: str | None) -> tuple[ModelMeta | None, Model | None]:
    """The family of a checkpoint: by `--model_type`, by its id, then by an architecture that only one family has."""
    found = find_checkpoint(name) if name else None
    if model_type:
        if model_type in MODEL_MAPPING:
            return MODEL_MAPPING[model_type], found[1] if found and found[0].model_type == model_type else None
        alias = find_checkpoint(model_type)
        if alias:
            return alias
        return None, None  # the configuration's own model_type, checked by the caller
    if found:
        return found
    owners = [meta for meta in MODEL_MAPPING.values() if architecture and architecture in meta.architectures]
    return (owners[0], None) if len(owners) == 1 else (None, None)


def checkpoint_of(model_type: str, use_hf: bool = False) -> str:
    """The id to load when only `--model_type` is given (its 2.x meaning: the name of one checkpoint)."""
    if model_type in MODEL_MAPPING:
        models = MODEL_MAPPING[model_type].models
        ids = [model.id(use_hf) for model in models if model.id(use_hf)]
        if len(ids) == 1:
            return ids[0]
        shown = ', '.join(ids[:3]) + (', …' if len(ids) > 3 else '')
        raise ModelError(f'model_type {model_type!r} names a family of {len(ids)} checkpoints;', f'say which with --model ({shown}).')
    found = find_checkpoint(model_type)
    if found and found[1].id(use_hf):
        return found[1].id(use_hf)
    names = {known.rpartition('/')[2].lower() for meta in MODEL_MAPPING.values() for model in meta.models for known in model.ids}
    hint = did_you_mean(model_type.lower(), [*names, *MODEL_MAPPING], n=2)
    raise ModelError(f'unknown model_type {model_type!r};', hint or 'pass --model with a directory or an id.')


class _Names(type):
    """Attribute access that returns the attribute's own name, checked against what is registered."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith('__'):
            raise AttributeError(name)
        if name not in cls.known():
            raise AttributeError(f'{cls.__name__} has no {name!r}; {did_you_mean(name, cls.known())}'.rstrip('; '))
        return name

    def __dir__(cls) -> list[str]:
        return sorted(cls.known())


class LLMModelType(metaclass=_Names):
    """`LLMModelType.qwen3 == 'qwen3'`, for every registered model_type."""

    @classmethod
    def known(cls) -> set[str]:
        """All names."""
        return set(MODEL_MAPPING)


class MLLMModelType(LLMModelType):
    """The same names, as multimodal families are spelled."""


class ModelArch(metaclass=_Names):
    """`ModelArch.llava_hf == 'llava_hf'`: names of module layouts."""

    @classmethod
    def known(cls) -> set[str]:
        """All names."""
        return {meta.model_arch for meta in MODEL_MAPPING.values() if meta.model_arch}
