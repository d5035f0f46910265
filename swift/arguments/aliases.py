"""Old spellings of flags and values → the one of today. An old spelling to support is one row here.

`convert` gets the value as it was written (a list of words from a command line, or a Python value) and gives back
what the new flag takes, or a dict of several flags, or `Nothing` when the old flag then asks for what happens anyway.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from swift.arguments.convert import FALSE, Words
from swift.arguments.media import MEDIA


class Nothing:
    """What a converter returns when the old flag asks for nothing special."""


@dataclass(frozen=True)
class Alias:
    """`new` is the flag of today; `since` the generation of the old spelling."""

    new: str
    since: str
    convert: Callable[[Any], Any] | None = None
    commands: tuple[str, ...] = ()
    """Commands in which the old spelling exists. Empty: all."""
    join: bool = False
    """Both spellings may be given; their lists are joined."""


def _word(raw: Any) -> str:
    """The one word of a value; a flag standing alone means true."""
    if isinstance(raw, Words):
        return raw[0] if raw else 'true'
    return str(raw)


def _is_true(raw: Any) -> bool:
    return _word(raw).lower() not in FALSE


def _not(raw: Any) -> bool:
    return not _is_true(raw)


def _flash(raw: Any) -> Any:
    word = _word(raw).lower()
    return Nothing if word in ('auto', 'none') else 'sdpa' if word in FALSE else 'flash_attention_2'


def _checkpoint(raw: Any) -> dict[str, Any]:
    """2.x had one flag for a trained model, whatever it was."""
    path = _word(raw)
    is_adapter = os.path.isfile(os.path.join(path, 'adapter_config.json'))
    is_full = os.path.isfile(os.path.join(path, 'config.json'))
    return {'model': path} if is_full and not is_adapter else {'adapters': [path]}


def _from_true(flag: str, value: Any) -> Callable[[Any], Any]:
    """true asks for `value` of the new flag; false asks for nothing."""
    return lambda raw: {flag: value} if _is_true(raw) else Nothing


def _from_false(flag: str, value: Any) -> Callable[[Any], Any]:
    """false asks for `value` of the new flag; true asks for nothing."""
    return lambda raw: Nothing if _is_true(raw) else {flag: value}


def _device_memory(raw: Any) -> dict[Any, str]:
    """A list with the memory of each GPU → {0: …, 1: …}."""
    items = list(raw) if isinstance(raw, (list, tuple)) else [raw]
    return {str(index): item for index, item in enumerate(items)}


def _sample(raw: Any) -> Any:
    return Nothing if _word(raw).lstrip().startswith('-') else int(_word(raw))


def _result_dir(raw: Any) -> str:
    return os.path.join(_word(raw), 'result.jsonl')


def _sampling(raw: Any) -> dict[str, Any]:
    word = _word(raw)
    return {'group_by_length': {'group_by_length': True}, 'sequential': {'train_dataloader_shuffle': False}}.get(
        word, {'train_dataloader_shuffle': True}
    )


TRAIN = ('pt', 'sft', 'rlhf', 'plan', 'preview', 'verify')
ASKING = ('infer', 'eval', 'sample', 'deploy', 'app')
"""Commands that ask an engine."""

ALIASES: dict[str, Alias] = {
    # which model
    'model_id_or_path': Alias('model', '2.x'),
    'model_id': Alias('model', '1.x'),
    'model_name_or_path': Alias('model', '1.x'),
    'model_cache_dir': Alias('model', '1.x'),
    'revision': Alias('model_revision', '1.x'),
    'dtype': Alias('torch_dtype', '2.x'),
    'use_flash_attn': Alias('attn_impl', '2.x', _flash),
    'flash_attn': Alias('attn_impl', '2.x', _flash),
    'device_map_path': Alias('device_map', '2.x'),
    'merge_device_map': Alias('device_map', '2.x'),
    'device_max_memory': Alias('max_memory', '2.x', _device_memory),
    'ckpt_dir': Alias('adapters', '2.x', _checkpoint),
    'adapter_path': Alias('adapters', '2.x'),
    'resume_adapter': Alias('adapters', '2.x'),
    # template
    'template_type': Alias('template', '2.x'),
    'tools_prompt': Alias('agent_template', '2.x'),
    'max_seq_length': Alias('max_length', '2.x'),
    'use_generate_template': Alias('use_chat_template', '2.x', _not),
    # data
    'custom_train_dataset_path': Alias('dataset', '1.x', join=True),
    'custom_val_dataset_path': Alias('val_dataset', '1.x', join=True),
    'dataset_test_ratio': Alias('split_dataset_ratio', '2.x'),
    'dataset_seed': Alias('data_seed', '2.x'),
    'preprocess_num_proc': Alias('dataset_num_proc', '2.x'),
    'streaming_buffer_size': Alias('shuffle_buffer_size', '2.x'),
    'train_dataset_shuffle': Alias('dataset_shuffle', '2.x'),
    # what learns
    'sft_type': Alias('tuner_type', '2.x'),
    'train_type': Alias('tuner_type', '3.x'),
    'enable_unsloth': Alias('tuner_backend', '2.x', _from_true('tuner_backend', 'unsloth')),
    'lora_target_modules': Alias('target_modules', '2.x'),
    'lora_target_regex': Alias('target_regex', '2.x'),
    'lora_modules_to_save': Alias('modules_to_save', '2.x'),
    'lora_bias_trainable': Alias('lora_bias', '2.x'),
    'lora_lr_ratio': Alias('lorap_lr_ratio', '2.x'),
    'lora_dropout_p': Alias('lora_dropout', '1.x'),
    'init_lora_weights': Alias('init_weights', '2.x'),
    'additional_trainable_parameters': Alias('trainable_parameters', '2.x'),
    'freeze_vision_tower': Alias('freeze_vit', '2.x'),
    'lora_vision_tower': Alias('freeze_vit', '2.x', _not),
    'lora_llm': Alias('freeze_llm', '2.x', _not),
    'lora_vision_rank': Alias('vit_lora_rank', '2.x'),
    'vision_learning_rate': Alias('vit_lr', '2.x'),
    'vit_use_gc': Alias('vit_gradient_checkpointing', '2.x'),
    # media
    'rescale_image': Alias('max_pixels', '2.x', _sample),
    # training
    'batch_size': Alias('per_device_train_batch_size', '1.x', commands=TRAIN),
    'eval_batch_size': Alias('per_device_eval_batch_size', '1.x'),
    'per_gpu_train_batch_size': Alias('per_device_train_batch_size', '1.x'),
    'per_gpu_eval_batch_size': Alias('per_device_eval_batch_size', '1.x'),
    'max_epochs': Alias('num_train_epochs', '3.x'),
    'evaluation_strategy': Alias('eval_strategy', '2.x'),
    'only_save_model': Alias('save_only_model', '2.x'),
    'save_optimizer': Alias('save_only_model', '2.x', _not),
    'neftune_alpha': Alias('neftune_noise_alpha', '2.x'),
    'add_output_dir_suffix': Alias('add_version', '2.x'),
    'custom_loss': Alias('loss_type', '2.x'),
    'loss_name': Alias('loss_type', '2.x'),
    'metric': Alias('eval_metric', '3.x', commands=TRAIN),
    'wandb_run_name': Alias('run_name', '2.x'),
    'tracker_project_name': Alias('wandb_project', '2.x'),
    'push_hub_strategy': Alias('hub_strategy', '2.x'),
    'private_hub': Alias('hub_private_repo', '2.x'),
    'activation_checkpointing': Alias('gradient_checkpointing', 'transformers 5'),
    'activation_checkpointing_kwargs': Alias('gradient_checkpointing_kwargs', 'transformers 5'),
    'train_sampling_strategy': Alias('train_dataloader_shuffle', 'transformers 5', _sampling),
    'custom_register_path': Alias('external_plugins', '3.x', join=True),
    # engines
    'infer_url': Alias('base_url', '3.x'),
    'gpu_memory_utilization': Alias('vllm_gpu_memory_utilization', '3.x'),
    'tensor_parallel_size': Alias('vllm_tensor_parallel_size', '3.x', commands=ASKING),
    'pipeline_parallel_size': Alias('vllm_pipeline_parallel_size', '3.x', commands=ASKING),
    'data_parallel_size': Alias('vllm_data_parallel_size', '3.x'),
    'max_lora_rank': Alias('vllm_max_lora_rank', '3.x'),
    'max_num_seqs': Alias('vllm_max_num_seqs', '3.x', commands=ASKING),
    'enforce_eager': Alias('vllm_enforce_eager', '3.x'),
    'disable_custom_all_reduce': Alias('vllm_disable_custom_all_reduce', '3.x'),
    # preferences
    'dpo_loss_type': Alias('loss_type', '3.x', commands=TRAIN),
    'ref_model_id_or_path': Alias('ref_model', '2.x'),
    'ref_model_name_or_path': Alias('ref_model', 'trl'),
    # answering and merging
    'eval_human': Alias('load_data_args', '2.x', _from_false('load_data_args', True)),
    'load_dataset_config': Alias('load_data_args', '2.x'),
    'load_args_from_ckpt_dir': Alias('load_args', '2.x'),
    'show_dataset_sample': Alias('val_dataset_sample', '2.x', _sample),
    'do_sample': Alias('temperature', '2.x', _from_false('temperature', 0.0)),
    'generation_num_beams': Alias('num_beams', '4.x'),
    'eval_datasets': Alias('eval_dataset', '2.x', commands=('eval',)),
    'eval_few_shot': Alias('num_shots', '2.x', commands=('eval',)),
    'result_dir': Alias('result_path', '2.x', _result_dir),
    'merge_lora_and_save': Alias('merge_lora', '2.x'),
    'replace_if_exists': Alias('exist_ok', '3.x'),
}

_DTYPES = {'bf16': 'bfloat16', 'fp16': 'float16', 'fp32': 'float32', 'half': 'float16', 'float': 'float32'}

VALUES: dict[str, dict[str, str]] = {
    'tuner_type': {'lora': 'lora', 'full': 'full'},
    'tuner_backend': {'swift': 'peft'},
    'torch_dtype': _DTYPES,
    'lora_dtype': {**_DTYPES, 'auto': 'none'},
    'target_modules': {'all': 'all-linear', 'default': 'all-linear', 'auto': 'all-linear', 'all_linear': 'all-linear'},
    'attn_impl': {
        'flash_attn': 'flash_attention_2',
        'flash_attn2': 'flash_attention_2',
        'flash_attn_2': 'flash_attention_2',
        'flash_attention': 'flash_attention_2',
        'flash_attn3': 'flash_attention_3',
        'flash_attn_3': 'flash_attention_3',
        'auto': 'none',
    },
    'rlhf_type': {name: name for name in ('dpo', 'kto', 'orpo', 'cpo', 'simpo', 'rm')},
    'loss_type': {
        'aot_pair': 'aot',
        'generative_reranker': 'pointwise_reranker',
        'listwise_generative_reranker': 'listwise_reranker',
    },
    'infer_backend': {'pt': 'transformers', 'pytorch': 'transformers', 'hf': 'transformers'},
    'truncation_strategy': {'truncation_left': 'left', 'truncation_right': 'right'},
    'template': {'auto': 'none', 'default': 'none'},
    'lora_bias': {'true': 'all', 'false': 'none'},
}
"""Flag → other spellings of a value (lower case) → the value. These are accepted without a word."""

ENVIRONMENT = {
    'USE_HF': 'use_hf',
    'USE_FLASH_ATTENTION': 'use_flash_attn',
    **{
        name.upper(): name
        for name in (
            'infonce_temperature infonce_use_batch infonce_hard_negatives infonce_mask_fake_negative infonce_fake_neg_margin '
            'infonce_include_qq infonce_include_dd max_positive_samples max_negative_samples'
        ).split()
    },
    **{name.upper(): name for name in MEDIA},
    'LISTWISE_RERANKER_TEMPERATURE': 'listwise_temperature',
    'GENERATIVE_RERANKER_POSITIVE_TOKEN': 'positive_token',
    'GENERATIVE_RERANKER_NEGATIVE_TOKEN': 'negative_token',
    'SWIFT_UI_LANG': 'lang',
}
"""Environment variable → the flag (in any spelling) that it sets."""

SETTLED: dict[str, tuple[tuple[str, ...], str]] = {
    'template_backend': (('swift', 'jinja'), "templates are always the model's own Jinja"),
    'padding_side': (('right',), 'training never pads on the left'),
    'packing_strategy': (('binpack',), 'packing is best fit'),
    'packing_num_proc': (('1',), 'packing is planned in one process, in seconds'),
    'use_logits_to_keep': (('true', 'none'), 'logits are computed at labelled tokens only'),
    'use_swift_lora': (('false',), 'adapters are made by PEFT'),
    'is_binary_loss_scale': (('none',), 'the loss_scale strategy decides'),
    'disable_ignore_empty_think': (('false',), 'choose --loss_scale ignore_empty_think or another strategy'),
    'save_missing_weights': (('false',), 'missing weights are an error'),
    'check_model': (('true', 'false'), 'downloads are checked by the hub clients'),
    'check_model_is_latest': (('true', 'false'), 'downloads are checked by the hub clients'),
    'remove_unused_columns': (('true', 'false'), 'columns are kept for losses and metrics that ask for them'),
    'save_safetensors': (('true',), 'checkpoints are safetensors'),
    'safe_serialization': (('true',), 'checkpoints are safetensors'),
    'average_tokens_across_devices': (('true',), 'the loss is divided by the number of tokens of all devices'),
    'ignore_data_skip': (('false',), 'a resumed run continues its data; --resume_only_model true starts anew'),
    'sortish_sampler': (('false',), '--group_by_length true batches by length'),
    'test_oom_error': (('false',), 'swift plan estimates the memory'),
    'verbose': (('true', 'false'), 'SWIFT_DEBUG=1 shows more'),
    'auto_find_batch_size': (
        ('false',),
        '--max_batch_tokens bounds a batch by its tokens, and swift plan estimates the memory',
    ),
    'use_cache': (('false',), 'training never keeps a key-value cache'),
    'do_train': (('true',), 'sft and pt train'),
    'do_eval': (('true', 'false'), '--eval_strategy decides'),
    'do_predict': (('false',), 'swift infer answers'),
    'neftune_backend': (('transformers',), "NEFTune is the trainer's"),
    'ref_model_free': (('false', 'none'), 'the method decides whether it has a reference; --reference_free true is dpo without one'),
    'disable_dropout': (('false', 'none'), 'give --lora_dropout 0; dropout inside a model is in its config'),
    'is_encoder_decoder': (('false', 'none'), 'preferences are learned by decoders'),
    'reranker_use_activation': (('true',), 'scores of rerankers are probabilities'),
    'hub_strategy': (('end',), '--push_to_hub uploads when training ends'),
    'hub_always_push': (('false',), '--push_to_hub uploads when training ends'),
}
"""Flags of other versions whose matter is settled here: the values that ask for what happens anyway, and the reason."""

IDLE: dict[str, str] = {
    'hub_revision': 'the upload goes to the main branch of --hub_model_id',
    'project': 'trackio reads the environment variable TRACKIO_PROJECT, wandb --wandb_project',
    **dict.fromkeys(
        'trackio_space_id trackio_bucket_id trackio_static_space_id'.split(), 'trackio reads the environment variable TRACKIO_SPACE_ID'
    ),
    **dict.fromkeys(
        (
            'dataloader_pin_memory dataloader_prefetch_factor dataloader_persistent_workers dataloader_in_order '
            'dataloader_multiprocessing_context'
        ).split(),
        'batches are token ids, made by a loader of our own; --dataloader_num_workers gives it processes',
    ),
    **dict.fromkeys(
        'prediction_loss_only eval_accumulation_steps include_for_metrics batch_eval_metrics eval_do_concat_batches eval_use_gather_object'.split(),
        'evaluation keeps no logits; --eval_metric and --predict_with_generate choose what is measured',
    ),
}
"""Fields of transformers.TrainingArguments that do nothing here, and why. Refused unless --ignore_args_error."""

GONE: dict[str, str] = {
    'train_dataset_sample': 'write the number behind the data set: --dataset name#1000',
    'train_dataset_mix_ratio': 'give both data sets to --dataset, with --interleave_prob for a ratio',
    'train_dataset_mix_ds': 'give both data sets to --dataset',
    'self_cognition_sample': 'add the self-cognition data to --dataset, with the number behind it: name#500',
    'use_loss_scale': 'name a strategy: --loss_scale',
    'loss_scale_config_path': 'give the file to --loss_scale',
    'streaming_val_size': 'give --val_dataset',
    'check_dataset_strategy': 'bad rows are always counted; --strict true stops at the first',
    'acc_steps': 'accuracy is computed at every logging step',
    'metric_warmup_step': 'use --warmup_ratio or --warmup_steps',
    'gpu_memory_fraction': 'set PYTORCH_CUDA_ALLOC_CONF',
    'fp16_opt_level': "mixed precision is PyTorch's own: --fp16 true",
    'half_precision_backend': "mixed precision is PyTorch's own",
    'overwrite_output_dir': 'runs get a folder of their own; existing checkpoints are not overwritten',
    'overwrite_generation_config': 'give the generation flags, such as --temperature',
    'generation_config': 'give the generation flags, such as --temperature',
    'generation_max_length': 'use --max_new_tokens',
    'to_peft_format': "adapters are stored in PEFT's format already",
    'no_cuda': 'use --use_cpu true',
    'local_rank': 'torchrun sets it; start processes with NPROC_PER_NODE',
    'nnodes': 'set the environment variable NNODES',
    'nproc_per_node': 'set the environment variable NPROC_PER_NODE',
    'node_rank': 'set the environment variable NODE_RANK',
    'master_addr': 'set the environment variable MASTER_ADDR',
    'master_port': 'set the environment variable MASTER_PORT',
    'num_gpus': 'set the environment variable NPROC_PER_NODE',
    'swanlab_token': 'set the environment variable SWANLAB_API_KEY',
    'pack_sequence_as_prompt': 'use --packing true',
    'label_names': 'the objective knows its labels',
    'sft_beta': 'loss (1 - b) · dpo + b · sft is written --loss_type sigmoid sft --loss_weights 1-b b, as in 0.9 0.1',
    'max_prompt_length': 'prompt and answer share --max_length; --truncation_strategy says what is cut',
    'label_pad_token_id': 'padded places are known from the lengths',
    'padding_value': 'padded places are known from the lengths',
    'generate_during_eval': 'use --predict_with_generate true',
    'precompute_ref_batch_size': 'the reference is asked about 8192 tokens at a time',
    'model_adapter_name': 'the adapter that is trained is the one of this run',
    'ref_adapter_name': 'give the adapters of the reference to --ref_adapters',
    'length_column_name': 'lengths are known from the tokens',
    'group_size': 'in reinforcement learning it is num_generations, in LongLoRA the group of tokens; neither is part of this version',
}
"""Flags that are no more, with what to write instead."""


def canonical(flag: str, value: Any) -> Any:
    """A value in today's spelling."""
    table = VALUES.get(flag)
    if not table:
        return value
    if isinstance(value, (list, tuple)):
        items = [canonical(flag, item) for item in value]
        return Words(items) if isinstance(value, Words) else items
    return table.get(value.lower(), value) if isinstance(value, str) else value
