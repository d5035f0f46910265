"""Preference methods learn: on rows they have not seen, the better answer comes out ahead.

The preference is one that the embedded model does not have but can work out: of two wrong results of a sum, the one that is one
too high is preferred to the one that is one too low. `python -m tests.trajectories.test_learning` prints the figures.
"""

import json
import random
import time

import pytest

from swift.arguments import parse_args
from swift.pipelines.rlhf import rlhf_main
from swift.pipelines.train import TrainingRun

STEPS = dict(max_steps=40, per_device_train_batch_size=16, learning_rate=1e-3)
SETTINGS = {'dpo': {'max_steps': 25}, 'kto': {'max_steps': 60}, 'orpo': {}, 'cpo': {}, 'simpo': {}, 'rm': {'max_steps': 60, 'learning_rate': 5e-3}}
JUDGE = {'kto': 'dpo'}
"""Method → the one whose evaluation compares pairs, where it has no pairs itself."""


def write_pairs(folder) -> tuple[str, str]:
    """Paths of 800 rows to learn from and 200 rows of other sums."""
    draw = random.Random(0)
    sums = draw.sample([(a, b) for a in range(10, 100) for b in range(10, 100)], 1000)
    rows = [{'query': f'{a} + {b} = ?', 'response': str(a + b + 1), 'rejected_response': str(a + b - 1)} for a, b in sums]
    paths = []
    for name, part in (('train', rows[:800]), ('heldout', rows[800:])):
        paths.append(str(folder / f'{name}.jsonl'))
        with open(paths[-1], 'w') as file:
            file.writelines(json.dumps(row) + '\n' for row in part)
    return paths[0], paths[1]


def accuracy(method: str, folder, **more) -> tuple[float, float]:
    """(share of held-out pairs whose better answer has the higher reward, mean gap of rewards) of a model as it stands."""
    _, heldout = write_pairs(folder)
    flags = dict(rlhf_type=JUDGE.get(method, method), dataset=heldout, val_dataset=heldout, per_device_eval_batch_size=50)
    start = {'model': 'tiny'} | dict(output_dir=str(folder / 'judged'), report_to='none', **flags) | more
    found = TrainingRun(parse_args('rlhf', start), 'rlhf').trainer.evaluate()
    return found['eval_rewards/accuracies'], found['eval_rewards/margins']


def train(method: str, folder, **more) -> str:
    """The checkpoint of a short training."""
    path, _ = write_pairs(folder)
    flags = dict(model='tiny', rlhf_type=method, dataset=path, output_dir=str(folder / 'out'), report_to='none', logging_steps=10)
    return rlhf_main({**flags, **STEPS, **SETTINGS[method], **more})['last_model_checkpoint']


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('SWIFT_CACHE', str(tmp_path / 'cache'))


@pytest.mark.parametrize('method', [pytest.param(name, marks=[] if name == 'dpo' else [pytest.mark.slow]) for name in SETTINGS])
def test_the_better_answer_comes_out_ahead(tmp_path, method):
    share, gap = accuracy(method, tmp_path)
    if JUDGE.get(method, method) == 'dpo':
        assert gap == 0  # policy and reference are the same: every pair is a tie
    else:
        assert 0.35 < share < 0.65
    share, gap = accuracy(method, tmp_path, adapters=train(method, tmp_path))
    assert share >= 0.95 and gap > 0


if __name__ == '__main__':
    import tempfile
    from pathlib import Path

    for name in SETTINGS:
        place = Path(tempfile.mkdtemp())
        before, clock = accuracy(name, place), time.process_time()
        checkpoint = train(name, place)
        seconds = time.process_time() - clock
        after = accuracy(name, place, adapters=checkpoint)
        print(f'{name}: accuracy {before[0]:.3f} → {after[0]:.3f}, gap {before[1]:.3f} → {after[1]:.3f}, {seconds:.0f} s of CPU')
