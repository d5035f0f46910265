"""The import path `swift.callbacks`: trainer callbacks by name."""

from swift.core.lazy import lazy_face

__getattr__, __dir__, __all__ = lazy_face(
    __name__, {'callbacks_map': 'swift.trainers.callbacks', 'TrainerCallback': 'transformers'}
)
