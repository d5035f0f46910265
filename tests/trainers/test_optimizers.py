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
