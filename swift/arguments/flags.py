"""Facts about every flag of a command, read off the argument classes."""

from __future__ import annotations

import ast
import sys
import types
import typing
from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import Any

from swift.arguments.commands import Arguments


@dataclass(frozen=True)
class Flag:
    """One flag. `kind` is bool, int, float, number, str, list, dict or json (text or dict)."""

    name: str
    kind: str
    default: Any
    group: type
    """The class that declares it."""
    item: str = 'str'
    """Kind of the items of a list."""
    choices: tuple[str, ...] = ()
    """The only values allowed. Empty: any."""
    nullable: bool = False
    split: bool = True
    """Whether a list may be written with commas."""
    bare: str | None = None
    """The value of the flag written alone. None: it needs one (bool flags are true)."""

    @property
    def type_name(self) -> str:
        """The type as help shows it."""
        names = {'number': 'int|float', 'json': 'str|JSON', 'dict': 'JSON', 'list': f'{self.item} …'}
        return names.get(self.kind, self.kind)


@cache
def flags_of(cls: type) -> dict[str, Flag]:
    """Every flag of an argument class, by name, in help order."""
    hints = typing.get_type_hints(cls)
    return {f.name: _flag(f, hints[f.name], _group(cls, f.name)) for f in fields(cls)}


def _flag(f: Any, hint: Any, group: type) -> Flag:
    default = f.default if f.default is not MISSING else f.default_factory()
    options = [a for a in typing.get_args(hint) if a is not type(None)] if _is_union(hint) else [hint]
    nullable = _is_union(hint) and type(None) in typing.get_args(hint)
    kind, item, choices = _kind(options)
    return Flag(
        f.name, kind, default, group, item, choices, nullable, f.metadata.get('split', True), f.metadata.get('bare')
    )


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _kind(options: list[Any]) -> tuple[str, str, tuple[str, ...]]:
    """(kind, kind of list items, choices) of a union's members."""
    if set(options) == {int, float}:
        return 'number', 'str', ()
    if set(options) == {str, dict}:
        return 'json', 'str', ()
    (hint,) = options
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return 'str', 'str', tuple(typing.get_args(hint))
    if origin is list:
        return 'list', typing.get_args(hint)[0].__name__, ()
    if origin is dict or hint is dict:
        return 'dict', 'str', ()
    return hint.__name__, 'str', ()


def _group(cls: type, name: str) -> type:
    """The argument group that declares a field, so that help shows it with its kin, also where a command changes its default."""
    owners = [c for c in cls.__mro__ if name in c.__dict__.get('__annotations__', {})]
    return next((c for c in owners if not issubclass(c, Arguments)), owners[-1])


@cache
def help_of(cls: type) -> dict[str, str]:
    """The docstring line under every field of an argument class."""
    texts: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        if '__annotations__' in owner.__dict__:
            texts.update(_class_texts(owner.__module__).get(owner.__name__, {}))
    return texts


@cache
def _class_texts(module: str) -> dict[str, dict[str, str]]:
    """For every class of a module file: field name → the string literal that follows it."""
    with open(sys.modules[module].__file__, encoding='utf-8') as file:
        tree = ast.parse(file.read())
    found: dict[str, dict[str, str]] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            found[node.name] = {
                field.target.id: text.value.value
                for field, text in zip(node.body, node.body[1:], strict=False)
                if isinstance(field, ast.AnnAssign)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            }
    return found
