"""k steps, a new process's worth of objects, and the rest = all steps at once, to the last bit, with dropout on."""

import json
import os
import shutil

import pytest
import torch
from transformers import TrainerCallback

from swift.arguments.data import DataArgs
from swift.core.errors import CheckpointError
from swift.core.types import Sample
from swift.dataset import StreamSamples, load_dataset
from swift.trainers.callbacks.learning_rate import KeepLearningRate
from swift.trainers.resume import find_last_complete, read_manifest
from tests.trajectories.toy import curve, make_rows, make_trainer, weights


def same_bits(one, two):
    assert one.keys() == two.keys() and one
    for name in one:
        assert torch.equal(one[name], two[name]), f'{name}: {(one[name] - two[name]).abs().max()}'


CASES = {
    'lora': dict(tuner='lora'),
    'full': dict(tuner='full'),
    'packed': dict(tuner='lora', packing=True, per_device_train_batch_size=1),
    'padded': dict(tuner='lora', padded=True),
}


@pytest.mark.parametrize('case', CASES)
def test_resumed_run_is_the_uninterrupted_run(tmp_path, case):
    """Mid-epoch, at the epoch's end and in epoch 2; the last accumulation of an epoch is a short one."""
    straight = make_trainer(str(tmp_path / 'straight'), **CASES[case])
    straight.train()
    steps, per_epoch = straight.state.max_steps, straight.state.max_steps // 2
    assert per_epoch >= 3
    expected, log = weights(straight), curve(straight)
    assert len({line['loss'] for line in log if 'loss' in line}) > 1
    for k in (per_epoch // 2, per_epoch, per_epoch + 1) if case in ('lora', 'packed') else (per_epoch - 1,):
        run = str(tmp_path / f'resumed{k}')
        shutil.copytree(tmp_path / 'straight' / f'checkpoint-{k}', os.path.join(run, f'checkpoint-{k}'))
        torch.manual_seed(999)  # whatever the new process has drawn before
        resumed = make_trainer(run, **CASES[case])
        resumed.train(resume_from_checkpoint=os.path.join(run, f'checkpoint-{k}'))
        assert resumed.state.global_step == steps
        same_bits(expected, weights(resumed))
        assert curve(resumed) == log
        saved = [torch.load(os.path.join(folder, f'checkpoint-{steps}', 'optimizer.pt'), weights_only=True)
                 for folder in (str(tmp_path / 'straight'), run)]
        for one, two in zip(saved[0]['state'].values(), saved[1]['state'].values(), strict=True):
            same_bits({'m': one['exp_avg'], 'v': one['exp_avg_sq']}, {'m': two['exp_avg'], 'v': two['exp_avg_sq']})


def test_what_a_method_draws_before_a_step_is_drawn_again(tmp_path):
    """`prepare` may forward with dropout; the random state must be back before it, and not go back again after it."""

    def trainer(folder):
        made = make_trainer(str(folder), max_steps=5)
        made.objective.prepare = lambda batches, actors, gather: [batch.extra.update(drawn=torch.rand(3)) for batch in batches]
        return made

    straight = trainer(tmp_path / 'straight')
    straight.train()
    for k in (2, 3):
        resumed = trainer(tmp_path / f'resumed{k}')
        resumed.train(resume_from_checkpoint=str(tmp_path / 'straight' / f'checkpoint-{k}'))
        same_bits(weights(straight), weights(resumed))


@pytest.mark.parametrize('packing', [False, True], ids=['rows', 'packed'])
@pytest.mark.parametrize('k', [2, 6], ids=['epoch 1', 'later epoch'])
def test_streamed_rows_resume_the_same(tmp_path, packing, k):
    """Positions of the sources, the shuffle buffer and what the packer holds back are part of the checkpoint."""
    with open(tmp_path / 'rows.jsonl', 'w') as stream:
        for row in make_rows(18):
            stream.write(json.dumps({'text': ' '.join(str(token) for token in row.input_ids)}) + '\n')

    def encode(talks):
        found = [[int(token) for token in talk.messages[0]['content'].split()] for talk in talks]
        return [[Sample(ids, ids)] for ids in found]

    def trainer(name):
        data = DataArgs(dataset=[str(tmp_path / 'rows.jsonl')], streaming=True, shuffle_buffer_size=8)
        rows = StreamSamples(load_dataset(data, seed=5).train, encode)
        settings = dict(per_device_train_batch_size=1, gradient_accumulation_steps=2) if packing else {}
        return make_trainer(str(tmp_path / name), rows=rows, packing=packing, max_steps=8, save_steps=k, **settings)

    straight = trainer('straight')
    straight.train()
    resumed = trainer('resumed')
    resumed.train(resume_from_checkpoint=str(tmp_path / 'straight' / f'checkpoint-{k}'))
    assert straight.train_dataset.epoch == resumed.train_dataset.epoch >= 1
    same_bits(weights(straight), weights(resumed))
    assert curve(straight) == curve(resumed)


def test_dropout_matters_here(tmp_path):
    """The comparison above would not notice lost random states if nothing was random."""
    one = make_trainer(str(tmp_path / 'one'))
    one.train()
    two = make_trainer(str(tmp_path / 'two'))
    torch.manual_seed(5)
    two.train()
    assert any(not torch.equal(a, b) for a, b in zip(weights(one).values(), weights(two).values(), strict=True))


def test_a_checkpoint_holds_what_it_should(tmp_path):
    trainer = make_trainer(str(tmp_path), max_steps=2, save_total_limit=1)
    trainer.train()
    folder = find_last_complete(str(tmp_path))
    assert os.path.basename(folder) == 'checkpoint-2' and not os.path.exists(tmp_path / 'checkpoint-1')
    files = set(read_manifest(folder)['files'])
    assert files >= {'adapter_model.safetensors', 'adapter_config.json', 'optimizer.pt', 'scheduler.pt', 'rng_state.pth',
                     'trainer_state.json', 'loader_state.json', 'progress.json'}


def test_only_the_model(tmp_path):
    trainer = make_trainer(str(tmp_path), max_steps=1, save_only_model=True)
    trainer.train()
    folder = str(tmp_path / 'checkpoint-1')
    assert 'optimizer.pt' not in os.listdir(folder) and 'adapter_model.safetensors' in os.listdir(folder)
    with pytest.raises(CheckpointError, match='optimizer.pt is missing'):
        make_trainer(str(tmp_path / 'next')).train(resume_from_checkpoint=folder)


def test_another_rank_or_tuner_is_refused(tmp_path):
    make_trainer(str(tmp_path), max_steps=1).train()
    checkpoint = str(tmp_path / 'checkpoint-1')
    with pytest.raises(CheckpointError, match=r'lora_A.* has shape \[4, 64\] there and \[8, 64\] here; resume with the same --lora_rank'):
        make_trainer(str(tmp_path / 'rank'), tuner_args={'lora_rank': 8}).train(resume_from_checkpoint=checkpoint)
    with pytest.raises(CheckpointError, match='trained with other settings'):
        make_trainer(str(tmp_path / 'full'), tuner='full').train(resume_from_checkpoint=checkpoint)


@pytest.mark.parametrize('tuner_args', [{'init_weights': 'pissa'}, {'modules_to_save': ['embed_tokens']}], ids=['pissa', 'modules_to_save'])
def test_adapters_that_are_stored_in_another_form(tmp_path, tuner_args):
    """PiSSA is written as a difference of twice the rank; a whole embedding may be trained beside the adapter."""
    straight = make_trainer(str(tmp_path / 'straight'), tuner_args=tuner_args, max_steps=4)
    straight.train()
    resumed = make_trainer(str(tmp_path / 'run'), tuner_args=tuner_args, max_steps=4)
    resumed.train(resume_from_checkpoint=str(tmp_path / 'straight' / 'checkpoint-2'))
    same_bits(weights(straight), weights(resumed))


def test_another_batch_size_goes_on_with_the_data_anew(tmp_path, capfd):
    make_trainer(str(tmp_path), max_steps=3).train()
    checkpoint = str(tmp_path / 'checkpoint-3')
    other = make_trainer(str(tmp_path / 'next'), per_device_train_batch_size=4, gradient_accumulation_steps=1)
    other.train(resume_from_checkpoint=checkpoint)
    assert other.state.global_step == other.state.max_steps > 3
    assert 'not the position in the data' in capfd.readouterr().err


def test_best_metric_and_early_stop_go_on(tmp_path):
    """Stopped by patience at the same step, resumed or not."""
    settings = dict(val=make_rows(6, seed=1), eval_strategy='steps', eval_steps=1, early_stop_interval=2,
                    metric_for_best_model='loss', greater_is_better=False, learning_rate=0.3, num_train_epochs=4.0)
    straight = make_trainer(str(tmp_path / 'straight'), **settings)
    straight.train()
    stopped = straight.state.global_step
    assert 2 < stopped < straight.state.max_steps
    run = str(tmp_path / 'run')
    shutil.copytree(tmp_path / 'straight' / f'checkpoint-{stopped - 1}', os.path.join(run, f'checkpoint-{stopped - 1}'))
    resumed = make_trainer(run, **settings)
    resumed.train(resume_from_checkpoint=os.path.join(run, f'checkpoint-{stopped - 1}'))
    assert resumed.state.global_step == stopped
    assert resumed.state.best_metric == straight.state.best_metric
    same_bits(weights(straight), weights(resumed))


def test_a_users_callback_saves_and_turns_the_learning_rate_down(tmp_path):
    """on_evaluate gets metrics and optimizer; what it asks for happens, and the rate stays down, also after a resume."""

    class Mine(TrainerCallback):
        def on_evaluate(self, args, state, control, metrics=None, **kwargs):
            assert metrics['eval_loss'] > 0
            control.should_save = control.should_save or state.global_step == 3
            if state.global_step == 2:
                for group in kwargs['optimizer'].param_groups:
                    group['lr'] *= 0.5
            return control

    def trainer(name):
        return make_trainer(str(tmp_path / name), val=make_rows(4, seed=2), eval_strategy='steps', eval_steps=1, save_steps=100, max_steps=5,
                            lr_scheduler_type='linear', logging_steps=1, callbacks=[Mine(), KeepLearningRate()])

    straight, resumed = trainer('straight'), trainer('resumed')
    straight.train()
    assert {name for name in os.listdir(tmp_path / 'straight') if name.startswith('checkpoint')} == {'checkpoint-3', 'checkpoint-5'}
    rates = [line['learning_rate'] for line in straight.state.log_history if 'learning_rate' in line]
    assert rates == pytest.approx([1e-2, 0.8e-2, 0.3e-2, 0.2e-2, 0.1e-2])
    resumed.train(resume_from_checkpoint=str(tmp_path / 'straight' / 'checkpoint-3'))
    assert curve(resumed) == curve(straight)
    same_bits(weights(straight), weights(resumed))


def test_the_best_checkpoint_is_kept_linked_and_loaded_at_the_end(tmp_path):
    trainer = make_trainer(str(tmp_path), val=make_rows(6, seed=1), eval_strategy='steps', eval_steps=1, 
                           metric_for_best_model='loss', greater_is_better=True, load_best_model_at_end=True, save_total_limit=1,
                           create_checkpoint_symlink=True, max_steps=4)
    trainer.train()
    losses = {line['step']: line['eval_loss'] for line in trainer.state.log_history if 'eval_loss' in line}
    best = max(losses, key=losses.get)
    assert best < 4  # the highest loss is called best here: it is surely not the last
    assert trainer.state.best_model_checkpoint == str(tmp_path / f'checkpoint-{best}')
    assert {name for name in os.listdir(tmp_path) if name.startswith('checkpoint')} == {f'checkpoint-{best}', 'checkpoint-4'}
    assert os.readlink(tmp_path / 'best') == f'checkpoint-{best}' and os.readlink(tmp_path / 'last') == 'checkpoint-4'
    assert trainer.evaluate()['eval_loss'] == pytest.approx(losses[best], abs=1e-6)
