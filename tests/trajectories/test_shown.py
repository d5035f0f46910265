"""Rows of pictures on one process and of texts on the other train as one process does on all of them."""

import pytest
import torch

from tests.trajectories.job import shown_files, shown_run, stored_weights
from tests.trajectories.test_ddp import on_two_processes
from tests.trajectories.toy import without_clock

RUNS = [f'{family}-{tuner}' for family in ('llava', 'qwen2_vl', 'gemma3', 'qwen2_audio', 'qwen2_5_omni_thinker') for tuner in ('lora', 'full')]
BY_DEFAULT = ['llava-full', 'qwen2_vl-lora']


def launched(tmp_path_factory, names):
    out = str(tmp_path_factory.mktemp('shown'))
    shown_files(out, sorted({name.rsplit('-', 1)[0] for name in names}))
    assert on_two_processes('shown', out, *names, cache=f'{out}/cache') == {'runs': len(names), 'processes': 2}
    return out


@pytest.fixture(scope='module')
def some(tmp_path_factory):
    return launched(tmp_path_factory, BY_DEFAULT)


@pytest.fixture(scope='module')
def every(tmp_path_factory):
    return launched(tmp_path_factory, [name for name in RUNS if name not in BY_DEFAULT])


def same(out, name):
    other = torch.load(f'{out}/{name}.pt')
    assert not isinstance(other, str), other
    result = shown_run(out, name)
    mine = without_clock(result['log_history'])
    assert len(mine) == len(other['log'])
    for a, b in zip(mine, other['log'], strict=True):
        for key in ('loss', 'grad_norm'):
            assert abs(a.get(key, 0) - b.get(key, 0)) < 2e-5, (key, a, b)
    weights = stored_weights(result['last_model_checkpoint'])
    assert weights.keys() == other['weights'].keys()
    assert max((value - other['weights'][key]).abs().max() for key, value in weights.items()) < 2e-5


@pytest.mark.parametrize('name', BY_DEFAULT)
def test_two_processes_with_different_kinds_of_rows_train_one_model(some, name):
    same(some, name)


@pytest.mark.slow
@pytest.mark.parametrize('name', [name for name in RUNS if name not in BY_DEFAULT])
def test_every_family_does(every, name):
    same(every, name)
