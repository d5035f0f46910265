"""From an id or a directory to a model and its processor; facts about families as data.

Entered by `load_model(args)`, `load_processor(args)` and `model_info(args)` (which imports no torch).
"""

from swift.core.lazy import lazy_face

_NAMES = {
    'Loaded': 'swift.model.load',
    'load_model': 'swift.model.load',
    'load_processor': 'swift.model.load',
    'model_info': 'swift.model.load',
    'find_model': 'swift.model.load',
    'get_model_processor': 'swift.model.compat',
    'get_model_tokenizer': 'swift.model.compat',
    'get_processor': 'swift.model.compat',
    'get_model_info_meta': 'swift.model.compat',
    'safe_snapshot_download': 'swift.model.compat',
    'ModelInfo': 'swift.model.info',
    'ModelPath': 'swift.model.resolve',
    'resolve_model_dir': 'swift.model.resolve',
    'resolve_adapter': 'swift.model.resolve',
    'checkpoints': 'swift.model.resolve',
    'last_complete': 'swift.model.resolve',
    'MODEL_MAPPING': 'swift.model.registry',
    'models_map': 'swift.model.registry',
    'register_model': 'swift.model.registry',
    'get_model_list': 'swift.model.registry',
    'Model': 'swift.model.registry',
    'ModelGroup': 'swift.model.registry',
    'ModelMeta': 'swift.model.registry',
    'ModelArch': 'swift.model.registry',
    'LLMModelType': 'swift.model.registry',
    'MLLMModelType': 'swift.model.registry',
}

__getattr__, __dir__, __all__ = lazy_face(__name__, _NAMES)
