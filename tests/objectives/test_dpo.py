"""DPO against TRL's numbers, the papers worked by hand, and the laws of the house."""

import math

import pytest
import torch

from swift.arguments import parse_args
from swift.core.errors import SwiftError
from swift.core.types import Actors
from swift.objectives.dpo_losses import pair_losses, register_pair_loss
from swift.objectives.preference import Compared, Pairs, Step
from swift.trainers.forward import ModelActor, Plan
from tests.objectives.trl.batch import golden, pair_samples, pairs
from tests.objectives.trl.ours import actors, mean, objective, run
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


@pytest.mark.slow
@pytest.mark.parametrize('label', CASES)
def test_golden_numbers_are_still_trls(label):
    pytest.importorskip('trl')
    from tests.objectives.trl.make_pairs import by_trl, quiet

    quiet()
    found = by_trl(label)
    assert found['loss'] == pytest.approx(GOLDEN[label]['loss'], rel=1e-5)
    assert found['grad_norm'] == pytest.approx(GOLDEN[label]['grad_norm'], rel=1e-5)


# ---- by hand: what TRL leaves out, and formulas on numbers one can follow


def two_pairs(policy=((-1.0, -5.0), (-3.0, -4.0)), reference=((-2.0, -2.0), (-2.0, -4.0)), **more):
    """Log-probabilities of (chosen answers, rejected answers); by default r_w = 1, -3 and r_l = -1, 0, gaps 2 and -3."""
    policy, reference = (Pairs(*(torch.tensor(side) for side in values)) for values in (policy, reference))
    policy = policy.map(torch.Tensor.requires_grad_)
    values = torch.stack([policy.chosen, policy.rejected, reference.chosen, reference.rejected], 1).detach()
    step = Step(torch.tensor(2.0), torch.tensor(6.0), values, values)
    lengths = Pairs(torch.tensor([2.0, 4.0]), torch.tensor([1.0, 2.0]))
    return Compared(policy, reference, lengths, -policy.chosen, torch.ones(2), **{'step': step, **more})


def by_hand(loss, pairs_=None, **settings):
    args = objective('dpo', loss_type=[loss], **settings).args
    return pair_losses[loss](pairs_ or two_pairs(), args)


def log_sigmoid(x):
    return -math.log1p(math.exp(-x))


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


HAND = {
    # loss: (settings, values of the two pairs); β = 0.5, so z = 1 and -1.5
    'sigmoid': ({}, [-log_sigmoid(1), -log_sigmoid(-1.5)]),
    'hinge': ({}, [0, 2.5]),
    'ipo': ({}, [(1 / 2 + 1 - 1) ** 2, (-3 / 4 - 0 - 1) ** 2]),
    'robust': ({'label_smoothing': 0.1}, [(-0.9 * log_sigmoid(z) + 0.1 * log_sigmoid(-z)) / 0.8 for z in (1, -1.5)]),
    'nca_pair': ({}, [-log_sigmoid(0.5) - 0.5 * log_sigmoid(-0.5) - 0.5 * log_sigmoid(0.5),
                      -log_sigmoid(-1.5) - 0.5 * log_sigmoid(1.5) - 0.5 * log_sigmoid(0)]),
    'sppo_hard': ({}, [(1 - 1) ** 2 + (-1 + 1) ** 2, (-3 - 1) ** 2 + (0 + 1) ** 2]),
    'apo_zero': ({}, [1 - sigmoid(0.5) + sigmoid(-0.5), 1 - sigmoid(-1.5) + sigmoid(0)]),
    'apo_down': ({}, [sigmoid(0.5) + 1 - sigmoid(1), sigmoid(-1.5) + 1 - sigmoid(-1.5)]),
    'sigmoid_norm': ({}, [-log_sigmoid(0.5 * 1.5), -log_sigmoid(0.5 * -0.75)]),
    'exo_pair': ({'label_smoothing': 0.1}, [sigmoid(z) * (log_sigmoid(z) - math.log(0.9)) + sigmoid(-z) * (log_sigmoid(-z) - math.log(0.1))
                                            for z in (1, -1.5)]),
    'discopop': ({'discopop_tau': 0.5}, [-log_sigmoid(z) * (1 - sigmoid(2 * z)) + math.exp(-z) * sigmoid(2 * z) for z in (1, -1.5)]),
}  # fmt: skip


