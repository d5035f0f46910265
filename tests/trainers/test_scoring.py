"""Scores of classifiers: flat, padded and alone are the same, gradients too, and what the model's own forward says."""

import pytest
import torch

from swift.arguments.model import ModelArgs
from swift.core.errors import ModelError
from swift.core.types import IGNORE_INDEX, Sample
from swift.model import load_model
from swift.objectives import collate
from swift.trainers import selfcheck
from swift.trainers.forward import ModelActor, Plan
from swift.trainers.scoring import pooled_index
from tests.helpers.heads import Trip, build_encoder
from tests.helpers.tiny import save_encoder

PAD = 0


def sample(*ids):
    return Sample(list(ids), [IGNORE_INDEX] * len(ids))


SAMPLES = [sample(5, 6, 7), sample(8, 9), sample(10, PAD, 11, 12, 13), sample(14, 15, PAD, PAD), sample(PAD, PAD)]


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    from tests.helpers.tiny import save_tiny

    path = save_tiny(tmp_path_factory.mktemp('tiny') / 'model')
    return load_model(ModelArgs(model=path, task_type='seq_cls', num_labels=3)).model.eval()


@pytest.fixture(scope='module')
def encoder(tmp_path_factory):
    path = save_encoder(tmp_path_factory.mktemp('encoder') / 'model')
    return load_model(ModelArgs(model=path, task_type='seq_cls', num_labels=3)).model.eval()


def alone(model):
    with torch.no_grad():
        return torch.cat([model(input_ids=torch.tensor([item.input_ids])).logits for item in SAMPLES])


def test_a_segment_is_read_at_its_last_token_that_is_no_padding():
    flat, padded = collate.flat(SAMPLES), collate.padded(SAMPLES)
    assert pooled_index(flat, PAD).tolist() == [2, 4, 9, 11, 14]
    assert pooled_index(padded, PAD).tolist() == [2, 6, 14, 16, 20]
    assert pooled_index(flat, None).tolist() == [2, 4, 9, 13, 15]


def test_flat_padded_and_alone_are_what_the_model_says_itself(model):
    plan = selfcheck.plan(model, SAMPLES[:3:2])
    assert plan.flat and plan.selects
    own = alone(model)
    with torch.no_grad():
        for batch, how in (
            (collate.flat(SAMPLES), plan), (collate.padded(SAMPLES), plan),
            (collate.padded(SAMPLES), Plan(False, False)), (collate.padded(SAMPLES), Plan(False, True, alone=True)),
        ):  # fmt: skip
            torch.testing.assert_close(ModelActor(model, how).scores(batch), own, rtol=1e-5, atol=1e-6)


def test_gradients_are_those_of_the_models_own_forward(model):
    grads = []
    for batch, plan in ((collate.flat(SAMPLES), selfcheck.plan(model, SAMPLES[:3:2])), (collate.padded(SAMPLES), Plan(False, False))):
        model.zero_grad()
        ModelActor(model, plan).scores(batch).square().sum().backward()
        grads.append({name: p.grad.clone() for name, p in model.named_parameters()})
    assert grads[0]['score.weight'].abs().max() > 0
    for name, grad in grads[0].items():
        torch.testing.assert_close(grad, grads[1][name], rtol=1e-4, atol=1e-6)


def test_the_head_gets_one_row_a_segment(model):
    seen = []
    with model.score.register_forward_hook(lambda module, args, output: seen.append(args[0].shape)):
        ModelActor(model, selfcheck.plan(model, SAMPLES[:3:2])).scores(collate.flat(SAMPLES))
    assert seen[-1] == (1, len(SAMPLES), 64)


def test_a_pooler_of_ones_own_reads_padded_rows(encoder):
    plan = selfcheck.plan(encoder, SAMPLES[:3:2])
    assert not plan.flat and not plan.selects and plan.reason == 'its pooler reads whole rows'
    own = alone(encoder)
    with torch.no_grad():
        torch.testing.assert_close(ModelActor(encoder, plan).scores(collate.padded(SAMPLES)), own, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(ModelActor(encoder, plan).scores(collate.flat(SAMPLES)), own, rtol=1e-5, atol=1e-6)


def test_a_classifier_that_padding_disturbs_runs_one_row_at_a_time(tmp_path):
    build_encoder('xlnet', str(tmp_path))
    model = load_model(ModelArgs(model=str(tmp_path), task_type='seq_cls', num_labels=3)).model.eval()  # reads its last token, padding or not
    rows = [sample(5, 6, 7, 8, 9), sample(10, 11, 12)]
    plan = selfcheck.plan(model, rows)
    assert plan.alone and not plan.flat
    with torch.no_grad():
        own = torch.cat([model(input_ids=torch.tensor([row.input_ids])).logits for row in rows])
        torch.testing.assert_close(ModelActor(model, plan).scores(collate.padded(rows)), own, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(('model_type', 'flat'), [('bert', True), ('xlm-roberta', True), ('albert', True), ('modernbert', False)])
def test_encoders_without_a_pooler_run_flat_where_nothing_leaks(tmp_path, model_type, flat):
    trip = Trip(model_type, str(tmp_path), 'embedding', encoder=True)
    model = load_model(trip.args()).model.eval()
    with torch.no_grad():
        own = trip.alone(model)
        plan = selfcheck.plan(model, trip.samples)
        assert plan.flat is flat
        torch.testing.assert_close(trip.outputs(model, plan, padded=not flat), own, rtol=1e-4, atol=1e-5)


def test_a_language_model_gives_no_scores(tiny_dir):
    model = load_model(ModelArgs(model=tiny_dir)).model
    with pytest.raises(ModelError, match='Qwen3ForCausalLM gives no scores; load the model with --task_type seq_cls'):
        ModelActor(model).scores(collate.flat(SAMPLES))


def test_hidden_states_of_a_classifier_are_those_its_head_gets(model):
    seen = []
    batch = collate.flat(SAMPLES[:1])
    with torch.no_grad(), model.score.register_forward_hook(lambda module, args, output: seen.append(args[0])):
        hidden = ModelActor(model).hidden(batch)
    torch.testing.assert_close(hidden, seen[0])
