"""Two real processes on gloo: what they agree on, and how the job ends."""

import os
import signal
import subprocess
import sys

import pytest

from swift.parallel import group
from swift.parallel.launch import child_env, torchrun_argv

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def start(task):
    env = {**os.environ, 'NPROC_PER_NODE': '2', 'OMP_NUM_THREADS': '1'}
    words = torchrun_argv('sft', [task], env)
    words[words.index(next(word for word in words if word.endswith('sft.py')))] = os.path.join(ROOT, 'tests', 'parallel', 'job.py')
    return subprocess.Popen(words, env=child_env([], env), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_processes_talk_and_share_an_error():
    out, err = (process := start('talk')).communicate(timeout=120)
    assert process.returncode == 0, err
    lines = out.splitlines()
    assert 'rank 1: disk full' in lines and 'rank 0: process 1 failed: SwiftError: disk full' in lines
    assert 'rank 0 threads 1' in lines
    assert '2 processes, backend gloo' in err


def test_a_mistake_keeps_its_exit_code_and_its_one_line():
    _, err = (process := start('mistake')).communicate(timeout=120)
    assert process.returncode == 2
    assert '--model is missing' in err and 'Traceback' not in err and 'ChildFailedError' not in err


def test_a_signal_reaches_every_process_and_waits_for_them():
    process = start('wait')
    assert process.stdout.readline() == 'waiting\n' == process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert sorted(out.splitlines()) == ['rank 0 saved', 'rank 1 saved']


@pytest.mark.slow
def test_a_killed_process_is_named():
    _, err = (process := start('killed')).communicate(timeout=120)
    assert process.returncode == 137
    assert 'process 1 (pid' in err and 'SIGKILL' in err and 'out of memory' in err


def test_alone_nothing_is_needed():
    assert not group.active() and group.broadcast(3) == 3 and group.gather(3) == [3]
    group.barrier()
    group.first_error(None)
    with pytest.raises(OSError):
        group.first_error(OSError('mine'))
    assert group.start_group(device_type='cpu') is False
    assert group.default_backend('cuda') == 'nccl' and group.default_backend('cpu') == 'gloo'


def test_waiting_in_vain_ends_with_a_hint():
    """One of two processes never comes."""
    code = ('import swift.parallel.group as group\n'
            'group.RENDEZVOUS_SECONDS = 2\n'
            'group.start_group(device_type="cpu")')
    env = {**os.environ, 'RANK': '1', 'LOCAL_RANK': '1', 'WORLD_SIZE': '2', 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': '1'}
    done = subprocess.run([sys.executable, '-c', code], env=env, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert 'process 1 of 2 found no others at 127.0.0.1:1' in done.stderr
