"""What makes no sense, as tables: ranges, conflicts, flags without effect. No check reads a model or data."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from swift.arguments.answer_rules import ANSWER_CONFLICTS, ANSWER_NO_EFFECT, ANSWER_RANGES, sampling_mistakes
from swift.arguments.backend_rules import BACKEND_NO_EFFECT, backend_mistakes
from swift.arguments.commands import TRAINING
from swift.arguments.deploy_rules import DEPLOY_NO_EFFECT, adapter_mistakes, deploy_mistakes
from swift.arguments.later import read_facts
from swift.arguments.media import MEDIA
from swift.arguments.media_rules import MEDIA_CONFLICTS, MEDIA_NO_EFFECT, media_mistakes
from swift.arguments.method_rules import METHOD_CONFLICTS, METHOD_NO_EFFECT
from swift.arguments.methods import ON, method_mistakes
from swift.arguments.rules import Conflict, NoEffect, Values, flags
from swift.core.errors import did_you_mean

POSITIVE = ('above 0', lambda v: v > 0)
NOT_NEGATIVE = ('0 or above', lambda v: v >= 0)
SHARE = ('from 0 to below 1', lambda v: 0 <= v < 1)

RANGES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(
        (
            'max_length max_model_len per_device_train_batch_size per_device_eval_batch_size max_batch_tokens '
            'gradient_accumulation_steps lora_rank packing_length dataset_num_proc shuffle_buffer_size '
            'num_train_epochs save_steps eval_steps logging_steps save_total_limit max_new_tokens num_beams max_batch_size '
            'write_batch_size val_dataset_sample rope_scaling_factor repetition_penalty lorap_lr_ratio early_stop_interval '
            'adam_epsilon num_samples ddp_timeout num_labels discopop_tau ref_model_sync_steps infonce_temperature '
            'max_request_size cosent_scale listwise_temperature max_positive_samples max_negative_samples infonce_hard_negatives'
        ).split(),
        POSITIVE,
    ),
    **dict.fromkeys(
        (
            'learning_rate vit_lr aligner_lr weight_decay max_grad_norm temperature top_k lora_alpha warmup_steps z_loss_coef top_logprobs '
            'dataloader_num_workers seed neftune_noise_alpha beta rpo_alpha cpo_alpha simpo_gamma desirable_weight '
            'max_logprobs max_queue prefix_cache_tokens request_timeout log_interval undesirable_weight center_rewards_coefficient infonce_fake_neg_margin margin'
        ).split(),
        NOT_NEGATIVE,
    ),
    **dict.fromkeys('lora_dropout split_dataset_ratio adam_beta1 adam_beta2 label_smoothing_factor'.split(), SHARE),
    **dict.fromkeys([*(name for name in MEDIA if name not in ('root_image_dir', 'norm_bbox')), 'vit_lora_rank'], POSITIVE),
    'freeze_parameters_ratio': ('from 0 to 1', lambda v: 0 <= v <= 1),
    'ld_alpha': ('from 0 to 1', lambda v: 0 <= v <= 1),
    'ref_model_mixup_alpha': ('from 0 to 1', lambda v: 0 <= v <= 1),
    'label_smoothing': ('from 0 to below 0.5', lambda v: 0 <= v < 0.5),
    'port': ('from 0 to 65535', lambda v: 0 <= v <= 65535),
    'mrl_dims': ('numbers above 0', lambda v: all(dim > 0 for dim in v)),
    'task_weights': ('0 or above', lambda v: all(weight >= 0 for weight in v)),
    'warmup_ratio': ('from 0 to 1', lambda v: 0 <= v <= 1),
    'top_p': ('above 0, at most 1', lambda v: 0 < v <= 1),
    'max_steps': ('above 0, or -1 for as many as num_train_epochs needs', lambda v: v == -1 or v > 0),
    'model_name': ('one name, or a Chinese and an English one', lambda v: len(v) <= 2),
    'model_author': ('one name, or a Chinese and an English one', lambda v: len(v) <= 2),
    **ANSWER_RANGES,
    'interleave_prob': ('probabilities from 0 to 1', lambda v: all(0 <= p <= 1 for p in v) and sum(v) > 0),
}
"""Flag → what is allowed, and its test (None always passes)."""


WORDS: dict[str, tuple[tuple[str, ...], str]] = {
    'attn_impl': (('sdpa', 'eager', 'flex_attention', 'flash_attention_2', 'flash_attention_3'), r'.+/.+'),
    'init_weights': (('true', 'false', 'gaussian', 'orthogonal', 'pissa', 'olora', 'loftq'), r'pissa_niter_\d+'),
    'rope_scaling': (('linear', 'dynamic', 'yarn'), ''),
    'report_to': (('tensorboard', 'wandb', 'mlflow', 'swanlab', 'trackio', 'none'), ''),
    'ddp_backend': (('nccl', 'gloo', 'hccl', 'mpi', 'xccl', 'cncl', 'mccl'), ''),
    'tuner_type': (('lora', 'full'), ''),
}
"""Flag → the words it takes, and a pattern for other texts that are right too."""

EXTENDED = ('tuner_type', 'attn_impl', 'report_to')
"""Flags whose words a plugin can add to: with --external_plugins, or from Python, any word is taken here and looked up in the run."""


def _always(values: Values) -> bool:
    return True


CONFLICTS: tuple[Conflict, ...] = (
    Conflict(
        ('val_dataset', 'split_dataset_ratio'),
        lambda v: bool(v['val_dataset']) and v['split_dataset_ratio'] > 0,
        '--val_dataset and --split_dataset_ratio both say what to validate on; give one of them',
    ),
    Conflict(
        ('target_modules', 'target_regex'),
        _always,
        '--target_modules and --target_regex both choose modules; give one of them',
    ),
    Conflict(
        ('warmup_ratio', 'warmup_steps'),
        lambda v: v['warmup_ratio'] > 0 and v['warmup_steps'] > 0,
        '--warmup_ratio and --warmup_steps both set the warm-up; give one of them',
    ),
    Conflict(('bf16', 'fp16'), lambda v: bool(v['bf16'] and v['fp16']), '--bf16 and --fp16 exclude each other'),
    Conflict(
        ('bf16', 'torch_dtype'),
        lambda v: bool(v['bf16']) and v['torch_dtype'] == 'float16',
        '--bf16 true does not go with --torch_dtype float16',
    ),
    Conflict(
        ('fp16', 'torch_dtype'),
        lambda v: bool(v['fp16']) and v['torch_dtype'] == 'bfloat16',
        '--fp16 true does not go with --torch_dtype bfloat16',
    ),
    Conflict(
        ('max_batch_tokens', 'per_device_train_batch_size'),
        _always,
        '--max_batch_tokens and --per_device_train_batch_size both set the size of a micro-batch; give one of them',
    ),
    Conflict(
        ('packing', 'lazy_tokenize'),
        lambda v: bool(v['packing'] and v['lazy_tokenize']),
        '--packing needs the length of every row before training, --lazy_tokenize true leaves it unknown; drop one of them',
    ),
    Conflict(
        ('packing', 'group_by_length'),
        lambda v: bool(v['packing'] and v['group_by_length']),
        '--group_by_length has nothing to sort with --packing: packed rows are equally long',
    ),
    Conflict(
        ('packing', 'padding_free'),
        lambda v: v['packing'] and v['padding_free'] is False,
        '--packing runs without padding; drop --padding_free false',
    ),
    Conflict(
        ('streaming', 'group_by_length'),
        lambda v: bool(v['streaming'] and v['group_by_length']),
        '--group_by_length needs all lengths, --streaming true reads rows as they come; drop one of them',
    ),
    Conflict(
        ('streaming', 'lazy_tokenize'),
        lambda v: bool(v['streaming'] and v['lazy_tokenize']),
        '--streaming true tokenises rows as they come already; drop --lazy_tokenize',
    ),
    Conflict(
        ('enable_dft_loss', 'loss_type'),
        lambda v: bool(v['enable_dft_loss'] and v['loss_type']),
        '--enable_dft_loss and --loss_type both choose the loss; give one of them',
    ),
    Conflict(
        ('stream', 'num_beams'),
        lambda v: bool(v['stream']) and v['num_beams'] > 1,
        '--stream true cannot show beams that are still compared; drop it or --num_beams',
    ),
    Conflict(
        ('save_strategy', 'load_best_model_at_end'),
        lambda v: v['save_strategy'] == 'no' and v['load_best_model_at_end'],
        '--load_best_model_at_end needs checkpoints; drop --save_strategy no',
    ),
    *METHOD_CONFLICTS,
    *MEDIA_CONFLICTS,
    *ANSWER_CONFLICTS,
)


_LORA = flags(
    'lora_rank lora_alpha lora_dropout lora_bias lora_dtype lorap_lr_ratio use_rslora use_dora init_weights '
    'target_modules target_regex target_parameters modules_to_save'
)
_FREEZE = flags(
    'freeze_parameters freeze_parameters_regex freeze_parameters_ratio trainable_parameters trainable_parameters_regex'
)
_SAMPLING = flags(
    'max_new_tokens temperature top_k top_p repetition_penalty num_beams stop_words logprobs top_logprobs'
)
_PLAIN = 'with --use_chat_template false (the default of pt and embedding): rows are plain text'
_MIXING = flags('dataset_shuffle interleave_prob stopping_strategy packing packing_length lazy_tokenize')


def _validates(v: Values) -> bool:
    return bool(v['val_dataset'] or v['split_dataset_ratio'] > 0)


NO_EFFECT: tuple[NoEffect, ...] = (
    NoEffect(_LORA, lambda v: v['tuner_type'] == 'full', 'with --tuner_type full, which trains no adapter'),
    NoEffect(flags('max_shard_size'), lambda v: v['tuner_type'] == 'lora', 'with --tuner_type lora: an adapter is one file'),
    NoEffect(_FREEZE, lambda v: v['tuner_type'] == 'lora', 'with --tuner_type lora, which freezes the whole model'),
    NoEffect(flags('packing_length'), lambda v: not v['packing'], 'without --packing true'),
    NoEffect(
        flags('max_batch_tokens'),
        lambda v: v['packing'],
        'with --packing: a packed row is the batch; set --packing_length',
    ),
    NoEffect(
        flags('shuffle_buffer_size'), lambda v: not v['streaming'], 'without --streaming true', (*TRAINING, 'infer')
    ),
    NoEffect(flags('stopping_strategy'), lambda v: v['interleave_prob'] is None, 'without --interleave_prob'),
    NoEffect(flags('interleave_prob'), lambda v: len(v['dataset']) == 1, 'with a single data set'),
    NoEffect(flags('rope_scaling_factor'), lambda v: v['rope_scaling'] is None, 'without --rope_scaling', ()),
    NoEffect(flags('max_memory offload_folder'), lambda v: v['device_map'] is None, 'without --device_map', ()),
    NoEffect(
        _SAMPLING, lambda v: not v['predict_with_generate'] and not v['eval_dataset'],
        'in training without --predict_with_generate true or --eval_dataset',
    ),  # fmt: skip
    NoEffect(flags('eval_limit eval_dataset_args eval_generation_config'), lambda v: not v['eval_dataset'], 'without --eval_dataset'),
    NoEffect(
        flags('top_k top_p'),
        lambda v: v['temperature'] == 0 and v['num_beams'] == 1,
        'with --temperature 0, which always takes the likeliest token',
        (*TRAINING, 'infer'),
    ),
    NoEffect(flags('top_logprobs'), lambda v: not v['logprobs'], 'without --logprobs true', (*TRAINING, 'infer')),
    NoEffect(
        flags('num_train_epochs'),
        lambda v: v['max_steps'] > 0,
        'with --max_steps, which decides the length of the run',
    ),
    NoEffect(
        flags('resume_only_model'), lambda v: v['resume_from_checkpoint'] is None, 'without --resume_from_checkpoint'
    ),
    NoEffect(flags('load_data_args'), lambda v: not v['load_args'], 'with --load_args false', ('infer',)),
    NoEffect(
        flags('hub_model_id hub_private_repo commit_message'),
        lambda v: not v['push_to_hub'],
        'without --push_to_hub true',
        (),
    ),
    NoEffect(flags('wandb_project'), lambda v: 'wandb' not in v['report_to'], 'without --report_to wandb'),
    NoEffect(flags('mlflow_tracking_uri'), lambda v: 'mlflow' not in v['report_to'], 'without --report_to mlflow'),
    NoEffect(flags('logging_dir'), lambda v: 'tensorboard' not in v['report_to'], 'without --report_to tensorboard'),
    NoEffect(
        flags('swanlab_project swanlab_workspace swanlab_exp_name swanlab_mode'),
        lambda v: 'swanlab' not in v['report_to'],
        'without --report_to swanlab',
    ),
    NoEffect(
        flags('gradient_checkpointing_kwargs'),
        lambda v: not v['gradient_checkpointing'],
        'without --gradient_checkpointing true',
    ),
    NoEffect(flags('loss_kwargs'), lambda v: not v['loss_type'], 'without --loss_type'),
    NoEffect(
        flags('eval_metric'),
        lambda v: not v['predict_with_generate'] and v['eval_metric'] != 'acc',
        'without --predict_with_generate true: it compares generated answers',
    ),
    NoEffect(
        flags('optim optim_args'), lambda v: v['optimizer'] is not None, 'with --optimizer, which makes the optimizer'
    ),
    NoEffect(
        flags('warmup_ratio warmup_steps'),
        lambda v: v['lr_scheduler_type'] == 'constant',
        'with --lr_scheduler_type constant; constant_with_warmup has a warm-up',
    ),
    NoEffect(
        flags('save_steps'), lambda v: v['save_strategy'] not in ('steps', 'best'), 'unless --save_strategy is steps'
    ),
    NoEffect(
        flags('save_total_limit save_only_model max_shard_size create_checkpoint_symlink'),
        lambda v: v['save_strategy'] == 'no',
        'with --save_strategy no',
    ),
    NoEffect(flags('eval_steps'), lambda v: v['eval_strategy'] in ('no', 'epoch'), 'unless --eval_strategy is steps'),
    NoEffect(flags('logging_steps'), lambda v: v['logging_strategy'] != 'steps', 'unless --logging_strategy is steps'),
    NoEffect(
        flags(
            'eval_strategy eval_steps per_device_eval_batch_size metric_for_best_model greater_is_better eval_metric val_dataset_shuffle'
        ),
        lambda v: not _validates(v),
        'without validation data (--val_dataset or --split_dataset_ratio)',
        warn=True,
    ),
    NoEffect(
        flags('predict_with_generate eval_dataset load_best_model_at_end early_stop_interval eval_on_start'),
        lambda v: not _validates(v),
        'without validation data (--val_dataset or --split_dataset_ratio)',
    ),
    NoEffect(
        flags('add_non_thinking_prefix preserve_thinking enable_thinking agent_template response_prefix'),
        lambda v: not v['use_chat_template'],
        _PLAIN,
        (*TRAINING, 'infer'),
    ),
    NoEffect(
        flags('system'),
        lambda v: not v['use_chat_template'] and v['task_type'] != 'generative_reranker',
        _PLAIN,
        (*TRAINING, 'infer'),
    ),
    NoEffect(flags('merge_lora'), lambda v: not v['adapters'], 'without --adapters', ('infer', 'eval', 'sample')),
    NoEffect(_MIXING, _always, 'in swift infer, which answers the rows one by one in their order', ('infer',)),
    NoEffect(flags('loss_scale padding_free'), _always, 'in swift infer, which trains nothing', ('infer',)),
    NoEffect(
        flags('metric val_dataset_sample write_batch_size strict columns dataset_num_proc'),
        lambda v: not (v['val_dataset'] or v['dataset'] or v['load_data_args']),
        'without --val_dataset (or --load_data_args true)',
        ('infer',),
    ),
    NoEffect(
        flags(
            'system max_length truncation_strategy use_chat_template loss_scale padding_free agent_template '
            'enable_thinking preserve_thinking add_non_thinking_prefix response_prefix load_data_args'
        ),
        _always,
        'in export: no row is encoded',
        ('export', 'merge-lora'),
    ),
    *METHOD_NO_EFFECT,
    *MEDIA_NO_EFFECT,
    *DEPLOY_NO_EFFECT,
    *BACKEND_NO_EFFECT,
    *ANSWER_NO_EFFECT,
)


def range_mistakes(values: Values, given: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(flag, mistake) for every given value outside its range."""
    found = []
    for name in given:
        if name in RANGES and name in values and values[name] is not None:
            allowed, test = RANGES[name]
            if not test(values[name]):
                found.append((name, f'must be {allowed}, got {values[name]}'))
    return found


