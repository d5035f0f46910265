"""Checks of the flags of `swift eval` and `swift sample`: what excludes each other, and what does nothing where."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from swift.arguments.rules import Conflict, NoEffect, Values, flags

_SAMPLING = flags('temperature top_k top_p repetition_penalty num_beams stop_words max_new_tokens')
_OF_THE_MODEL = flags(
    'adapters merge_lora max_batch_size prefix_cache_tokens torch_dtype attn_impl experts_impl new_special_tokens rope_scaling max_model_len '
    'device_map init_strategy model_kwargs template agent_template response_prefix'
)
_TREE = flags('max_iterations exploration_rate process_reward_rate rollout_depth step_tokens')
_UNUSED_ROWS = flags('val_dataset split_dataset_ratio val_dataset_shuffle packing packing_length lazy_tokenize load_from_cache_file shuffle_buffer_size')


def _remote(v: Values) -> bool:
    return bool(v['eval_url'])


def draws_from_server(v: Values) -> bool:
    """Whether `swift sample` asks a server."""
    return v['sampler_engine'] == 'client' or (v['sampler_engine'] is None and v['sampler_type'] == 'distill')


ANSWER_RANGES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(
        'eval_limit eval_num_proc num_return_sequences n_best_to_keep num_sampling_batch_size num_sampling_batches max_iterations '
        'rollout_depth step_tokens'.split(),
        ('above 0', lambda v: v > 0),
    ),
    'num_shots': ('0 or above', lambda v: v >= 0),
    'exploration_rate': ('0 or above', lambda v: v >= 0),
    'process_reward_rate': ('from 0 to 1', lambda v: 0 <= v <= 1),
    'easy_query_threshold': ('from 0 to 1', lambda v: 0 <= v <= 1),
    'data_range': ('two numbers i n with 0 <= i < n', lambda v: not v or (len(v) == 2 and 0 <= v[0] < v[1])),
}
"""Flag → what is allowed, and its test."""

ANSWER_CONFLICTS: tuple[Conflict, ...] = (
    Conflict(
        ('eval_mode', 'eval_url'),
        lambda v: v['eval_mode'] == 'likelihood' and _remote(v),
        '--eval_mode likelihood needs the model itself, not a server; give --model without --eval_url',
    ),
    Conflict(
        ('sampler_type', 'sampler_engine'),
        lambda v: v['sampler_type'] == 'mcts' and v['sampler_engine'] != 'transformers',
        '--sampler_type mcts goes on from parts of answers, which needs the model itself; drop --sampler_engine',
    ),
    Conflict(
        ('resume', 'override_exist_file'),
        lambda v: v['resume'] and v['override_exist_file'],
        '--resume keeps what is there, --override_exist_file throws it away; give one of them',
    ),
)

ANSWER_NO_EFFECT: tuple[NoEffect, ...] = (
    NoEffect(flags('loss_scale padding_free'), lambda v: True, 'where nothing is trained', ('eval', 'sample')),
    NoEffect(flags('logprobs top_logprobs'), lambda v: True, 'here: only swift infer returns them', ('eval', 'sample')),
    NoEffect(flags('load_data_args'), lambda v: True, 'in swift eval: --eval_dataset says what is asked', ('eval',)),
    NoEffect(_OF_THE_MODEL, _remote, 'with --eval_url: the server has its model', ('eval',)),
    NoEffect(flags('api_key eval_num_proc'), lambda v: not _remote(v), 'without --eval_url', ('eval',)),
    NoEffect(flags('shots_dataset'), lambda v: v['num_shots'] == 0 and not v['eval_dataset_args'], 'without --num_shots', ('eval',)),
    NoEffect(flags('extra_eval_args'), lambda v: v['eval_backend'] == 'Native', 'with --eval_backend Native', ('eval',)),
    NoEffect(
        flags('eval_metrics num_shots shots_dataset eval_mode columns eval_dataset_args'),
        lambda v: v['eval_backend'] != 'Native',
        'unless --eval_backend is Native; put the settings of the other program into --extra_eval_args',
        ('eval',),
    ),
    NoEffect(
        (*_SAMPLING, 'eval_generation_config'),
        lambda v: v['eval_mode'] == 'likelihood',
        'with --eval_mode likelihood, which generates nothing',
        ('eval',),
    ),
    NoEffect(
        flags('top_k top_p'),
        lambda v: v['temperature'] == 0 and v['num_beams'] == 1,
        'with --temperature 0, which always takes the likeliest token',
        ('eval', 'sample'),
    ),
    NoEffect(_UNUSED_ROWS, lambda v: True, 'in swift sample, which answers the rows of --dataset in their order', ('sample',)),
    NoEffect(_TREE, lambda v: v['sampler_type'] != 'mcts', 'unless --sampler_type is mcts', ('sample',)),
    NoEffect(flags('easy_query_threshold orm_threshold'), lambda v: v['orm_model'] is None, 'without --orm_model', ('sample',)),
    NoEffect(
        flags('pairs_only'), lambda v: not v['orm_model'] and not v['prm_model'] and v['sample_select'] != 'majority',
        'without --orm_model, --prm_model or --sample_select majority: nothing tells good answers from bad ones', ('sample',),
    ),  # fmt: skip
    NoEffect(flags('prm_threshold process_reward_rate'), lambda v: v['prm_model'] is None, 'without --prm_model', ('sample',)),
    NoEffect(flags('sample_select'), lambda v: v['sampler_type'] == 'mcts', 'with --sampler_type mcts, which keeps the best', ('sample',)),
    NoEffect(flags('engine_kwargs'), lambda v: not draws_from_server(v), 'unless --sampler_engine is client', ('sample',)),
    NoEffect(
        (*_SAMPLING, 'num_return_sequences'),
        lambda v: v['sampler_engine'] == 'no',
        'with --sampler_engine no, which generates nothing',
        ('sample',),
    ),
)


def sampling_mistakes(v: Values) -> list[str]:
    """Settings of `swift sample` that can't work together."""
    found = []
    if draws_from_server(v) and not v['engine_kwargs'].get('base_url'):
        found.append('--sampler_engine client needs the address: --engine_kwargs \'{"base_url": "http://host:port/v1"}\'')
    if v['sampler_type'] == 'mcts' and not (v['orm_model'] or v['prm_model']):
        found.append('--sampler_type mcts needs --orm_model or --prm_model: the search follows their scores')
    if v['sampler_type'] == 'mcts' and draws_from_server(v):
        found.append('--sampler_type mcts needs the model itself; drop --sampler_engine client')
    if v['process_reward_rate'] == 1 and v['sampler_type'] == 'mcts' and not v['prm_model']:
        found.append('--process_reward_rate 1 needs --prm_model')
    if v['sampler_engine'] == 'no' and not v['cache_files']:
        found.append('--sampler_engine no needs --cache_files: answers drawn before')
    if v['cache_files'] and (v['sampler_engine'] != 'no' or v['sampler_type'] == 'mcts'):
        found.append('--cache_files are answers drawn before; they go with --sampler_engine no')
    return found
