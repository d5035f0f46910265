"""`--precompute_ref_log_probs true`: what the reference says about every labelled token, computed once and kept on disk.

The key is content: the tokens' own key, the files of the reference, the settings that change what it computes, and the files that
samples show. The work is shared by all processes; each takes its turn of every round, so that none waits long.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from swift.core.dist import is_master, local_rank, rank, world_size
from swift.core.errors import RowError
from swift.core.log import get_logger
from swift.core.types import Sample
from swift.dataset.encode import cache_root
from swift.dataset.values import Values, ValueWriter, WithValues, has_values, store_key
from swift.parallel import group

logger = get_logger()

NAME = 'reference_logps'
"""The key in a sample's `extra` that objectives look for."""

TOKENS = 8192
"""Tokens (padding included) that go through the reference at once, if they are several samples."""

SETTINGS = ('torch_dtype', 'attn_impl', 'experts_impl', 'new_special_tokens', 'rope_scaling', 'rope_scaling_factor', 'max_model_len',
            'init_strategy', 'model_kwargs', 'bf16', 'fp16')  # fmt: skip
"""Arguments that change what the same files compute."""

START = ('lora_rank', 'lora_alpha', 'use_rslora', 'use_dora', 'target_modules', 'target_regex')
"""Arguments that decide how an adapter starts that makes up for quantisation."""

Reference = Callable[[], AbstractContextManager[tuple[Any, Any, Any]]]
"""Opens (actor, its plan, device); closing it frees the model."""

Read = Callable[[Sample], Sample]
"""Reads what a sample shows (`Template.read_media`)."""


def with_reference_logps(data: Any, args: Any, model_dir: str, adapters: Sequence[str], open_reference: Reference, read: Read) -> Any:
    """`data` (pipelines.data.Encoded) with `extra['reference_logps']` in every sample.

    `open_reference` is called only if values are missing; all processes call this together.
    """
    identity = identify(args, model_dir, adapters)
    with ExitStack() as stack:
        opened: list[Any] = []

        def reference() -> Any:
            if not opened:
                opened.append(stack.enter_context(open_reference()))
                stack.callback(opened.clear)  # before it is closed: nothing here may keep the model
            return opened[0]

        parts = {
            title: WithValues(samples, _values(samples, identity, args, title, reference, read), NAME)
            for title, samples in (('train', data.train), ('val', data.val))
            if samples is not None
        }
    return replace(data, **parts)


