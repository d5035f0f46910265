"""Optimizers by name: which weight is in which group, and that they train, save and resume."""

import pytest
import torch

from swift.core.errors import SwiftError
from swift.trainers.optimizers import OptimizerCallback, optimizers_map
from tests.trajectories.toy import make_trainer, weights


def built(folder, **settings):
    trainer = make_trainer(str(folder), max_steps=3, save_steps=1, **settings)
    trainer.create_optimizer()
    return trainer


def test_lora_plus_is_faster_for_b(tmp_path):
    trainer = built(tmp_path, optimizer='lorap', learning_rate=1e-3)
    names = {id(value): name for name, value in trainer.model.named_parameters()}
    rates = {names[id(value)]: group['lr'] for group in trainer.optimizer.param_groups for value in group['params']}
    assert len(rates) == len(weights(trainer))
    assert {rate for name, rate in rates.items() if 'lora_B' in name} == {16e-3}
    assert {rate for name, rate in rates.items() if 'lora_A' in name} == {1e-3}
    ratios = {group['lr'] for group in built(tmp_path / 'ratio', lorap=4.0, learning_rate=1e-3).optimizer.param_groups}
    assert ratios == {4e-3, 1e-3}  # the ratio alone is enough
    with pytest.raises(SwiftError, match='--lorap_lr_ratio has no effect with --optimizer muon'):
        built(tmp_path / 'both', lorap=4.0, optimizer='muon')
    with pytest.raises(SwiftError, match='needs LoRA matrices'):
        built(tmp_path / 'full', optimizer='lorap', tuner='full')


def test_default_is_what_optim_says(tmp_path):
    trainer = built(tmp_path, optimizer='default', tuner='full', weight_decay=0.3)
    assert type(trainer.optimizer).__name__ == 'AdamW'
    decays = {group['weight_decay']: sum(value.numel() for value in group['params']) for group in trainer.optimizer.param_groups}
    norms = sum(value.numel() for name, value in trainer.model.named_parameters() if 'norm' in name)
    assert decays == {0.3: sum(v.numel() for v in trainer.model.parameters()) - norms, 0.0: norms}


@pytest.mark.skipif(not hasattr(torch.optim, 'Muon'), reason='torch has no Muon')
def test_muon_trains_matrices_and_resumes(tmp_path):
    straight = make_trainer(str(tmp_path / 'straight'), optimizer='muon', tuner='full', max_steps=3)
    before = weights(straight)
    straight.train()
    assert all(not torch.equal(value, before[name]) for name, value in weights(straight).items())
    muon, adam = straight.optimizer.optimizer.parts
    assert {value.ndim for group in muon.param_groups for value in group['params']} == {2}
    assert any(value is straight.model.get_input_embeddings().weight for group in adam.param_groups for value in group['params'])
    resumed = make_trainer(str(tmp_path / 'run'), optimizer='muon', tuner='full', max_steps=3)
    resumed.train(resume_from_checkpoint=str(tmp_path / 'straight' / 'checkpoint-2'))
    for (name, one), two in zip(weights(straight).items(), weights(resumed).values(), strict=True):
        assert torch.equal(one, two), name


def test_own_optimizer_and_unknown_names(tmp_path):
    class Plain(OptimizerCallback):
        def create_optimizer(self):
            return torch.optim.SGD(self.trainable(), lr=self.args.learning_rate)

        def create_scheduler(self, num_training_steps, optimizer):
            return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=0.5, total_iters=10**6)

    optimizers_map['plain'] = Plain
    try:
        trainer = make_trainer(str(tmp_path), optimizer='plain', learning_rate=0.5, max_steps=2, logging_steps=1)
        trainer.train()
        assert [line['learning_rate'] for line in trainer.state.log_history if 'loss' in line] == [0.25, 0.25]
    finally:
        del optimizers_map['plain']
    with pytest.raises(SwiftError, match="did you mean 'lorap'"):
        built(tmp_path, optimizer='lorapp')
    with pytest.raises(SwiftError, match='GaLore is not available'):
        built(tmp_path, optimizer='galore')


def stub(model, **settings):
    """What an optimizer maker asks of a trainer and its arguments."""
    from types import SimpleNamespace

    values = {'learning_rate': 1e-3, 'vit_lr': None, 'aligner_lr': None, 'weight_decay': 0.1, 'lorap_lr_ratio': None, 'adam_beta1': 0.9,
              'adam_beta2': 0.95, 'adam_epsilon': 1e-8}  # fmt: skip
    decayed = [name for name, value in model.named_parameters() if value.ndim > 1]
    trainer = SimpleNamespace(
        model=model,
        get_decay_parameter_names=lambda model: decayed,
        get_optimizer_cls_and_kwargs=lambda args, model: (torch.optim.AdamW, {'lr': args.learning_rate}),
    )
    return SimpleNamespace(**{**values, **settings}), trainer


def rates(optimizer, model):
    """Part of the model and kind of parameter (fast: B matrix) → its learning rates and weight decays."""
    from swift.tuners.parts import parts_of

    names, parts = {id(value): name for name, value in model.named_parameters()}, parts_of(model)
    found = {}
    for group in optimizer.param_groups:
        for value in group['params']:
            name = names[id(value)]
            found.setdefault((parts.of(name), 'lora_B' in name), set()).add((round(group['lr'], 9), group['weight_decay'] if value.ndim > 1 else None))
    assert {group['weight_decay'] for group in optimizer.param_groups for value in group['params'] if value.ndim < 2} <= {0.0}
    learning = sum(value.requires_grad for value in model.parameters())
    assert sum(len(group['params']) for group in optimizer.param_groups) == learning
    return found


