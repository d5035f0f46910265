"""Every flag once: groups, aliases, parsing, defaults, checks. No torch, no model, no data.

What crosses the door: argv (or a mapping) in, a settled `SftArguments`, `InferArguments`, … out.
"""

from swift.core.lazy import lazy_face

_NAMES = {
    'RunArgs': 'swift.arguments.base',
    'ModelArgs': 'swift.arguments.model',
    'TemplateArgs': 'swift.arguments.template',
    'DataArgs': 'swift.arguments.data',
    'TunerArgs': 'swift.arguments.tuner',
    'TrainArgs': 'swift.arguments.train',
    'GenerationArgs': 'swift.arguments.generate',
    'InferArgs': 'swift.arguments.generate',
    'ExportArgs': 'swift.arguments.export',
    'BaseArguments': 'swift.arguments.commands',
    'SftArguments': 'swift.arguments.commands',
    'PretrainArguments': 'swift.arguments.commands',
    'InferArguments': 'swift.arguments.commands',
    'ExportArguments': 'swift.arguments.commands',
    'MergeArguments': 'swift.arguments.commands',
}

__getattr__, __dir__, __all__ = lazy_face(__name__, _NAMES)
