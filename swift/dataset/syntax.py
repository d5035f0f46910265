"""How data sets are named: `[HF::|MS::]path or id or name[:subset/subset…][#rows]`."""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass

from swift.core.errors import DatasetError


@dataclass(frozen=True)
class Spec:
    """One entry of --dataset."""

    text: str
    """As it was written."""
    name: str
    """Path, id or registered name."""
    subsets: tuple[str, ...] = ()
    rows: int | None = None
    """How many rows are wanted. None: all of them."""
    use_hf: bool | None = None
    """True and False: the entry names its hub. None: as --use_hf says."""


def parse_spec(text: str) -> Spec:
    """The parts of an entry; a name that exists as a path is never cut. Raises DatasetError."""
    name, use_hf = text.strip(), None
    for prefix, value in (('HF::', True), ('MS::', False)):
        if name.upper().startswith(prefix):
            name, use_hf = name[len(prefix) :], value
    if not name:
        raise DatasetError(f'the data set entry {text!r} has no name')
    rows = None
    if not exists(name):
        found = re.fullmatch(r'(.+)#(\d[\d_]*)', name)
        if found:
            name, rows = found[1], int(found[2].replace('_', ''))
            if rows < 1:
                raise DatasetError(f'{text!r} asks for no rows')
        elif '#' in name:
            raise DatasetError(f'{text!r}: what follows # must be a number of rows, such as #500')
    subsets: tuple[str, ...] = ()
    if not exists(name):
        head, colon, tail = name.rpartition(':')
        if colon and len(head) > 1:
            name, subsets = head, tuple(part for part in tail.split('/') if part)
    return Spec(text, name, subsets, rows, use_hf)


def exists(name: str) -> bool:
    """Whether a name is a path, or a pattern that matches some."""
    path = os.path.expanduser(name)
    return os.path.exists(path) or (is_pattern(name) and bool(glob.glob(path, recursive=True)))


def is_pattern(name: str) -> bool:
    """Whether a name is a glob."""
    return any(mark in name for mark in '*?[')
