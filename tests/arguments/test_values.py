"""From written words to typed values."""

import pytest

from swift.arguments import parse_args
from swift.arguments.config import read_config
from swift.arguments.convert import split_commas
from swift.core.errors import ArgumentsError

BASE = ['--model', 'm', '--dataset', 'd']


def parse(*words, command='sft'):
    return parse_args(command, [*BASE, *words], quiet=True)


def mistakes(*words, command='sft', base=BASE):
    with pytest.raises(ArgumentsError) as caught:
        parse_args(command, [*base, *words], quiet=True)
    return caught.value.mistakes


@pytest.mark.parametrize(
    'words, flag, value',
    [
        (['--learning_rate', '1e-5'], 'learning_rate', 1e-5),
        (['--learning_rate=2e-5'], 'learning_rate', 2e-5),
        (['--learning-rate', '3e-5'], 'learning_rate', 3e-5),
        (['--use_rslora'], 'use_rslora', True),
        (['--use_rslora', 'true'], 'use_rslora', True),
        (['--use_rslora', 'False'], 'use_rslora', False),
        (['--lora_rank', '1e1'], 'lora_rank', 10),
        (['--lora_alpha', '16'], 'lora_alpha', 16),
        (['--lora_alpha', '0.5'], 'lora_alpha', 0.5),
        (['--max_steps', '-1'], 'max_steps', -1),
        (['--save_steps', '0.25'], 'save_steps', 0.25),
        (['--max_length', 'none'], 'max_length', None),
        (['--system', 'You are helpful, really.'], 'system', 'You are helpful, really.'),
        (['--target_modules', 'q_proj,v_proj', 'o_proj'], 'target_modules', ['q_proj', 'v_proj', 'o_proj']),
        (['--target_modules', '["q_proj", "k,v"]'], 'target_modules', ['q_proj', 'k,v']),
        (['--target_modules', 'llm.*.{q,v}_proj,o_proj'], 'target_modules', ['llm.*.{q,v}_proj', 'o_proj']),
        (
            ['--lr_scheduler_kwargs', '{"min_lr": 1e-6, "a": [1, 2]}'],
            'lr_scheduler_kwargs',
            {'min_lr': 1e-6, 'a': [1, 2]},
        ),
        (['--lr_scheduler_kwargs', "{'power': 2.0}"], 'lr_scheduler_kwargs', {'power': 2.0}),
        (['--rope_scaling', 'yarn'], 'rope_scaling', 'yarn'),
        (
            ['--rope_scaling', '{"rope_type": "yarn", "factor": 4.0}'],
            'rope_scaling',
            {'rope_type': 'yarn', 'factor': 4.0},
        ),
        (['--device_map', 'auto'], 'device_map', 'auto'),
        (['--new_special_tokens', '<a,b>', '<c>'], 'new_special_tokens', ['<a,b>', '<c>']),
        (['--tuner_type', 'FULL'], 'tuner_type', 'full'),
        (['--report_to', 'wandb,tensorboard'], 'report_to', ['wandb', 'tensorboard']),
        (['--resume_only_model', 'false'], 'resume_only_model', False),
    ],
)
def test_words_become_values(words, flag, value):
    got = getattr(parse(*words), flag)
    assert got == value and type(got) is type(value)


@pytest.mark.parametrize('words', [['a,b', 'c#500'], ['a', 'b', 'c#500'], ['["a", "b", "c#500"]']])
def test_lists_by_space_or_comma(words):
    assert parse_args('sft', ['--model', 'm', '--dataset', *words], quiet=True).dataset == ['a', 'b', 'c#500']


def test_a_path_with_a_comma_stays_whole(tmp_path):
    path = tmp_path / 'one,two.jsonl'
    path.write_text('')
    assert parse_args('sft', ['--model', 'm', '--dataset', str(path)], quiet=True).dataset == [str(path)]


def test_split_commas_respects_brackets_and_quotes():
    assert split_commas('a,{b,c},"d,e",f[1,2]') == ['a', '{b,c}', '"d,e"', 'f[1,2]']


@pytest.mark.parametrize(
    'words, expected',
    [
        (['--lora_rank', '8.5'], "--lora_rank takes a whole number, got '8.5'"),
        (['--learning_rate', 'fast'], "--learning_rate takes a number, got 'fast'"),
        (['--packing', 'maybe'], "--packing takes true or false, got 'maybe'"),
        (
            ['--system', 'You', 'are', 'nice'],
            '--system takes one value, got 3: You are nice; put quotes around a text with spaces',
        ),
        (['--max_length'], '--max_length needs a value'),
        (['--truncation_strategy', 'lefft'], "'lefft' is not one of delete, left, right, split; did you mean 'left'?"),
        (['--lr_scheduler_type', 'cosin'], "did you mean 'cosine'?"),
        (['--attn_impl', 'spda'], "did you mean 'sdpa'?"),
        (['--lr_scheduler_kwargs', '{"a": }'], '--lr_scheduler_kwargs takes JSON'),
        (['--packing=true', 'yes'], "'yes' follows --packing=…"),
        (['--lora_dropout', '1.5'], '--lora_dropout must be from 0 to below 1, got 1.5'),
        (['--gradient_accumulation_steps', '0'], '--gradient_accumulation_steps must be above 0, got 0'),
    ],
)
def test_wrong_values_say_what_is_right(words, expected):
    found = mistakes(*words)
    assert len(found) == 1 and expected in found[0]