def seeing(tuner, **settings):
    from swift.arguments import TunerArgs
    from swift.tuners import prepare_tuner
    from tests.tuners.multimodal import INFO, qwen2_vl

    return prepare_tuner(qwen2_vl(), TunerArgs(tuner_type=tuner, freeze_vit=False, freeze_aligner=False, **settings), info=INFO)


def test_every_part_has_its_learning_rate():
    model = seeing('full')
    maker = optimizers_map['multimodal'](*stub(model, vit_lr=1e-5, aligner_lr=1e-4))
    optimizer = maker.create_optimizer()
    assert rates(optimizer, model) == {
        ('llm', False): {(1e-3, 0.1), (1e-3, None)},
        ('vit', False): {(1e-5, 0.1), (1e-5, None)},
        ('aligner', False): {(1e-4, 0.1), (1e-4, None)},
    }
    assert [group['part'] for group in optimizer.param_groups] == ['', '', 'vit', 'vit', 'aligner', 'aligner']
    optimizer = optimizers_map['multimodal'](*stub(model, aligner_lr=1e-4)).create_optimizer()
    assert rates(optimizer, model)['vit', False] == {(1e-3, 0.1), (1e-3, None)}
    plain = optimizers_map['default'](*stub(model)).create_optimizer()
    assert len(plain.param_groups) == 2 and 'part' not in plain.param_groups[0]


def test_lora_plus_multiplies_the_rate_of_the_part():
    model = seeing('lora')
    optimizer = optimizers_map['lorap'](*stub(model, vit_lr=1e-5, lorap_lr_ratio=4.0)).create_optimizer()
    found = {key: {rate for rate, _ in values} for key, values in rates(optimizer, model).items()}
    assert found == {
        ('llm', False): {1e-3}, ('llm', True): {4e-3}, ('vit', False): {1e-5}, ('vit', True): {4e-5},
        ('aligner', False): {1e-3}, ('aligner', True): {4e-3},
    }  # fmt: skip


@pytest.mark.skipif(not hasattr(torch.optim, 'Muon'), reason='torch has no Muon')
def test_muon_knows_the_parts_too():
    model = seeing('full')
    optimizer = optimizers_map['muon'](*stub(model, vit_lr=1e-5)).create_optimizer()
    found = {key: {rate for rate, _ in values} for key, values in rates(optimizer, model).items()}
    assert found == {('llm', False): {1e-3}, ('vit', False): {1e-5}, ('aligner', False): {1e-3}}


@pytest.mark.parametrize('kind', ['cosine', 'linear'])
def test_schedules_scale_every_part(kind):
    from math import cos, pi

    from transformers import get_scheduler

    from swift.trainers.callbacks.learning_rate import part_rates

    model = seeing('lora')
    optimizer = optimizers_map['lorap'](*stub(model, vit_lr=1e-5, aligner_lr=2e-4, lorap_lr_ratio=4.0)).create_optimizer()
    scheduler = get_scheduler(kind, optimizer, num_warmup_steps=2, num_training_steps=10)
    for step in range(10):
        share = step / 2 if step < 2 else (0.5 * (1 + cos(pi * (step - 2) / 8)) if kind == 'cosine' else (10 - step) / 8)
        now = {key: {rate for rate, _ in values} for key, values in rates(optimizer, model).items()}
        for part, rate in (('llm', 1e-3), ('vit', 1e-5), ('aligner', 2e-4)):
            assert now[part, False] == {round(rate * share, 9)} and now[part, True] == {round(4 * rate * share, 9)}
        logged = scheduler.get_last_lr()[0]
        assert logged == pytest.approx(1e-3 * share)
        optimizer.step()
        scheduler.step()
        expected = {'learning_rate_vit': 1e-5 * share, 'learning_rate_aligner': 2e-4 * share}
        assert part_rates(logged, optimizer) == pytest.approx(expected)
    assert part_rates(0.1, optimizers_map['default'](*stub(model)).create_optimizer()) == {}


def test_a_rate_for_a_part_that_does_not_learn():
    from swift.arguments import TunerArgs
    from swift.tuners import prepare_tuner
    from tests.tuners.multimodal import INFO, llava

    model = prepare_tuner(llava(), TunerArgs(), info=INFO)
    with pytest.raises(SwiftError, match='--vit_lr has no effect: nothing of that part learns; give --freeze_vit false'):
        optimizers_map['default'](*stub(model, vit_lr=1e-5)).create_optimizer()
    only = prepare_tuner(llava(), TunerArgs(tuner_type='full', freeze_llm=True, freeze_aligner=False), info=INFO)
    optimizer = optimizers_map['default'](*stub(only, aligner_lr=1e-4)).create_optimizer()
    assert {group['lr'] for group in optimizer.param_groups} == {1e-4}  # the only part there is, hence the logged one


def test_which_maker_the_arguments_choose():
    from swift.arguments import TrainArgs
    from swift.trainers.optimizers.base import chosen

    assert chosen(TrainArgs()) is None
    assert chosen(TrainArgs(vit_lr=1e-5)) == 'multimodal' and chosen(TrainArgs(aligner_lr=1e-5)) == 'multimodal'
    assert chosen(TrainArgs(vit_lr=1e-5), 4.0) == 'lorap' and chosen(TrainArgs(optimizer='multimodal'), 4.0) == 'lorap'
    assert chosen(TrainArgs(optimizer='muon', vit_lr=1e-5)) == 'muon'
    with pytest.raises(SwiftError, match='--lorap_lr_ratio has no effect with --optimizer muon'):
        chosen(TrainArgs(optimizer='muon'), 4.0)