def word_mistakes(values: Values, given: Mapping[str, tuple[Any, str]]) -> list[tuple[str, str]]:
    """(flag, mistake) for every given word that its flag doesn't know; `given` is flag → (value, source)."""
    found = []
    listed = {
        **WORDS,
        **{name: (tuple(words), '') for name, words in read_facts('training_arguments.json')['choices'].items()},
    }
    passed = values.get('training_args') or {}
    for name, (words, pattern) in listed.items():
        if name in EXTENDED and (values.get('external_plugins') or given.get(name, ('', ''))[1] == 'python'):
            continue
        value = values[name] if name in given and name in values else passed.get(name)
        for word in value if isinstance(value, list) else [value]:
            if isinstance(word, str) and word not in words and not (pattern and re.fullmatch(pattern, word)):
                near = did_you_mean(word, words, cutoff=0.5)
                found.append((name, f'{word!r} is not one of {", ".join(words)}' + (f'; {near}' if near else '')))
    return found


def conflict_mistakes(command: str, values: Values, given: Mapping[str, Any]) -> list[str]:
    """Every pair of given flags that exclude each other, and a few larger contradictions."""
    found = []
    for rule in CONFLICTS:
        if (
            all(name in given for name in rule.given)
            and all(name in values for name in rule.given)
            and rule.test(values)
        ):
            found.append(rule.message)
    if command in TRAINING:
        found += _training_conflicts(values) + method_mistakes(command, values, given)[0]
    found += media_mistakes(values, command in TRAINING)
    if command == 'sample':
        found += sampling_mistakes(values)
    if command == 'deploy':
        found += deploy_mistakes(values)
    if command == 'app':
        found += adapter_mistakes(values)
    found += backend_mistakes(command, values)
    if command == 'merge-lora' and not values['merge_lora']:
        found.append('--merge_lora false leaves swift merge-lora nothing to do; drop it')
    if values.get('push_to_hub') and not values.get('hub_model_id'):
        found.append('--push_to_hub needs --hub_model_id')
    return found


