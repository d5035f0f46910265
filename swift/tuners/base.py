"""What a tuner is, and the base class of tuners that a user writes.

Built-in tuners are entries of `tuners_map` with three functions; a plugin is one class:

    from swift.tuners.base import Tuner
    from swift.tuners import tuners_map

    class MyTuner(Tuner):
        def __init__(self, model, config):
            super().__init__(model, config)
            model.requires_grad_(False)
            model.lm_head.weight.requires_grad_(True)

    tuners_map['my_tuner'] = MyTuner          # --tuner_type my_tuner
"""

from __future__ import annotations

import json
import os
from typing import Any, Protocol, runtime_checkable

from torch import nn

from swift.core.errors import CheckpointError

WEIGHTS_FILE = 'tuner_model.safetensors'
CONFIG_FILE = 'tuner_config.json'


@runtime_checkable
class TunerKind(Protocol):
    """What `tuners_map` holds: how one kind of training is prepared, stored and loaded again."""

    def prepare(self, model: Any, args: Any, info: Any = None) -> Any:
        """The model with exactly the right parameters trainable."""
        ...

    def save(self, model: Any, directory: str, **options: Any) -> None:
        """Write what was trained, complete, into a directory."""
        ...

    def load(self, model: Any, directory: str, *, trainable: bool = False, name: str = 'default') -> Any:
        """The model with what `save` wrote put on it."""
        ...


class Tuner(nn.Module):
    """A model in a wrapper that decides what is trained. Everything not defined here is the model's.

    The base `forward` calls the model; the base `save`/`load` store the trainable parameters by name.
    """

    def __init__(self, model: Any, config: Any = None):
        super().__init__()
        self.model = model
        self.tuner_config = config

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == 'model':
                raise
            return getattr(super().__getattr__('model'), name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's own forward."""
        return self.model(*args, **kwargs)

    @classmethod
    def prepare(cls, model: Any, args: Any, info: Any = None) -> Any:
        """Build the tuner around a model; `args` is the TunerArgs of the run."""
        return cls(model, args)

    def save(self, directory: str, **_: Any) -> None:
        """Write the trainable parameters and the class's name."""
        from safetensors.torch import save_file

        trained = {name: p.detach().contiguous() for name, p in self.named_parameters() if p.requires_grad}
        os.makedirs(directory, exist_ok=True)
        save_file(trained, os.path.join(directory, WEIGHTS_FILE), metadata={'format': 'pt'})
        with open(os.path.join(directory, CONFIG_FILE), 'w', encoding='utf-8') as file:
            json.dump({'tuner': type(self).__name__, 'base_model': getattr(self.model, 'name_or_path', None)}, file)

    @classmethod
    def load(cls, model: Any, directory: str, *, trainable: bool = False, name: str = 'default', args: Any = None) -> Any:
        """Put stored parameters on a fresh model; any that has no place is a CheckpointError."""
        from safetensors.torch import load_file

        tuner = model if isinstance(model, cls) else cls(model, args)
        stored = load_file(os.path.join(directory, WEIGHTS_FILE))
        own = dict(tuner.named_parameters())
        unknown = sorted(set(stored) - set(own))
        if unknown:
            raise CheckpointError(f'{directory}: {len(unknown)} weights have no place in the model (first: {unknown[0]}).')
        for key, value in stored.items():
            own[key].data.copy_(value)
        if not trainable:
            tuner.requires_grad_(False)
        return tuner
