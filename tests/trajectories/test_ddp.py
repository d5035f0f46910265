"""2 processes × batch 4 = 1 process × batch 8: real data parallelism, to 1e-5 in float32."""

import glob
import json
import os
import subprocess

import pytest
import torch

from swift.parallel.launch import child_env, torchrun_argv
from tests.helpers.matrix import SUBJECTS, stored
from tests.trajectories.job import DDP_CASES, ddp_trainer, method_files, method_run
from tests.trajectories.toy import curve, weights, without_clock

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@pytest.fixture(scope='module')
def two(tmp_path_factory):
    """All cases on two processes, in one launch."""
    out = tmp_path_factory.mktemp('ddp')
    assert on_two_processes('ddp', str(out)) == {'processes': 2}
    return out


def on_two_processes(*words, cache=None):
    """What `job.py WORDS` on two processes says in its last line."""
    env = {**os.environ, 'NPROC_PER_NODE': '2', 'OMP_NUM_THREADS': '1'} | ({'SWIFT_CACHE': cache} if cache else {})
    argv = torchrun_argv('sft', list(words), env)
    argv[next(i for i, word in enumerate(argv) if word.endswith('sft.py'))] = os.path.join(ROOT, 'tests', 'trajectories', 'job.py')
    done = subprocess.run(argv, env=child_env([], env), cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize('name', DDP_CASES)
def test_two_processes_train_one_model(two, tmp_path, name):
    one = ddp_trainer(str(tmp_path), DDP_CASES[name])
    one.train()
    other = torch.load(two / f'{name}.pt')
    assert other['weights'].keys() == weights(one).keys()
    for key, value in weights(one).items():
        assert (value - other['weights'][key]).abs().max() < 1e-5, key
    mine = curve(one)
    assert len(mine) == len(other['curve']) and sum('loss' in line for line in mine) == one.state.max_steps
    for a, b in zip(mine, other['curve'], strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert abs(a[key] - b[key]) < 1e-5, (key, a, b)


def test_only_the_first_process_writes_shared_files(two):
    folder = two / 'lora'
    last = max(folder.glob('checkpoint-*'), key=lambda path: int(path.name.split('-')[1]))
    names = set(os.listdir(last))
    assert {'rng_state_0.pth', 'rng_state_1.pth', 'loader_state_0.json', 'loader_state_1.json', 'optimizer.pt'} <= names
    assert json.load(open(last / 'manifest.json'))['world_size'] == 2
    lines = [json.loads(line) for line in open(folder / 'logging.jsonl')]
    assert len({line['global_step'] for line in lines}) >= 4
    assert len([line for line in lines if 'log_history' in line]) == 1  # not one from each process


def test_a_run_of_two_processes_goes_on_in_one(two, tmp_path):
    """The global batch is the same, so the position in the data is too."""
    checkpoints = sorted((two / 'full').glob('checkpoint-*'), key=lambda path: int(path.name.split('-')[1]))
    one = ddp_trainer(str(tmp_path), DDP_CASES['full'])
    one.train(resume_from_checkpoint=str(checkpoints[0]))
    other = torch.load(two / 'full.pt')['weights']
    assert max((value - other[key]).abs().max() for key, value in weights(one).items()) < 1e-5


# ---- every method, through its command

RUNS = [f'{subject}-{tuner}' for subject in SUBJECTS for tuner in ('lora', 'full')]
BY_DEFAULT = ['dpo-lora', 'kto-full', 'rm-lora', 'embedding-full']


def launched(tmp_path_factory, names):
    out = str(tmp_path_factory.mktemp('methods'))
    method_files(out, SUBJECTS)
    assert on_two_processes('methods', out, *names, cache=os.path.join(out, 'cache')) == {'runs': len(names), 'processes': 2}
    return out


@pytest.fixture(scope='module')
def few(tmp_path_factory):
    return launched(tmp_path_factory, BY_DEFAULT)


@pytest.fixture(scope='module')
def others(tmp_path_factory):
    return launched(tmp_path_factory, [name for name in RUNS if name not in BY_DEFAULT])


@pytest.mark.parametrize('name', [pytest.param(name, marks=[] if name in BY_DEFAULT else [pytest.mark.slow]) for name in RUNS])
def test_two_processes_are_one_for_every_method(request, monkeypatch, name):
    """2 × 4 = 1 × 8, with a filler in every other step: log, evaluation and weights to 1e-5."""
    out = request.getfixturevalue('few' if name in BY_DEFAULT else 'others')
    monkeypatch.setenv('SWIFT_CACHE', os.path.join(out, 'cache'))
    one = method_run(out, name)
    mine, theirs = without_clock(one['log_history']), torch.load(os.path.join(out, name + '.pt'))
    assert not isinstance(theirs, str), theirs
    assert len(mine) == len(theirs) and sum('eval_loss' in line for line in mine) == 2
    for a, b in zip(mine, theirs, strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-5)
    (other,) = glob.glob(os.path.join(out, name, '2', '*', 'checkpoint-4'))
    found, expected = stored(other), stored(one['last_model_checkpoint'])
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert (value - found[key]).abs().max() < 1e-5, key