def _training_conflicts(v: Values) -> list[str]:
    found = []
    if v['truncation_strategy'] == 'split' and v['use_chat_template']:
        found.append('--truncation_strategy split works for plain text only (swift pt, or --use_chat_template false)')
    if v['truncation_strategy'] == 'split' and v['lazy_tokenize']:
        found.append(
            '--truncation_strategy split makes several samples of a row, which --lazy_tokenize true cannot count; drop one of them'
        )
    if v['interleave_prob'] is not None and v['dataset'] and len(v['interleave_prob']) not in (1, len(v['dataset'])):
        found.append(f'--interleave_prob has {len(v["interleave_prob"])} values for {len(v["dataset"])} data sets')
    for kind, dtype in (('bf16', 'bfloat16'), ('fp16', 'float16')):
        if v['training_args'].get(f'{kind}_full_eval') and not v[kind] and v['torch_dtype'] != dtype:
            found.append(
                f'--{kind}_full_eval: evaluation runs in the precision of training; give --torch_dtype {dtype} or --{kind} true'
            )
    if v['early_stop_interval'] and v['eval_strategy'] == 'no':
        found.append('--early_stop_interval needs evaluations; drop --eval_strategy no')
    if v['full_determinism'] and v['torch_compile']:
        found.append('--full_determinism and --torch_compile exclude each other')
    return found


