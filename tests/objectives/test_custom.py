"""Losses of a user's own: functions, classes and factories, of both signatures."""

import pytest
import torch
import torch.nn.functional as F

from swift.core.errors import SwiftError
from swift.core.types import Actors
from swift.objectives import get_objective
from swift.objectives.custom import loss_map, register_loss
from swift.trainers.forward import ModelActor
from tests.helpers.tiny import build_model
from tests.helpers.training import random_samples, train_args


def cross_entropy(logits, labels, items=None):
    total = F.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1), reduction='sum')
    return total / (items if items is not None else (labels[:, 1:] != -100).sum())


class ByCall:
    def __init__(self, factor=1.0):
        self.factor = factor

    def __call__(self, model, inputs, return_outputs=False):
        outputs = model(**inputs)
        return (self.factor * outputs.loss, outputs) if return_outputs else self.factor * outputs.loss


FORMS = {
    'outputs': lambda outputs, labels, num_items_in_batch=None: cross_entropy(outputs.logits, labels, num_items_in_batch),
    'outputs without items': lambda outputs, labels: cross_entropy(outputs.logits, labels),
    'open ended': lambda outputs, labels, **kw: cross_entropy(outputs.logits, labels, kw['num_items_in_batch']),
    'model': lambda model, inputs, return_outputs=False: model(**inputs).loss,
    'class': ByCall,
    'factory': lambda factor=1.0: ByCall(factor),
}


@pytest.fixture
def scratch():
    """A place in the loss registry that is empty again afterwards."""
    known = set(loss_map)
    yield
    for name in set(loss_map) - known:
        del loss_map[name]


@pytest.mark.parametrize('form', FORMS)
def test_every_form_gives_the_cross_entropy(scratch, form):
    model, samples = build_model(), random_samples(5)
    register_loss('mine')(FORMS[form])
    objective = get_objective('sft', train_args(loss_type='mine'))
    plain = get_objective('sft', train_args())
    batch = objective.collate(samples)
    assert not batch.flat, 'a loss of a user sees one row a sample'
    ours = objective.loss(batch, Actors(ModelActor(model)))
    theirs = plain.loss(plain.collate(samples, padded=True), Actors(ModelActor(model)))
    torch.testing.assert_close(ours.sum, theirs.sum, rtol=1e-5, atol=1e-5)
    assert objective.weight(batch) == plain.weight(batch)


@pytest.mark.parametrize('form', ['class', 'factory'])
def test_loss_kwargs_reach_the_loss(scratch, form):
    model, samples = build_model(), random_samples(3)
    loss_map['mine'] = FORMS[form]
    values = []
    for factor in (1.0, 2.5):
        objective = get_objective('sft', train_args(loss_type='mine', loss_kwargs={'factor': factor}))
        values.append(objective.loss(objective.collate(samples), Actors(ModelActor(model))).sum.item())
    assert values[1] == pytest.approx(2.5 * values[0])


def test_loss_kwargs_that_do_not_fit_are_named(scratch):
    loss_map['mine'] = FORMS['outputs without items']
    with pytest.raises(SwiftError, match="no argument 'factr'"):
        get_objective('sft', train_args(loss_type='mine', loss_kwargs={'factr': 1}))
    loss_map['other'] = ByCall
    with pytest.raises(SwiftError, match='factr'):
        get_objective('sft', train_args(loss_type='other', loss_kwargs={'factr': 1}))


def test_ms_swift_style_class_gets_args_and_no_trainer(scratch):
    class Loss:
        def __init__(self, args, trainer):
            self.args, self.trainer = args, trainer

        def __call__(self, outputs, labels, *, num_items_in_batch=None, loss_scale=None, **kwargs):
            return cross_entropy(outputs.logits, labels, num_items_in_batch)

    loss_map['styled'] = Loss
    args = train_args(loss_type='styled')
    objective = get_objective('sft', args)
    assert objective.function.args is args
    loss = objective.loss(objective.collate(random_samples(3)), Actors(ModelActor(build_model())))
    assert loss.sum > 0
