"""Contradictions and flags without effect among the flags of one training method. `methods.py` says which flags a method has at all."""

from __future__ import annotations

from swift.arguments.commands import TRAINING
from swift.arguments.methods import INFONCE, METHODS
from swift.arguments.rules import Conflict, NoEffect, Values, flags


def losses(v: Values) -> list[str]:
    """The chosen losses; the flag is one name in swift sft and a list in swift rlhf."""
    chosen = v['loss_type'] or []
    return [chosen] if isinstance(chosen, str) else chosen


METHOD_CONFLICTS: tuple[Conflict, ...] = (
    Conflict(
        ('precompute_ref_log_probs', 'sync_ref_model'),
        lambda v: bool(v['precompute_ref_log_probs'] and v['sync_ref_model']),
        '--precompute_ref_log_probs keeps what the reference says, --sync_ref_model changes the reference; drop one of them',
    ),
    Conflict(
        ('precompute_ref_log_probs', 'streaming'),
        lambda v: bool(v['precompute_ref_log_probs'] and v['streaming']),
        '--precompute_ref_log_probs asks the reference about all samples before training, --streaming true reads them as they come; '
        'drop one of them',
    ),
    Conflict(
        ('precompute_ref_log_probs', 'lazy_tokenize'),
        lambda v: bool(v['precompute_ref_log_probs'] and v['lazy_tokenize']),
        '--precompute_ref_log_probs asks the reference about all samples before training, --lazy_tokenize true makes them during it; '
        'drop one of them',
    ),
    Conflict(
        ('ref_adapters',),
        lambda v: len(v['ref_adapters']) > 1,
        '--ref_adapters: a reference has one adapter; merge them first (swift merge-lora) and give --ref_model',
    ),
    Conflict(
        ('reference_free', 'ref_model'),
        lambda v: bool(v['reference_free'] and v['ref_model']),
        '--reference_free true trains without a reference model; drop it or --ref_model',
    ),
    Conflict(
        ('calculate_KL',),
        lambda v: bool(v['calculate_KL']) and 'apo_zero_unpaired' in losses(v),
        '--calculate_KL true: the loss apo_zero_unpaired has no KL term; drop it, or use --loss_type kto',
    ),
    Conflict(
        ('lazy_tokenize',),
        lambda v: bool(v['lazy_tokenize']) and v.get('rlhf_type') == 'kto' and v['calculate_KL'] is not False
        and 'apo_zero_unpaired' not in losses(v),
        '--lazy_tokenize true reads rows one by one, but the KL term of kto needs the answers of other rows; drop it (--streaming '
        'true also spares the wait), or set --calculate_KL false',
    ),
)

_BUILT_IN = {'cross_entropy', *(loss for name in ('embedding', 'reranker') for loss in METHODS[name].losses)}
"""Losses of tasks that have no arguments of their own besides flags."""


METHOD_NO_EFFECT: tuple[NoEffect, ...] = (
    NoEffect(
        flags('system use_chat_template agent_template enable_thinking preserve_thinking response_prefix'),
        lambda v: not v.get('rlhf_type') and v['task_type'] == 'token_cls',
        'with --task_type token_cls, which reads the words of a row and nothing else',
        (*TRAINING, 'infer'),
    ),
    NoEffect(
        flags('response_prefix'),
        lambda v: not v.get('rlhf_type') and v['task_type'] in ('embedding', 'reranker'),
        'with --task_type embedding or reranker, which answer nothing',
    ),
    NoEffect(
        flags('loss_type loss_kwargs'),
        lambda v: not v.get('rlhf_type') and v['task_type'] in ('token_cls', 'multi_task'),
        'with --task_type token_cls or multi_task, which have one loss',
    ),
    NoEffect(
        flags('loss_kwargs'),
        lambda v: not v.get('rlhf_type') and bool(losses(v)) and set(losses(v)) <= _BUILT_IN,
        'with a built-in loss, whose settings are flags; it is for losses of a plugin',
    ),
    NoEffect(
        flags('label_smoothing_factor z_loss_coef enable_channel_loss acc_strategy'),
        lambda v: bool(losses(v)) and losses(v) != ['cross_entropy'],
        'with --loss_type, which is the whole loss',
    ),
    NoEffect(
        flags('ref_adapters precompute_ref_log_probs sync_ref_model ref_model_type ref_model_revision'),
        lambda v: bool(v.get('reference_free')),
        'with --reference_free true, which trains without a reference model',
    ),
    NoEffect(flags('ref_model_type ref_model_revision'), lambda v: not v.get('ref_model'), 'without --ref_model'),
    NoEffect(
        flags('ref_model_sync_steps ref_model_mixup_alpha'), lambda v: not v.get('sync_ref_model'), 'without --sync_ref_model true'
    ),
    NoEffect(flags('discopop_tau'), lambda v: 'discopop' not in losses(v), 'without --loss_type discopop'),
    NoEffect(
        flags('f_alpha_divergence_coef'),
        lambda v: v.get('f_divergence_type') != 'alpha_divergence',
        'without --f_divergence_type alpha_divergence',
    ),
    NoEffect(
        tuple(sorted(INFONCE)),
        lambda v: bool(losses(v)) and 'infonce' not in losses(v),
        'unless --loss_type is infonce',
    ),
    NoEffect(
        flags('infonce_fake_neg_margin'),
        lambda v: not v['infonce_mask_fake_negative'],
        'without --infonce_mask_fake_negative true',
    ),
    NoEffect(flags('cosent_scale'), lambda v: 'cosent' not in losses(v), 'unless --loss_type is cosent'),
    NoEffect(
        flags('margin'),
        lambda v: not {'contrastive', 'online_contrastive', 'triplet'} & set(losses(v)),
        'unless --loss_type is contrastive, online_contrastive or triplet',
    ),
    NoEffect(flags('pooling'), lambda v: v['task_type'] != 'embedding', 'unless --task_type is embedding', ('infer',)),
    NoEffect(
        flags('positive_token negative_token'),
        lambda v: v['task_type'] != 'generative_reranker',
        'unless --task_type is generative_reranker',
        ('infer',),
    ),
    NoEffect(flags('num_labels class_names problem_type'), lambda v: v['task_type'] not in ('seq_cls', 'token_cls'), 'with a model without classes', ('infer',)),
    NoEffect(
        flags('max_new_tokens temperature top_k top_p repetition_penalty num_beams stop_words logprobs top_logprobs stream response_prefix'),
        lambda v: v['task_type'] not in ('causal_lm', 'multi_task'),
        'with a model that generates nothing',
        ('infer',),
    ),
    NoEffect(
        flags('listwise_temperature'), lambda v: 'listwise_reranker' not in losses(v), 'unless --loss_type is listwise_reranker'
    ),
)
