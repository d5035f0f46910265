"""The command `swift`: routing, help, exit codes, one line for each mistake."""

import os
import subprocess
import sys
import time
from importlib import import_module, util

import pytest

from swift.arguments.commands import CLASSES
from swift.arguments.flags import flags_of, help_of
from swift.cli import main as cli
from swift.cli.main import COMMANDS, OTHER_NAMES, ROUTE_MAPPING, cli_main, load, run_command
from swift.core.errors import ArgumentsError, RowError

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def swift(*words, **env):
    return subprocess.run(
        [sys.executable, '-m', 'swift', *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **env},
        timeout=120,
    )


@pytest.mark.parametrize('command', COMMANDS)
def test_every_listed_command_is_there(command):
    assert callable(load(command))


@pytest.mark.parametrize('command', ROUTE_MAPPING)
def test_every_command_is_a_script_file_without_side_effects(command, capsys):
    module = import_module(ROUTE_MAPPING[command])
    assert [name for name in vars(module) if not name.startswith('__')] == []
    assert capsys.readouterr() == ('', '')


def test_help_of_the_whole_lists_every_command(capsys):
    assert cli_main(['--help']) == 0
    text = capsys.readouterr().out
    for name, (_, line) in COMMANDS.items():
        assert f'  {name} ' in text and line in text
    assert cli_main([]) == 2


def test_version(capsys):
    import swift as package

    assert cli_main(['--version']) == 0
    assert capsys.readouterr().out == f'swift {package.__version__}\n'


@pytest.mark.parametrize('command', CLASSES)
@pytest.mark.parametrize('width', ['80', '140'])
def test_help_of_a_command_is_complete_and_fits(command, width, capsys, monkeypatch):
    monkeypatch.setenv('COLUMNS', width)
    assert run_command(command, ['--help']) == 0
    text = capsys.readouterr().out
    words = ' '.join(text.split())
    texts = help_of(CLASSES[command])
    for name, flag in flags_of(CLASSES[command]).items():
        assert f'\n  --{name} ' in text
        assert ' '.join(texts[name].split()) in words
        for choice in flag.choices:
            assert choice in words
    assert max(map(len, text.splitlines())) <= int(width)


def test_every_flag_has_one_line_of_help():
    for command, cls in CLASSES.items():
        texts = help_of(cls)
        for name in flags_of(cls):
            text = texts.get(name, '')
            assert (
                text.endswith(('.', '…')) and '\n' not in text and text[0].isupper() or name in text or ':' in text
            ), (command, name)


def test_an_unknown_command_suggests(capsys):
    assert cli_main(['sftt']) == 2
    assert capsys.readouterr().err == "swift: error: unknown command 'sftt'; did you mean 'sft'?\n"
    assert cli_main(['grpo', '--model', 'x']) == 2
    error = capsys.readouterr().err
    assert error.startswith('swift: error: grpo: online reinforcement learning') and error.count('\n') == 1


def test_other_names():
    assert OTHER_NAMES['train'] == 'sft' and set(OTHER_NAMES.values()) <= set(COMMANDS)
    assert set(ROUTE_MAPPING) == set(COMMANDS)


def test_mistakes_are_one_line_each_and_exit_2(capsys):
    assert cli_main(['train', '--bogus', '1', '--model', 'm', '--packing', 'maybe']) == 2
    out, err = capsys.readouterr()
    assert out == ''
    assert err.splitlines() == [
        "swift sft: error: --packing takes true or false, got 'maybe'",
        'swift sft: error: --dataset is required: files, folders, or ids of a hub',
        "swift sft: error: --bogus: unknown flag (remaining_argv: ['--bogus', '1']); see swift sft --help",
    ]


@pytest.fixture
def failing(monkeypatch):
    """Makes `swift doctor` raise what it is given."""

    def install(error):
        def fail(words):
            raise error

        monkeypatch.setattr(cli, 'load', lambda command: fail)

    return install


@pytest.mark.parametrize(
    'error, code, text',
    [
        (RowError('no messages', 'd.jsonl:3'), 2, 'swift doctor: error: d.jsonl:3: no messages\n'),
        (ArgumentsError(['one', 'two']), 2, 'swift doctor: error: one\nswift doctor: error: two\n'),
        (
            RuntimeError('out of\nmemory'),
            1,
            'swift doctor: failed: RuntimeError: out of memory (SWIFT_DEBUG=1 shows the traceback)\n',
        ),
        (KeyboardInterrupt(), 130, 'swift doctor: interrupted\n'),
    ],
)
def test_failures_end_in_one_place(failing, capsys, monkeypatch, error, code, text):
    monkeypatch.delenv('SWIFT_DEBUG', raising=False)
    failing(error)
    assert cli_main(['doctor']) == code
    assert capsys.readouterr().err == text


def test_the_traceback_on_request(failing, capsys, monkeypatch):
    monkeypatch.setenv('SWIFT_DEBUG', '1')
    failing(RuntimeError('deep'))
    assert cli_main(['doctor']) == 1
    assert 'Traceback' in capsys.readouterr().err


