"""DPO against TRL's numbers, the papers worked by hand, and the laws of the house."""

import pytest
import torch

from swift.core.errors import SwiftError
from swift.objectives.dpo_losses import pair_losses, register_pair_loss
from swift.objectives.preference import Compared, Pairs, Step
from tests.objectives.trl.batch import golden, pair_samples, pairs
from tests.objectives.trl.ours import mean, objective, run
from tests.objectives.trl.pair_cases import CASES, rows_of

GOLDEN = golden('pairs')


def no_shift(batch):
    """TRL leaves out the reward shift of BCO (arXiv:2404.04656, eq. 10); ours is set to 0 to compare the rest."""
    step = batch.extra['step']
    batch.extra['step'] = Step(step.pairs, step.tokens, torch.zeros(len(batch.lengths) // 2, 4), torch.zeros(1, 4))


@pytest.mark.parametrize('label', [label for label, (method, _) in CASES.items() if method == 'dpo'])
def test_loss_gradient_and_metrics_are_trls(label):
    _, settings = CASES[label]
    found = run(objective('dpo', **settings), [pair_samples(rows_of(label, pairs()))], alter=no_shift if 'bco' in label else None)
    wanted = GOLDEN[label]
    assert found['loss'] == pytest.approx(wanted['loss'], rel=1e-5)
    assert found['grad_norm'] == pytest.approx(wanted['grad_norm'], rel=1e-5)
    for name, value in wanted['metrics'].items():
        assert mean(found['metrics'][name]) == pytest.approx(value, rel=1e-5, abs=1e-6), name
