"""Classification heads with LoRA: what is trained, in which type, and what all-linear leaves alone."""

import pytest
import torch

from swift.arguments.model import ModelArgs
from swift.arguments.tuner import TunerArgs
from swift.core.types import IGNORE_INDEX, Sample
from swift.model import load_model
from swift.objectives import collate
from swift.trainers import selfcheck
from swift.trainers.forward import ModelActor
from swift.tuners import load_adapter, prepare_tuner, save_tuner
from swift.tuners.modules import find_all_linears
from tests.helpers.tiny import save_encoder

SAMPLES = [Sample(list(range(5, 5 + size)), [IGNORE_INDEX] * size) for size in (7, 12)]


@pytest.fixture(scope='module')
def encoder_dir(tmp_path_factory):
    return save_encoder(tmp_path_factory.mktemp('encoder') / 'model')


def trained(tuned, plan, steps=3, rate=1e-4):
    actor = ModelActor(tuned, plan)
    batch = (collate.flat if plan.flat else collate.padded)(SAMPLES)
    optimizer = torch.optim.AdamW([p for p in tuned.parameters() if p.requires_grad], lr=rate, weight_decay=0.0)
    for _ in range(steps):
        actor.scores(batch).float().square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return actor.scores(batch)


@pytest.mark.parametrize('encoder', [False, True])
def test_a_head_learns_in_float32_whatever_the_models_type(tiny_dir, encoder_dir, encoder, tmp_path):
    args = ModelArgs(model=encoder_dir if encoder else tiny_dir, task_type='seq_cls', num_labels=3, torch_dtype='bfloat16')
    loaded = load_model(args)
    tuned = prepare_tuner(loaded.model, TunerArgs(lora_dropout=0.0), info=loaded.info).eval()
    plan = selfcheck.plan(tuned, SAMPLES)
    assert plan.flat is not encoder and not plan.alone
    heads = {name: p for name, p in tuned.named_parameters() if 'modules_to_save' in name}
    assert heads and all(p.dtype == torch.float32 and p.requires_grad for p in heads.values())
    before = {name: p.detach().clone() for name, p in heads.items()}
    trained(tuned, plan)
    moved = torch.cat([(p.detach() - before[name]).abs().reshape(-1) for name, p in heads.items() if name.endswith('weight')])
    assert (moved > 0).float().mean() > 0.9, 'steps of 1e-4 are not rounded away'
    save_tuner(tuned, str(tmp_path))
    again = load_adapter(load_model(args).model, str(tmp_path), trainable=True)
    for name, parameter in again.named_parameters():
        if 'modules_to_save' in name:
            assert torch.equal(parameter, heads[name])
    served = load_adapter(load_model(args).model, str(tmp_path))
    assert {p.dtype for name, p in served.named_parameters() if 'modules_to_save' in name} == {torch.bfloat16}


def test_what_is_adapted_and_what_is_trained_whole(tiny_dir, encoder_dir):
    model = load_model(ModelArgs(model=encoder_dir, task_type='seq_cls', num_labels=2)).model
    found = {name.partition('layer.0.')[2] for name in find_all_linears(model) if 'layer.0.' in name}
    assert found == {'attention.self.query', 'attention.self.key', 'attention.self.value', 'attention.output.dense', 'intermediate.dense', 'output.dense'}
    assert not any('pooler' in name or 'classifier' in name for name in find_all_linears(model))
    tuned = prepare_tuner(model, TunerArgs(modules_to_save=['embedding']))
    whole = {name.split('.modules_to_save')[0].removeprefix('base_model.model.') for name, p in tuned.named_parameters()
             if p.requires_grad and 'modules_to_save' in name}  # fmt: skip
    assert whole == {'bert.pooler', 'classifier', 'bert.embeddings.word_embeddings'}
    full = prepare_tuner(load_model(ModelArgs(model=encoder_dir, task_type='embedding')).model, TunerArgs(tuner_type='full'))
    assert {name.split('.')[0] for name, p in full.named_parameters() if not p.requires_grad} == {'pooler'}
