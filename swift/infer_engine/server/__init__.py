"""An engine behind HTTP, in the shape of OpenAI's API: requests in, JSON or a stream of events out.

`Served` says what is answered with and how much; `build_app` is the application; `Server` runs it until a signal, `running` for a while.
"""

from swift.core.lazy import lazy_face

_NAMES = {
    'Served': 'swift.infer_engine.server.served',
    'Limits': 'swift.infer_engine.server.served',
    'ServedModel': 'swift.infer_engine.server.served',
    'build_app': 'swift.infer_engine.server.app',
    'Server': 'swift.infer_engine.server.run',
    'running': 'swift.infer_engine.server.run',
}

__getattr__, __dir__, __all__ = lazy_face(__name__, _NAMES)
