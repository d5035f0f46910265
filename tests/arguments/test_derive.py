"""Derived defaults, and the defaults themselves."""

import pytest

from swift.arguments import Facts, SftArguments, parse_args, resolve

BASE = ['--model', 'm', '--dataset', 'd']


def parse(*words, command='sft', base=BASE):
    return parse_args(command, [*base, *words], quiet=True)


def test_the_documented_defaults():
    args = parse()
    expected = {
        'tuner_type': 'lora',
        'lora_rank': 8,
        'lora_alpha': 32,
        'lora_dropout': 0.05,
        'num_train_epochs': 3.0,
        'learning_rate': 1e-4,
        'per_device_train_batch_size': 1,
        'gradient_accumulation_steps': 1,
        'gradient_checkpointing': False,
        'torch_dtype': 'auto',
        'trust_remote_code': False,
        'output_dir': 'output',
        'push_to_hub': False,
        'weight_decay': 0.1,
        'adam_beta2': 0.95,
        'seed': 42,
        'data_seed': 42,
        'split_dataset_ratio': 0.0,
        'logging_steps': 5,
        'save_steps': 500,
        'target_modules': ['all-linear'],
    }
    assert {name: getattr(args, name) for name in expected} == expected
    assert parse(command='export', base=['--adapters', 'a', '--merge_lora']).safe_serialization


@pytest.mark.parametrize('tuner, rate', [('lora', 1e-4), ('full', 1e-5)])
def test_learning_rate_by_tuner(tuner, rate):
    args = parse('--tuner_type', tuner)
    assert (args.learning_rate, args.sources['learning_rate']) == (rate, 'derived')
    assert parse('--tuner_type', tuner, '--learning_rate', '3e-4').learning_rate == 3e-4


@pytest.mark.parametrize(
    'words, strategy, steps',
    [
        ([], 'no', None),
        (['--split_dataset_ratio', '0.1'], 'steps', 500),
        (['--val_dataset', 'v', '--save_steps', '7'], 'steps', 7),
        (['--val_dataset', 'v', '--eval_steps', '3'], 'steps', 3),
        (['--val_dataset', 'v', '--save_strategy', 'epoch'], 'epoch', None),
        (['--val_dataset', 'v', '--save_strategy', 'best'], 'steps', 500),
        (['--val_dataset', 'v', '--eval_strategy', 'no'], 'no', None),
    ],
)
def test_evaluation_follows_validation_data_and_saving(words, strategy, steps):
    args = parse(*words)
    assert (args.eval_strategy, args.eval_steps) == (strategy, steps)


def test_facts_learned_later():
    args = parse('--split_dataset_ratio', '0.1', '--packing', '--lora_rank', '4')
    again = resolve(args, Facts(has_validation=False, model_max_length=512))
    assert (again.eval_strategy, again.max_length, again.packing_length) == ('no', 512, 512)
    assert (again.lora_rank, again.sources['lora_rank'], again.command) == (4, 'command line', 'sft')
    assert args.eval_strategy == 'steps' and args.max_length is None


def test_given_precision_stays_and_the_rest_is_left_to_the_weights():
    args = parse('--torch_dtype', 'float32', '--bf16', 'true')
    assert (args.bf16, args.fp16) == (True, None)


def test_evaluation_by_generation():
    args = parse('--predict_with_generate', '--val_dataset', 'v')
    found = (
        args.max_new_tokens,
        args.temperature,
        args.eval_metric,
        args.metric_for_best_model,
        args.greater_is_better,
    )
    assert found == (64, 0.0, 'rouge', 'rouge-l', True)
    args = parse('--val_dataset', 'v')
    assert (args.metric_for_best_model, args.greater_is_better) == ('loss', False)
    assert parse('--val_dataset', 'v', '--metric_for_best_model', 'acc').greater_is_better is True


def test_one_seed_for_all():
    assert parse('--seed', '7').data_seed == 7
    assert parse('--seed', '7', '--data_seed', '8').data_seed == 8


def test_resolve_takes_an_object_made_by_hand():
    args = resolve(SftArguments(model='m', dataset=['d'], tuner_type='full'))
    assert (args.learning_rate, args.command, args.sources['learning_rate']) == (1e-5, 'sft', 'derived')
    with pytest.raises(AttributeError):
        args.model = 'other'


def test_infer_streams_when_somebody_watches():
    assert parse(command='infer', base=['--model', 'm']).stream is True
    assert parse(command='infer', base=['--model', 'm', '--val_dataset', 'v']).stream is False
    assert parse(command='infer', base=['--model', 'm', '--val_dataset', 'v', '--stream']).stream is True


def test_a_merged_model_lies_beside_its_adapter():
    assert parse(command='merge-lora', base=['--adapters', 'a/checkpoint-1/']).output_dir == 'a/checkpoint-1-merged'
    assert parse(command='merge-lora', base=['--adapters', 'a', '--output_dir', 'o']).output_dir == 'o'
