"""args.json: written, found, inherited."""

import json

import pytest

from swift.arguments import find_checkpoint, load_saved_args, parse_args, save_args
from swift.core.errors import ArgumentsError, CheckpointError

WORDS = (
    '--model base --dataset d#10 e --learning_rate 2e-4 --lora_rank 4 --max_length 64 --system hi --num_train_epochs 2 '
    '--split_dataset_ratio 0.1 --torch_dtype float32 --torch_empty_cache_steps 2 --hub_token secret --output_dir out'
).split()


def parse(command, *words):
    return parse_args(command, list(words), quiet=True)


@pytest.fixture
def run(tmp_path):
    """An output directory with two runs; the newer one has checkpoints 5 and 10."""
    args = parse('sft', *WORDS)
    for name, steps in (('v0-20250101-000000', [20]), ('v1-20250102-000000', [5, 10])):
        for step in steps:
            checkpoint = tmp_path / name / f'checkpoint-{step}'
            checkpoint.mkdir(parents=True)
            (checkpoint / 'adapter_config.json').write_text('{"base_model_name_or_path": "elsewhere"}')
            save_args(args, str(checkpoint))
        save_args(args, str(tmp_path / name))
    return tmp_path


def test_args_json_shows_values_sources_and_versions(tmp_path):
    path = save_args(parse('sft', *WORDS), str(tmp_path))
    content = json.loads((tmp_path / 'args.json').read_text())
    assert path == str(tmp_path / 'args.json')
    assert (content['command'], content['learning_rate'], content['dataset']) == ('sft', 2e-4, ['d#10', 'e'])
    assert content['sources']['learning_rate'] == 'command line' and content['sources']['eval_strategy'] == 'derived'
    assert 'lora_dropout' not in content['sources'] and content['lora_dropout'] == 0.05
    assert content['versions']['swift'] and content['versions']['torch']
    assert 'hub_token' not in content and 'secret' not in json.dumps(content['sources'])


def test_find_checkpoint(run):
    newest = str(run / 'v1-20250102-000000' / 'checkpoint-10')
    assert find_checkpoint(str(run)) == newest
    assert find_checkpoint(str(run / 'v1-20250102-000000')) == newest
    assert find_checkpoint(newest + '/') == newest
    assert find_checkpoint(str(run / 'v0-20250101-000000')) == str(run / 'v0-20250101-000000' / 'checkpoint-20')
    assert find_checkpoint('Qwen/Qwen3-0.6B') is None
    (run / 'empty' / 'checkpoint-99').mkdir(parents=True)
    assert find_checkpoint(str(run / 'empty')) is None


def test_ten_is_after_nine(tmp_path):
    for name in ('v9-20250101-000000', 'v10-20250101-000000'):
        (tmp_path / name / 'checkpoint-1').mkdir(parents=True)
        (tmp_path / name / 'checkpoint-1' / 'config.json').write_text('{}')
    assert find_checkpoint(str(tmp_path)).split('/')[-2] == 'v10-20250101-000000'


@pytest.mark.parametrize('place', ['', 'v1-20250102-000000', 'v1-20250102-000000/checkpoint-5'])
def test_resume_without_model_and_dataset(run, place):
    args = parse('sft', '--resume_from_checkpoint', str(run / place), '--num_train_epochs', '5')
    assert args.resume_from_checkpoint == str(run / place)
    assert (args.model, args.dataset, args.learning_rate, args.num_train_epochs) == ('base', ['d#10', 'e'], 2e-4, 5.0)
    assert (args.training_args, args.output_dir, args.hub_token) == ({'torch_empty_cache_steps': 2}, 'out', None)
    assert args.sources['model'].startswith('args.json of')


def test_resume_true_takes_the_last_run_of_output_dir(run):
    args = parse('sft', '--resume_from_checkpoint', '--output_dir', str(run))
    assert (args.resume_from_checkpoint, args.output_dir, args.model) == ('true', str(run), 'base')
    with pytest.raises(ArgumentsError) as caught:
        parse('sft', '--resume_from_checkpoint', 'true', '--output_dir', str(run / 'nothing'))
    assert len(caught.value.mistakes) == 1 and 'no checkpoint in' in caught.value.mistakes[0]
    assert (
        parse('sft', '--resume_from_checkpoint', 'false', '--model', 'm', '--dataset', 'd').resume_from_checkpoint
        is None
    )


