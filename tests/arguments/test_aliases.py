"""Old spellings, and the flags of later capabilities."""

import json
import logging

import pytest

from swift.arguments import later, parse_args
from swift.arguments.aliases import ALIASES, ENVIRONMENT, GONE, IDLE, SETTLED, VALUES
from swift.arguments.backends import engine_settings
from swift.arguments.commands import CLASSES
from swift.arguments.flags import flags_of
from swift.arguments.inherit import model_aliases
from swift.arguments.parse import passthrough
from swift.core.errors import ArgumentsError

BASE = ['--model', 'm', '--dataset', 'd']


def mistakes(command, words):
    with pytest.raises(ArgumentsError) as caught:
        parse_args(command, words, quiet=True)
    return caught.value.mistakes


@pytest.mark.parametrize(
    'old, new, value',
    [
        (['--sft_type', 'full'], 'tuner_type', 'full'),
        (['--train_type', 'full'], 'tuner_type', 'full'),
        (['--dtype', 'bf16'], 'torch_dtype', 'bfloat16'),
        (['--dtype', 'fp16'], 'torch_dtype', 'float16'),
        (['--template_type', 'qwen'], 'template', 'qwen'),
        (['--lora_target_modules', 'ALL'], 'target_modules', ['all-linear']),
        (['--lora_target_modules', 'q_proj', 'v_proj'], 'target_modules', ['q_proj', 'v_proj']),
        (['--target_modules', 'DEFAULT'], 'target_modules', ['all-linear']),
        (['--use_flash_attn', 'true'], 'attn_impl', 'flash_attention_2'),
        (['--use_flash_attn', 'false'], 'attn_impl', 'sdpa'),
        (['--use_flash_attn', 'auto'], 'attn_impl', None),
        (['--attn_impl', 'flash_attn'], 'attn_impl', 'flash_attention_2'),
        (['--attn_impl', 'flash_attn2'], 'attn_impl', 'flash_attention_2'),
        (['--max_seq_length', '512'], 'max_length', 512),
        (['--batch_size', '4'], 'per_device_train_batch_size', 4),
        (['--custom_loss', 'mine', '--loss_kwargs', '{"a": 1}'], 'loss_type', 'mine'),
        (['--lora_dtype', 'fp32'], 'lora_dtype', 'float32'),
        (['--lora_dtype', 'AUTO'], 'lora_dtype', None),
        (['--init_lora_weights', 'pissa'], 'init_weights', 'pissa'),
        (['--save_optimizer', 'false'], 'save_only_model', True),
        (['--add_output_dir_suffix', 'false'], 'add_version', False),
        (['--wandb_run_name', 'r'], 'run_name', 'r'),
        (['--dataset_test_ratio', '0.1'], 'split_dataset_ratio', 0.1),
        (['--dataset_seed', '7'], 'data_seed', 7),
        (['--activation_checkpointing', 'true'], 'gradient_checkpointing', True),
        (['--train_sampling_strategy', 'group_by_length'], 'group_by_length', True),
        (['--tuner_backend', 'swift'], 'tuner_backend', 'peft'),
        (['--additional_trainable_parameters', 'lm_head', '--sft_type', 'full'], 'trainable_parameters', ['lm_head']),
        (['--device_max_memory', '1GiB', '2GiB', '--device_map', 'auto'], 'max_memory', {'0': '1GiB', '1': '2GiB'}),
        (['--push_hub_strategy', 'end'], 'training_args', {}),
    ],
)
def test_old_spelling_sets_the_new_flag(old, new, value):
    assert getattr(parse_args('sft', [*BASE, *old], quiet=True), new) == value


@pytest.mark.parametrize(
    'words, new, value',
    [
        (['--model', 'm', '--infer_backend', 'pt'], 'infer_backend', 'transformers'),
        (['--model', 'm', '--do_sample', 'false'], 'temperature', 0.0),
        (['--model_id', 'm', '--model_type', 'qwen'], 'model', 'm'),
        (['--ckpt_dir', 'output/x/checkpoint-1'], 'adapters', ['output/x/checkpoint-1']),
        (['--ckpt_dir', 'x', '--load_dataset_config', 'true'], 'load_data_args', True),
        (['--ckpt_dir', 'x', '--eval_human', 'false'], 'load_data_args', True),
        (['--ckpt_dir', 'x', '--eval_human', 'true'], 'load_data_args', False),
        (['--model', 'm', '--val_dataset', 'v', '--show_dataset_sample', '5'], 'val_dataset_sample', 5),
        (['--model', 'm', '--val_dataset', 'v', '--show_dataset_sample', '-1'], 'val_dataset_sample', None),
        (['--model', 'm', '--result_dir', 'r'], 'result_path', 'r/result.jsonl'),
    ],
)
def test_old_spelling_of_infer(words, new, value):
    assert getattr(parse_args('infer', words, quiet=True), new) == value