@pytest.mark.parametrize('loss', HAND)
def test_formulas_by_hand(loss):
    settings, wanted = HAND[loss]
    assert by_hand(loss, beta=0.5, **settings).tolist() == pytest.approx(wanted, rel=1e-5, abs=1e-6)


def test_bco_shifts_rewards_by_their_mean_over_the_step():
    """Rewards 0.5, -1.5, -0.5, 0 have the mean -0.375 (arXiv:2404.04656; TRL 1.16 has no shift)."""
    wanted = [-log_sigmoid(0.875) - log_sigmoid(0.125), -log_sigmoid(-1.125) - log_sigmoid(-0.375)]
    assert by_hand('bco_pair', beta=0.5).tolist() == pytest.approx(wanted, rel=1e-5)


def test_aot_compares_ranks():
    """Policy gaps 4 - 0 … by rank: policy log-ratios (2, -1), reference (0, 2): sorted -1 ↔ 0 and 2 ↔ 2."""
    found = two_pairs(policy=((-1.0, -5.0), (-3.0, -4.0)), reference=((-2.0, -2.0), (-2.0, -4.0)))
    values = by_hand('aot', found, beta=0.5)
    assert values.tolist() == pytest.approx([-log_sigmoid(0.5 * (2 - 2)), -log_sigmoid(0.5 * (-1 - 0))], rel=1e-5)


def test_aot_unpaired_counts_a_rank_once_and_teaches_both_sides():
    """r_w = (1, -3), r_l = (-1, 0): ranks -3 ↔ -1 and 1 ↔ 0, so z = -1 and 0.5; the gradient is that of the two terms."""
    found = two_pairs()
    values = by_hand('aot_unpaired', found, beta=0.5)
    assert values.sum().item() == pytest.approx(-log_sigmoid(0.5 * -2) - log_sigmoid(0.5 * 1), rel=1e-5)
    values.sum().backward()
    assert found.policy.chosen.grad.tolist() == pytest.approx([-0.5 * sigmoid(-0.5), -0.5 * sigmoid(1)], rel=1e-5)
    assert found.policy.rejected.grad.tolist() == pytest.approx([0.5 * sigmoid(1), 0.5 * sigmoid(-0.5)], rel=1e-5)


def test_equal_log_ratios_share_a_rank_and_do_not_depend_on_order():
    same = ((-1.0, -1.0), (-2.0, -2.0))
    found = by_hand('aot', two_pairs(policy=same), beta=0.5)
    assert found[0] == found[1] and found.isfinite().all()


@pytest.mark.parametrize('loss', ['sigmoid', 'sigmoid_norm'])
def test_label_smoothing_is_conservative_dpo(loss):
    """-(1-ε) log σ(z) - ε log σ(-z), also where TRL 1.16 reads label_smoothing for robust, exo_pair and aot only."""
    z = (1, -1.5) if loss == 'sigmoid' else (0.75, -0.375)
    wanted = [-0.8 * log_sigmoid(x) - 0.2 * log_sigmoid(-x) for x in z]
    assert by_hand(loss, beta=0.5, label_smoothing=0.2).tolist() == pytest.approx(wanted, rel=1e-5)


def test_exo_takes_the_papers_smoothing_where_none_is_given():
    assert torch.equal(by_hand('exo_pair'), by_hand('exo_pair', label_smoothing=1e-3))


@pytest.mark.parametrize(('kind', 'score'), [
    ('forward_kl', lambda r: 1 - math.exp(-r)),
    ('js_divergence', lambda r: math.log(2 / (1 + math.exp(-r)))),
    ('alpha_divergence', lambda r: (math.exp(-0.5 * r) - 1) / -0.5),
])  # fmt: skip
def test_divergences_by_hand(kind, score):
    wanted = [-log_sigmoid(0.5 * (score(good) - score(bad))) for good, bad in ((1, -1), (-3, 0))]
    assert by_hand('sigmoid', beta=0.5, f_divergence_type=kind).tolist() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize('kind', ['forward_kl', 'alpha_divergence'])
