"""The import path `swift.tuner_plugin`: a user's own tuners."""

from swift.core.lazy import lazy_face

__getattr__, __dir__, __all__ = lazy_face(__name__, {'Tuner': 'swift.tuners', 'tuners_map': 'swift.tuners'})
