"""The tuners by name, and the four doors of the room: prepare, save, load, and the optimizer's groups."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from swift.core.errors import CheckpointError, SwiftError
from swift.core.registry import Registry

if TYPE_CHECKING:
    from swift.arguments.tuner import TunerArgs

tuners_map: Registry = Registry('tuner_type', {'lora': 'swift.tuners.peft:LoRA', 'full': 'swift.tuners.full:Full'})
"""`--tuner_type` → an object with `prepare`, `save`, `load` (`swift.tuners.base.TunerKind`)."""


def prepare_tuner(model: Any, args: TunerArgs, *, info: Any = None) -> Any:
    """The model with the parameters trainable that `args` asks for.

    `info` is the ModelInfo of `load_model`: new special tokens get their rows trained, and multimodal models are
    adapted in their language model only.
    """
    return tuners_map[args.tuner_type].prepare(model, args, info)


def unwrap(model: Any) -> Any:
    """The model inside DistributedDataParallel, FSDP1 or torch.compile."""
    while True:
        inner = getattr(model, '_orig_mod', None)
        if inner is None and type(model).__name__ in ('DistributedDataParallel', 'FullyShardedDataParallel', 'DeepSpeedEngine'):
            inner = model.module
        if inner is None:
            return model
        model = inner


def is_adapter(model: Any) -> bool:
    """Whether a model carries PEFT adapters (asked without importing PEFT)."""
    return hasattr(unwrap(model), 'peft_config') and hasattr(unwrap(model), 'get_base_model')


def save_tuner(
    model: Any,
    directory: str | os.PathLike,
    *,
    processor: Any = None,
    state_dict: dict | None = None,
    dtype: Any = None,
    max_shard_size: str = '5GB',
) -> None:
    """Write what was trained into a directory: adapter files, or a whole model; each loads in plain PEFT / transformers.

    `processor` (or tokenizer) is written beside it. `state_dict` stands in for the model's own when it is sharded.
    `dtype` rounds the stored weights; `max_shard_size` bounds the files of a whole model. The caller sees to it that the directory appears at once (write aside, rename).
    """
    model, directory = unwrap(model), os.fspath(directory)
    from swift.tuners.base import Tuner

    if isinstance(model, Tuner):
        model.save(directory)
        if processor is not None:
            processor.save_pretrained(directory)
        return
    if is_adapter(model):
        tuners_map['lora'].save(model, directory, processor=processor, state_dict=state_dict, dtype=dtype)
    else:
        tuners_map['full'].save(
            model, directory, processor=processor, state_dict=state_dict, dtype=dtype, max_shard_size=max_shard_size
        )


def load_adapter(
    model: Any,
    directories: str | os.PathLike | list[str] | tuple[str, ...],
    *,
    trainable: bool = False,
    names: list[str] | None = None,
) -> Any:
    """Put stored adapters on a model, in order; the first is active, each under its name (`default`, `default_1`, …).

    Raises CheckpointError when a stored weight has no place or a place no weight.
    """
    paths = [os.fspath(directories)] if isinstance(directories, (str, os.PathLike)) else [os.fspath(d) for d in directories]
    names = names or ['default' if i == 0 else f'default_{i}' for i in range(len(paths))]
    if len(names) != len(paths) or len(set(names)) != len(names):
        raise SwiftError(f'{len(paths)} adapters need as many different names, got {names}.')
    for path, name in zip(paths, names, strict=True):
        model = _kind_of(path).load(model, path, trainable=trainable, name=name)
    return model


def _kind_of(path: str) -> Any:
    if os.path.isfile(os.path.join(path, 'adapter_config.json')):
        return tuners_map['lora']
    config = os.path.join(path, 'tuner_config.json')
    if not os.path.isfile(config):
        raise CheckpointError(f'{path} holds no adapter (adapter_config.json).')
    import json

    with open(config, encoding='utf-8') as file:
        wanted = json.load(file).get('tuner')
    for name in tuners_map:
        if name == wanted or getattr(tuners_map[name], '__name__', None) == wanted:
            return tuners_map[name]
    raise CheckpointError(f'{path} was written by the tuner {wanted!r}, which is not registered;', 'load its file with --external_plugins.')
