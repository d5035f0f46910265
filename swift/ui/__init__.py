"""Web pages over the commands. What they ask for comes from `swift.arguments`; what they run is named, never imported."""

from swift.core.lazy import lazy_face

_NAMES = {
    'app_main': 'swift.ui.app:app_main',
    'chat_page': 'swift.ui.chat_page:chat_page',
}

__getattr__, __dir__, __all__ = lazy_face(__name__, _NAMES)
