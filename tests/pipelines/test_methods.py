"""Whole runs of every training method: with adapters and whole models, packed or not, streamed or not, stopped and resumed.

Which runs are made, and which of them by default, stands in tests/helpers/matrix.py; the support matrix is compared with it.
"""

import math
import os
import shutil

import pytest
import torch

from swift.arguments import parse_args
from swift.arguments.methods import METHODS
from swift.pipelines.rlhf import rlhf_main
from swift.pipelines.train import TrainingRun, pretrain_main, sft_main
from tests.helpers.matrix import SHAPES, SUBJECTS, Shape, Subject, documented, in_default_run, stored, table
from tests.helpers.methods import CASES, case_settings
from tests.helpers.tiny import NO_DROPOUT, save_encoder, save_tiny
from tests.trajectories.toy import without_clock

MAIN = {'sft': sft_main, 'pt': pretrain_main, 'rlhf': rlhf_main}


@pytest.fixture(scope='session')
def encoder_dir(tmp_path_factory) -> str:
    return save_encoder(tmp_path_factory.mktemp('encoder') / 'model')


@pytest.fixture(scope='session')
def still_models(tmp_path_factory) -> dict[bool, str]:
    """Whether it is an encoder → a tiny model that draws no random numbers in training."""
    folder = tmp_path_factory.mktemp('still')
    return {False: save_tiny(folder / 'tiny', classifier_dropout=0.0), True: save_encoder(folder / 'encoder', **NO_DROPOUT)}


@pytest.fixture
def settings(tiny_dir, encoder_dir, tmp_path):
    """(subject, further flags) → flags of a run of 4 steps that evaluates at its end."""

    def make(subject: Subject, **more):
        base = case_settings(subject.method, str(tmp_path), more.pop('model', encoder_dir if subject.encoder else tiny_dir), **more)
        quick = dict(
            output_dir=str(tmp_path / 'out'), max_steps=4, save_steps=2, logging_steps=1, learning_rate=1e-3, eval_steps=4,
            val_dataset=base['dataset'] + '#4', per_device_eval_batch_size=2,
        )  # fmt: skip
        return {**quick, **base}

    return make


CASES_OF_RUNS = [
    pytest.param(subject, shape, id=f'{subject}-{shape}', marks=[] if in_default_run(subject, shape) else [pytest.mark.slow])
    for subject in SUBJECTS
    for shape in SHAPES
]


@pytest.mark.parametrize(('subject', 'shape'), CASES_OF_RUNS)
def test_a_run_learns_saves_loads_and_resumes(settings, tmp_path, subject: Subject, shape: Shape):
    learns_saves_loads_and_resumes(subject, settings(subject, **shape.settings), tmp_path)


def learns_saves_loads_and_resumes(subject: Subject, flags: dict, tmp_path) -> None:
    """A run of 4 steps with an evaluation: its log, what is loaded from its checkpoint, and its second half once more."""
    case = CASES[subject.method]
    straight = MAIN[case.command](flags)
    lines = [line for line in straight['log_history'] if 'loss' in line]
    assert straight['global_step'] == len(lines) == 4
    for line in lines:
        assert math.isfinite(line['loss']) and line['grad_norm'] > 0
    assert set().union(*lines) >= set(case.logged)
    evaluation = next(line for line in straight['log_history'] if 'eval_loss' in line)
    assert evaluation.keys() >= {f'eval_{name}' for name in case.measured}
    resumed_equals_straight(case, straight, tmp_path)
    loaded_gives_the_same_scores(subject, straight['last_model_checkpoint'], flags, evaluation)


def resumed_equals_straight(case, straight, tmp_path):
    """From step 2 on in a folder of its own: the same log, the same weights, bit for bit."""
    early, late = (stored(os.path.join(straight['run_dir'], f'checkpoint-{step}')) for step in (2, 4))
    assert any(not torch.equal(early[name], late[name]) for name in late)
    copy = tmp_path / 'again' / os.path.basename(straight['run_dir'])
    shutil.copytree(straight['run_dir'], copy, ignore=shutil.ignore_patterns('checkpoint-4'))
    torch.manual_seed(999)  # whatever a new process has drawn before
    resumed = MAIN[case.command]({'resume_from_checkpoint': str(copy / 'checkpoint-2'), 'output_dir': str(tmp_path / 'again')})
    assert resumed['global_step'] == 4 and resumed['last_model_checkpoint'] == str(copy / 'checkpoint-4')
    assert without_clock(resumed['log_history']) == without_clock(straight['log_history'])
    again = stored(str(copy / 'checkpoint-4'))
    assert again.keys() == late.keys()
    for name, value in late.items():
        assert torch.equal(value, again[name]), name


def loaded_gives_the_same_scores(subject, checkpoint, flags, evaluation):
    """The checkpoint as the start of another run: its evaluation before the first step is that of the trained model."""
    if flags['tuner_type'] == 'lora':
        start = {**flags, 'adapters': checkpoint}
    else:
        start = {**flags, 'model': checkpoint}
        if METHODS[subject.method].reference:
            start['ref_model'] = flags['model']
    command = CASES[subject.method].command
    run = TrainingRun(parse_args(command, start), command)
    found = {name: value for name, value in without_clock([run.trainer.evaluate()])[0].items() if name != 'epoch'}
    assert found.keys() >= {'eval_loss'}
    for name, value in found.items():
        assert value == pytest.approx(evaluation[name], rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize('subject', SUBJECTS, ids=str)
@pytest.mark.slow
def test_packed_padded_accumulated_and_streamed_steps_are_the_same(settings, still_models, subject):
    """8 rows are one step each way: the losses, the metrics and the weights of 4 steps agree."""
    case = CASES[subject.method]
    one = dict(**case.streamed, model=still_models[subject.encoder], lora_dropout=0.0, lora_rank=4, train_dataloader_shuffle=False, adam_epsilon=1e-5)
    ways = {
        'flat': dict(per_device_train_batch_size=8),
        'padded': dict(per_device_train_batch_size=8, padding_free=False),
        'packed': dict(per_device_train_batch_size=1, packing=True, packing_length=20_000),
        'accumulated': dict(per_device_train_batch_size=2, gradient_accumulation_steps=4),
        'streamed': dict(per_device_train_batch_size=8, streaming=True),
    }
    flat, *others = (MAIN[case.command](settings(subject, **one, **way)) for way in ways.values())
    lines = without_clock(flat['log_history'])
    expected = stored(flat['last_model_checkpoint'])
    for name, other in zip(list(ways)[1:], others, strict=True):
        for a, b in zip(lines, without_clock(other['log_history']), strict=True):
            for key in a.keys() - {'epoch'}:
                assert b[key] == pytest.approx(a[key], rel=1e-3, abs=1e-5), (name, key)
        found = stored(other['last_model_checkpoint'])
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-5, msg=f'{name}: {key}')


def test_the_support_matrix_says_what_is_run():
    assert documented() == table()