def test_divergences_of_answers_far_from_the_reference_have_gradients(kind):
    pairs_ = two_pairs(policy=((-1.0, -250.0), (-300.0, -4.0)))
    by_hand('sigmoid', pairs_, f_divergence_type=kind, f_alpha_divergence_coef=0.0).sum().backward()
    assert all(side.grad.isfinite().all() for side in (pairs_.policy.chosen, pairs_.policy.rejected))


def test_rpo_alpha_is_the_loss_sft_with_that_weight():
    samples = pair_samples()
    one, other = run(objective('dpo', rpo_alpha=0.7), [samples]), run(objective('dpo', loss_type=['sigmoid', 'sft'], loss_weights=[1.0, 0.7]), [samples])
    assert one['loss'] == other['loss'] and torch.equal(one['gradient'], other['gradient'])
    assert mean(one['metrics']['nll_loss']) == pytest.approx(GOLDEN['dpo sft']['loss'], rel=1e-5)


def test_the_likelihood_is_a_mean_over_tokens_not_weighed_by_confidence():
    """WPO weighs preferences; TRL 1.16 multiplies the sft loss too."""
    made = objective('dpo', loss_type=['sigmoid', 'sft'], use_weighting=True)
    wanted = GOLDEN['dpo sigmoid weighted']['loss'] + GOLDEN['dpo sft']['loss']
    assert run(made, [pair_samples()])['loss'] == pytest.approx(wanted, rel=1e-5)


def test_reference_free_runs_no_reference_and_takes_0_for_it():
    made = objective('dpo', reference_free=True)
    assert made.roles == ('policy',) and objective('dpo').roles == ('policy', 'reference')
    found = run(made, [pair_samples()])
    assert torch.equal(found['metrics']['rewards/chosen'], 0.1 * found['metrics']['logps/chosen'])
    assert found['loss'] == pytest.approx(GOLDEN['cpo sigmoid alpha 0.0']['loss'], rel=1e-5)
    assert found['grad_norm'] == pytest.approx(GOLDEN['cpo sigmoid alpha 0.0']['grad_norm'], rel=1e-5)


def test_several_losses_are_logged_each():
    metrics = run(objective('dpo', loss_type=['sigmoid', 'hinge']), [pair_samples()])['metrics']
    for name in ('sigmoid', 'hinge'):
        assert mean(metrics[f'loss/{name}']) == pytest.approx(GOLDEN[f'dpo {name}']['loss'], rel=1e-5)


# ---- mistakes


@pytest.mark.parametrize(('settings', 'message'), [
    (dict(loss_type=['sigmod']), "did you mean 'sigmoid'"),
    (dict(loss_type=['orpo']), "'orpo' is no loss of dpo; it belongs to orpo"),
    (dict(loss_type=['sigmoid', 'sigmoid']), 'names a loss twice'),
    (dict(loss_type=['sigmoid'], loss_kwargs={'gamma': 2}), "'gamma' is no argument of --loss_type sigmoid"),
    (dict(loss_type=['sigmoid', 'bco_pair'], f_divergence_type='forward_kl'), 'forward_kl means nothing to --loss_type bco_pair'),
    (dict(f_divergence_type='js_divergence', reference_free=True), 'measures against a reference'),
    (dict(loss_type=['ipo'], beta=0.0), 'give a beta above 0'),
    (dict(loss_type=['cross_entropy']), "'cross_entropy' is a loss of swift sft; register a loss of pairs by register_pair_loss"),
    (dict(loss_type=['aot'], use_weighting=True), 'takes apart'),
    (dict(loss_type=['robust'], label_smoothing=0.5), 'needs --label_smoothing from 0 to below 0.5'),
])  # fmt: skip
def test_mistakes_are_refused_with_the_remedy(settings, message):
    with pytest.raises(SwiftError, match=message):
        objective('dpo', **settings)


