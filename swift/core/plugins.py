"""`--external_plugins file.py …`: a user's own losses, templates, models, callbacks, loaded before a run."""

from __future__ import annotations

import importlib.util
import os
import sys
from types import ModuleType

from swift.core.errors import SwiftError

_loaded: dict[str, ModuleType] = {}


def load_plugin(path: str) -> ModuleType:
    """Import one Python file (or a package folder) by path; a second call returns the same module.

    Raises SwiftError naming the file and the cause when it can't be imported.
    """
    real = os.path.realpath(os.path.expanduser(path))
    if real in _loaded:
        return _loaded[real]
    target = os.path.join(real, '__init__.py') if os.path.isdir(real) else real
    if not os.path.isfile(target):
        raise SwiftError(f'--external_plugins: no such file: {path};', 'give the path of a Python file')
    name = os.path.splitext(os.path.basename(real))[0]
    folder = os.path.dirname(real)
    if folder not in sys.path:  # the plugin's own sibling imports
        sys.path.append(folder)
    # registered under its own name so that classes defined in it can be pickled by worker processes,
    # unless that name is taken by something else
    module_name = name if name.isidentifier() and name not in sys.modules else f'swift_plugin_{abs(hash(real)):x}'
    spec = importlib.util.spec_from_file_location(module_name, target)
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except SwiftError:
        raise
    except Exception as error:
        sys.modules.pop(module_name, None)
        raise SwiftError(f'--external_plugins: {path} failed on import: {type(error).__name__}: {error}') from error
    _loaded[real] = module
    return module


def load_plugins(paths: list[str] | None) -> list[ModuleType]:
    """Import every file of `--external_plugins`, in order."""
    return [load_plugin(path) for path in paths or []]
