"""A pair of long answers over a large vocabulary never becomes a float32 tensor of [tokens, vocabulary]."""

from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from swift.arguments.tuner import TunerArgs
from swift.core.types import Actors, Sample
from swift.objectives import collate, get_objective
from swift.trainers.forward import CPU_LIMIT, ModelActor
from swift.trainers.selfcheck import plan
from swift.tuners import prepare_tuner
from swift.tuners.switch import adapters_off
from tests.helpers.tiny import build_model

VOCABULARY, ANSWER = 150_000, 1000


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation makes, in elements."""

    def __init__(self):
        super().__init__()
        self.size, self.what = 0, None

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for value in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(value, torch.Tensor) and value.untyped_storage().nbytes() // 4 > self.size:
                self.size, self.what = value.untyped_storage().nbytes() // 4, (function, tuple(value.shape))
        return made


def pair(size, vocabulary):
    ids = torch.randint(3, vocabulary, (2 * size,), generator=torch.Generator().manual_seed(0)).tolist()
    return Sample(ids, [-100, *ids[1:size], -100, *ids[size + 1 :]], lengths=[size, size])


def dpo():
    args = SimpleNamespace(
        beta=0.1, loss_type=[], loss_weights=None, loss_kwargs=None, label_smoothing=0.0, rpo_alpha=None, ld_alpha=None, use_weighting=False,
        f_divergence_type='reverse_kl', f_alpha_divergence_coef=0.5, discopop_tau=0.05, reference_free=False,
    )  # fmt: skip
    return get_objective('dpo', args)


@pytest.mark.parametrize('tuner', ['lora', pytest.param('full', marks=pytest.mark.slow)])
def test_policy_reference_and_backward_work_in_chunks(tuner):
    """2,000 labelled tokens × 150,000 words would be 300 M elements; nothing is larger than the limit, a ninth of that."""
    model = build_model(VOCABULARY, layers=1, hidden=16)
    info = SimpleNamespace(new_token_ids=(), is_multimodal=False, quant_method=None)
    sample = pair(ANSWER, VOCABULARY)
    if tuner == 'lora':
        model = prepare_tuner(model, TunerArgs(), info=info).train()
        chosen = plan(model, [sample])
        reference = ModelActor(model, chosen, around=adapters_off(model))
    else:
        chosen = plan(model.train(), [sample])
        frozen = build_model(VOCABULARY, layers=1, hidden=16).requires_grad_(False).eval()
        reference = ModelActor(frozen, plan(frozen, [sample]), around=torch.no_grad)
    objective, actors = dpo(), Actors(ModelActor(model, chosen), reference)
    batch = objective.collate([sample])
    assert chosen.flat and batch.extra['answers']['index'].numel() == 2 * ANSWER - 2
    with Largest() as seen:
        objective.prepare([batch], actors, lambda value: value)
        loss = objective.loss(batch, actors)
        loss.sum.backward()
    assert loss.sum.item() == pytest.approx(0.6931, abs=1e-3)
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert seen.size <= CPU_LIMIT < (2 * ANSWER - 2) * VOCABULARY // 8, seen.what


def test_it_would_be_noticed():
    """The same watch on a plain log-softmax sees the whole matrix."""
    model, ids = build_model(2000, layers=1, hidden=16), torch.tensor([pair(100, 2000).input_ids])
    with Largest() as seen:
        model(ids).logits.log_softmax(-1).sum().backward()
    assert seen.size >= 200 * 2000


def test_chunks_say_what_the_whole_says():
    """Log-probabilities and gradients with chunks of a few rows, against one matrix."""
    sample, found = pair(40, 600), []
    for limit in (None, 600 * 7):
        model = build_model(640)
        actor = ModelActor(model, plan(model, [sample]), limit=limit)
        tokens = actor.answer_logps(collate.flat([sample]))
        tokens.logps.sum().backward()
        found.append((tokens.logps, model.lm_head.weight.grad))
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(*found, strict=True))
