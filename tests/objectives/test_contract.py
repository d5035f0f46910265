"""What every registered objective must keep, whatever it computes."""

import copy

import pytest
import torch

from swift.core.errors import SwiftError
from swift.core.types import Actors
from swift.objectives import OBJECTIVES, get_objective
from swift.trainers.attention import use_segments
from swift.trainers.forward import ModelActor
from tests.helpers.tiny import build_model
from tests.helpers.training import random_samples, train_args

TOKENS = {
    'plain': {},
    'smoothed': dict(label_smoothing_factor=0.1),
    'dft': dict(enable_dft_loss=True),
    'z-loss': dict(z_loss_coef=1e-3),
    'channels': dict(enable_channel_loss=True),
    'sequences': dict(acc_strategy='seq'),
}
METHODS = {'sft': TOKENS, 'pt': {'plain': {}}}
"""Method → label → fields of its argument group. A new method adds its row."""


def cases():
    return [pytest.param(name, extra, id=f'{name}-{label}') for name in METHODS for label, extra in METHODS[name].items()]


def test_every_method_is_covered():
    assert set(METHODS) == set(OBJECTIVES)


@pytest.fixture(scope='module')
def model():
    model = build_model()
    use_segments(model)
    return model


def run(model, objective, samples, padded=False):
    """(sum, weight, gradient, metrics) of one batch."""
    model.zero_grad(set_to_none=True)
    batch = objective.collate(samples, padded=padded)
    others = {role: ModelActor(copy.deepcopy(model)) for role in objective.roles if role != 'policy'}
    loss = objective.loss(batch, Actors(ModelActor(model), **others))
    loss.sum.backward()
    grads = [p.grad.clone() if p.grad is not None else torch.zeros_like(p) for p in model.parameters()]
    for actor in others.values():
        assert all(p.grad is None for p in actor.module.parameters()), 'gradients reach only the policy'
    return loss.sum.detach(), float(objective.weight(batch)), torch.cat([g.reshape(-1) for g in grads]), loss.metrics


def same(a, b):
    torch.testing.assert_close(a[0], b[0], rtol=1e-5, atol=1e-5)
    assert a[1] == b[1]
    torch.testing.assert_close(a[2], b[2], rtol=1e-4, atol=1e-4)
    assert a[3].keys() == b[3].keys()
    for name in a[3]:
        torch.testing.assert_close(a[3][name].sort().values, b[3][name].sort().values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('weights', [False, True], ids=['even', 'weighted'])
@pytest.mark.parametrize(('name', 'extra'), cases())
def test_split_packing_and_order_change_nothing(model, name, extra, weights):
    objective = get_objective(name, train_args(**extra))
    samples = random_samples(6, weights=weights)
    whole = run(model, objective, samples)
    assert whole[0] > 0 and whole[1] > 0 and whole[2].abs().max() > 0
    first, second = run(model, objective, samples[:2]), run(model, objective, samples[2:])
    merged = {name: torch.cat([first[3][name], second[3][name]]) for name in whole[3]}
    same(whole, (first[0] + second[0], first[1] + second[1], first[2] + second[2], merged))
    same(whole, run(model, objective, samples, padded=True))
    same(whole, run(model, objective, samples[::-1]))


@pytest.mark.parametrize('name', list(OBJECTIVES))
def test_a_batch_without_labels_adds_nothing_but_has_a_graph(model, name):
    objective = get_objective(name, train_args(label_smoothing_factor=0.1))
    samples = random_samples(2)
    for sample in samples:
        sample.labels = [-100] * len(sample)
    total, weight, grad, _ = run(model, objective, samples)
    assert total == 0 and weight == 0 and grad.abs().max() == 0


def test_an_unknown_method_or_loss_is_answered_with_the_nearest():
    with pytest.raises(SwiftError, match="did you mean 'sft'"):
        get_objective('sftt', train_args())
    with pytest.raises(SwiftError, match="did you mean 'cross_entropy'"):
        get_objective('sft', train_args(loss_type='crossentropy'))
