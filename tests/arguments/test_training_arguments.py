"""The table of transformers.TrainingArguments' fields, and how such fields pass through."""

import dataclasses

import pytest

from swift.arguments import parse_args
from swift.arguments.later import read_facts
from swift.core.errors import ArgumentsError

BASE = ['--model', 'm', '--dataset', 'd']


def test_the_table_is_the_installed_one():
    transformers = pytest.importorskip('transformers')
    from transformers.trainer_utils import HubStrategy, SchedulerType
    from transformers.training_args import OptimizerNames

    table = read_facts('training_arguments.json')
    if transformers.__version__.split('.')[:2] != table['transformers'].split('.')[:2]:
        pytest.skip(f'the table is of transformers {table["transformers"]}')
    assert set(table['fields']) == {field.name for field in dataclasses.fields(transformers.TrainingArguments)}
    choices = {'lr_scheduler_type': SchedulerType, 'hub_strategy': HubStrategy, 'optim': OptimizerNames}
    assert table['choices'] == {name: [item.value for item in enum] for name, enum in choices.items()}


@pytest.mark.parametrize(
    'words, expected',
    [
        (['--torch_empty_cache_steps', '2'], {'torch_empty_cache_steps': 2}),
        (['--use_cpu'], {'use_cpu': True}),
        (['--eval_delay', '1.5', '--tf32', 'true'], {'eval_delay': 1.5, 'tf32': True}),
        (['--accelerator_config', '{"split_batches": true}'], {'accelerator_config': {'split_batches': True}}),
        (['--log_level', 'error'], {'log_level': 'error'}),
        (['--bf16_full_eval', '--dtype', 'bf16'], {'bf16_full_eval': True}),
        (
            ['--training_args', '{"torch_empty_cache_steps": 4}', '--use_cpu'],
            {'torch_empty_cache_steps': 4, 'use_cpu': True},
        ),
    ],
)
def test_fields_pass_through_with_their_type(words, expected):
    assert parse_args('sft', [*BASE, *words], quiet=True).training_args == expected


@pytest.mark.parametrize(
    'words, part',
    [
        (['--eval_delay', 'soon'], "--eval_delay takes a number, got 'soon'"),
        (['--optim', 'adamw_torh'], "did you mean 'adamw_torch'?"),
        (['--hub_strategy', 'every_save'], 'not possible: --push_to_hub uploads when training ends'),
        (['--hub_revision', 'main'], '--hub_revision has no effect'),
        (['--project', 'mine'], 'TRACKIO_PROJECT'),
        (['--torch_emty_cache_steps', '2'], "did you mean '--torch_empty_cache_steps'?"),
        (['--dataloader_prefetch_factor', '2'], '--dataloader_prefetch_factor has no effect'),
        (['--bf16_full_eval'], 'in the precision of training'),
    ],
)
def test_wrong_fields(words, part):
    with pytest.raises(ArgumentsError) as caught:
        parse_args('sft', [*BASE, *words])
    assert part in caught.value.mistakes[0]


def test_other_commands_take_no_such_field():
    with pytest.raises(ArgumentsError, match='unknown flag'):
        parse_args('infer', ['--model', 'm', '--use_cpu', 'true'])
