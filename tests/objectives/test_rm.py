"""Reward models: TRL's numbers, a batch worked by hand, and what must not change it."""

import copy
from types import SimpleNamespace

import pytest
import torch

from swift.core.errors import RowError, SwiftError
from swift.core.types import Actors, Conversation, Sample
from swift.dataset.loader import collated
from swift.objectives import get_objective
from swift.template import get_template
from swift.trainers.attention import use_segments
from swift.trainers.forward import ModelActor
from tests.helpers.tiny import build_tokenizer
from tests.objectives.trl.batch import golden, pair_samples
from tests.objectives.trl.reward import reward_model


def rm(**settings):
    return get_objective('rm', SimpleNamespace(**{**dict(loss_type=[], center_rewards_coefficient=None), **settings}))


class Scored:
    """An actor that gives fixed scores."""

    def __init__(self, *values):
        self.values = torch.tensor(values)[:, None].requires_grad_()

    def scores(self, batch):
        return self.values


@pytest.fixture(scope='module')
def model():
    made = reward_model()
    use_segments(made)
    return made


def samples_of(margin):
    samples = pair_samples()
    for sample in samples:
        sample.extra = sample.extra if margin else None
    return samples


def run(objective, model, *micro, padded=False):
    """(mean loss, gradient, mean metrics) of one optimizer step."""
    batches = [collated(lambda s: objective.collate(s, padded), list(part), not part) for part in (m or [] for m in micro)]
    model.zero_grad(set_to_none=True)
    weight, total, metrics = sum(objective.weight(batch) for batch in batches), 0.0, {}
    for batch in batches:
        loss = objective.loss(batch, Actors(ModelActor(model)))
        (loss.sum / weight).backward()
        total += loss.sum.item() / weight
        for name, values in loss.metrics.items():
            metrics.setdefault(name, []).append(values)
    return (
        total,
        torch.cat([p.grad.reshape(-1) for p in model.parameters()]),
        {name: torch.cat(values).mean().item() for name, values in metrics.items()},
    )


# ---- numbers


@pytest.mark.parametrize('label', golden('rm'))
def test_loss_gradient_and_metrics_are_those_of_trl(model, label):
    known = golden('rm')[label]
    settings = dict(known['settings'])
    loss, gradient, metrics = run(rm(**{**settings, 'margin': None}), model, samples_of(settings['margin']))
    assert loss == pytest.approx(known['loss'], rel=1e-5)
    assert gradient.double().norm().item() == pytest.approx(known['grad_norm'], rel=1e-5)
    assert metrics['rewards/accuracies'] == pytest.approx(known['metrics']['accuracy'])
    assert metrics['rewards/margins'] == pytest.approx(known['metrics']['margin'], rel=1e-5)


def pair(**more):
    return Sample([5, 6, 7, 5, 8], [-100, 6, 7, -100, 8], lengths=[3, 2], **more)


def test_a_batch_worked_by_hand():
    """Pairs (2, 1) with margin ½ and (0, 3) without, c = 0.1.

    -log σ(2 - 1 - ½) + 0.1 · 3² - log σ(0 - 3) + 0.1 · 3² = 0.47407698 + 0.9 + 3.04858735 + 0.9 = 5.32266433
    d/dr_chosen of the first: -σ(-½) + 0.2 · 3 = 0.22245933; of its rejected: σ(-½) + 0.6 = 0.97754067
    """
    objective = rm(center_rewards_coefficient=0.1)
    batch = objective.collate([pair(extra={'margin': 0.5}), pair()])
    policy = Scored(2.0, 1.0, 0.0, 3.0)
    loss = objective.loss(batch, Actors(policy))
    assert loss.sum.item() == pytest.approx(5.32266433, abs=1e-6)
    loss.sum.backward()
    assert policy.values.grad[:2, 0].tolist() == pytest.approx([0.22245933, 0.97754067], abs=1e-6)
    assert {name: values.tolist() for name, values in loss.metrics.items()} == {
        'rewards/chosen': [2.0, 0.0], 'rewards/rejected': [1.0, 3.0], 'rewards/margins': [1.0, -3.0], 'rewards/accuracies': [1.0, 0.0],
    }  # fmt: skip
    assert objective.weight(batch) == 2


