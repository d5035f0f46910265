"""One mapping class for every axis that users extend: losses, templates, models, callbacks, …

    losses = Registry('loss', {'cross_entropy': 'swift.objectives.sft:cross_entropy'})
    losses['mine'] = my_loss            # registers
    losses.register('mine')(my_loss)    # the same, as a decorator
    losses['crossentropy']              # SwiftError: … did you mean 'cross_entropy'?
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from importlib import import_module
from typing import Any

from swift.core.errors import SwiftError, did_you_mean


class Registry(MutableMapping):
    """Name → object. A value given as `"module:attribute"` is imported when it is first asked for.

    A missing name raises `SwiftError` with the nearest names. Registering a name twice replaces the
    entry only if it is the same object by import path (a plugin file loaded twice), else it is an error;
    `replace` says it is meant.
    """

    def __init__(self, kind: str, entries: dict[str, Any] | None = None):
        self.kind = kind
        self._entries: dict[str, Any] = dict(entries or {})

    def __getitem__(self, name: str) -> Any:
        if name not in self._entries:
            near = did_you_mean(str(name), self._entries, n=2)
            known = ', '.join(sorted(map(str, self._entries))[:40])
            raise SwiftError(f'unknown {self.kind} {name!r};', near or f'known: {known}')
        value = self._entries[name]
        if isinstance(value, str) and ':' in value:
            module, _, attribute = value.partition(':')
            value = self._entries[name] = getattr(import_module(module), attribute)
        return value

    def __setitem__(self, name: str, value: Any) -> None:
        old = self._entries.get(name)
        if old is not None and _identity(old) != _identity(value):
            raise SwiftError(f'{self.kind} {name!r} is registered already;', 'choose another name, or call replace()')
        self._entries[name] = value

    def replace(self, name: str, value: Any) -> None:
        """Register `value`, on purpose in place of what was there."""
        self._entries[name] = value

    def __delitem__(self, name: str) -> None:
        del self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:  # MutableMapping would import the entry to answer
        return name in self._entries

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self._entries else default

    def register(self, name: str) -> Callable[[Any], Any]:
        """Decorator: `@registry.register('name')`."""

        def add(value: Any) -> Any:
            self[name] = value
            return value

        return add

    def __repr__(self) -> str:
        return f'Registry({self.kind}: {", ".join(map(str, self._entries))})'


def _identity(value: Any) -> Any:
    if isinstance(value, str):
        return value
    module, name = getattr(value, '__module__', None), getattr(value, '__qualname__', None)
    return f'{module}:{name}' if module and name else id(value)
