"""Which checkpoint does `--resume_from_checkpoint` mean, and is it complete? Standard library only, so arguments can ask early."""

from __future__ import annotations

import json
import os
from typing import Any

from swift.core.errors import CheckpointError
from swift.core.runs import checkpoints, runs

MANIFEST = 'manifest.json'
"""Written last into a checkpoint: step, number of processes, and the size of every file. Its presence says complete."""

WEIGHTS = ('adapter_model.safetensors', 'adapter_model.bin', 'model.safetensors', 'pytorch_model.bin',
           'model.safetensors.index.json', 'pytorch_model.bin.index.json')
STATE = ('trainer_state.json', 'optimizer.pt', 'scheduler.pt')


def read_manifest(checkpoint: str) -> dict[str, Any] | None:
    """The manifest of a checkpoint; None where there is none (written by another program) or it can't be read."""
    try:
        with open(os.path.join(checkpoint, MANIFEST), encoding='utf-8') as stream:
            return json.load(stream)
    except (OSError, ValueError):
        return None


def what_is_missing(checkpoint: str, *, only_model: bool = False) -> str | None:
    """Why `checkpoint` can't be used, in a few words; None when it is complete.

    With `only_model` the weights are enough; otherwise optimizer, scheduler and trainer state must be there too. A checkpoint
    of another program has no manifest: then the files themselves are looked at.
    """
    if not os.path.isdir(checkpoint):
        return 'there is no such folder'
    manifest = read_manifest(checkpoint)
    if manifest is not None:
        for name, size in manifest['files'].items():
            if only_model and _is_state(name):
                continue
            path = os.path.join(checkpoint, name)
            if not os.path.isfile(path):
                return f'{name} is missing'
            if os.path.getsize(path) != size:
                return f'{name} has {os.path.getsize(path)} bytes instead of {size}'
    elif not any(_filled(checkpoint, name) for name in WEIGHTS):
        return 'it has no weights'
    if only_model:
        return None
    needed = STATE[:1] if manifest is not None and manifest.get('sharded_state') else STATE
    absent = [name for name in needed if not _filled(checkpoint, name)]
    return f'{absent[0]} is missing (saved with --save_only_model?)' if absent else None


def find_last_complete(run_dir: str, *, only_model: bool = False) -> str | None:
    """The checkpoint of the highest step in run_dir that is complete; None when there is none."""
    for _, path in reversed(checkpoints(run_dir)):
        if what_is_missing(path, only_model=only_model) is None:
            return path
    return None


def resolve_resume(value: str | bool | None, output_dir: str, *, only_model: bool = False) -> str | None:
    """The checkpoint folder that `--resume_from_checkpoint value` means; None when nothing is resumed.

    `value` is a checkpoint, a run folder, an output folder with runs (the newest run that has a complete checkpoint),
    a `last`/`best` link, or true (the same as output_dir). Raises CheckpointError naming what to use instead.
    """
    if value in (None, False, '', 'false', 'False'):
        return None
    if value in (True, 'true', 'True'):
        found = _newest_below(output_dir, only_model)
        if found is None:
            raise CheckpointError(
                f'--resume_from_checkpoint true: no complete checkpoint below --output_dir {output_dir};',
                'give the path of a checkpoint, or start without --resume_from_checkpoint',
            )
        return found
    path = _followed(os.path.expanduser(str(value)))
    if not os.path.isdir(path):
        raise CheckpointError(f'--resume_from_checkpoint: no such folder: {value}; {_nearby(path, only_model)}'.rstrip('; '))
    if not checkpoints(path) and (_looks_like_checkpoint(path) or not runs(path)):
        trouble = what_is_missing(path, only_model=only_model)
        if trouble is None:
            return os.path.abspath(path)
        hint = _nearby(path, only_model) or 'no complete one is beside it'
        if not only_model and what_is_missing(path, only_model=True) is None:
            hint += '; its weights alone can be used with --resume_only_model true'
        raise CheckpointError(f'--resume_from_checkpoint: {path} is incomplete: {trouble};', hint)
    found = _newest_below(path, only_model)
    if found is None:
        raise CheckpointError(f'--resume_from_checkpoint: no complete checkpoint in {path};', 'start the run again without it')
    return found


def _newest_below(folder: str, only_model: bool) -> str | None:
    """The last complete checkpoint of folder itself, or of its newest run that has one."""
    folder = os.path.abspath(os.path.expanduser(folder))
    for run in [folder, *(path for _, path in reversed(runs(folder)))]:
        found = find_last_complete(run, only_model=only_model)
        if found is not None:
            return found
    return None


def _followed(path: str) -> str:
    """`last` and `best` where links could not be made are text files naming the folder."""
    if not os.path.exists(path) and os.path.isfile(path + '.txt'):
        with open(path + '.txt', encoding='utf-8') as stream:
            return os.path.join(os.path.dirname(path), stream.read().strip())
    return os.path.realpath(path) if os.path.islink(path) else path


def _nearby(path: str, only_model: bool) -> str:
    """A sentence naming the last complete checkpoint beside `path`, or ''."""
    found = find_last_complete(os.path.dirname(os.path.abspath(path)), only_model=only_model)
    return f'the last complete one is {found}' if found else ''


def _looks_like_checkpoint(path: str) -> bool:
    return any(os.path.exists(os.path.join(path, name)) for name in (MANIFEST, *WEIGHTS, *STATE, 'adapter_config.json', 'config.json'))


def _is_state(name: str) -> bool:
    base = os.path.basename(name)
    return base in (*STATE, 'scaler.pt') or base.startswith(('rng_state', 'loader_state', 'progress', 'reference_model'))


def _filled(folder: str, name: str) -> bool:
    path = os.path.join(folder, name)
    return os.path.isfile(path) and os.path.getsize(path) > 0
