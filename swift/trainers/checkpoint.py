"""Checkpoints that are either complete or not there.

Everything of `checkpoint-N` is written to `.checkpoint-N.tmp` beside it, flushed to disk, listed with sizes in a manifest, and
only then renamed. Whenever the process dies, the last renamed checkpoint is whole and the leftover is ignored and removed
at the next start. Older checkpoints are deleted after that, and renamed away first, so half a deletion is no checkpoint either.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from swift.core.dist import is_master, local_rank, world_size
from swift.core.errors import CheckpointError
from swift.core.log import get_logger
from swift.core.runs import checkpoints
from swift.parallel import group
from swift.trainers.resume import MANIFEST, find_last_complete, what_is_missing
from swift.trainers.rundir import clean_leftovers, link

logger = get_logger()

Part = Callable[[str], None]
"""Writes one part of a checkpoint into the folder given. Called on every process; writes only what is that process's to write."""


class CheckpointWriter:
    """Writes the checkpoints of one run.

    `texts` are small files put into every checkpoint as they are (args.json); `facts` go into the manifest (template hash).
    `links` keeps `last` and `best` pointing to checkpoints. `save_on_each_node`: nodes share no disk, each keeps its own files.
    """

    def __init__(
        self,
        run_dir: str,
        *,
        save_total_limit: int | None = None,
        texts: Mapping[str, str] | None = None,
        facts: Mapping[str, Any] | None = None,
        links: bool = False,
        save_on_each_node: bool = False,
    ):
        self.run_dir = os.path.abspath(run_dir)
        self.save_total_limit = save_total_limit
        self.texts = dict(texts or {})
        self.facts = dict(facts or {})
        self.links = links
        self.owner = local_rank() == 0 if save_on_each_node else is_master()
        if self.owner:
            os.makedirs(self.run_dir, exist_ok=True)
            left = clean_leftovers(self.run_dir)
            if left:
                logger.info('cleaned up after an interrupted save: %s', ', '.join(left))

    def path(self, step: int) -> str:
        """Where the checkpoint of `step` is once it is complete."""
        return os.path.join(self.run_dir, f'checkpoint-{step}')

    def write(self, step: int, parts: Sequence[Part], *, best_step: int | None = None, sharded_state: bool = False) -> str:
        """Write `checkpoint-step` and return its path. All processes call this together.

        `best_step` is kept when older ones are deleted. Raises CheckpointError (disk full, no permission, …) on every
        process; what was complete before stays.
        """
        staging = os.path.join(self.run_dir, f'.checkpoint-{step}.tmp')
        error: BaseException | None = None
        try:
            if self.owner:
                shutil.rmtree(staging, ignore_errors=True)
                os.makedirs(staging)
            group.barrier()
            os.makedirs(staging, exist_ok=True)
            for part in parts:
                part(staging)
        except OSError as problem:
            error = self._failed(step, staging, problem)
        group.first_error(error)
        error = None
        if self.owner:
            try:
                self._finish(step, staging, sharded_state)
            except OSError as problem:
                error = self._failed(step, staging, problem)
        group.first_error(error)
        if self.owner:
            self._rotate(step, best_step)
            self._link(step, best_step)
        elif local_rank() == 0:  # a node without the shared disk: its copy of the staging folder has no owner
            shutil.rmtree(staging, ignore_errors=True)
        return self.path(step)

    def _finish(self, step: int, staging: str, sharded_state: bool) -> None:
        """Texts and manifest, flush, rename: the moment before it the checkpoint isn't there, after it it is complete."""
        for name, text in self.texts.items():
            with open(os.path.join(staging, name), 'w', encoding='utf-8') as stream:
                stream.write(text)
        manifest = {'format': 1, 'step': step, 'world_size': world_size(), **self.facts, 'files': _sizes(staging)}
        if sharded_state:
            manifest['sharded_state'] = True
        with open(os.path.join(staging, MANIFEST), 'w', encoding='utf-8') as stream:
            json.dump(manifest, stream, indent=1, sort_keys=True)
        _flush(staging)
        final, old = self.path(step), os.path.join(self.run_dir, f'.checkpoint-{step}.old')
        if os.path.exists(final):  # the same step saved again: clean_leftovers() knows what a kill in between means
            shutil.rmtree(old, ignore_errors=True)
            os.rename(final, old)
        os.rename(staging, final)
        _flush_folder(self.run_dir)
        shutil.rmtree(old, ignore_errors=True)

    def _rotate(self, step: int, best_step: int | None) -> None:
        """Delete the oldest checkpoints beyond save_total_limit; never the best one or the one just written."""
        if not self.save_total_limit or self.save_total_limit < 1:
            return
        found = checkpoints(self.run_dir)
        surplus = len(found) - self.save_total_limit
        for number, path in found:
            if surplus <= 0:
                return
            if number in (step, best_step):
                continue
            surplus -= 1
            trash = os.path.join(self.run_dir, f'.checkpoint-{number}.trash')
            try:
                os.rename(path, trash)
            except OSError as error:
                logger.warning('could not delete %s: %s', path, error)
                continue
            shutil.rmtree(trash, ignore_errors=True)

    def _link(self, step: int, best_step: int | None) -> None:
        if self.links:
            link(self.run_dir, 'last', self.path(step))
            best = None if best_step is None else self.path(best_step)
            link(self.run_dir, 'best', best if best and os.path.isdir(best) else None)

    def _failed(self, step: int, staging: str, problem: OSError) -> CheckpointError:
        if self.owner:
            shutil.rmtree(staging, ignore_errors=True)
        last = find_last_complete(self.run_dir)
        return CheckpointError(
            f'checkpoint-{step} could not be written to {self.run_dir}: {problem.strerror or problem};',
            f'make room, then continue with --resume_from_checkpoint {last}' if last else 'make room and start again',
        )


def is_complete(checkpoint: str, *, only_model: bool = False) -> bool:
    """Whether every file of the checkpoint is there with its full size."""
    return what_is_missing(checkpoint, only_model=only_model) is None


def _sizes(folder: str) -> dict[str, int]:
    """Size of every file below folder, by path relative to it (with forward slashes)."""
    sizes = {}
    for base, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(base, name)
            sizes[os.path.relpath(path, folder).replace(os.sep, '/')] = os.path.getsize(path)
    return dict(sorted(sizes.items()))


def _flush(folder: str) -> None:
    """fsync every file and folder below `folder`, deepest first, and the folder itself."""
    for base, _, names in os.walk(folder, topdown=False):
        for name in names:
            with open(os.path.join(base, name), 'r+b') as stream:
                os.fsync(stream.fileno())
        _flush_folder(base)


def _flush_folder(folder: str) -> None:
    """fsync a folder's entries (systems that can't open folders, such as Windows, need no such thing)."""
    if os.name == 'nt':
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
