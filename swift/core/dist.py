"""Which process am I? Read from the variables that torchrun sets, without importing torch."""

from __future__ import annotations

import os


def rank() -> int:
    """Global rank; 0 when not distributed."""
    return int(os.environ.get('RANK', 0)) if is_dist() else 0


def local_rank() -> int:
    """Rank on this node; 0 when not distributed."""
    return int(os.environ.get('LOCAL_RANK', 0)) if is_dist() else 0


def world_size() -> int:
    """Number of processes of the job."""
    return int(os.environ.get('WORLD_SIZE', 1)) if is_dist() else 1


def local_world_size() -> int:
    """Number of processes of the job on this node."""
    return int(os.environ.get('LOCAL_WORLD_SIZE', 1)) if is_dist() else 1


def is_dist() -> bool:
    """Whether a launcher such as torchrun started this process (even with one process)."""
    return 'LOCAL_RANK' in os.environ and 'WORLD_SIZE' in os.environ


def is_master() -> bool:
    """Whether this process writes files and logs."""
    return rank() == 0
