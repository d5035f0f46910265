"""Conflicts, and flags without effect."""

import pytest

from swift.arguments import parse_args
from swift.arguments.checks import CONFLICTS, NO_EFFECT, RANGES, WORDS
from swift.arguments.commands import CLASSES
from swift.arguments.flags import flags_of
from swift.core.errors import ArgumentsError

BASE = ['--model', 'm', '--dataset', 'd']


def mistakes(words, command='sft', base=BASE):
    with pytest.raises(ArgumentsError) as caught:
        parse_args(command, [*base, *words], quiet=True)
    return caught.value.mistakes


@pytest.mark.parametrize(
    'words, flag',
    [
        (['--tuner_type', 'full', '--lora_rank', '8'], 'lora_rank'),
        (['--tuner_type', 'full', '--target_modules', 'all-linear'], 'target_modules'),
        (['--freeze_parameters_ratio', '0.5'], 'freeze_parameters_ratio'),
        (['--packing_length', '512'], 'packing_length'),
        (['--packing', '--max_batch_tokens', '512'], 'max_batch_tokens'),
        (['--interleave_prob', '1.0'], 'interleave_prob'),
        (['--stopping_strategy', 'all_exhausted'], 'stopping_strategy'),
        (['--shuffle_buffer_size', '10'], 'shuffle_buffer_size'),
        (['--rope_scaling_factor', '2'], 'rope_scaling_factor'),
        (['--max_new_tokens', '5'], 'max_new_tokens'),
        (['--max_steps', '5', '--num_train_epochs', '2'], 'num_train_epochs'),
        (['--resume_only_model', 'true'], 'resume_only_model'),
        (['--hub_model_id', 'a/b'], 'hub_model_id'),
        (['--wandb_project', 'p'], 'wandb_project'),
        (['--logging_dir', 'l', '--report_to', 'none'], 'logging_dir'),
        (['--gradient_checkpointing_kwargs', '{"use_reentrant": false}'], 'gradient_checkpointing_kwargs'),
        (['--loss_kwargs', '{"a": 1}'], 'loss_kwargs'),
        (['--lr_scheduler_type', 'constant', '--warmup_ratio', '0.1'], 'warmup_ratio'),
        (['--save_strategy', 'epoch', '--save_steps', '5'], 'save_steps'),
        (['--predict_with_generate', 'true'], 'predict_with_generate'),
        (['--early_stop_interval', '3'], 'early_stop_interval'),
        (['--use_chat_template', 'false', '--system', 's'], 'system'),
    ],
)
def test_a_flag_without_effect_is_an_error_and_can_be_a_warning(words, flag):
    found = mistakes(words)
    assert len(found) == 1 and found[0].startswith(f'--{flag} has no effect')
    assert parse_args('sft', [*BASE, *words, '--ignore_args_error', 'true'], quiet=True).model == 'm'


def test_values_that_ask_for_nothing_are_no_mistake():
    words = ['--tuner_type', 'full', '--use_dora', 'false', '--resume_only_model', 'false', '--lora_dtype', 'none']
    assert parse_args('sft', [*BASE, *words], quiet=True).tuner_type == 'full'


def test_evaluation_flags_without_validation_data_are_a_warning_only():
    words = ['--eval_strategy', 'steps', '--eval_steps', '50', '--per_device_eval_batch_size', '2']
    assert parse_args('sft', [*BASE, *words], quiet=True).eval_strategy == 'no'
    assert parse_args('sft', [*BASE, *words, '--split_dataset_ratio', '0.1'], quiet=True).eval_strategy == 'steps'


def test_unknown_flags_become_warnings_on_request():
    assert parse_args('sft', [*BASE, '--bogus', '1', '--ignore_args_error', 'true'], quiet=True).ignore_args_error
    assert 'remaining_argv' in mistakes(['--bogus', '1'])[0]
    assert mistakes(['--deepspeed', 'zero2', '--ignore_args_error', 'true'])[0].startswith('--deepspeed')


