"""Every flag once: groups, aliases, parsing, defaults, checks. No torch, no model, no data.

What crosses the door: argv (or a mapping) in, a settled `SftArguments`, `InferArguments`, … out.
"""

from swift.core.lazy import lazy_face

_NAMES = {
    'RunArgs': 'swift.arguments.base',
    'ModelArgs': 'swift.arguments.model',
    'TemplateArgs': 'swift.arguments.template',
    'MediaArgs': 'swift.arguments.media',
    'DataArgs': 'swift.arguments.data',
    'TunerArgs': 'swift.arguments.tuner',
    'TrainArgs': 'swift.arguments.train',
    'GenerationArgs': 'swift.arguments.generate',
    'RlhfArgs': 'swift.arguments.rlhf',
    'TaskArgs': 'swift.arguments.task',
    'ScoringArgs': 'swift.arguments.task',
    'EngineArgs': 'swift.arguments.generate',
    'InferArgs': 'swift.arguments.generate',
    'DeployArgs': 'swift.arguments.deploy',
    'ExportArgs': 'swift.arguments.export',
    'BaseArguments': 'swift.arguments.commands',
    'SftArguments': 'swift.arguments.commands',
    'PretrainArguments': 'swift.arguments.commands',
    'RLHFArguments': 'swift.arguments.commands',
    'InferArguments': 'swift.arguments.commands',
    'DeployArguments': 'swift.arguments.commands',
    'EvalArguments': 'swift.arguments.commands',
    'SampleArguments': 'swift.arguments.commands',
    'ExportArguments': 'swift.arguments.commands',
    'MergeArguments': 'swift.arguments.commands',
    'PlanArguments': 'swift.arguments.commands',
    'PreviewArguments': 'swift.arguments.commands',
    'VerifyArguments': 'swift.arguments.commands',
    'PreviewArgs': 'swift.arguments.inspection',
    'VerifyArgs': 'swift.arguments.inspection',
    'Arguments': 'swift.arguments.commands',
    'parse_args': 'swift.arguments.parse',
    'resolve': 'swift.arguments.derive:resolve',
    'Facts': 'swift.arguments.derive',
    'Labels': 'swift.arguments.derive',
    'save_args': 'swift.arguments.saved',
    'load_saved_args': 'swift.arguments.saved',
    'find_checkpoint': 'swift.arguments.saved',
}

__getattr__, __dir__, __all__ = lazy_face(__name__, _NAMES)
