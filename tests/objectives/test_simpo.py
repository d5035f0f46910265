"""SimPO against TRL's numbers (its CPO trainer with loss_type simpo), and by hand."""

import math

import pytest
import torch

from swift.core.errors import SwiftError
from swift.core.types import AnswerTokens
from tests.objectives.trl.batch import golden, pair_samples
from tests.objectives.trl.ours import Actors, mean, objective, run
from tests.objectives.trl.pair_cases import CASES

GOLDEN = golden('pairs')


@pytest.mark.parametrize('label', [label for label, (method, _) in CASES.items() if method == 'simpo'])
def test_loss_gradient_and_metrics_are_trls(label):
    method, settings = CASES[label]
    found = run(objective(method, **settings), [pair_samples()])
    wanted = GOLDEN[label]
    assert found['loss'] == pytest.approx(wanted['loss'], rel=1e-5)
    assert found['grad_norm'] == pytest.approx(wanted['grad_norm'], rel=1e-5)
    for name, value in wanted['metrics'].items():
        if name != 'nll_loss' or settings['cpo_alpha']:
            assert mean(found['metrics'][name]) == pytest.approx(value, rel=1e-5, abs=1e-6), name


def test_defaults():
    made = objective('simpo')
    assert (made.roles, made.args.beta, made.args.simpo_gamma, made.args.cpo_alpha) == (('policy',), 2.0, 1.0, 0.0)
    assert run(made, [pair_samples()])['loss'] == pytest.approx(GOLDEN['simpo']['loss'], rel=1e-5)


class Dictated:
    """Chosen: log-probabilities -1, -2, -3; rejected: -1, -4. Means -2 and -2.5."""

    def answer_logps(self, batch, want=()):
        logps = torch.tensor([-1.0, -2.0, -3.0, -1.0, -4.0], requires_grad=True)
        return AnswerTokens(logps, torch.tensor([0, 0, 0, 1, 1]), torch.tensor([1, 2, 3, 5, 6]), torch.ones(5, dtype=torch.bool))


def test_by_hand():
    """-log σ(2 · 0.5 - 0.25) and, with cpo_alpha 0.5, half the mean of 1, 2, 3."""
    from swift.core.types import Sample

    batch = objective('simpo').collate([Sample(list(range(7)), [-100, 5, 6, 7, -100, 5, 6], lengths=[4, 3])])
    plain = objective('simpo', simpo_gamma=0.25).loss(batch, Actors(Dictated()))
    assert plain.sum.item() == pytest.approx(math.log1p(math.exp(-0.75)), rel=1e-6)
    assert plain.metrics['rewards/margins'].tolist() == [1.0] and plain.metrics['logps/chosen'].tolist() == [-2.0]
    both = objective('simpo', simpo_gamma=0.25, cpo_alpha=0.5).loss(batch, Actors(Dictated()))
    assert both.sum.item() == pytest.approx(math.log1p(math.exp(-0.75)) + 1.0, rel=1e-6)
    assert both.metrics['nll_loss'].tolist() == [1, 2, 3]


def test_a_loss_of_another_method_is_refused():
    with pytest.raises(SwiftError, match="'hinge' is no loss of simpo; it belongs to dpo, cpo"):
        objective('simpo', loss_type=['hinge'])
