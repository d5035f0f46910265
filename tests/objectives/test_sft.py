"""The SFT loss and its gradients against full logits and the formulas, written out."""

import pytest
import torch
import torch.nn.functional as F

from swift.core.types import Actors, AnswerTokens, Batch
from swift.objectives import collate, get_objective
from swift.objectives.logps import answers, statistics
from swift.trainers.attention import use_segments
from swift.trainers.forward import ModelActor, Plan
from tests.helpers.tiny import build_model
from tests.helpers.training import random_samples, train_args


def naive(model, samples, *, smooth=0.0, dft=False, z=0.0):
    """Every sample alone, all logits in float32, token by token as the formula reads."""
    total = 0.0
    for sample in samples:
        logits = model(input_ids=torch.tensor([sample.input_ids]), use_cache=False).logits[0].float()
        for place in range(1, len(sample)):
            if sample.labels[place] == -100:
                continue
            logp = logits[place - 1].log_softmax(-1)
            each = -(1 - smooth) * logp[sample.labels[place]] - smooth * logp.mean()
            if dft:
                each = each * logp[sample.labels[place]].detach().exp()
            each = each + z * logits[place - 1].logsumexp(-1) ** 2
            total = total + each * (sample.weights[place] if sample.weights else 1.0)
    return total


@pytest.mark.parametrize('limit', [None, 2000], ids=['direct', 'chunked'])
@pytest.mark.parametrize(
    'variant', [{}, {'smooth': 0.1}, {'dft': True}, {'z': 1e-3}, {'smooth': 0.2, 'z': 1e-2}], ids=str
)
def test_loss_and_gradients_equal_the_naive_ones(variant, limit):
    model = build_model()
    samples = random_samples(4, longest=20, weights=True)
    expected = naive(model, samples, **variant)
    expected.backward()
    grads = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    use_segments(model)
    args = train_args(
        label_smoothing_factor=variant.get('smooth', 0.0), enable_dft_loss=variant.get('dft', False),
        z_loss_coef=variant.get('z', 0.0),
    )  # fmt: skip
    objective = get_objective('sft', args)
    actor = ModelActor(model, Plan(tail=lambda z: z), limit=limit)
    loss = objective.loss(objective.collate(samples), Actors(actor))
    torch.testing.assert_close(loss.sum, expected, rtol=1e-5, atol=1e-5)
    loss.sum.backward()
    for ours, theirs in zip(model.parameters(), grads, strict=True):
        torch.testing.assert_close(ours.grad, theirs, rtol=1e-4, atol=2e-5)


class Dictated:
    """An actor whose log-probabilities are given by the test."""

    def __init__(self, probabilities):
        p = torch.tensor(probabilities, dtype=torch.float32)
        self.tokens = AnswerTokens(
            logps=p.log().requires_grad_(), segment=torch.tensor([0, 0, 1]), index=torch.tensor([1, 2, 4]),
            correct=torch.tensor([True, False, True]), logsumexp=torch.tensor([1.0, 2.0, 3.0]),
            mean_logps=torch.tensor([-1.0, -2.0, -3.0]),
        )  # fmt: skip

    def answer_logps(self, batch, want=()):
        return self.tokens


def dictated_batch(**extra):
    return Batch(
        input_ids=torch.zeros(1, 5, dtype=torch.long), labels=torch.tensor([[-100, 5, 6, -100, 7]]),
        position_ids=torch.tensor([[0, 1, 2, 0, 1]]), lengths=torch.tensor([3, 2]), **extra,
    )  # fmt: skip


def test_dft_by_hand():
    """-p log p of p = 1/2, 1/4, 1/8 is (1/2 + 1/2 + 3/8) log 2; its gradient in log p is -p."""
    actor = Dictated([0.5, 0.25, 0.125])
    loss = get_objective('sft', train_args(enable_dft_loss=True)).loss(dictated_batch(), Actors(actor))
    assert loss.sum.item() == pytest.approx(1.375 * 0.6931472, rel=1e-6)
    loss.sum.backward()
    assert actor.tokens.logps.grad.tolist() == pytest.approx([-0.5, -0.25, -0.125])


