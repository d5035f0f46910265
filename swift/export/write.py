"""A model directory that plain transformers loads, appearing whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from swift.core.errors import SwiftError
from swift.core.jsonl import write_json

REPORT = 'merge_report.json'
"""Its presence says that a directory was written here and may be replaced."""


def check_place(path: str, replace: bool) -> None:
    """SwiftError unless nothing is at `path`, or `replace` allows to replace what was written here before."""
    if not os.path.lexists(path) or (os.path.isdir(path) and not os.listdir(path)):
        return
    if not replace:
        raise SwiftError(f'{path} exists already;', 'choose another --output_dir, or replace it with --exist_ok true')
    if not os.path.isfile(os.path.join(path, REPORT)):
        raise SwiftError(f'{path} holds files that no merge wrote;', 'choose another --output_dir, or remove it yourself')


@contextmanager
def written_whole(path: str, replace: bool) -> Iterator[str]:
    """A directory beside `path` to write into; it becomes `path` at the end of the block, or is gone after an error."""
    check_place(path, replace)
    path = os.path.abspath(path)
    parent, name = os.path.split(path)
    os.makedirs(parent, exist_ok=True)
    aside = os.path.join(parent, f'.{name}.writing-{os.getpid()}')
    old = os.path.join(parent, f'.{name}.old-{os.getpid()}')
    shutil.rmtree(aside, ignore_errors=True)
    os.mkdir(aside)
    try:
        yield aside
        _readable(aside)
        check_place(path, replace)  # somebody else may have written there in the meantime
        if os.path.isdir(path):
            os.rename(path, old)
        os.rename(aside, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _readable(folder: str) -> None:
    """Files as everybody's umask wants them; some writers leave them to their owner alone."""
    mask = os.umask(0o022)
    os.umask(mask)
    for name in os.listdir(folder):
        if os.path.isfile(path := os.path.join(folder, name)):
            os.chmod(path, 0o666 & ~mask)


def write_model(
    model: Any, processor: Any, directory: str, *, template: Any = None, max_shard_size: str = '5GB', safe: bool = True
) -> None:
    """Weights, configuration, generation config, tokenizer and chat template of a model without adapters.

    With `template`, its stop tokens become end tokens of the generation config, so that every program that reads the
    directory stops where this one does. `safe` False writes PyTorch .bin files.
    """
    from transformers import GenerationConfig

    own = getattr(model, 'generation_config', None)
    kept = deepcopy(own)
    if template is not None and kept is not None:
        from swift.template import update_generation_config_eos_token

        update_generation_config_eos_token(kept, template)
    # transformers refuses to write configs that it accepts when reading, such as a temperature without do_sample
    if own is not None:
        model.generation_config = GenerationConfig()
    try:
        if safe:
            with _no_bar():
                model.save_pretrained(directory, max_shard_size=max_shard_size)
        else:
            _write_bin(model, directory, max_shard_size)
    finally:
        if own is not None:
            model.generation_config = own
    if kept is not None:
        kept.to_json_file(os.path.join(directory, 'generation_config.json'))
    processor.save_pretrained(directory)


@contextmanager
def _no_bar() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _write_bin(model: Any, directory: str, max_shard_size: str) -> None:
    import torch
    from huggingface_hub import split_torch_state_dict_into_shards

    tied = set(getattr(model, 'all_tied_weights_keys', None) or {})
    weights = {name: tensor for name, tensor in model.state_dict().items() if name not in tied}
    plan = split_torch_state_dict_into_shards(
        weights, filename_pattern='pytorch_model{suffix}.bin', max_shard_size=max_shard_size
    )
    for file, names in plan.filename_to_tensors.items():
        torch.save({name: weights[name].contiguous() for name in names}, os.path.join(directory, file))
    if plan.is_sharded:
        index = {'metadata': plan.metadata, 'weight_map': plan.tensor_to_filename}
        write_json(os.path.join(directory, 'pytorch_model.bin.index.json'), index)
    model.config.save_pretrained(directory)
