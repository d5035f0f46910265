"""Getting the big libraries into memory quickly.

Importing torch and transformers makes some millions of objects that all stay. Python's garbage collector walks through them
again and again while they are made, which takes a quarter of the time, and once more (half a second) at the first collection.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module


@contextmanager
def loaded(*modules: str) -> Iterator[None]:
    """Import `modules` without garbage collection, and keep what exists then out of all collections while the block runs."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        for name in modules:
            import_module(name)
    finally:
        if enabled:
            gc.enable()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
