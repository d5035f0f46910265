"""References to images, videos and sounds → pixels, frames and samples; their sizes from headers."""

from swift.core.lazy import lazy_face

_NAMES = {
    'Budget': 'swift.media.budget',
    'size_of': 'swift.media.read',
    'load': 'swift.media.read',
    'blank': 'swift.media.read',
    'Video': 'swift.media.video',
    'located': 'swift.media.refs',
    'storable': 'swift.media.refs',
    'name_of': 'swift.media.refs',
}

__getattr__, __dir__, __all__ = lazy_face(__name__, _NAMES)