def effect_mistakes(command: str, values: Values, given: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    """(flag, mistake, only a warning) for every given flag that does nothing. Values that ask for nothing pass."""
    found: list[tuple[str, str, bool]] = []
    given = {name: item for name, item in given.items() if not _from_environment(item)}
    if command in TRAINING:
        idle = method_mistakes(command, values, given)[1]
        found += [(name, f'has no effect {why}', False) for name, why in idle if not _idle(name, values[name])]
    seen = {name for name, _, _ in found}
    for rule in NO_EFFECT:
        names = [name for name in rule.flags if name in given and name in values and name not in seen]
        names = [name for name in names if not _idle(name, values[name])]
        if names and (not rule.commands or command in rule.commands) and rule.test(values):
            seen.update(names)
            found += [(name, f'has no effect {rule.why}', rule.warn) for name in names]
    return found


def _from_environment(item: Any) -> bool:
    """Whether a (value, source) was set for every command of a shell, so that not each of them must have a use for it."""
    return isinstance(item, tuple) and len(item) == 2 and str(item[1]).startswith('environment ')


def _idle(name: str, value: Any) -> bool:
    """A value that asks for nothing: none, an empty list, false (but where a method does something unless told not to)."""
    return value is None or (value is False and name not in ON) or (isinstance(value, (list, dict)) and not value)
