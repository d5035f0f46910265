"""The import path `swift.optimizers`: optimizers by name."""

from swift.core.lazy import lazy_face

__getattr__, __dir__, __all__ = lazy_face(
    __name__, {'optimizers_map': 'swift.trainers.optimizers', 'OptimizerCallback': 'swift.trainers.optimizers'}
)