def test_no_prefix_matching():
    assert mistakes('--learning', '1e-5')[0].startswith(
        "--learning: unknown flag (remaining_argv: ['--learning', '1e-5'])"
    )


def test_a_word_without_a_flag_is_a_mistake():
    with pytest.raises(ArgumentsError, match="'tiny' is not a flag"):
        parse_args('sft', ['tiny', '--dataset', 'd', '--model', 'm'])


def test_every_mistake_is_reported_together():
    found = mistakes(
        '--lora_rnk', '3', '--packing', 'maybe', '--deepspeed', 'zero2', '--top_p', '2', base=['--model', 'm']
    )
    text = '\n'.join(found)
    for part in ('--lora_rank', '--packing takes', '--deepspeed:', '--dataset is required', '--top_p must be'):
        assert part in text


def test_mapping_and_objects_from_python():
    from swift.arguments import SftArguments

    from_dict = parse_args(
        'sft', {'model': 'm', 'dataset': 'a,b', 'learning_rate': '1e-5', 'lr_scheduler_kwargs': {'min_lr': 1e-6}}
    )
    assert (from_dict.dataset, from_dict.learning_rate, from_dict.sources['learning_rate']) == (
        ['a', 'b'],
        1e-5,
        'python',
    )
    from_object = parse_args('sft', SftArguments(model='m', dataset=['d'], tuner_type='full'))
    assert (from_object.learning_rate, from_object.sources['tuner_type'], from_object.command) == (
        1e-5,
        'python',
        'sft',
    )
    assert parse_args('sft', from_object) is from_object
    with pytest.raises(ArgumentsError, match='--dataset is required'):
        parse_args('sft', SftArguments(model='m'))


def test_settled_arguments_cannot_change():
    args = parse()
    with pytest.raises(AttributeError, match='settled'):
        args.learning_rate = 1.0
    with pytest.raises(AttributeError):
        del args.learning_rate


def test_defaults_are_not_shared_between_runs():
    one, two = parse(), parse()
    one.target_modules.append('x')
    assert two.target_modules == ['all-linear'] == parse().target_modules


CONFIG = """
model: m
dataset: [d, e]
learning_rate: 1e-5
eval_strategy: no
num_train_epochs: 2
lr_scheduler_kwargs: {min_lr: 1e-6}
add_version: false
run_name: 007
columns: {q: query}
"""


def test_yaml_numbers_and_words(tmp_path):
    path = tmp_path / 'c.yaml'
    path.write_text(CONFIG)
    args = parse_args('sft', ['--config', str(path)], quiet=True)
    assert args.learning_rate == 1e-5 and isinstance(args.learning_rate, float)
    assert args.lr_scheduler_kwargs == {'min_lr': 1e-6}
    assert (args.eval_strategy, args.add_version, args.num_train_epochs) == ('no', False, 2.0)
    assert args.dataset == ['d', 'e'] and args.columns == {'q': 'query'} and args.run_name == '7'
    assert args.sources['learning_rate'] == f'file {path}'


def test_file_as_first_word_and_json(tmp_path):
    path = tmp_path / 'c.json'
    path.write_text('{"model": "m", "--dataset": "d", "learning-rate": 3e-5}')
    args = parse_args('sft', [str(path), '--lora_rank', '4'], quiet=True)
    assert (args.model, args.dataset, args.learning_rate, args.lora_rank) == ('m', ['d'], 3e-5, 4)


def test_precedence_command_line_file_environment_default(tmp_path, monkeypatch):
    path = tmp_path / 'c.yaml'
    path.write_text('use_hf: false\nlora_rank: 4\nlearning_rate: 1e-5\n')
    monkeypatch.setenv('USE_HF', '1')
    monkeypatch.setenv('USE_FLASH_ATTENTION', '1')
    args = parse('--config', str(path), '--learning_rate', '2e-5')
    assert (args.learning_rate, args.lora_rank, args.use_hf, args.attn_impl, args.lora_dropout) == (
        2e-5,
        4,
        False,
        'flash_attention_2',
        0.05,
    )
    assert args.sources['learning_rate'] == 'command line'
    assert args.sources['use_hf'] == f'file {path}'
    assert args.sources['attn_impl'] == 'environment USE_FLASH_ATTENTION'
    assert 'lora_dropout' not in args.sources
    assert parse().use_hf is True


@pytest.mark.parametrize(
    'name, text, expected',
    [
        ('c.yaml', 'model: [m\n', 'c.yaml:2'),
        ('c.json', '{"model": }', 'c.json:1'),
        ('c.yaml', '- model\n', 'must hold flags and values'),
        ('c.yaml', 'lora_rnk: 3\n', "did you mean '--lora_rank'?"),
    ],
)
def test_bad_files(tmp_path, name, text, expected):
    path = tmp_path / name
    path.write_text(text)
    assert any(expected in line for line in mistakes('--config', str(path)))


def test_missing_file():
    assert mistakes('--config', '/nowhere/c.yaml') == ['--config: no such file: /nowhere/c.yaml']


def test_empty_yaml_is_no_flags(tmp_path):
    path = tmp_path / 'c.yaml'
    path.write_text('# nothing\n')
    assert read_config(str(path)) == {}
