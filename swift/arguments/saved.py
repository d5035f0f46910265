"""args.json: how a run's settings are written down, found again, and inherited."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from typing import Any

from swift.arguments.commands import CLASSES, Arguments
from swift.arguments.flags import flags_of
from swift.arguments.media import split_media
from swift.core.errors import CheckpointError
from swift.core.jsonl import write_json
from swift.core.runs import CHECKPOINT, checkpoints, runs

FILE = 'args.json'
_WEIGHTS = ('adapter_config.json', 'config.json')


@dataclass(frozen=True)
class SavedArgs:
    """The settings of an earlier run."""

    path: str
    """The args.json that was read."""
    command: str | None
    """Its command; None when another program wrote the file."""
    values: dict[str, Any]
    """Flag → value, in today's spelling, unknown names left out."""
    sources: dict[str, str]
    """Flag → where its value came from; a flag that is missing here had its default."""


def save_args(args: Arguments, directory: str) -> str:
    """Write args.json into a directory, atomically: every value, where each came from, the versions. Returns its path."""
    path = os.path.join(directory, FILE)
    values = {name: value for name, value in args.to_dict().items() if name != 'hub_token'}
    write_json(path, {'command': args.command, **values, 'sources': args.sources, 'versions': versions()})
    return path


def versions() -> dict[str, str | None]:
    """Versions of Python, of this package and of what decides the numbers; None: not installed. Imports none of them."""
    from importlib.metadata import PackageNotFoundError, version

    import swift

    found: dict[str, str | None] = {'python': sys.version.split()[0], 'swift': swift.__version__}
    for name in ('torch', 'transformers', 'peft', 'accelerate', 'tokenizers'):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def find_checkpoint(path: str) -> str | None:
    """The checkpoint a directory stands for: itself, its last checkpoint-N, or that of its newest run vN-…; None: there is none."""
    if not os.path.isdir(path):
        return None
    if any(os.path.isfile(os.path.join(path, name)) for name in _WEIGHTS):
        return path.rstrip('/') or path
    for _, folder in reversed(checkpoints(path)):
        if any(os.path.isfile(os.path.join(folder, file)) for file in _WEIGHTS):
            return folder
    for _, folder in reversed(runs(path)):
        if found := find_checkpoint(folder):
            return found
    return None


def load_saved_args(path: str) -> SavedArgs | None:
    """The settings saved in a checkpoint, a run directory or an output directory; None when there are none.

    Raises CheckpointError when an args.json is there and can't be read.
    """
    for directory in _places(path):
        file = os.path.join(directory, FILE)
        if os.path.isfile(file):
            return _read(file)
    return None


def _places(path: str) -> list[str]:
    path = os.path.abspath(path)
    checkpoint = find_checkpoint(path)
    places = [path] + ([checkpoint, os.path.dirname(checkpoint)] if checkpoint else [])
    return places + (
        [os.path.dirname(path)] if CHECKPOINT.match(os.path.basename(path).removesuffix('-merged')) else []
    )


def _read(file: str) -> SavedArgs:
    try:
        with open(file, encoding='utf-8') as stream:
            content = json.load(stream)
        if not isinstance(content, dict):
            raise ValueError('no JSON object')
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f'{file} cannot be read ({error});', 'give --load_args false and the settings as flags'
        ) from None
    command = content.get('command') if content.get('command') in CLASSES else None
    if command:
        values, sources = _own_values(command, content), dict(content.get('sources', {}))
    else:
        values = foreign_values(content)
        sources = dict.fromkeys(values, 'args.json')
    return SavedArgs(file, command, values, sources)


def _own_values(command: str, content: dict[str, Any]) -> dict[str, Any]:
    return {name: content[name] for name in flags_of(CLASSES[command]) if name in content}


def _with_media(content: dict[str, Any]) -> dict[str, Any]:
    """Budgets of media that the other program kept among its model_kwargs, as flags."""
    if not isinstance(content.get('model_kwargs'), dict):
        return content
    rest, media = split_media(content['model_kwargs'])
    return {**{key.lower(): value for key, value in media.items()}, **content, 'model_kwargs': rest}


def foreign_values(content: dict[str, Any]) -> dict[str, Any]:
    """The settings in an args.json of another version or program that this one understands and that are set."""
    from swift.arguments.aliases import ALIASES, canonical
    from swift.arguments.convert import convert

    flags = {**flags_of(CLASSES['sft']), **flags_of(CLASSES['infer'])}
    values: dict[str, Any] = {}
    for name, raw in _with_media(content).items():
        alias = ALIASES.get(name)
        known = alias.new if alias and not alias.convert else name
        if known not in flags or raw is None or raw in ([], {}, ''):
            continue
        try:
            values[known] = convert(flags[known], canonical(known, raw))
        except ValueError:
            continue  # a value of another program that means nothing here
    return values
