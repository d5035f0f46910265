"""Which weights learn, how they are stored, loaded and merged.

Entered by `prepare_tuner`, `save_tuner`, `load_adapter`, `merge` and `coverage`. PEFT is imported only when an adapter
is made or loaded.
"""

from swift.core.lazy import lazy_face

_NAMES = {
    'prepare_tuner': 'swift.tuners.registry',
    'save_tuner': 'swift.tuners.registry',
    'load_adapter': 'swift.tuners.registry',
    'is_adapter': 'swift.tuners.registry',
    'unwrap': 'swift.tuners.registry',
    'tuners_map': 'swift.tuners.registry',
    'merge': 'swift.tuners.merging',
    'MergeReport': 'swift.tuners.merging',
    'coverage': 'swift.tuners.reach',
    'Coverage': 'swift.tuners.reach',
    'Tuner': 'swift.tuners.base',
    'Swift': 'swift.tuners.face',
    'SwiftModel': 'swift.tuners.face',
    'SwiftConfig': 'swift.tuners.face',
    'LoRAConfig': 'swift.tuners.face',
    'LoraConfig': 'swift.tuners.face:LoRAConfig',
    'activate_parameters': 'swift.tuners.modules',
    'find_all_linears': 'swift.tuners.modules',
    'find_embedding': 'swift.tuners.modules',
    'find_norm': 'swift.tuners.modules',
    'freeze_parameters': 'swift.tuners.modules',
    'get_model_parameter_info': 'swift.tuners.modules',
    'get_multimodal_target_regex': 'swift.tuners.parts',
}

__getattr__, __dir__, __all__ = lazy_face(__name__, _NAMES)
