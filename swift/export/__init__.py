"""A trained model → the form another program wants: merged into a plain model, uploaded to a hub.

Entered by `merge_lora(args)` and `push(directory, args)`.
"""

from swift.core.lazy import lazy_face

_NAMES = {
    'merge_lora': 'swift.export.merge',
    'is_merge_of': 'swift.export.merge',
    'push': 'swift.export.hub',
    'write_model': 'swift.export.write',
}

__getattr__, __dir__, __all__ = lazy_face(__name__, _NAMES)
