"""plan, preview, verify, doctor: what they say is what happens."""

import json
import os

import pytest

from swift import Swift, doctor_main, plan_main, preview_main, sft_main, verify_main
from swift.core.errors import SwiftError
from tests.helpers.methods import CASES
from tests.pipelines.conftest import write_rows


def test_plan_is_what_the_run_then_does(quick, capsys):
    settings = {**quick, 'max_steps': -1, 'num_train_epochs': 2, 'gradient_accumulation_steps': 2, 'save_steps': 3, 'save_total_limit': 2}
    planned = plan_main(settings)
    assert not os.path.exists(quick['output_dir'])
    assert 'optimizer steps' in capsys.readouterr().out
    result = sft_main(settings)
    assert planned['steps']['optimizer_steps'] == result['global_step'] == 6
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(quick['model']), result['last_model_checkpoint'], is_trainable=True)
    assert planned['parameters']['trainable'] == model.get_nb_trainable_parameters()[0]
    assert planned['parameters']['total'] == model.get_base_model().num_parameters() - planned['parameters']['trainable']
    kept = [name for name in os.listdir(result['run_dir']) if name.startswith('checkpoint-')]
    assert len(kept) == planned['output']['kept'] == 2


def test_plan_counts_packed_rows_exactly(quick):
    settings = {**quick, 'max_steps': -1, 'num_train_epochs': 1, 'packing': True, 'max_length': 96, 'per_device_train_batch_size': 1}
    planned = plan_main(settings)
    assert planned['steps']['optimizer_steps'] == sft_main(settings)['global_step']
    assert 0.5 < planned['steps']['packing_fill'] <= 1


def test_dry_run_is_a_plan(quick):
    planned = Swift.sft(**quick, dry_run=True)
    assert planned['steps']['optimizer_steps'] == 4 and not os.path.exists(quick['output_dir'])


def test_plan_of_a_whole_model_has_more_memory(quick):
    lora, full = plan_main(quick), plan_main({**quick, 'tuner_type': 'full'})
    assert full['memory'].optimizer == 8 * full['parameters']['total'] > lora['memory'].optimizer


def test_preview_marks_what_is_trained(quick, tmp_path):
    rows = [
        {'messages': [
            {'role': 'user', 'content': 'one'}, {'role': 'assistant', 'content': 'first answer', 'loss': False},
            {'role': 'user', 'content': 'two'}, {'role': 'assistant', 'content': 'second answer'},
        ]}
    ]  # fmt: skip
    [shown] = preview_main(dict(model=quick['model'], dataset=write_rows(tmp_path / 'turns.jsonl', rows)))
    assert shown['source'].endswith('turns.jsonl:1')
    assert '⟦second answer<|im_end|>⟧' in shown['text'] and '⟦first' not in shown['text']
    assert shown['trained'] < shown['tokens']


def test_verify_passes_a_good_checkpoint_and_names_a_damaged_file(quick, capsys):
    checkpoint = sft_main({**quick, 'max_steps': 2})['last_model_checkpoint']
    found = verify_main(dict(adapters=checkpoint, dataset=quick['dataset']))
    assert {name: finding['ok'] for name, finding in found.items()} == {
        'checkpoint complete': True,
        'training prompt = inference prompt': True,
        'packed = alone': True,
        'merged = base + adapter': True,
    }
    with open(os.path.join(checkpoint, 'tokenizer.json'), 'a') as file:
        file.write(' ')
    with pytest.raises(SwiftError, match=r'checkpoint complete.*tokenizer\.json has \d+ bytes'):
        verify_main(dict(adapters=checkpoint))
    assert 'FAIL checkpoint complete' in capsys.readouterr().out


