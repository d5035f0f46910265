"""Imports go down only: every import statement, those inside functions too, against the table of docs/design."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / 'swift'

_BASE = {'core', 'arguments'}
_SHOWING = _BASE | {'media'}
_ENGINE = _SHOWING | {'model', 'template', 'tuners'}
ALLOWED = {
    'core': set(),
    'arguments': {'core'},
    'rewards': {'core'},
    'parallel': _BASE,
    'model': _BASE,
    'media': _BASE,
    'template': _SHOWING,
    'dataset': _SHOWING,
    'tuners': _BASE,
    'objectives': _BASE,
    'infer_engine': _ENGINE,
    'rollout': _BASE | {'rewards', 'infer_engine'},
    'trainers': _BASE | {'parallel', 'tuners', 'objectives'},
    'export': _ENGINE,
    'ui': _BASE,
    'cli': _BASE | {'parallel'},
}
ALLOWED['pipelines'] = set(ALLOWED) - {'ui', 'cli'}
"""Room → the rooms it may import."""

LIGHT = ('core', 'arguments', 'cli')
"""Rooms that never import a heavy package at module top; the faces are held to the same."""

HEAVY = {
    'torch',
    'transformers',
    'peft',
    'datasets',
    'accelerate',
    'numpy',
    'pyarrow',
    'pandas',
    'modelscope',
    'safetensors',
    'trl',
}

OWN_FILE = {
    'vllm',
    'sglang',
    'lmdeploy',
    'deepspeed',
    'megatron',
    'bitsandbytes',
    'liger_kernel',
    'unsloth',
    'flash_attn',
}
"""Packages that only the file named after them imports."""


def files():
    return sorted(path for path in PACKAGE.rglob('*.py'))


def room_of(path: Path) -> str | None:
    """The room of a file; None for a face (a module that belongs to no room)."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 and parts[0] in ALLOWED else None


def imports_of(path: Path):
    """(module, name or None, line, at module top) of every import statement, relative ones made absolute."""
    tree = ast.parse(path.read_text(encoding='utf-8'))
    top = {id(node) for node in _top_level(tree)}
    package = ('swift', *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, None, node.lineno, id(node) in top
        elif isinstance(node, ast.ImportFrom):
            base = '.'.join(package[: len(package) - node.level + 1]) if node.level else ''
            module = '.'.join(part for part in (base, node.module or '') if part)
            for alias in node.names:
                yield module, alias.name, node.lineno, id(node) in top


def _top_level(tree: ast.AST):
    """Nodes that run when the module is imported: not inside functions, not under `if TYPE_CHECKING` or `__main__`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and any(word in ast.dump(node.test) for word in ('TYPE_CHECKING', '__main__')):
            continue
        yield node
        yield from _top_level(node)


def target_room(module: str, name: str | None) -> str | None:
    """The room that an import of ours enters; '' for a face; None for other packages."""
    parts = module.split('.')
    if parts[0] != 'swift':
        return None
    if len(parts) == 1:
        return name if name in ALLOWED else ''
    return parts[1] if parts[1] in ALLOWED else ''


@pytest.mark.parametrize('path', files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    room = room_of(path)
    if room is None:
        return
    wrong = []
    for module, name, line, _ in imports_of(path):
        target = target_room(module, name)
        if target is None or target == room or target in ALLOWED[room]:
            continue
        if target == '' and module == 'swift' and name is None:  # `import swift` for its version
            continue
        wrong.append(f'{path.relative_to(ROOT)}:{line}: {room} imports {module}{"." + name if name else ""}')
    assert wrong == []


def test_cli_enters_parallel_by_its_launcher_only():
    for path in (PACKAGE / 'cli').rglob('*.py'):
        entered = {module for module, *_ in imports_of(path) if module.startswith('swift.parallel')}
        assert entered <= {'swift.parallel.launch'}, path


@pytest.mark.parametrize('path', files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_light_rooms_and_faces_import_nothing_heavy_at_the_top(path):
    room = room_of(path)
    heavy = [f'{line}: {module}' for module, _, line, top in imports_of(path) if top and module.split('.')[0] in HEAVY]
    assert room not in (None, *LIGHT) or heavy == []


@pytest.mark.parametrize('path', files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_engines_and_kernels_are_imported_in_their_own_file(path):
    found = {module.split('.')[0] for module, *_ in imports_of(path)} & OWN_FILE
    assert all(name in path.stem or name in path.parts for name in found), found


def test_every_folder_is_a_room_of_the_table():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and (path / '__init__.py').is_file()}
    unknown = {name for name in folders if name not in ALLOWED and not _is_face(PACKAGE / name)}
    assert unknown == set()


def _is_face(folder: Path) -> bool:
    """A folder with nothing but re-exports: its files define no class and no function."""
    nodes = [node for path in folder.rglob('*.py') for node in ast.parse(path.read_text(encoding='utf-8')).body]
    return not any(isinstance(node, (ast.ClassDef, ast.FunctionDef)) for node in nodes)


def test_the_table_has_no_cycle():
    left = dict(ALLOWED)
    while left:
        free = [room for room, below in left.items() if not below & set(left)]
        assert free, f'cycle among {sorted(left)}'
        for room in free:
            del left[room]


def test_the_reader_sees_imports_inside_functions(tmp_path, monkeypatch):
    path = PACKAGE / 'core' / 'imaginary.py'
    source = 'import json\n\ndef f():\n    from swift.model import x\n    import torch\n'
    monkeypatch.setattr(Path, 'read_text', lambda self, encoding=None: source)
    found = list(imports_of(path))
    assert (
        ('swift.model', 'x', 4, False) in found
        and ('torch', None, 5, False) in found
        and ('json', None, 1, True) in found
    )
