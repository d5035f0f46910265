"""What lies below an output folder: runs `vN-YYYYmmdd-HHMMSS`, and checkpoints `checkpoint-N` inside them."""

from __future__ import annotations

import os
import re

RUN = re.compile(r'^v(\d+)-\d{8}-\d{6}$')
CHECKPOINT = re.compile(r'^checkpoint-(\d+)$')


def runs(output_dir: str) -> list[tuple[int, str]]:
    """(N, path) of every run below output_dir, oldest first."""
    return sorted((int(match[1]), entry.path) for entry, match in folders(output_dir, RUN))


def checkpoints(run_dir: str) -> list[tuple[int, str]]:
    """(step, path) of every checkpoint in run_dir, complete or not, lowest step first."""
    return sorted((int(match[1]), entry.path) for entry, match in folders(run_dir, CHECKPOINT))


def folders(folder: str, pattern: re.Pattern) -> list[tuple[os.DirEntry, re.Match]]:
    """The folders in `folder` whose names match, in no order; none where there is no such folder."""
    if not os.path.isdir(folder):
        return []
    with os.scandir(folder) as entries:
        return [(entry, match) for entry in entries if (match := pattern.match(entry.name)) and entry.is_dir()]