def test_verify_finds_a_merged_model_of_other_weights(quick, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    checkpoint = sft_main({**quick, 'max_steps': 4})['last_model_checkpoint']
    AutoModelForCausalLM.from_pretrained(quick['model']).save_pretrained(tmp_path / 'unmerged')
    AutoTokenizer.from_pretrained(quick['model']).save_pretrained(tmp_path / 'unmerged')
    with pytest.raises(SwiftError, match=r'merged = base \+ adapter'):
        verify_main(dict(adapters=checkpoint, merged_model=str(tmp_path / 'unmerged')))


def test_doctor_reports_and_takes_no_arguments(capsys):
    report = doctor_main()
    assert report['packages']['torch'] and not report['problems'] and report['devices']
    assert 'Ready to train.' in capsys.readouterr().out
    with pytest.raises(SwiftError, match='takes no arguments'):
        doctor_main(['--verbose'])


def test_args_json_says_where_values_came_from(quick):
    run = sft_main({**quick, 'max_steps': 1})['run_dir']
    saved = json.load(open(os.path.join(run, 'args.json')))
    assert saved['sources']['learning_rate'] == 'python' and saved['learning_rate'] == 0.01
    assert saved['versions']['torch'] and saved['max_length'] == 4096 and saved['sources']['max_length'] == 'derived'


def test_preview_and_plan_of_pairs(quick, tmp_path, capsys):
    pairs = write_rows(tmp_path / 'pairs.jsonl', CASES['dpo'].rows(6))
    settings = {**quick, 'dataset': pairs, 'rlhf_type': 'dpo', 'dataset_shuffle': False}
    [shown] = preview_main(dict(model=quick['model'], dataset=pairs, rlhf_type='dpo', dataset_shuffle=False, num_samples=1))
    chosen, rejected = shown['texts']
    row = CASES['dpo'].rows(1)[0]
    assert shown['parts'] == ['chosen', 'rejected']
    assert f'⟦{row["response"]}<|im_end|>⟧' in chosen and f'⟦{row["rejected_response"]}<|im_end|>⟧' in rejected
    assert '┄┄ chosen · ' in capsys.readouterr().out
    planned = plan_main(settings)
    assert planned['method']['losses'] == ['sigmoid'] and planned['data']['samples'] == 6
    assert planned['memory'].reference == 0
    out = capsys.readouterr().out
    assert 'method     dpo (sigmoid); reference: the model without the adapter that is trained' in out and '6 pairs' in out
    whole = plan_main({**settings, 'tuner_type': 'full', 'loss_type': ['hinge', 'sft']})
    assert whole['memory'].reference == 4 * whole['parameters']['total']
    assert 'dpo (hinge + sft); reference: a copy of the model' in capsys.readouterr().out


@pytest.mark.parametrize(
    'name, parts',
    [
        ('kto', ['desirable', 'answer of another row, for the KL term']),
        ('embedding', ['anchor', 'positive', 'negative']),
        ('reranker', ['query with positive document', 'query with negative document']),
    ],
)
def test_preview_names_the_parts(name, parts, quick, tmp_path):
    path = write_rows(tmp_path / 'rows.jsonl', CASES[name].rows(4))
    [shown] = preview_main(dict(model=quick['model'], dataset=path, dataset_shuffle=False, num_samples=1, **CASES[name].settings))
    assert shown['parts'] == parts and len(shown['texts']) == len(parts)


def test_preview_and_plan_of_classes(quick, tmp_path, capsys):
    rows = CASES['seq_cls'].rows(6)
    path = write_rows(tmp_path / 'rows.jsonl', rows)
    shown = preview_main(dict(model=quick['model'], dataset=path, task_type='seq_cls', dataset_shuffle=False))
    assert [facts['label'] for facts in shown] == ['low (1)', 'middle (2)', 'high (0)']
    assert '· label low (1) ──' in capsys.readouterr().out
    planned = plan_main({**quick, 'dataset': path, 'task_type': 'seq_cls', 'max_steps': 1})
    assert planned['method']['classes'] == ['high', 'low', 'middle']
    assert 'method     seq_cls; 3 classes: high, low, middle' in capsys.readouterr().out


@pytest.mark.parametrize(
    'name',
    ['dpo', 'seq_cls', 'embedding', *(pytest.param(name, marks=pytest.mark.slow) for name in ('rm', 'token_cls', 'reranker', 'generative_reranker'))],
)
def test_verify_of_every_kind_of_model(name, quick, tmp_path):
    from swift import rlhf_main

    case = CASES[name]
    path = write_rows(tmp_path / 'rows.jsonl', case.rows(6))
    settings = {**quick, 'dataset': path, 'max_steps': 1, **case.settings}
    checkpoint = (rlhf_main if case.command == 'rlhf' else sft_main)(settings)['last_model_checkpoint']
    found = verify_main(dict(adapters=checkpoint))
    assert {finding['ok'] for finding in found.values()} == {True}
    compared = found.get('training ids = inference ids') or found['training prompt = inference prompt']
    assert compared['detail'].startswith('12 answers compared' if name == 'dpo' else '6 rows compared')


def test_verify_finds_texts_that_are_encoded_otherwise(quick, tmp_path, monkeypatch):
    from swift.pipelines import scoring

    path = write_rows(tmp_path / 'rows.jsonl', CASES['seq_cls'].rows(6))
    checkpoint = sft_main({**quick, 'dataset': path, 'max_steps': 1, 'task_type': 'seq_cls'})['last_model_checkpoint']
    right = scoring.encoder_for

    def wrong(*args):
        def encode(talks):
            samples = right(*args)(talks)
            samples[4].input_ids = samples[4].input_ids[:-1]
            samples[4].lengths = None
            return samples

        return encode

    monkeypatch.setattr(scoring, 'encoder_for', wrong)
    with pytest.raises(SwiftError, match=r'1 of 4 checks failed.*text 1 of the sample is not what swift infer encodes'):
        verify_main(dict(adapters=checkpoint))


def test_doctor_says_what_reads_media(capsys):
    from importlib.metadata import version

    report = doctor_main()
    assert report['media']['pillow'] == version('pillow') and set(report['media']) == {'pillow', 'av', 'soundfile', 'pydicom'}
    out = capsys.readouterr().out
    assert f'have pillow {version("pillow")}: images' in out
    from swift.core.stand_in import in_use

    assert ('stand-in of swift' in report['torchvision']) == in_use() and f'torchvision: {report["torchvision"]}' in out