def test_ckpt_dir_of_a_full_checkpoint_is_a_model(tmp_path):
    (tmp_path / 'config.json').write_text('{}')
    args = parse_args('infer', ['--ckpt_dir', str(tmp_path)], quiet=True)
    assert (args.model, args.adapters) == (str(tmp_path), [])


def test_adapter_path_of_export():
    args = parse_args('export', ['--model_id_or_path', 'm', '--adapter_path', 'a', '--merge_lora', 'true'], quiet=True)
    assert (args.model, args.adapters, args.output_dir) == ('m', ['a'], 'a-merged')


def test_one_hint_line_for_each_old_spelling(monkeypatch):
    hints = []
    monkeypatch.setattr(logging.getLogger('swift'), 'warning', hints.append)
    parse_args('sft', ['--model_id_or_path', 'm', '--dataset', 'd', '--sft_type', 'lora'])
    assert hints == ['--model_id_or_path (2.x) is now --model', '--sft_type (2.x) is now --tuner_type']


def test_two_spellings_must_agree():
    assert parse_args('sft', [*BASE, '--train_type', 'lora', '--tuner_type', 'lora'], quiet=True).tuner_type == 'lora'
    assert (
        parse_args('sft', [*BASE, '--use_flash_attn', 'true', '--attn_impl', 'flash_attn2'], quiet=True).attn_impl
        == 'flash_attention_2'
    )
    found = mistakes('sft', [*BASE, '--train_type', 'lora', '--tuner_type', 'full'])
    assert len(found) == 1 and '--train_type lora' in found[0] and '--tuner_type full' in found[0]


def test_the_same_flag_twice_takes_the_last():
    assert parse_args('sft', [*BASE, '--lora_rank', '4', '--lora_rank', '16'], quiet=True).lora_rank == 16


def test_plugin_lists_are_joined(tmp_path):
    for name in ('a.py', 'b.py'):
        (tmp_path / name).write_text('')
    a, b = str(tmp_path / 'a.py'), str(tmp_path / 'b.py')
    args = parse_args('sft', [*BASE, '--external_plugins', a, '--custom_register_path', b], quiet=True)
    assert args.external_plugins == [a, b]
    assert mistakes('sft', [*BASE, '--external_plugins', a, 'gone.py']) == ['--external_plugins: no such file: gone.py']


@pytest.mark.parametrize('alias', ['qwen-7b-chat', 'QWEN-7B-Chat'])
def test_a_checkpoint_alias_names_its_model(alias):
    args = parse_args('sft', ['--model_type', alias, '--dataset', 'd'], quiet=True)
    assert (args.model, args.model_type) == ('Qwen/Qwen-7B-Chat', None)


def test_checkpoint_alias_by_hub_and_beside_a_model():
    ids = {name: value for name, value in model_aliases().items() if isinstance(value, list)}
    name, (modelscope, hugging_face) = next(iter(ids.items()))
    assert parse_args('sft', ['--model_type', name, '--dataset', 'd'], quiet=True).model == modelscope
    assert parse_args('sft', ['--model_type', name, '--dataset', 'd', '--use_hf'], quiet=True).model == hugging_face
    args = parse_args('sft', ['--model_type', 'qwen2.5-14b-instruct', '--model', '/m', '--dataset', 'd'], quiet=True)
    assert (args.model, args.model_type) == ('/m', None)
    assert parse_args('sft', [*BASE, '--model_type', 'qwen2'], quiet=True).model_type == 'qwen2'


def test_an_unknown_checkpoint_alias_suggests():
    assert (
        "names no known checkpoint, did you mean 'qwen-14b-chat'?"
        in mistakes('sft', ['--model_type', 'qwen-13b-chat'])[0]
    )


