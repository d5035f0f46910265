"""ORPO against TRL's numbers, where they agree and where they do not, and by hand."""

import math

import pytest
import torch

from swift.objectives.orpo import log_odds
from swift.objectives.preference import Compared, Pairs, Step
from tests.objectives.trl.batch import golden, pair_samples, pairs
from tests.objectives.trl.ours import mean, objective, run
from tests.objectives.trl.pair_cases import CASES, rows_of

GOLDEN = golden('pairs')


def test_loss_and_gradient_are_trls_where_prompts_have_one_token():
    """The likelihood of a conversation is then that of its answer."""
    label = 'orpo one-token prompts'
    found = run(objective('orpo', **CASES[label][1]), [pair_samples(rows_of(label, pairs()))])
    wanted = GOLDEN[label]
    assert found['loss'] == pytest.approx(wanted['loss'], rel=1e-5)
    assert found['grad_norm'] == pytest.approx(wanted['grad_norm'], rel=1e-5)
    for name, value in wanted['metrics'].items():
        assert mean(found['metrics'][name]) == pytest.approx(value, rel=1e-5, abs=1e-6), name


@pytest.mark.parametrize('label', ['orpo', 'orpo beta 0.5'])
def test_the_odds_ratio_is_trls_and_the_likelihood_the_papers(label):
    """TRL takes the likelihood of prompt and answer; the paper's P(y|x) is of the answer alone (arXiv:2403.07691, eq. 1, 2, 6).

    We follow the paper: prompts are not trained anywhere else either, and need no logits.
    """
    settings = CASES[label][1]
    found, wanted = run(objective('orpo', **settings), [pair_samples()]), GOLDEN[label]
    for name, value in wanted['metrics'].items():
        if name != 'nll_loss':
            assert mean(found['metrics'][name]) == pytest.approx(value, rel=1e-5, abs=1e-6), name
    odds = wanted['loss'] - wanted['metrics']['nll_loss']
    assert found['loss'] - mean(found['metrics']['nll_loss']) == pytest.approx(odds, rel=1e-4, abs=1e-6)
    assert mean(found['metrics']['nll_loss']) == pytest.approx(GOLDEN['dpo sft']['loss'], rel=1e-5)
    assert abs(mean(found['metrics']['nll_loss']) - wanted['metrics']['nll_loss']) > 1e-3


def compared(chosen, rejected):
    both = Pairs(torch.tensor([chosen], requires_grad=True), torch.tensor([rejected], requires_grad=True))
    one = torch.ones(1)
    return Compared(both, both.map(torch.zeros_like), Pairs(one, one), -both.chosen, one, Step(one[0], one[0]))


def test_odds_by_hand():
    """p = 0.8 and 0.5: odds 4 and 1."""
    assert log_odds(compared(math.log(0.8), math.log(0.5))).item() == pytest.approx(math.log(4), rel=1e-5)
    assert log_odds(compared(math.log(0.5), math.log(1e-12))).item() == pytest.approx(-math.log(1e-12), rel=1e-5)


def test_a_certain_answer_has_finite_odds_and_gradients():
    pair = compared(0.0, -1.0)
    value = log_odds(pair)
    value.sum().backward()
    assert 13 < value.item() < 15 and pair.policy.chosen.grad.isfinite().all()
