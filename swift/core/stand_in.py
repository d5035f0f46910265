"""A stand-in for torchvision where there is none that works.

transformers' image and video processors call a dozen functions of torchvision, which is often absent, or present as a build
that does not load beside the torch at hand (a CUDA build next to a CPU torch: "operator torchvision::nms does not exist").
`install()` puts a finder before Python's own that answers for this one name only:

- a torchvision that loads is used as it is, unchanged;
- none is found: `torchvision` is a module whose functions come from `swift.media.vision_ops`;
- one is found, but its import fails: the same, and the log says so once.

Whether an installed build works can't be read off versions (a CUDA build from the index has no tag of its own, a CPU one may
have none either, and a wheel for another torch release looks like any other), so it is tried, at the moment something
imports torchvision, and never before. What the stand-in does not have (ops, models, datasets) fails with the
ModuleNotFoundError that a machine without torchvision gives. Installing is cheap: nothing is imported.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

NAME = 'torchvision'
VERSION = '0.28.0'
"""The release whose numbers the stand-in gives."""

_OPS = 'swift.media.vision_ops'
_SHARED = (
    'InterpolationMode',
    'center_crop',
    'crop',
    'gaussian_blur',
    'normalize',
    'pad',
    'pil_to_tensor',
    'resize',
    'rgb_to_grayscale',
    'to_pil_image',
    'to_tensor',
)
_V2 = ('grayscale_to_rgb', 'to_dtype', 'to_dtype_image', 'to_image')
_TABLE: dict[str, dict[str, str]] = {
    NAME: {},
    f'{NAME}.transforms': {'InterpolationMode': _OPS},
    f'{NAME}.transforms.functional': {**dict.fromkeys(_SHARED, _OPS), 'resize': f'{_OPS}:resize_v1'},
    f'{NAME}.transforms.v2': {'InterpolationMode': _OPS},
    f'{NAME}.transforms.v2.functional': dict.fromkeys((*_SHARED, *_V2), _OPS),
    f'{NAME}.io': dict.fromkeys(('ImageReadMode', 'decode_image'), 'swift.media.vision_io'),
}
"""Module of the stand-in → its names → where each comes from (`module` or `module:attribute`)."""


def install() -> None:
    """Offer the stand-in from now on. Called by `import swift`; a second call does nothing."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def in_use() -> bool:
    """Whether the imported torchvision is the stand-in (False also while nothing has imported it)."""
    return _is_ours(sys.modules.get(NAME))


def came_late() -> bool:
    """Whether transformers looked for torchvision, and found none, before the stand-in was offered: `import swift` must come first.

    transformers remembers the answer, and leaves out its video processors for the rest of the process.
    """
    facts = sys.modules.get('transformers.utils.import_utils')
    return facts is not None and not facts.is_torchvision_available()


class _Finder(MetaPathFinder):
    """Answers for torchvision and what is below it; everything else goes on to Python's own finders."""

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != NAME and not fullname.startswith(NAME + '.'):
            return None
        if fullname == NAME:
            return self._real(path, target) or _spec(NAME)
        if not _is_ours(sys.modules.get(NAME)):
            return None
        if fullname not in _TABLE:
            raise ModuleNotFoundError(_missing(fullname), name=NAME)
        return _spec(fullname)

    def _real(self, path: Any, target: ModuleType | None) -> ModuleSpec | None:
        """The spec of an installed torchvision, to be loaded with a net below; None for a bare folder of that name."""
        for finder in sys.meta_path:
            find = None if finder is self else getattr(finder, 'find_spec', None)
            spec = find(NAME, path, target) if find else None
            if spec is not None:
                if spec.loader is None or spec.origin is None:
                    return None
                spec.loader = _Attempt(spec.loader)
                return spec
        return None


class _Loader(Loader):
    """Makes one module of the stand-in."""

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        _fill(module)


class _Attempt(Loader):
    """Loads the installed torchvision, and turns the module into the stand-in when that fails."""

    def __init__(self, real: Any):
        self._real = real

    def __getattr__(self, name: str) -> Any:
        if name == '_real':  # while being copied
            raise AttributeError(name)
        return getattr(self._real, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = module.__spec__.loader = self._real
        try:
            self._real.exec_module(module)
        except Exception as error:
            for name in [name for name in sys.modules if name.startswith(NAME + '.')]:
                del sys.modules[name]
            for name in [name for name in vars(module) if name != '__name__']:
                delattr(module, name)
            module.__spec__ = spec = _spec(NAME)
            module.__loader__, module.__package__ = spec.loader, NAME
            _fill(module)
            _tell(error)


def _tell(error: Exception) -> None:
    from swift.core.log import info_once

    reason = str(error).split('\n')[0] or type(error).__name__
    info_once('The installed torchvision does not load beside this torch (%s): swift uses its own image transforms.', reason)


def _spec(fullname: str) -> ModuleSpec:
    spec = ModuleSpec(fullname, _Loader(), origin='stand-in of swift', is_package=True)
    spec.submodule_search_locations = []
    return spec


def _fill(module: ModuleType) -> None:
    """The names of a stand-in module, each imported when it is first used."""
    fullname = module.__name__
    names = _TABLE[fullname]

    def __getattr__(name: str) -> Any:
        if f'{fullname}.{name}' in _TABLE:
            return import_module(f'{fullname}.{name}')
        if name not in names:
            raise AttributeError(_missing(f'{fullname}.{name}'))
        home, _, attribute = names[name].partition(':')
        value = getattr(import_module(home), attribute or name)
        setattr(module, name, value)
        return value

    module.__path__ = []
    module.__all__ = sorted(names)
    module.__getattr__ = __getattr__
    module.__dir__ = lambda: sorted({*vars(module), *names})
    module.__version__ = VERSION


def _is_ours(module: ModuleType | None) -> bool:
    return module is not None and isinstance(getattr(module, '__loader__', None), _Loader)


def _missing(fullname: str) -> str:
    return f"No module named '{fullname}': torchvision is not installed; swift stands in for its image transforms only"