@pytest.mark.parametrize(
    'words, part',
    [
        (['--deepspeed', 'zero2'], 'DeepSpeed is not part of this version'),
        (['--quantization_bit', '4', '--quant_method', 'bnb'], '--quantization_bit, --quant_method: quantised weights'),
        (['--train_type', 'qlora'], '--train_type qlora: quantised weights'),
        (['--tuner_type', 'adalora'], 'this tuner is not part'),
        (['--sequence_parallel_size', '2'], 'sequence parallelism'),
        (['--use_liger', 'true'], 'Liger'),
        (['--tuner_backend', 'unsloth'], 'Unsloth'),
        (['--enable_unsloth', 'true'], 'Unsloth'),
        (['--task_type', 'decision'], 'decision models'),
        (['--dtype', 'fp8'], 'float8'),
        (['--rlhf_type', 'dpo'], 'rlhf'),
        (['--nnodes', '2'], 'set the environment variable NNODES'),
        (['--train_dataset_sample', '100'], 'name#1000'),
        (['--template_backend', 'other'], "templates are always the model's own Jinja"),
        (['--padding_side', 'left'], 'never pads on the left'),
        (['--max_new_tokens', '5', '--vllm_limit_mm_per_prompt', '10'], 'give it in --vllm_engine_kwargs'),
    ],
)
def test_later_and_gone_flags_are_refused_with_the_reason(words, part):
    assert any(part in line for line in mistakes('sft', [*BASE, *words]))


def test_an_address_asks_for_the_client():
    args = parse_args('infer', ['--infer_url', 'http://h:1', '--model', 'name'])
    assert (args.infer_backend, args.base_url, args.model) == ('client', 'http://h:1', 'name')
    assert parse_args('infer', ['--base_url', 'h:1']).model is None
    assert 'needs --base_url' in mistakes('infer', ['--model', 'm', '--infer_backend', 'client'])[0]
    assert 'has its own flags' in mistakes('eval', ['--model', 'm', '--eval_dataset', 'x', '--infer_backend', 'client'])[0]


def test_flags_of_an_engine_belong_to_it():
    args = parse_args('infer', ['--model', 'm', '--infer_backend', 'vllm', '--gpu_memory_utilization', '0.5', '--vllm_engine_kwargs', '{"a": 1}'])
    assert engine_settings(args) == {'gpu_memory_utilization': 0.5, 'a': 1}
    assert 'unless --infer_backend is sglang' in mistakes('infer', ['--model', 'm', '--infer_backend', 'vllm', '--sglang_tp_size', '2'])[0]
    assert 'the server has the model' in mistakes('infer', ['--base_url', 'h:1', '--torch_dtype', 'float32'])[0]


@pytest.mark.parametrize(
    'words',
    [
        ['--use_liger_kernel', 'false'],
        ['--deepspeed', 'none'],
        ['--sequence_parallel_size', '1'],
        ['--quantization_bit', '0'],
        ['--freeze_vit', 'true'],
        ['--template_backend', 'jinja'],
        ['--padding_side', 'right'],
        ['--check_model', 'false'],
        ['--packing_strategy', 'binpack'],
    ],
)
def test_values_that_ask_for_nothing_pass(words):
    assert parse_args('sft', [*BASE, *words], quiet=True).tuner_type == 'lora'


def test_the_tables_name_real_flags():
    known = set().union(*(flags_of(cls) for cls in CLASSES.values()))
    for old, alias in ALIASES.items():
        assert alias.new in known or passthrough(alias.new), old
        assert old not in known or alias.commands, f'{old} is a flag of its own'
    assert set(VALUES) <= known
    assert {ALIASES[flag].new if flag in ALIASES else flag for flag in ENVIRONMENT.values()} <= known
    facts = later.facts()
    for table in (SETTLED, GONE, IDLE, facts['flags']):
        training = flags_of(CLASSES['sft'])
        assert not set(table) & set(training), set(table) & set(training)
    assert {capability for capability, _ in facts['flags'].values()} <= set(facts['capabilities'])
    for flag, values in facts['values'].items():
        assert flag in known and set(values.values()) <= set(facts['capabilities'])
    assert not set(facts['commands']) & set(CLASSES)


def test_every_flag_of_the_peer_is_answered():
    """No argument of ms-swift, documented anywhere, is unknown: it works, is renamed, settled, gone, or later."""
    peer = json.loads(later_data('peer_flags.json'))
    for command, names in peer.items():
        own = flags_of(CLASSES[command])
        for name in names:
            answered = (
                name in own
                or name in ALIASES
                or name in SETTLED
                or name in GONE
                or name in IDLE
                or later.flag_reason(name)
                or passthrough(name)
            )
            elsewhere = any(name in flags_of(cls) for cls in CLASSES.values())
            assert answered or elsewhere, f'{command}: --{name}'


def later_data(name):
    import os

    with open(os.path.join(os.path.dirname(__file__), 'data', name), encoding='utf-8') as file:
        return file.read()