def test_smoothing_and_z_loss_by_hand():
    """0.9 · 6 log 2 + 0.1 · (1 + 2 + 3) + 0.01 · (1 + 4 + 9)."""
    args = train_args(label_smoothing_factor=0.1, z_loss_coef=0.01)
    loss = get_objective('sft', args).loss(dictated_batch(), Actors(Dictated([0.5, 0.25, 0.125])))
    assert loss.sum.item() == pytest.approx(0.9 * 6 * 0.6931472 + 0.6 + 0.14, rel=1e-6)


def test_channels_accuracy_and_weights_by_hand():
    batch = dictated_batch(channels=['math', None], weights=torch.tensor([[1.0, 3.0, 1.0, 1.0, 0.5]]))
    actor = Dictated([0.5, 0.25, 0.125])
    loss = get_objective('sft', train_args(enable_channel_loss=True)).loss(batch, Actors(actor))
    assert loss.sum.item() == pytest.approx((3 * 1 + 1 * 2 + 0.5 * 3) * 0.6931472, rel=1e-6)
    assert loss.metrics['loss_math'].tolist() == pytest.approx([0.6931472, 2 * 0.6931472])
    assert loss.metrics['token_acc'].tolist() == [1, 0, 1]
    loss = get_objective('sft', train_args(acc_strategy='seq')).loss(batch, Actors(actor))
    assert loss.metrics['seq_acc'].tolist() == [0, 1]
    assert 'token_acc' not in loss.metrics


def test_weight_zero_is_no_label_and_the_first_token_of_a_segment_never_is():
    samples = random_samples(2, weights=True)
    samples[0].labels = list(samples[0].input_ids)
    samples[0].weights = [0.0] * (len(samples[0]) - 1) + [2.0]
    for padded in (False, True):
        batch = get_objective('sft', train_args()).collate(samples, padded=padded)
        assert batch.labels.reshape(-1)[0] == -100
        assert (batch.labels[0, : len(samples[0])] != -100).sum() == 1
    flat = collate.flat(samples)
    assert flat.position_ids.tolist() == [[*range(len(samples[0])), *range(len(samples[1]))]]
    assert flat.sources == ['random.jsonl:1', 'random.jsonl:2']
    assert collate.padded(samples).attention_mask.sum(-1).tolist() == flat.lengths.tolist()


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_statistics_of_logits_in_value_and_gradient(dtype):
    """Against autograd through log_softmax in float64."""
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(50, 4099, generator=generator)).to(dtype)
    targets = torch.randint(0, 4099, (50,), generator=generator)
    mix = torch.randn(4, 50, generator=generator)
    ours = logits.clone().requires_grad_()
    logp, total, correct, mean, entropy, collision = statistics(ours, targets, ('mean_logps', 'entropy', 'collision'))
    (mix[0] * logp + mix[1] * total + mix[2] * mean + mix[3] * entropy).sum().backward()
    z = logits.double().requires_grad_()
    p = z.log_softmax(-1)
    q = [F.nll_loss(p, targets, reduction='none').neg(), z.logsumexp(-1), p.mean(-1), -(p.exp() * p).sum(-1)]
    torch.testing.assert_close(collision.double(), p.exp().square().sum(-1).log().detach(), rtol=1e-5, atol=1e-5)
    for got, wanted in zip((logp, total, mean, entropy), q, strict=True):
        torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-5)
    sum(m * value for m, value in zip(mix.double(), q, strict=True)).sum().backward()
    loose = dict(rtol=1e-4, atol=1e-6) if dtype == torch.float32 else dict(rtol=2e-2, atol=1e-3)
    torch.testing.assert_close(ours.grad.double(), z.grad, **loose)
    assert torch.equal(correct, logits.argmax(-1) == targets)


def test_equal_logits_are_not_all_correct():
    logits = torch.zeros(3, 7)
    assert statistics(logits, torch.tensor([0, 3, 6]))[2].tolist() == [True, False, False]


def test_answers_are_found_the_same_way_with_and_without_collate():
    for padded in (False, True):
        batch = get_objective('sft', train_args()).collate(random_samples(5), padded=padded)
        stored = answers(batch)
        batch.extra.clear()
        found = answers(batch)
        for name in ('index', 'segment', 'targets'):
            assert torch.equal(getattr(stored, name), getattr(found, name)), (padded, name)