def test_a_tie_is_no_success():
    batch = rm().collate([pair()])
    assert rm().loss(batch, Actors(Scored(1.0, 1.0))).metrics['rewards/accuracies'].tolist() == [0.0]


def test_half_precision_scores_are_compared_in_float32():
    policy = Scored(1.0, 0.0)
    policy.values = torch.tensor([[1000.0], [1.0]], dtype=torch.bfloat16)
    found = rm().loss(rm().collate([pair()]), Actors(policy)).metrics['rewards/margins']
    assert found.item() == float(torch.tensor(1000.0, dtype=torch.bfloat16)) - 1.0


def test_a_head_with_several_values_is_refused():
    policy = SimpleNamespace(scores=lambda batch: torch.zeros(2, 3))
    with pytest.raises(SwiftError, match='one score, this head has 3; give --num_labels 1'):
        rm().loss(rm().collate([pair()]), Actors(policy))


# ---- what must not change it


@pytest.mark.parametrize('settings', [{}, {'center_rewards_coefficient': 0.1}], ids=str)
def test_micro_batches_padding_and_order_change_nothing(model, settings):
    objective, samples = rm(**settings), samples_of(True)
    whole = run(objective, model, samples)
    for other in (
        run(objective, model, samples[:1], samples[1:]),
        run(objective, model, samples, padded=True),
        run(objective, model, samples[::-1]),
        run(objective, model, *([sample] for sample in samples)),
    ):
        assert whole[0] == pytest.approx(other[0], rel=1e-5)
        torch.testing.assert_close(whole[1], other[1], rtol=1e-4, atol=1e-5)
        assert whole[2] == pytest.approx(other[2], rel=1e-4, abs=1e-5)


def test_the_score_is_read_at_the_last_token_of_each_conversation(model):
    samples = samples_of(False)
    batch = rm().collate(samples)
    with torch.no_grad():
        found = ModelActor(model).scores(batch)[:, 0]
        start, alone = 0, []
        for size in batch.lengths.tolist():
            output = copy.deepcopy(model)(input_ids=batch.input_ids[:, start : start + size]).logits
            alone.append(output.reshape(-1)[-1])
            start += size
    torch.testing.assert_close(found, torch.stack(alone), rtol=1e-5, atol=1e-5)


def test_a_filler_weighs_nothing(model):
    objective = rm()
    batch = collated(objective.collate, samples_of(True)[:1], True)
    assert objective.weight(batch) == 0
    loss = objective.loss(batch, Actors(ModelActor(model)))
    assert loss.sum.isfinite() and loss.sum.requires_grad


# ---- rows


@pytest.fixture(scope='module')
def template():
    return get_template(build_tokenizer())


def talk(question, answer, **more):
    return Conversation([{'role': 'user', 'content': question}, {'role': 'assistant', 'content': answer}], source='f:1', **more)


def test_rows(template):
    pairs = talk('a', 'good', rejected=talk('a', 'bad').messages, negatives=[talk('a', 'worse').messages], columns={'margin': 0.25})
    found, error = rm().encode_batch([pairs, talk('a', 'b')], template)
    assert len(found) == 2 and all(sample.extra == {'margin': 0.25} and len(sample.lengths) == 2 for sample in found)
    decode = template.tokenizer.decode
    texts = [(decode(s.input_ids[: s.lengths[0]]), decode(s.input_ids[s.lengths[0] :])) for s in found]
    assert ['good' in text and 'a' in text for text, _ in texts] == [True, True]
    assert 'bad' in texts[0][1] and 'worse' in texts[1][1]
    assert isinstance(error, RowError) and 'no rejected answer' in str(error) and 'f:1' in str(error)


def test_messages_that_would_not_be_trained_are_scored(template):
    row = talk('a', 'good', rejected=talk('a', 'bad').messages, negatives=[talk('a', 'worse').messages])
    marked = copy.deepcopy(row)
    for messages in (marked.messages, marked.rejected, *marked.negatives):
        messages[-1]['loss'] = False
    found, same = rm().encode_batch([row, marked], template)
    assert [sample.input_ids for sample in same] == [sample.input_ids for sample in found] and len(found) == 2


def test_an_unknown_loss_is_refused():
    with pytest.raises(SwiftError, match="'sigmoid' is no loss of rm: rm"):
        rm(loss_type=['sigmoid'])