def test_giving_one_of_two_ways_drops_the_saved_other(run):
    args = parse(
        'sft', '--resume_from_checkpoint', str(run), '--max_steps', '7', '--val_dataset', 'v', '--lora_rank', '4'
    )
    assert (args.max_steps, args.num_train_epochs, args.split_dataset_ratio, args.val_dataset) == (7, 3.0, 0.0, ['v'])
    args = parse('sft', '--resume_from_checkpoint', str(run), '--use_cpu', 'true')
    assert args.training_args == {'torch_empty_cache_steps': 2, 'use_cpu': True}


def test_resume_from_nothing_is_one_mistake(tmp_path):
    with pytest.raises(ArgumentsError) as caught:
        parse('sft', '--resume_from_checkpoint', str(tmp_path / 'gone'))
    assert caught.value.mistakes == [f'--resume_from_checkpoint {tmp_path}/gone: no such directory']


def test_infer_takes_model_and_template_from_the_adapter(run):
    args = parse('infer', '--adapters', str(run), '--temperature', '0')
    assert args.adapters == [str(run / 'v1-20250102-000000' / 'checkpoint-10')]
    assert (args.model, args.system, args.torch_dtype, args.max_length, args.dataset) == (
        'base',
        'hi',
        'float32',
        None,
        [],
    )
    assert parse('infer', '--adapters', str(run), '--system', 'new').system == 'new'
    assert parse('infer', '--adapters', str(run), '--model', 'mine').model == 'mine'
    plain = parse('infer', '--adapters', str(run), '--load_args', 'false')
    assert (plain.system, plain.model) == (None, 'elsewhere')


def test_infer_on_the_split_kept_at_training(run):
    args = parse('infer', '--adapters', str(run), '--load_data_args', 'true')
    assert (args.dataset, args.split_dataset_ratio, args.data_seed) == (['d#10', 'e'], 0.1, 42)


def test_a_model_directory_that_holds_an_adapter(run):
    args = parse('infer', '--model', str(run / 'v1-20250102-000000'))
    assert args.adapters == [str(run / 'v1-20250102-000000' / 'checkpoint-10')] and args.model == 'base'


def test_a_full_checkpoint_is_the_model(tmp_path):
    (tmp_path / 'config.json').write_text('{}')
    save_args(parse('sft', *WORDS, '--template', 'chatml'), str(tmp_path))
    args = parse('infer', '--model', str(tmp_path))
    assert (args.model, args.template, args.torch_dtype) == (str(tmp_path), 'chatml', 'float32')


def test_verify_takes_the_data_too(run):
    args = parse('verify', '--adapters', str(run))
    assert (args.model, args.dataset, args.max_length, args.system, args.learning_rate) == (
        'base',
        ['d#10', 'e'],
        64,
        'hi',
        1e-4,
    )


def test_a_merged_model_keeps_the_settings_of_its_run(run):
    merged = run / 'v1-20250102-000000' / 'checkpoint-10-merged'
    merged.mkdir()
    (merged / 'config.json').write_text('{}')
    args = parse('infer', '--model', str(merged))
    assert (args.model, args.system, args.adapters) == (str(merged), 'hi', [])


def test_merge_takes_the_base_model(run):
    args = parse('merge-lora', '--adapters', str(run / 'v0-20250101-000000'))
    assert args.model == 'base' and args.output_dir == str(run / 'v0-20250101-000000' / 'checkpoint-20-merged')


def test_training_further_from_an_adapter(run):
    args = parse('sft', '--adapters', str(run), '--dataset', 'new')
    assert (args.model, args.system, args.dataset, args.lora_rank) == ('base', 'hi', ['new'], 8)


def test_not_to_resume_is_no_place_to_look_for_settings(run):
    args = parse('sft', '--adapters', str(run), '--dataset', 'new', '--resume_from_checkpoint', 'false')
    assert (args.model, args.resume_from_checkpoint) == ('base', None)


