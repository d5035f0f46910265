"""plan, preview, verify, doctor: what they say is what happens."""

import json
import os

import pytest

from swift import Swift, doctor_main, plan_main, preview_main, sft_main, verify_main
from swift.core.errors import SwiftError
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