def test_only_the_first_rank_tells_mistakes_in_arguments(capsys, monkeypatch):
    for name, value in {'RANK': '1', 'LOCAL_RANK': '1', 'WORLD_SIZE': '2'}.items():
        monkeypatch.setenv(name, value)
    assert run_command('sft', ['--bogus']) == 2
    assert capsys.readouterr().err == ''


def test_another_rank_tells_its_own_mistake_after_a_while(failing, capsys, monkeypatch):
    for name, value in {'RANK': '1', 'LOCAL_RANK': '1', 'WORLD_SIZE': '2'}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cli, 'GRACE', 0.01)
    failing(RowError('no messages', 'd.jsonl:3'))
    assert run_command('doctor', []) == 2
    assert capsys.readouterr().err == 'swift doctor: error: d.jsonl:3: no messages (rank 1)\n'


@pytest.fixture
def launcher(monkeypatch):
    """Records what would be launched."""
    import swift.parallel.launch as launch

    calls = []
    monkeypatch.setattr(launch, 'exec_torchrun', lambda command, words: calls.append((command, list(words))))
    for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'NNODES'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('NPROC_PER_NODE', '2')
    return calls


def test_several_processes_start_after_the_arguments_were_read(launcher, capsys):
    words = ['--model', 'm', '--dataset', 'd']
    assert cli_main(['sft', *words]) == 0 and launcher == [('sft', words)]
    assert cli_main(['sft', *words, '--bogus', '1']) == 2 and len(launcher) == 1
    assert capsys.readouterr().err.count('remaining_argv') == 1


def test_hints_are_told_once_by_the_processes_not_by_the_launcher(launcher, monkeypatch):
    import logging

    hints = []
    monkeypatch.setattr(logging.getLogger('swift'), 'warning', hints.append)
    assert cli_main(['sft', '--model', 'm', '--dataset', 'd', '--sft_type', 'lora']) == 0
    assert launcher and hints == []


def test_a_dry_run_is_a_plan_in_one_process(launcher, monkeypatch):
    seen = []
    monkeypatch.setattr(cli, 'load', lambda command: lambda args: seen.append((command, args.dry_run)))
    assert cli_main(['sft', '--model', 'm', '--dataset', 'd', '--dry_run']) == 0
    assert seen == [('sft', True)] and launcher == []


def test_launch_flags_are_the_launchers(launcher, monkeypatch):
    monkeypatch.delenv('NPROC_PER_NODE')
    words = ['--nproc_per_node', '2', '--model', 'm', '--dataset', 'd']
    assert cli_main(['sft', *words]) == 0 and launcher == [('sft', words)]


@pytest.mark.parametrize('path', ['swift/cli/sft.py', 'swift/cli/merge_lora.py'])
def test_script_files_run_from_anywhere(path, tmp_path):
    done = subprocess.run(
        [sys.executable, os.path.join(ROOT, path), '--bogus', '1'],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != 'PYTHONPATH'},
        timeout=120,
    )
    assert done.returncode == 2 and 'error: --bogus: unknown flag' in done.stderr and done.stdout == ''


def test_a_reader_that_leaves_is_no_failure():
    command = f'{sys.executable} -m swift sft --help | head -1'
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.stdout.startswith('usage: swift sft') and 'Error' not in done.stderr


def test_help_is_quick():
    def seconds():
        start = time.perf_counter()
        done = swift('sft', '--help')
        assert done.returncode == 0
        return time.perf_counter() - start

    bare = min(_bare() for _ in range(3))
    # 0.3 s on a quiet machine, where Python alone takes about 0.02 s; more on a busy one
    assert min(seconds() for _ in range(5)) < max(0.3, 15 * bare)


def _bare():
    start = time.perf_counter()
    subprocess.run([sys.executable, '-c', 'pass'], check=True)
    return time.perf_counter() - start


def test_main_module_exists():
    assert util.find_spec('swift.__main__') is not None


@pytest.mark.parametrize('name', ['dpo', 'kto', 'orpo', 'cpo', 'simpo', 'rm'])
def test_a_method_stands_as_the_command(name, capsys, monkeypatch):
    ran = []
    monkeypatch.setattr(cli, 'load', lambda command: lambda args: ran.append((command, args.rlhf_type)))
    assert cli_main([name, '--model', 'm', '--dataset', 'd']) == 0
    assert ran == [('rlhf', name)]
    assert capsys.readouterr().err == f'swift {name} is short for swift rlhf --rlhf_type {name}\n'
    assert cli_main([name, '--help']) == 0
    assert capsys.readouterr().out.startswith('usage: swift rlhf [--rlhf_type METHOD]')


def test_the_overview_tells_the_short_commands(capsys):
    assert cli_main(['--help']) == 0
    assert 'swift dpo|kto|orpo|cpo|simpo|rm is short for swift rlhf --rlhf_type …' in capsys.readouterr().out
    assert cli_main(['simp']) == 2
    assert "did you mean 'simpo'?" in capsys.readouterr().err