def test_an_adapter_of_another_program(tmp_path):
    (tmp_path / 'adapter_config.json').write_text('{"base_model_name_or_path": "org/base"}')
    assert parse('infer', '--adapters', str(tmp_path)).model == 'org/base'


def test_an_args_json_of_older_versions(tmp_path):
    (tmp_path / 'adapter_config.json').write_text('{}')
    old = {
        'model_id_or_path': 'org/base',
        'template_type': 'qwen',
        'dtype': 'bf16',
        'rlhf_type': 'dpo',
        'model_kwargs': {},
        'system': None,
    }
    (tmp_path / 'args.json').write_text(json.dumps(old))
    saved = load_saved_args(str(tmp_path))
    assert saved.command is None and saved.values == {
        'model': 'org/base',
        'template': 'qwen',
        'torch_dtype': 'bfloat16',
    }
    args = parse('infer', '--adapters', str(tmp_path))
    assert (args.model, args.template, args.torch_dtype) == ('org/base', 'qwen', 'bfloat16')


def test_a_broken_args_json_is_named(run):
    (run / 'v1-20250102-000000' / 'checkpoint-10' / 'args.json').write_text('{"model":')
    with pytest.raises(CheckpointError, match='args.json cannot be read'):
        load_saved_args(str(run / 'v1-20250102-000000' / 'checkpoint-10'))
    with pytest.raises(ArgumentsError, match='args.json cannot be read'):
        parse('infer', '--adapters', str(run))


def test_an_args_json_can_be_run_again(tmp_path):
    args = parse('sft', *WORDS)
    path = save_args(args, str(tmp_path))
    again = parse('sft', '--config', path, '--lora_rank', '2')
    assert (again.learning_rate, again.lora_rank, again.dataset) == (2e-4, 2, ['d#10', 'e'])
    assert again.sources['eval_strategy'] == 'derived'


@pytest.fixture
def preferences(tmp_path):
    """A run of dpo with a loss of its own."""
    args = parse('rlhf', '--model', 'base', '--dataset', 'd', '--loss_type', 'hinge', 'sft', '--loss_weights', '1', '2', '--beta', '0.3')
    (tmp_path / 'checkpoint-5').mkdir()
    (tmp_path / 'checkpoint-5' / 'adapter_config.json').write_text('{}')
    save_args(args, str(tmp_path / 'checkpoint-5'))
    return str(tmp_path)


@pytest.mark.parametrize('command, words, now', [('sft', [], 'sft'), ('rlhf', ['--rlhf_type', 'kto'], 'kto'), ('sft', ['--task_type', 'embedding'], 'embedding')])
def test_a_run_goes_on_with_its_own_method(preferences, command, words, now):
    with pytest.raises(ArgumentsError) as caught:
        parse(command, '--resume_from_checkpoint', preferences, *words)
    assert [f'a run of dpo, and can not go on as {now};' in line for line in caught.value.mistakes] == [True]
    args = parse(command, '--resume_from_checkpoint', preferences, '--resume_only_model', 'true', *words)
    assert not args.loss_type and args.model == 'base'
    assert command == 'sft' or args.beta == 0.1


def test_another_method_starts_from_the_weights_with_its_own_defaults(run):
    words = ['--resume_from_checkpoint', str(run), '--resume_only_model', 'true']
    assert parse('sft', *words).loss_scale == 'default'
    args = parse('rlhf', *words)
    assert (args.loss_scale, args.rlhf_type, args.lora_rank, args.system) == ('last_round', 'dpo', 4, 'hi')


def test_a_run_of_preferences_goes_on_with_its_settings_or_a_new_loss(preferences):
    args = parse('rlhf', '--resume_from_checkpoint', preferences)
    assert (args.rlhf_type, args.loss_type, args.loss_weights, args.beta) == ('dpo', ['hinge', 'sft'], [1.0, 2.0], 0.3)
    args = parse('rlhf', '--resume_from_checkpoint', preferences, '--loss_type', 'ipo')
    assert (args.loss_type, args.loss_weights, args.beta) == (['ipo'], None, 0.3)
    assert parse('plan', '--resume_from_checkpoint', preferences).loss_type == ['hinge', 'sft']
