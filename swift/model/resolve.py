"""From what a user typed to directories: a model, and the adapters that belong to it.

    resolve_model_dir('output/v0-20260101-120000')   # a run → its last complete checkpoint
    resolve_model_dir('output')                      # the folder of a single run → that run's
    resolve_model_dir('output/…/checkpoint-100')     # an adapter → its base model + the adapter
    resolve_model_dir('Qwen/Qwen3-0.6B')             # an id → downloaded
    resolve_model_dir('tiny')                        # the model that comes with the package
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from swift.core.errors import CheckpointError, ModelError
from swift.core.log import info_once, warn_once
from swift.core.runs import checkpoints, runs
from swift.model.info import read_json, safetensors_header, weight_files

TINY_NAMES = ('tiny', 'swift/tiny-chat')
TINY_DIR = os.path.join(os.path.dirname(__file__), 'tiny_chat')
_ADAPTER_FILES = ('adapter_model.safetensors', 'adapter_model.bin')


@dataclass(frozen=True)
class ModelPath:
    """Where a model is. `adapters` are put on it after loading, in order."""

    model_dir: str
    adapters: tuple[str, ...] = ()
    name: str = ''
    """What the user called it: an id, or the directory."""


def resolve_model_dir(
    name: str | os.PathLike,
    adapters: list[str] | tuple[str, ...] = (),
    *,
    revision: str | None = None,
    use_hf: bool | None = None,
    token: str | None = None,
) -> ModelPath:
    """Directories of a model and its adapters, downloading what isn't local.

    `name` may be a model directory, an adapter directory, a run directory, a hub id, or `tiny`. Adapters named by
    `name` come before `adapters`. Raises ModelError or CheckpointError with what to do.
    """
    name, hub = os.fspath(name), dict(revision=revision, use_hf=use_hf, token=token)
    found = _locate(name, **hub)
    if is_adapter_dir(found):
        base = _locate(base_of_adapter(found), **{**hub, 'revision': None})
        if is_adapter_dir(base):
            raise CheckpointError(f'{found} was trained on another adapter, {base};', 'merge that one first (swift merge-lora).')
        path = ModelPath(base, (found,), name)
    else:
        path = ModelPath(found, (), name)
    return replace(path, adapters=path.adapters + tuple(resolve_adapter(item, **hub) for item in adapters))


def resolve_adapter(name: str, **hub) -> str:
    """Directory of one adapter: itself, a run directory's last checkpoint, or a hub id."""
    found = _locate(name, **hub)
    if not is_adapter_dir(found):
        raise CheckpointError(f'{name} holds no adapter (adapter_config.json);', 'pass it with --model if it is a whole model.')
    return found


def _locate(name: str, **hub) -> str:
    path = os.path.expanduser(name)
    if name in TINY_NAMES and not os.path.isdir(path):
        return _tiny()
    if os.path.isdir(path):
        return _local(path)
    if os.path.isfile(path):
        raise ModelError(f'{name} is a file;', 'pass the directory that holds config.json.')
    if _looks_like_path(name):
        raise ModelError(f'the directory {name} does not exist;', f'looked in {os.getcwd()}.')
    from swift.core.hub import download_model

    return _local(download_model(name, **hub))


def _looks_like_path(name: str) -> bool:
    return name.startswith(('.', '/', '~')) or name.count('/') > 1 or '\\' in name


def _tiny() -> str:
    if not os.path.isfile(os.path.join(TINY_DIR, 'config.json')):
        raise ModelError('the embedded model tiny is not part of this installation;', 'reinstall the package, or train it anew.')
    return TINY_DIR


def _local(path: str) -> str:
    """A directory of weights: the path itself, or the last complete checkpoint in it."""
    if is_adapter_dir(path) or (os.path.isfile(os.path.join(path, 'config.json')) and not checkpoints(path)):
        return path
    kept = checkpoints(path)
    if kept:
        return last_complete(path)
    if os.path.isfile(os.path.join(path, 'config.json')):
        return path
    started = [run for _, run in runs(path) if checkpoints(run)]
    if len(started) == 1:
        info_once('%s holds one run: %s is taken', path, os.path.basename(started[0]))
        return last_complete(started[0])
    if started:
        raise ModelError(f'{path} holds {len(started)} runs;', f'say which one: {", ".join(map(os.path.basename, started[-3:]))}.')
    raise ModelError(
        f'{path} has no config.json, adapter_config.json or checkpoint-N;',
        'pass the directory of a model, an adapter or a run.',
    )


def last_complete(run_dir: str) -> str:
    """The newest checkpoint of a run whose weights are all there; incomplete ones are named and passed over."""
    for _, path in reversed(checkpoints(run_dir)):
        missing = what_is_missing(path)
        if missing is None:
            return path
        warn_once('%s is incomplete (%s); an earlier checkpoint is used', path, missing)
    raise CheckpointError(f'{run_dir} has no complete checkpoint;', 'resume or repeat the training.')


def what_is_missing(path: str) -> str | None:
    """Why a directory of weights can't be loaded, in a few words; None when it is complete."""
    if is_adapter_dir(path):
        files = [os.path.join(path, name) for name in _ADAPTER_FILES if os.path.isfile(os.path.join(path, name))]
        if not files:
            return 'no adapter_model.safetensors'
        return next((_truncated(file) for file in files if file.endswith('.safetensors')), None)
    if not os.path.isfile(os.path.join(path, 'config.json')):
        return 'no config.json'
    files = weight_files(path)
    if not files:
        pickled = any(entry.startswith('pytorch_model') for entry in os.listdir(path))
        return None if pickled else 'no model.safetensors'
    return next((problem for problem in map(_truncated, files) if problem), None)


def _truncated(file: str) -> str | None:
    """Whether a safetensors file is shorter than its header says."""
    name = os.path.basename(file)
    if not os.path.isfile(file):
        return f'no {name}'
    try:
        header = safetensors_header(file)
    except ModelError:
        return f'{name} is unreadable'
    with open(file, 'rb') as stream:
        length = int.from_bytes(stream.read(8), 'little')
    end = max((item['data_offsets'][1] for item in header.values()), default=0)
    return f'{name} is cut short' if os.path.getsize(file) < 8 + length + end else None


def is_adapter_dir(path: str) -> bool:
    """Whether a directory holds an adapter."""
    return os.path.isfile(os.path.join(path, 'adapter_config.json'))


def base_of_adapter(path: str) -> str:
    """The model that an adapter was trained on: from adapter_config.json, else from the args.json beside it."""
    name = read_json(os.path.join(path, 'adapter_config.json')).get('base_model_name_or_path')
    candidates = [name] if name else []
    for folder in (path, os.path.dirname(os.path.abspath(path))):
        args = os.path.join(folder, 'args.json')
        if os.path.isfile(args):
            candidates.append(read_json(args).get('model'))
    candidates = [item for item in dict.fromkeys(candidates) if item]
    for item in candidates:
        for place in (item, os.path.join(path, item)):
            if os.path.isdir(place):
                return place
    usable = [item for item in candidates if not _looks_like_path(item)]
    if usable:
        return usable[0]
    known = f'({candidates[0]}, which does not exist) ' if candidates else ''
    raise CheckpointError(f'the base model of the adapter {path} {known}is unknown;', 'name it with --model and the adapter with --adapters.')
