"""Stopped politely, stopped rudely, killed: the run goes on as if nothing had happened."""

import os
import random
import signal
import subprocess
import sys

import pytest
import torch

from swift.core.runs import checkpoints
from swift.trainers.resume import find_last_complete, what_is_missing
from tests.trajectories.job import SLOW
from tests.trajectories.toy import make_trainer, weights

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def start(run_dir, *words):
    return subprocess.Popen([sys.executable, '-m', 'tests.trajectories.job', 'interrupt', str(run_dir), *words], cwd=ROOT, text=True,
                            env={**os.environ, 'OMP_NUM_THREADS': '1'}, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for(process, step):
    for line in process.stdout:
        if line.strip() == f'step {step}':
            return
    raise AssertionError(process.stderr.read())


def continued_equals_straight(tmp_path, run_dir, to_step):
    """From the last checkpoint of run_dir on to a fixed step = straight to that step."""
    settings = {**SLOW, 'save_steps': 1000}

    class Until(__import__('transformers').TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step >= to_step

    straight = make_trainer(str(tmp_path / 'straight'), callbacks=[Until()], **settings)
    straight.train()
    resumed = make_trainer(str(tmp_path / 'resumed'), callbacks=[Until()], **settings)
    resumed.train(resume_from_checkpoint=find_last_complete(str(run_dir)))
    assert resumed.state.global_step == straight.state.global_step == to_step
    for (name, one), (_, two) in zip(weights(straight).items(), weights(resumed).items(), strict=True):
        assert torch.equal(one, two), name


@pytest.mark.parametrize('number, code', [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)])
def test_a_signal_saves_and_says_how_to_go_on(tmp_path, number, code):
    process = start(tmp_path / 'run')
    wait_for(process, 5)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    step = max(int(line.split()[1]) for line in (out.splitlines() or ['step 5']))
    folder = find_last_complete(str(tmp_path / 'run'))
    assert folder.endswith(f'checkpoint-{step}')
    assert f'swift sft --resume_from_checkpoint {folder}' in err and 'Traceback' not in err
    continued_equals_straight(tmp_path, tmp_path / 'run', step + 3)


@pytest.mark.parametrize('seed', [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_kill_9_while_training(tmp_path, seed):
    """Twice in a row at random moments (a checkpoint a step: mostly while saving); nothing half is ever taken for whole."""
    draw, run = random.Random(seed), tmp_path / 'run'
    for words in ((), ('resume',)):
        process = start(run, *words)
        before = max((step for step, _ in checkpoints(str(run))), default=0)
        wait_for(process, before + draw.randrange(2, 7))
        try:
            process.wait(timeout=draw.random() * 0.1)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        for _, path in checkpoints(str(run)):
            assert what_is_missing(path) is None, f'{path}: {what_is_missing(path)}'
    last = max(step for step, _ in checkpoints(str(run)))
    assert last > before
    continued_equals_straight(tmp_path, run, last + 3)
