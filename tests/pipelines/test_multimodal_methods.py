"""Whole runs of every training method on rows that show pictures, videos or sounds: trained, evaluated, resumed, loaded, asked.

Which runs are made, and which of them by default, stands in tests/helpers/mm_matrix.py.
"""

import functools
import math
import os

import numpy as np
import pytest
from PIL import Image

from swift import infer_main
from swift.pipelines import reference_logps
from tests.helpers.matrix import Subject
from tests.helpers.methods import CASES, case_settings
from tests.helpers.mm_matrix import FAST, METHODS, RUNS, Run, documented, shower, shown_rows, table
from tests.helpers.vlm import PRIORITY, media_of, save_vlm
from tests.pipelines.test_methods import MAIN, learns_saves_loads_and_resumes


@pytest.fixture(scope='session')
def vlm(tmp_path_factory):
    """Family → folder of a tiny model."""
    folder = tmp_path_factory.mktemp('vlm')
    return functools.cache(lambda family: save_vlm(folder / family, family))


@pytest.fixture(scope='session')
def show(tmp_path_factory):
    """Kind → number → path of a medium."""
    folder = tmp_path_factory.mktemp('media')
    return functools.cache(lambda kind: shower(folder / kind, kind))


@pytest.fixture
def settings(vlm, show, tmp_path):
    """(method, family, kind, further flags) → flags of a run of 4 steps that evaluates at its end."""

    def make(method, family, kind, **more):
        rows = shown_rows(method, 8, kind, show(kind))
        base = case_settings(method, str(tmp_path), vlm(family), rows=rows, **{'max_length': 2000, 'freeze_vit': False, **more})
        quick = dict(
            output_dir=str(tmp_path / 'out'), max_steps=4, save_steps=2, logging_steps=1, learning_rate=1e-3, eval_steps=4,
            val_dataset=base['dataset'] + '#4', per_device_eval_batch_size=2,
        )  # fmt: skip
        return {**quick, **base}

    return make


@pytest.mark.parametrize('run', [pytest.param(run, id=str(run), marks=[] if str(run) in FAST else [pytest.mark.slow]) for run in RUNS])
def test_a_run_learns_saves_loads_and_resumes(settings, tmp_path, run):
    learns_saves_loads_and_resumes(Subject(run.method, False), settings(run.method, run.family, run.kind, **run.settings), tmp_path)


