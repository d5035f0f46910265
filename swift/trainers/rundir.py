"""Where a run lives: `output_dir/vN-YYYYmmdd-HHMMSS/` (or output_dir itself), and what is inside. Standard library only."""

from __future__ import annotations

import os
import re
import shutil
import time

from swift.core.errors import CheckpointError
from swift.core.log import get_logger
from swift.core.runs import checkpoints, folders, runs

STAGING = re.compile(r'^\.checkpoint-(\d+)\.(tmp|old|trash)$')

logger = get_logger()


def new_run_dir(output_dir: str, add_version: bool = True) -> str:
    """Make and return the folder of a new run: the next `vN-date-time` below output_dir, or output_dir itself.

    Two commands that start at the same moment get different numbers (the folder is created exclusively). With
    `add_version` False an existing folder with checkpoints in it is refused, never mixed with a new run.
    """
    output_dir = os.path.abspath(os.path.expanduser(output_dir))
    if not add_version:
        if checkpoints(output_dir):
            raise CheckpointError(
                f'--output_dir {output_dir} holds checkpoints of another run and --add_version is false;',
                'choose another folder, or continue that run with --resume_from_checkpoint true',
            )
        os.makedirs(output_dir, exist_ok=True)
        return output_dir
    os.makedirs(output_dir, exist_ok=True)
    number = max((number for number, _ in runs(output_dir)), default=-1) + 1
    stamp = time.strftime('%Y%m%d-%H%M%S')
    while True:
        claim = os.path.join(output_dir, f'.v{number}.claim')
        try:
            os.mkdir(claim)  # exclusive whatever the time stamp is
        except FileExistsError:
            number += 1
            continue
        taken = [path for other, path in runs(output_dir) if other == number]
        if not taken:
            path = os.path.join(output_dir, f'v{number}-{stamp}')
            os.rename(claim, path)
            return path
        os.rmdir(claim)
        number += 1


def run_dir_for(output_dir: str, add_version: bool = True, resume: str | None = None) -> str:
    """The folder this command writes to; `resume` is the checkpoint it continues (None: a new run).

    A run that is continued from its last checkpoint below the same output_dir stays in its folder, so that its log, its
    plots and `--save_total_limit` go on. In every other case (an earlier checkpoint, another output_dir) a new folder is
    made, so that nothing that exists is overwritten.
    """
    if resume is None:
        return new_run_dir(output_dir, add_version)
    home = os.path.dirname(os.path.realpath(resume))
    base = os.path.realpath(os.path.expanduser(output_dir))
    inside = home == base or os.path.dirname(home) == base
    newest = checkpoints(home)[-1:] if inside else []
    if newest and os.path.realpath(newest[0][1]) == os.path.realpath(resume):
        return home
    if inside:
        logger.info('%s has later checkpoints: the continued run gets a folder of its own', home)
        return new_run_dir(base if home != base else os.path.dirname(base), True)
    return new_run_dir(output_dir, add_version)


def clean_leftovers(run_dir: str) -> list[str]:
    """Remove what a killed save left behind; returns the names of the folders removed or restored.

    A complete checkpoint that was being replaced at that moment gets its name back.
    """
    done = []
    for entry, match in folders(run_dir, STAGING):
        final = os.path.join(run_dir, f'checkpoint-{match[1]}')
        if match[2] == 'old' and not os.path.exists(final):
            os.rename(entry.path, final)
        else:
            shutil.rmtree(entry.path, ignore_errors=True)
        done.append(entry.name)
    return done


def link(run_dir: str, name: str, target: str | None) -> None:
    """Make `run_dir/name` point to the checkpoint `target` (relative, replaced atomically); None removes it.

    Where links can't be made (Windows without the right), a text file `name.txt` holds the folder's name.
    """
    path = os.path.join(run_dir, name)
    if target is None:
        for stale in (path, path + '.txt'):
            if os.path.islink(stale) or os.path.isfile(stale):
                os.remove(stale)
        return
    relative = os.path.relpath(target, run_dir)
    temporary = os.path.join(run_dir, f'.{name}.{os.getpid()}')
    try:
        os.symlink(relative, temporary, target_is_directory=True)
        os.replace(temporary, path)
    except (OSError, NotImplementedError):
        with open(path + '.txt', 'w', encoding='utf-8') as stream:
            stream.write(relative + '\n')
