"""The import path `swift.utils`: small helpers by their usual names, each loaded on first use."""

from swift.core.lazy import lazy_face

_NAMES = {
    'get_logger': 'swift.core.log',
    'is_master': 'swift.core.dist',
    'is_dist': 'swift.core.dist',
    'append_to_jsonl': 'swift.core.jsonl',
    'read_from_jsonl': 'swift.core.jsonl:read_jsonl',
    'write_to_jsonl': 'swift.core.jsonl:write_jsonl',
    'seed_everything': 'swift.pipelines.base',
    'get_model_parameter_info': 'swift.tuners',
    'activate_parameters': 'swift.tuners',
    'freeze_parameters': 'swift.tuners',
    'find_all_linears': 'swift.tuners',
    'find_embedding': 'swift.tuners',
    'find_norm': 'swift.tuners',
    'get_multimodal_target_regex': 'swift.tuners',
    'plot_images': 'swift.trainers.plots',
    'safe_snapshot_download': 'swift.model',
    'parse_args': 'swift.arguments',
    'get_current_device': 'swift.parallel.device:current_device',
}

__getattr__, __dir__, __all__ = lazy_face(__name__, _NAMES)