@pytest.mark.parametrize(
    'words, part',
    [
        (['--val_dataset', 'v', '--split_dataset_ratio', '0.1'], 'both say what to validate on'),
        (['--target_modules', 'q_proj', '--target_regex', '.*'], '--target_regex'),
        (['--warmup_ratio', '0.1', '--warmup_steps', '10'], 'both set the warm-up'),
        (['--bf16', '--fp16'], 'exclude each other'),
        (['--fp16', '--torch_dtype', 'bfloat16'], 'does not go with'),
        (['--max_batch_tokens', '100', '--per_device_train_batch_size', '2'], 'size of a micro-batch'),
        (['--packing', '--lazy_tokenize'], '--packing needs the length'),
        (['--packing', '--padding_free', 'false'], 'without padding'),
        (['--truncation_strategy', 'split'], 'plain text only'),
        (['--interleave_prob', '0.5', '0.3', '0.2', '--dataset', 'a', 'b'], '3 values for 2 data sets'),
        (['--push_to_hub'], '--push_to_hub needs --hub_model_id'),
        (['--enable_dft_loss', '--loss_type', 'mine'], 'choose the loss'),
        (['--model_name', 'a', 'b', 'c'], '--model_name must be one name'),
    ],
)
def test_conflicts(words, part):
    base = ['--model', 'm'] if '--dataset' in words else BASE
    found = mistakes(words, base=base)
    assert len(found) == 1 and part in found[0]


@pytest.mark.parametrize(
    'command, words, part',
    [
        (
            'infer',
            ['--model', 'm', '--temperature', '0', '--top_p', '0.9'],
            '--top_p has no effect with --temperature 0',
        ),
        ('infer', ['--model', 'm', '--metric', 'acc'], '--metric has no effect without --val_dataset'),
        ('infer', ['--model', 'm', '--packing'], '--packing has no effect in swift infer'),
        ('infer', ['--model', 'm', '--loss_scale', 'all'], '--loss_scale has no effect in swift infer'),
        ('infer', ['--model', 'm', '--dataset', 'd'], '--dataset is training data'),
        ('infer', ['--model', 'm', '--stream', '--num_beams', '2'], '--stream true cannot show beams'),
        ('infer', ['--model', 'm', '--top_logprobs', '2'], 'without --logprobs true'),
        ('infer', [], '--model is required (or --adapters'),
        ('infer', ['--model', 'm', '--merge_lora'], '--merge_lora has no effect without --adapters'),
        ('infer', ['--model', 'm', '--lora_rank', '4'], 'is no flag of swift infer; it belongs to swift pt, sft'),
        ('export', ['--adapters', 'a'], 'nothing to export'),
        ('export', ['--model', 'm', '--merge_lora'], '--adapters is required'),
        ('merge-lora', ['--adapters', 'a', '--merge_lora', 'false'], 'nothing to do'),
        ('merge-lora', ['--adapters', 'a', '--max_length', '5'], '--max_length has no effect in export'),
        ('merge-lora', ['--model', 'm'], '--adapters is required'),
        ('pt', ['--model', 'm'], '--dataset is required'),
    ],
)
def test_mistakes_of_other_commands(command, words, part):
    found = mistakes(words, command, base=[])
    assert len(found) == 1 and part in found[0]


def test_pt_may_split_and_sft_may_not():
    args = parse_args('pt', [*BASE, '--truncation_strategy', 'split'], quiet=True)
    assert (args.truncation_strategy, args.use_chat_template, args.loss_scale) == ('split', False, 'all')


def test_the_tables_name_real_flags():
    known = set().union(*(flags_of(cls) for cls in CLASSES.values()))
    assert set(RANGES) <= known and set(WORDS) <= known
    assert {name for rule in CONFLICTS for name in rule.given} <= known
    assert {name for rule in NO_EFFECT for name in rule.flags} <= known


def test_every_rule_runs_for_every_command_it_names():
    for command, cls in CLASSES.items():
        values = {name: flag.default for name, flag in flags_of(cls).items()}
        for rule in NO_EFFECT:
            if (not rule.commands or command in rule.commands) and any(name in values for name in rule.flags):
                rule.test(values)
