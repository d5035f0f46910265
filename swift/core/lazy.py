"""Lazy faces: a package that lists its public names and imports each one when it is first used (PEP 562)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def lazy_face(package: str, names: dict[str, str]) -> tuple[Callable, Callable, list[str]]:
    """`__getattr__, __dir__, __all__ = lazy_face(__name__, {'Name': 'module:attribute', …})`.

    A value without `:attribute` takes the attribute of the same name as the key; a value ending in `:` is the module itself.
    """

    def __getattr__(name: str) -> Any:
        if name not in names:
            raise AttributeError(f'module {package!r} has no attribute {name!r}')
        module, separator, attribute = names[name].partition(':')
        loaded = import_module(module)
        value = loaded if separator and not attribute else getattr(loaded, attribute or name)
        setattr(sys.modules[package], name, value)
        return value

    def __dir__() -> list[str]:
        return sorted(names)

    return __getattr__, __dir__, sorted(names)
