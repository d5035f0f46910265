"""The command that replaces `swift sft` when several processes are asked for."""

import os
import subprocess
import sys

import pytest

from swift.core.errors import ArgumentsError
from swift.parallel.launch import child_env, should_launch, torchrun_argv, usable_cores


def words(env, argv=('--model', 'x')):
    built = torchrun_argv('sft', list(argv), env)
    assert built[:3] == [sys.executable, '-m', 'swift.parallel.torchrun']
    return built[3:]


def test_two_nodes():
    env = {'NNODES': '2', 'NODE_RANK': '0', 'MASTER_ADDR': '192.168.1.10', 'MASTER_PORT': '29500', 'NPROC_PER_NODE': '8'}
    built = words(env)
    assert built[:10] == ['--nproc_per_node', '8', '--nnodes', '2', '--node_rank', '0', '--master_addr', '192.168.1.10',
                          '--master_port', '29500']
    assert built[10].endswith(os.path.join('swift', 'cli', 'sft.py')) and built[11:] == ['--model', 'x']


def test_a_free_port_is_chosen_and_flags_win_over_variables():
    built = words({'NPROC_PER_NODE': '4'}, ['--nproc_per_node=2', '--model', 'x', '--nnodes', '1'])
    assert built[:4] == ['--nproc_per_node', '2', '--nnodes', '1'] and built[4] == '--master_port'
    assert 1024 < int(built[5]) < 65536 and built[7:] == ['--model', 'x']
    assert '29500' not in built


@pytest.mark.parametrize('env, argv, expected', [
    ({}, [], False),
    ({'NPROC_PER_NODE': '1'}, [], False),
    ({'NPROC_PER_NODE': '2'}, [], True),
    ({'NPROC_PER_NODE': 'gpu'}, [], True),
    ({'NNODES': '2'}, [], True),
    ({}, ['--nnodes', '2'], True),
    ({'NPROC_PER_NODE': '2', 'LOCAL_RANK': '0', 'WORLD_SIZE': '2'}, [], False),
])
def test_when_to_launch(env, argv, expected):
    assert should_launch(env, argv) is expected


@pytest.mark.parametrize('env, message', [
    ({'NPROC_PER_NODE': 'two'}, "NPROC_PER_NODE must be .* not 'two'"),
    ({'NPROC_PER_NODE': '0'}, 'NPROC_PER_NODE'),
    ({'NNODES': '2', 'NODE_RANK': '1'}, 'MASTER_ADDR must say'),
    ({'NNODES': '2', 'MASTER_ADDR': 'a'}, 'NODE_RANK must be set'),
    ({'NNODES': '2', 'MASTER_ADDR': 'a', 'NODE_RANK': '2'}, 'only 2 nodes'),
    ({'NPROC_PER_NODE': '2', 'MASTER_PORT': '99999'}, 'MASTER_PORT'),
])
def test_mistakes_are_said_before_anything_starts(env, message):
    with pytest.raises(ArgumentsError, match=message):
        torchrun_argv('sft', [], env)


def test_threads_are_shared_out_and_the_package_is_importable():
    env = child_env([], {'NPROC_PER_NODE': '2', 'PATH': '/bin'})
    assert env['OMP_NUM_THREADS'] == str(max(1, usable_cores() // 2)) and 'NPROC_PER_NODE' not in env
    assert os.path.isdir(os.path.join(env['PYTHONPATH'], 'swift'))
    assert child_env([], {'NPROC_PER_NODE': '2', 'OMP_NUM_THREADS': '3'})['OMP_NUM_THREADS'] == '3'


def test_launching_imports_no_torch():
    code = 'import sys, swift.parallel.launch; assert "torch" not in sys.modules'
    subprocess.run([sys.executable, '-c', code], check=True, cwd=os.path.dirname(os.path.dirname(os.path.dirname(__file__))))