def identify(args: Any, model_dir: str, adapters: Sequence[str]) -> str:
    """A digest of everything the reference's numbers depend on, besides the tokens."""
    import torch
    import transformers

    facts: dict[str, Any] = {
        'files': [_files(folder) for folder in (model_dir, *adapters)],
        'settings': {name: getattr(args, name, None) for name in SETTINGS},
        'device': torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else 'cpu',
        'transformers': transformers.__version__,
    }
    if args.init_weights == 'loftq':  # the adapter's start is part of the reference
        facts['start'] = {name: getattr(args, name) for name in START}
    return hashlib.blake2b(json.dumps(facts, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()


def _files(folder: str) -> list[tuple[str, Any]]:
    """Name → what identifies the file, of everything that makes a model: settings and code by content, weights by size and time."""
    found: list[tuple[str, Any]] = []
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if name.endswith(('.safetensors', '.bin', '.pt', '.pth')) and not name.startswith(('optimizer', 'scheduler', 'rng_state', 'reference_model')):
            state = os.stat(path)
            found.append((name, [state.st_size, state.st_mtime_ns]))
        elif name in ('config.json', 'adapter_config.json') or name.endswith('.py'):
            found.append((name, hashlib.blake2b(Path(path).read_bytes(), digest_size=16).hexdigest()))
    return found


def shown_files(samples: Iterable[Sample]) -> str:
    """A digest of size and time of every local file that samples show; '' where they show nothing."""
    names: set[str] = set()
    for sample in samples:
        for shown in sample.media or ():
            for _, reference in shown['media'] if shown else ():
                names.update(reference if isinstance(reference, list) else [reference])
    if not names:
        return ''
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(names):
        try:
            state = os.stat(name)
            digest.update(f'{name}|{state.st_size}|{state.st_mtime_ns}\n'.encode())
        except (OSError, ValueError):  # a URL, or a file that is missing
            digest.update(f'{name}\n'.encode())
    return digest.hexdigest()


def _values(samples: Any, identity: str, args: Any, title: str, reference: Callable[[], Any], read: Read) -> Values:
    shown = group.broadcast(shown_files(samples[index] for index in range(len(samples))) if is_master() else None)
    key = hashlib.blake2b(f'{store_key(samples)}|{identity}{shown and "|" + shown}'.encode(), digest_size=16).hexdigest()
    keep = args.load_from_cache_file
    path = cache_root() / 'values' / (key if keep else f'once-{key}-{group.broadcast(f"{os.getpid()}-{time.time_ns()}")}')
    if not keep and local_rank() == 0:
        atexit.register(shutil.rmtree, path, ignore_errors=True)
    if all(group.gather(has_values(path))):
        logger.info('reference: log-probabilities of the %s samples read from the cache', 'training' if title == 'train' else 'validation')
        return Values(path)
    begun = time.monotonic()
    actor, plan, device = reference()
    unread: list[int] = []
    _write(path, samples, _Reader(samples, read, unread), actor, plan, device, {'samples': len(samples), 'of': title})
    if any(group.gather(bool(unread))) and keep and local_rank() == 0:  # such a row may be readable another time
        atexit.register(shutil.rmtree, path, ignore_errors=True)
    group.barrier()
    values = Values(path)
    logger.info('reference: log-probabilities of %s %s samples in %.1f s', f'{len(samples):,}',
                'training' if title == 'train' else 'validation', time.monotonic() - begun)  # fmt: skip
    return values


class _Reader:
    """Samples by index with what they show; for one that can't be read a text as long, its index in `unread`."""

    def __init__(self, samples: Any, read: Read, unread: list[int]):
        self._samples, self._read, self._unread = samples, read, unread

    def __call__(self, index: int) -> Sample:
        sample = self._samples[index]
        try:
            return self._read(sample)
        except RowError:  # such a row is left out when its batch is made
            self._unread.append(index)
            return replace(sample, media=None, input_ids=list(sample.input_ids[-1:]) * len(sample))

    def spoil(self, index: int, values: np.ndarray) -> np.ndarray:
        """The values of a sample, none of them a number where it was not read."""
        return np.full_like(values, np.nan) if index in self._unread else values


def _write(path: Path, samples: Any, fetch: _Reader, actor: Any, plan: Any, device: Any, facts: dict[str, Any]) -> None:
    """Compute and write; on every machine the first process writes, unless it has the values already."""
    error: BaseException | None = None
    writes = local_rank() == 0 and not has_values(path)
    with ExitStack() as stack:
        writer = None
        if writes:
            try:
                writer = stack.enter_context(ValueWriter(path))
            except Exception as problem:
                error = problem
        group.first_error(error)
        for values in _rounds(samples, fetch, actor, plan, device):
            try:
                if writer is not None and error is None:
                    writer.add(values)
            except Exception as problem:
                error = problem
        try:
            if writer is not None and error is None:
                writer.finish(facts)
        except Exception as problem:
            error = problem
        group.first_error(error)


def _rounds(samples: Any, fetch: _Reader, actor: Any, plan: Any, device: Any) -> Iterator[list[np.ndarray]]:
    """Values of samples in their order: a round is one batch for each process."""
    batches = list(_batches(samples.lengths, plan.flat))
    for start in range(0, len(batches), world_size()):
        mine = start + rank()
        found, error = [], None
        try:
            if mine < len(batches):
                values = reference_values([fetch(index) for index in batches[mine]], actor, plan, device)
                found = [fetch.spoil(index, each) for index, each in zip(batches[mine], values, strict=True)]
        except Exception as problem:
            error = problem
        group.first_error(error)
        yield from group.gather(found)
        if is_master() and start % 64 == 0 and start:
            logger.debug('reference: %d of %d batches', start, len(batches))


def _batches(lengths: Any, flat: bool) -> Iterator[list[int]]:
    """Consecutive samples of at most TOKENS tokens together."""
    part: list[int] = []
    total = longest = 0
    for index, length in enumerate(np.asarray(lengths).tolist()):
        size = total + length if flat else max(longest, length) * (len(part) + 1)
        if part and size > TOKENS:
            yield part
            part, total, longest = [], 0, 0
        part.append(index)
        total, longest = total + length, max(longest, length)
    if part:
        yield part


def reference_values(samples: Sequence[Sample], actor: Any, plan: Any, device: Any) -> list[np.ndarray]:
    """Log-probabilities of the labelled tokens of every sample, float32, in the order of its labels."""
    from swift.objectives import collate

    batch = (collate.flat if plan.flat else collate.padded)(samples)
    segments = batch.sample_lengths or [1] * len(samples)
    counts = np.bincount(batch.extra['answers']['segment'].numpy(), minlength=len(batch.lengths))
    ends = np.cumsum(counts)[np.cumsum(segments) - 1]
    values = actor.answer_logps(batch.to(device)).logps.float().cpu().numpy()
    return np.split(values, ends[:-1])
