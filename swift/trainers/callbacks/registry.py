"""Callbacks by name, for `--callbacks` and plugins."""

from __future__ import annotations

import inspect
from typing import Any

from swift.core.errors import SwiftError
from swift.core.registry import Registry

callbacks_map: Registry = Registry('callback', {
    'early_stop': 'swift.trainers.callbacks.early_stop:EarlyStopCallback',
    'progress': 'swift.trainers.callbacks.progress:ProgressCallback',
    'record': 'swift.trainers.callbacks.record:RecordCallback',
    'plots': 'swift.trainers.callbacks.plots:PlotCallback',
    'graceful_exit': 'swift.trainers.callbacks.interrupt:InterruptCallback',
    'report': 'swift.trainers.report:ReportCallback',
})
"""Name → a transformers.TrainerCallback: a class without required arguments, a class taking `(args, trainer)`, or an instance."""


def make_callback(name: str, args: Any, trainer: Any) -> Any:
    """The callback registered as `name`, ready for `trainer.add_callback`.

    A class whose constructor has two positional parameters gets `(args, trainer)`; one without required parameters gets none.
    """
    entry = callbacks_map[name]
    if not inspect.isclass(entry):
        return entry
    required = [
        parameter
        for parameter in inspect.signature(entry).parameters.values()
        if parameter.default is parameter.empty and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    if not required:
        return entry()
    if len(required) == 2:
        return entry(args, trainer)
    names = ', '.join(parameter.name for parameter in required)
    raise SwiftError(f'--callbacks {name}: {entry.__name__}({names}) can not be made from the command line;',
                     'its constructor must take no required argument, or (args, trainer)')
