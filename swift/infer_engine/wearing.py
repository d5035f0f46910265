"""The adapters of a model: known by name, loaded when they are first asked for, put on for the rows of each forward."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch

from swift.core.errors import SwiftError
from swift.infer_engine.loading import active_adapter, check_adapter, with_adapters
from swift.infer_engine.mixing import Mix, Runs, mixes
from swift.infer_engine.probe import slot_attention_on
from swift.infer_engine.protocol import AdapterRequest

SLOTS, STATIC = 'slots', 'static'
ANY = object()
"""In the place of an adapter's name: a lane of rows that may have different ones."""

Lane = tuple[str, Any]
"""Way of batching and adapter: a name, None (the base model), ANY."""

_turns: WeakKeyDictionary[torch.nn.Module, threading.Lock] = WeakKeyDictionary()
_turns_change = threading.Lock()


def _turn_of(model: Any) -> threading.Lock:
    """The lock of a model, the same with and without adapters around it."""
    base = model.get_base_model() if hasattr(model, 'get_base_model') else model
    with _turns_change:
        return _turns.setdefault(base, threading.Lock())


class Wardrobe:
    """Adapters of one model. Names may be asked for from any thread; everything else happens in the worker's."""

    def __init__(self, model: Any):
        self.model = model
        self.default = active_adapter(model)
        self._paths: dict[str, str | None] = {self.default: None} if self.default else {}
        self._names: dict[str, str] = {}
        """Names in requests → names on the model."""
        self._taken = {'base_model', 'base_layer', 'model', *(part for path, _ in model.named_modules() for part in path.split('.'))}
        self._lock = threading.Lock()
        self._mixes: dict[str, bool] = {}
        """Loaded adapters, and whether they can share forwards with others."""
        self._mix: Mix | None = None
        self._now: Lane | None = None
        self._put_on = ExitStack()

    def name(self, adapter: AdapterRequest | None) -> str | None:
        """The name that rows of this request carry; None: the base model. Raises SwiftError for two directories of one name."""
        if adapter is None:
            return self.default
        with self._lock:
            if adapter.name not in self._names:
                self._names[adapter.name] = self._inner(adapter.name)
            name = self._names[adapter.name]
            known = self._paths.get(name, False)
            if known is not False and known not in (None, adapter.path):
                raise SwiftError(
                    f'adapter {adapter.name!r} is {known} already, not {adapter.path};', 'give the other one another name'
                )
            if known is False:
                check_adapter(adapter.path)
                self._paths[name] = adapter.path
        return name

    def _inner(self, name: str) -> str:
        """The name on the model. PEFT cuts names out of the paths of weights and makes keys of them, so not all do."""
        if name in self._paths:
            return name
        plain = re.fullmatch(r'[A-Za-z][\w-]*', name, re.ASCII) and 'lora' not in name
        return name if plain and name not in self._taken and not hasattr(torch.nn.ModuleDict, name) else f'named_{name.encode().hex()}'

    def mixes(self, name: str | None) -> bool:
        """Whether rows of this adapter can share forwards with those of others. It is loaded for that."""
        if name is None:
            return True
        if name not in self._mixes:
            self.use(None)
            if name not in getattr(self.model, 'peft_config', {}):
                self.model = with_adapters(self.model, [self._paths[name]], [name])
                self.model.eval()
            self._mixes[name] = mixes(self.model, name)
        return self._mixes[name]

    @contextmanager
    def as_found(self) -> Iterator[list[torch.nn.Module]]:
        """Around everything the worker does: the model may come from a trainer, and goes back as it was. Gives the modules in training.

        Engines of one model take turns: what one puts on would be found by the other.
        """
        with _turn_of(self.model):
            yield from self._as_found()

    def _as_found(self) -> Iterator[list[torch.nn.Module]]:
        training = [module for module in self.model.modules() if module.training]
        adapter = active_adapter(self.model)
        learning = [(parameter, parameter.requires_grad) for parameter in self.model.parameters()]
        self.model.eval()
        try:
            with torch.no_grad():
                yield training
        finally:
            self.use(None)
            if adapter is not None and active_adapter(self.model) != adapter:
                self.model.set_adapter(adapter)
            for parameter, learns in learning:  # putting adapters on makes them learn
                if parameter.requires_grad != learns:
                    parameter.requires_grad_(learns)
            for module in training:
                module.training = True

    def turn(self, lane: Lane) -> None:
        """A lane has its turn. One of different adapters says itself what it wears, forward by forward."""
        if lane[1] is not ANY:
            self.use(lane)

    def wear(self, runs: Runs) -> None:
        """Put on the adapters of the next forward's tokens. Once they were mixed they stay so until another lane has its turn."""
        names = {name for name, _ in runs}
        if self._now != (SLOTS, ANY):
            self.use((SLOTS, ANY if len(names) > 1 else names.pop()))
        if self._mix is not None:
            self._mix.assign(runs)

    def use(self, lane: Lane | None) -> None:
        """Put on what a lane needs: its adapter (none, or several), and the attention of its way of batching."""
        if lane == self._now:
            return
        self._put_on.close()
        self._now = self._mix = None
        if lane is None:
            return
        way, adapter = lane
        if adapter is ANY:
            self._mix = Mix(self.model)
            self._put_on.enter_context(self._mix.on())
        elif adapter is not None:
            self.model.set_adapter(adapter)
        elif hasattr(self.model, 'disable_adapter'):
            self._put_on.enter_context(self.model.disable_adapter())
        if way == SLOTS:
            self._put_on.enter_context(slot_attention_on(self.model))
        self._now = lane
