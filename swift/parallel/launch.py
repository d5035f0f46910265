"""From one command to one process per device: `NPROC_PER_NODE=8 swift sft …` becomes torchrun. Standard library only.

    if should_launch(os.environ, argv):
        exec_torchrun('sft', argv)          # never returns

The variables are torchrun's own, in capitals: NPROC_PER_NODE, NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT. The same names may
be given as flags (`swift sft --nproc_per_node 2 …`), which win. The process is *replaced* (execve), so signals and the exit code
pass through; `swift.parallel.torchrun` is torchrun itself with readable failures.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from swift.core.errors import ArgumentsError
from swift.core.ports import free_port

LAUNCH_FLAGS = ('nproc_per_node', 'nnodes', 'node_rank', 'master_addr', 'master_port')
"""torchrun's options that we read from the environment (in capitals) or from the command line."""

DEVICE_COUNTS = ('auto', 'gpu', 'cpu', 'xpu')
"""Words that torchrun accepts in place of a number of processes."""


def should_launch(env: Mapping[str, str], argv: Sequence[str] = ()) -> bool:
    """Whether this command has to become several processes (and isn't one of them already).

    One process on one node needs no launcher, so `NPROC_PER_NODE=1` alone does not start one.
    """
    if 'LOCAL_RANK' in env and 'WORLD_SIZE' in env:
        return False
    facts, _ = launch_settings(argv, env)
    return facts['nproc_per_node'] not in ('1', None) or facts['nnodes'] not in ('1', None)


def launch_settings(argv: Sequence[str], env: Mapping[str, str]) -> tuple[dict[str, str | None], list[str]]:
    """The five launch settings (flag over environment, None = unset) and argv without them."""
    facts: dict[str, str | None] = {name: env.get(name.upper()) or None for name in LAUNCH_FLAGS}
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        name, equals, value = word.partition('=')
        key = name[2:].replace('-', '_')
        if not name.startswith('--') or key not in LAUNCH_FLAGS:
            rest.append(word)
            continue
        facts[key] = value if equals else next(words, '')
    return facts, rest


def torchrun_argv(command: str, argv: Sequence[str], env: Mapping[str, str]) -> list[str]:
    """The process that replaces this one: interpreter, torchrun's options, the script of `command`, its arguments.

    Raises ArgumentsError listing every launch setting that can't work.
    """
    facts, rest = launch_settings(argv, env)
    mistakes = _mistakes(facts)
    if mistakes:
        raise ArgumentsError(mistakes)
    several_nodes = facts['nnodes'] not in (None, '1')
    if facts['master_port'] is None and not several_nodes:
        facts['master_port'] = str(free_port())
    options: list[str] = []
    for name in LAUNCH_FLAGS:
        if facts[name] is not None:
            options += [f'--{name}', facts[name]]
    return [sys.executable, '-m', 'swift.parallel.torchrun', *options, script_of(command), *rest]


def script_of(command: str) -> str:
    """Path of the file that runs `command` when torchrun starts it."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return os.path.join(package, 'cli', command.replace('-', '_') + '.py')


def child_env(argv: Sequence[str], env: Mapping[str, str]) -> dict[str, str]:
    """The environment of the launched processes: `env` with threads per process and the package's own folder on the path."""
    facts, _ = launch_settings(argv, env)
    result = {name: value for name, value in env.items() if name not in {flag.upper() for flag in LAUNCH_FLAGS}}
    count = facts['nproc_per_node'] or '1'
    if 'OMP_NUM_THREADS' not in env:
        result['OMP_NUM_THREADS'] = str(max(1, usable_cores() // int(count)) if count.isdigit() else 1)
    # `python script.py` puts the script's folder first on the path; the package itself must stay importable
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    paths = [path for path in env.get('PYTHONPATH', '').split(os.pathsep) if path]
    result['PYTHONPATH'] = os.pathsep.join([*paths, root] if root not in paths else paths)
    return result


def exec_torchrun(command: str, argv: Sequence[str]) -> None:
    """Replace this process by torchrun. Never returns (on Windows, where exec detaches, it waits and exits)."""
    words = torchrun_argv(command, argv, os.environ)
    env = child_env(argv, os.environ)
    facts, _ = launch_settings(argv, os.environ)
    if facts['nnodes'] not in (None, '1') and facts['master_addr']:
        where = f'{facts["master_addr"]}:{facts["master_port"] or 29500}'
        print(f'[INFO] node {facts["node_rank"] or 0} of {facts["nnodes"]}: meeting the others at {where}', file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == 'nt':
        import subprocess

        raise SystemExit(subprocess.call(words, env=env))
    os.execve(words[0], words, env)


def usable_cores() -> int:
    """CPU cores this process may use (its affinity mask where the system has one)."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def _mistakes(facts: Mapping[str, str | None]) -> list[str]:
    """One line for every setting that torchrun would reject or wait for in vain."""
    found = []
    count, nodes, rank, port = (facts[name] for name in ('nproc_per_node', 'nnodes', 'node_rank', 'master_port'))
    if count is not None and count not in DEVICE_COUNTS and not _positive(count):
        found.append(f'NPROC_PER_NODE must be a positive number or one of {", ".join(DEVICE_COUNTS)}, not {count!r}')
    if nodes is not None and not all(_positive(part) for part in nodes.split(':')):
        found.append(f'NNODES must be a positive number (or MIN:MAX), not {nodes!r}')
    elif nodes not in (None, '1'):
        if not facts['master_addr']:
            found.append('NNODES is more than one, so MASTER_ADDR must say where node 0 is, on every node')
        if rank is None:
            found.append('NNODES is more than one, so NODE_RANK must be set on every node: 0, 1, …')
    if rank is not None and not rank.isdigit():
        found.append(f'NODE_RANK must be a number from 0, not {rank!r}')
    elif rank is not None and int(rank) >= int((nodes or '1').split(':')[-1]) and not found:
        found.append(f'NODE_RANK is {rank}, but there are only {nodes or 1} nodes (NNODES); ranks start at 0')
    if port is not None and not (port.isdigit() and 0 < int(port) < 65536):
        found.append(f'MASTER_PORT must be a port number (1-65535), not {port!r}')
    return found


def _positive(text: str) -> bool:
    return text.isdigit() and int(text) > 0