@pytest.mark.parametrize(('words', 'message'), [
    ('--loss_type hinge --label_smoothing 0.1', 'label_smoothing has no effect with --loss_type hinge; it is read by sigmoid'),
    ('--discopop_tau 0.1', 'discopop_tau has no effect without --loss_type discopop'),
    ('--loss_type sppo_hard --f_divergence_type forward_kl', 'f_divergence_type has no effect with --loss_type sppo_hard'),
    ('--rlhf_type cpo --loss_type ipo --label_smoothing 0.1', 'label_smoothing has no effect with --loss_type ipo'),
    ('--rlhf_type cpo --loss_type simpo', "'simpo' is no loss of cpo: sigmoid, hinge, ipo; it belongs to simpo"),
    ('--f_alpha_divergence_coef 2', 'f_alpha_divergence_coef has no effect without --f_divergence_type alpha_divergence'),
    ('--reference_free true --precompute_ref_log_probs true', 'precompute_ref_log_probs has no effect with --reference_free true'),
])  # fmt: skip
def test_flags_that_the_loss_does_not_read_are_refused_before_anything_is_loaded(words, message):
    with pytest.raises(SwiftError, match=message):
        parse_args('rlhf', ['--model', 'tiny', '--dataset', 'examples/data/preference.jsonl', *words.split()])


# ---- a loss of one's own


@pytest.fixture
def registered():
    names = set(pair_losses)
    yield register_pair_loss
    for name in set(pair_losses) - names:
        del pair_losses[name]


def test_a_registered_loss_gets_pairs_args_and_its_kwargs(registered):
    @registered('squared')
    def squared(pairs, args, target=1.0):
        return (args.beta * pairs.ratio.gap - target).square()

    found = run(objective('dpo', loss_type=['squared'], loss_kwargs={'target': 2.0}, beta=0.3), [pair_samples()])
    margins = found['metrics']['rewards/margins']
    assert found['loss'] == pytest.approx(mean((margins - 2.0).square()), rel=1e-5)
    both = run(objective('dpo', loss_type=['squared', 'hinge'], loss_weights=[0.5, 1.0], beta=0.3), [pair_samples()])
    wanted = 0.5 * mean((margins - 1.0).square()) + mean(torch.relu(1 - margins))
    assert both['loss'] == pytest.approx(wanted, rel=1e-5)


def test_a_registered_loss_of_the_wrong_shape_is_refused(registered):
    registered('summed')(lambda pairs, args: pairs.ratio.gap.sum())
    with pytest.raises(SwiftError, match=r"loss_type 'summed' returned a tensor of shape \[\]; return one value a pair, \[8\]"):
        run(objective('dpo', loss_type=['summed']), [pair_samples()])


def test_a_registered_loss_may_look_at_the_whole_step(registered):
    @registered('centred', whole_step=True)
    def centred(pairs, args):
        every = pairs.step.all
        gaps = (every[:, 0] - every[:, 2]) - (every[:, 1] - every[:, 3])
        return -torch.nn.functional.logsigmoid(args.beta * (pairs.ratio.gap - gaps.mean()))

    made, samples = objective('dpo', loss_type=['centred']), pair_samples()
    one, other = run(made, [samples]), run(made, [samples[:3], samples[3:]])
    assert one['loss'] == pytest.approx(other['loss'], rel=1e-5)


@pytest.mark.parametrize('label', ['dpo sigmoid weighted', 'dpo three losses ld_alpha'])
def test_logits_made_in_chunks_give_the_same(label):
    made = objective('dpo', **CASES[label][1])
    direct = actors()
    tail = Plan(tail=lambda logits: logits)
    chunked = Actors(*(ModelActor(actor.module, tail, limit=4000) for actor in (direct.policy, direct.reference)))
    one, other = run(made, [pair_samples()]), run(made, [pair_samples()], who=chunked)
    assert one['loss'] == pytest.approx(other['loss'], rel=1e-5)
    assert (one['gradient'] - other['gradient']).abs().max() < 1e-4 * one['gradient'].abs().max()