FAMILY_RUNS = [
    Run(method, family, media_of(family)[0], ('lora', 'full')[(number + place) % 2], bool((number + place) // 2 % 2))
    for number, method in enumerate(METHODS)
    for place, family in enumerate(PRIORITY)
]
"""Every method on every family of the support matrix; LoRA and full, packed and padded in turn."""


@pytest.mark.slow
@pytest.mark.parametrize('run', FAMILY_RUNS, ids=str)
def test_every_family_takes_every_method(settings, run):
    case = CASES[run.method]
    own = {'template': 'paligemma'} if run.family == 'paligemma' else {}
    result = MAIN[case.command](settings(run.method, run.family, run.kind, **run.settings, **own, max_steps=2, eval_steps=2))
    lines = [line for line in result['log_history'] if 'loss' in line]
    assert len(lines) == 2 and all(math.isfinite(line['loss']) and line['grad_norm'] > 0 for line in lines)
    evaluation = next(line for line in result['log_history'] if 'eval_loss' in line)
    assert math.isfinite(evaluation['eval_loss']) and evaluation.keys() >= {f'eval_{name}' for name in case.measured}


def test_every_default_run_is_one_of_the_matrix():
    assert FAST <= set(map(str, RUNS)) and {run.method for run in RUNS} == set(METHODS)


def test_the_support_matrix_says_what_is_run():
    assert documented() in (None, table())


# ---- the reference


def logged(result, *names):
    return [line[name] for line in result['log_history'] for name in names if name in line]


@pytest.fixture
def own_files(show, tmp_path):
    """Rows of pairs whose pictures lie in a folder of the test's own: (path of picture n, flags of a run of 2 steps)."""
    home = shower(tmp_path / 'own', 'image')

    def flags(vlm, **more):
        rows = shown_rows('dpo', 6, 'image', home)
        base = case_settings('dpo', str(tmp_path), vlm('llava'), rows=rows, max_length=2000, freeze_vit=False)
        quick = dict(
            output_dir=str(tmp_path / 'out'), max_steps=2, logging_steps=1, learning_rate=1e-2, per_device_train_batch_size=3,
        )  # fmt: skip
        lora = dict(lora_dropout=0.0, lora_rank=4) if more['tuner_type'] == 'lora' else {}
        return {**base, **quick, **lora, **more}

    return home, flags


@pytest.mark.parametrize('tuner', ['lora', pytest.param('full', marks=pytest.mark.slow)])
def test_every_kind_of_reference_sees_the_pictures(own_files, vlm, tuner):
    """The adapter switched off or a frozen copy, a model of its own, and log-probabilities stored in advance train the same."""
    _, flags = own_files
    runs = [MAIN['rlhf'](flags(vlm, tuner_type=tuner, **more)) for more in ({}, {'ref_model': vlm('llava')}, {'precompute_ref_log_probs': True})]
    first, *others = (logged(run, 'loss', 'grad_norm', 'rewards/margins') for run in runs)
    assert first[0] == pytest.approx(math.log(2), abs=1e-5) and abs(first[3] - math.log(2)) > 1e-3
    for other in others:
        assert other == pytest.approx(first, rel=1e-4, abs=1e-5)


def test_stored_values_belong_to_the_pictures(own_files, vlm, monkeypatch):
    home, flags = own_files
    asked, original = [], reference_logps.reference_values
    monkeypatch.setattr(reference_logps, 'reference_values', lambda samples, *rest: asked.extend(samples) or original(samples, *rest))
    settings = flags(vlm, tuner_type='full', precompute_ref_log_probs=True)
    first, again = MAIN['rlhf'](settings), MAIN['rlhf'](settings)
    assert len(asked) == 6 and logged(first, 'loss') == logged(again, 'loss')
    Image.open(home(0)).rotate(180).save(home(0))
    changed = MAIN['rlhf'](settings)
    assert len(asked) == 12 and logged(changed, 'loss')[0] == pytest.approx(math.log(2), abs=1e-5)


def test_a_row_whose_picture_is_gone_is_left_out_by_the_reference_and_by_the_training(own_files, vlm):
    home, flags = own_files
    settings = flags(vlm, tuner_type='full', num_train_epochs=1, max_steps=-1)
    assert logged(MAIN['rlhf'](settings), 'loss')
    os.remove(home(4))
    lost = [MAIN['rlhf']({**settings, **more}) for more in ({}, {'precompute_ref_log_probs': True})]
    assert logged(lost[0], 'loss') == pytest.approx(logged(lost[1], 'loss'), rel=1e-4) and all(map(math.isfinite, logged(lost[1], 'loss')))


def test_a_model_in_hand_is_trained_as_the_command_does(own_files, vlm, tmp_path):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from swift.rlhf_trainers import DPOTrainer

    _, flags = own_files
    settings = flags(vlm, tuner_type='full', freeze_aligner=False, dataset_shuffle=False, train_dataloader_shuffle=False)
    command = MAIN['rlhf'](settings)
    kept = ('max_steps', 'logging_steps', 'learning_rate', 'per_device_train_batch_size', 'dataset_shuffle', 'train_dataloader_shuffle',
            'max_length', 'report_to')  # fmt: skip
    trainer = DPOTrainer(
        model=AutoModelForImageTextToText.from_pretrained(vlm('llava')), processing_class=AutoProcessor.from_pretrained(vlm('llava')),
        args={'output_dir': tmp_path / 'hand', **{name: settings[name] for name in kept}}, train_dataset=settings['dataset'],
    )  # fmt: skip
    trainer.train()
    assert [line['loss'] for line in trainer.state.log_history if 'loss' in line] == pytest.approx(logged(command, 'loss'), rel=1e-6)


# ---- answers of models that give numbers


SCORED = [('seq_cls', 'llava'), ('embedding', 'qwen2_vl'), ('reranker', 'llava'), ('generative_reranker', 'qwen2_vl'), ('rm', 'qwen2_vl')]


@pytest.mark.parametrize(
    ('method', 'family'), [pytest.param(*pair, marks=[] if pair[0] in ('seq_cls', 'embedding') else [pytest.mark.slow]) for pair in SCORED]
)
def test_inference_gives_the_numbers_of_the_evaluation(settings, tmp_path, method, family):
    flags = settings(method, family, 'image', tuner_type='lora', per_device_train_batch_size=4)
    result = MAIN[CASES[method].command]({**flags, 'val_dataset': flags['dataset']})
    seen = next(line for line in reversed(result['log_history']) if 'eval_loss' in line)
    rows = infer_main(dict(adapters=result['last_model_checkpoint'], val_dataset=flags['dataset'], result_path=str(tmp_path / 'answers.jsonl')))
    assert len(rows) == 8 and all(row['response'] is not None for row in rows)
    if method == 'seq_cls':
        loss = -np.mean([math.log(row['probabilities'][row['labels']]) for row in rows])
        assert loss == pytest.approx(seen['eval_loss'], rel=1e-4)
    elif method == 'rm':
        loss = np.mean([math.log1p(math.exp(-row['margin'])) for row in rows])
        assert all(row['margin'] == pytest.approx(row['response'] - max(row['rejected_scores']), abs=1e-5) for row in rows) and loss > 0
    elif method == 'embedding':
        first = np.mean([row['similarities'][0] >= max(row['similarities']) for row in rows])
        assert all(np.linalg.norm(row['response']) == pytest.approx(1, abs=1e-5) for row in rows) and first <= 1
    else:
        signs = [(row['response'][0], row['response'][1:]) for row in rows]
        loss = [-math.log(right) for right, _ in signs] + [-math.log(1 - wrong) for _, others in signs for wrong in others]
        assert np.mean(loss) == pytest.approx(seen['eval_loss'], rel=1e-4)
