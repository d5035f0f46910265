"""CPO against TRL's numbers."""

import pytest
import torch

from tests.objectives.trl.batch import golden, pair_samples, pairs
from tests.objectives.trl.ours import mean, objective, run
from tests.objectives.trl.pair_cases import CASES

GOLDEN = golden('pairs')


@pytest.mark.parametrize('label', [label for label, (method, _) in CASES.items() if method == 'cpo'])
def test_loss_gradient_and_metrics_are_trls(label):
    method, settings = CASES[label]
    found = run(objective(method, **settings), [pair_samples()])
    wanted = GOLDEN[label]
    assert found['loss'] == pytest.approx(wanted['loss'], rel=1e-5)
    assert found['grad_norm'] == pytest.approx(wanted['grad_norm'], rel=1e-5)
    if 'ipo' in label:  # TRL logs means over tokens for ipo only; here logps and rewards are sums whatever the loss
        for side in ('chosen', 'rejected'):
            lengths = torch.tensor([len(row[side]) for row in pairs()])
            assert mean(found['metrics'][f'logps/{side}'] / lengths) == pytest.approx(wanted['metrics'][f'logps/{side}'], rel=1e-5)
        return
    for name, value in wanted['metrics'].items():
        if name != 'nll_loss' or settings['cpo_alpha']:
            assert mean(found['metrics'][name]) == pytest.approx(value, rel=1e-5, abs=1e-6), name


def test_no_reference_is_run_and_the_default_adds_the_likelihood():
    made = objective('cpo')
    assert made.roles == ('policy',) and made.args.cpo_alpha == 1.0 and made.args.beta == 0.1
    assert run(made, [pair_samples()])['loss'] == pytest.approx(GOLDEN['cpo sigmoid alpha 1.0']['loss'], rel=1e-5)


def test_cpo_is_dpo_without_reference_and_the_loss_sft():
    """arXiv:2401.08417, eq. 3 and 4: the uniform reference cancels."""
    cpo = run(objective('cpo', cpo_alpha=0.5, beta=0.3), [pair_samples()])
    dpo = run(objective('dpo', reference_free=True, rpo_alpha=0.5, beta=0.3), [pair_samples()])
    assert cpo['loss'] == dpo['loss'] and torch.equal(cpo['gradient'], dpo['gradient'])


def test_losses_add_up_with_weights():
    found = run(objective('cpo', loss_type=['hinge', 'ipo'], loss_weights=[2.0, 0.5], cpo_alpha=0.0), [pair_samples()])
    wanted = 2 * GOLDEN['cpo hinge alpha 0.0']['loss'] + 0.5 * GOLDEN['cpo ipo alpha 0.0']['loss']
    assert found['loss'] == pytest.approx(wanted, rel=1e-5)
