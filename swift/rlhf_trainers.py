"""The import path `swift.rlhf_trainers`: trainers for a model in hand, each with its config, loaded on first use."""

from swift.core.lazy import lazy_face

_METHODS = ('DPO', 'KTO', 'ORPO', 'CPO', 'SimPO', 'Reward')

__getattr__, __dir__, __all__ = lazy_face(
    __name__, {f'{method}{kind}': 'swift.pipelines.in_hand' for method in _METHODS for kind in ('Trainer', 'Config')}
)
