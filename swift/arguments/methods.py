"""What each training method understands: its losses, its flags, its defaults. One row a method; checks and defaults read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from swift.arguments.rlhf import RlhfArgs
from swift.arguments.task import TaskArgs
from swift.core.errors import did_you_mean


@dataclass(frozen=True)
class Method:
    """One training method as the command line sees it."""

    flags: frozenset[str] = frozenset()
    """Flags of RlhfArgs and TaskArgs that act on it."""
    losses: tuple[str, ...] = ()
    """Values of --loss_type; the first is the default. Empty: a plugin's names only."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Derived defaults."""
    segments: int = 1
    """Segments of max_length that a sample holds; a packed row is this many times as long by default."""
    reference: bool = False
    """Whether a reference model is forwarded."""
    only: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Flag → the built-in losses that read it. A flag that is not listed acts whatever the loss."""
    reads: frozenset[str] = frozenset()
    """Flags of other groups that act on it and not on every method (SHARED)."""


def _flags(text: str) -> frozenset[str]:
    return frozenset(text.split())


_REFERENCE = _flags(
    'ref_model ref_adapters ref_model_type ref_model_revision precompute_ref_log_probs sync_ref_model ref_model_sync_steps '
    'ref_model_mixup_alpha'
)
INFONCE = _flags(
    'infonce_temperature infonce_use_batch infonce_hard_negatives infonce_mask_fake_negative infonce_fake_neg_margin '
    'infonce_include_qq infonce_include_dd'
)
_GROUP = _flags('max_positive_samples max_negative_samples')
_TOKENS = _flags('label_smoothing_factor z_loss_coef enable_dft_loss enable_channel_loss acc_strategy')
_ANSWERS = _flags(
    'loss_scale predict_with_generate eval_metric eval_dataset eval_limit eval_dataset_args eval_generation_config '
    'max_new_tokens temperature top_k top_p repetition_penalty num_beams stop_words logprobs top_logprobs'
)
_CLASSES = _flags('num_labels problem_type class_names')

SHARED = _TOKENS | _ANSWERS | _CLASSES
"""Flags of the model, of training, templates and generation that act on some methods only: the loss of single tokens, answers, classes."""

METHODS: dict[str, Method] = {
    'pt': Method(reads=_TOKENS | _ANSWERS),
    'sft': Method(reads=_TOKENS | _ANSWERS),
    'dpo': Method(
        _REFERENCE
        | _flags(
            'loss_weights beta label_smoothing rpo_alpha ld_alpha discopop_tau f_divergence_type f_alpha_divergence_coef '
            'use_weighting reference_free'
        ),
        (
            'sigmoid', 'hinge', 'ipo', 'robust', 'exo_pair', 'bco_pair', 'sppo_hard', 'nca_pair', 'aot', 'aot_unpaired', 'apo_zero',
            'apo_down', 'discopop', 'sigmoid_norm', 'sft',
        ),
        {'beta': 0.1},
        segments=2,
        reference=True,
        only={
            'label_smoothing': ('sigmoid', 'sigmoid_norm', 'robust', 'exo_pair', 'aot', 'aot_unpaired'),
            'f_divergence_type': ('sigmoid', 'sigmoid_norm', 'hinge', 'ipo', 'robust', 'exo_pair', 'discopop'),
            'use_weighting': (
                'sigmoid', 'hinge', 'ipo', 'robust', 'exo_pair', 'bco_pair', 'sppo_hard', 'nca_pair', 'apo_zero', 'apo_down', 'discopop',
                'sigmoid_norm',
            ),
        },
        reads=_ANSWERS,
    ),
    'kto': Method(
        _REFERENCE | _flags('beta desirable_weight undesirable_weight calculate_KL'),
        ('kto', 'apo_zero_unpaired'),
        {'beta': 0.1},
        segments=2,
        reference=True,
        reads=_ANSWERS,
    ),
    'orpo': Method(_flags('beta'), ('orpo',), {'beta': 0.1}, segments=2, reads=_ANSWERS),
    'cpo': Method(
        _flags('beta cpo_alpha label_smoothing loss_weights'),
        ('sigmoid', 'hinge', 'ipo'),
        {'beta': 0.1, 'cpo_alpha': 1.0},
        segments=2,
        only={'label_smoothing': ('sigmoid',)},
        reads=_ANSWERS,
    ),
    'simpo': Method(
        _flags('beta simpo_gamma label_smoothing cpo_alpha'),
        ('simpo',),
        {'beta': 2.0, 'cpo_alpha': 0.0},
        segments=2,
        reads=_ANSWERS,
    ),
    'rm': Method(
        _flags('center_rewards_coefficient'), ('rm',), {'task_type': 'seq_cls', 'num_labels': 1}, segments=2
    ),
    'seq_cls': Method(reads=_CLASSES),
    'token_cls': Method(reads=_flags('num_labels class_names')),
    'embedding': Method(
        INFONCE | _GROUP | _flags('pooling mrl_dims margin cosent_scale'),
        ('infonce', 'cosine_similarity', 'contrastive', 'online_contrastive', 'triplet', 'cosent'),
        {'use_chat_template': False},
        segments=2,
    ),
    'reranker': Method(
        _GROUP | _flags('listwise_temperature'), ('pointwise_reranker', 'listwise_reranker'), {'num_labels': 1}, segments=2
    ),
    'generative_reranker': Method(
        _GROUP | _flags('listwise_temperature positive_token negative_token'),
        ('pointwise_reranker', 'listwise_reranker'),
        {'enable_thinking': False},
        segments=2,
    ),
    'multi_task': Method(_flags('task_weights tasks routing_strategy'), reads=_TOKENS | _ANSWERS),
}
"""Name → what it understands; the names are those of `swift.objectives.OBJECTIVES`."""


def method_of(command: str, values: Mapping[str, Any]) -> str:
    """The training method that a command with these values runs: `sft`, `dpo`, `embedding`, …"""
    if values.get('rlhf_type'):
        return values['rlhf_type']
    if values.get('task_type', 'causal_lm') != 'causal_lm':
        return values['task_type']
    return 'pt' if command == 'pt' else 'sft'


def method_defaults(command: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """What the training method of these values brings along: flag → derived default, of flags that the command has."""
    method = METHODS.get(method_of(command, values), Method())
    return {name: value for name, value in method.defaults.items() if name in values}


def method_mistakes(
    command: str, values: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[list[str], list[tuple[str, str]]]:
    """(contradictions, (flag, why it has no effect) for every given flag that the chosen method doesn't read)."""
    name = method_of(command, values)
    if name not in METHODS:
        return [], []
    method, mistakes = METHODS[name], []
    chosen = values.get('loss_type') or []
    chosen = [chosen] if isinstance(chosen, str) else chosen
    unknown = [loss for loss in chosen if method.losses and loss not in method.losses]
    if unknown and not values.get('external_plugins'):
        owners = [owner for owner, other in METHODS.items() if unknown[0] in other.losses]
        near = f'it belongs to {", ".join(owners)}' if owners else did_you_mean(unknown[0], method.losses, cutoff=0.5)
        mistakes.append(f'--loss_type {unknown[0]!r} is no loss of {name}: {", ".join(method.losses)}' + (f'; {near}' if near else ''))
    weights = values.get('loss_weights')
    if weights is not None and len(weights) != len(chosen):
        mistakes.append(f'--loss_weights has {len(weights)} values for {len(chosen)} losses in --loss_type; give one for each')
    mistakes += _wrong_model(name, method, values, given)
    special = SHARED | {f.name for group in (RlhfArgs, TaskArgs) for f in fields(group)} - {'rlhf_type', 'loss_type'}
    idle = [
        (flag, f'with {_how(values, name)}; it belongs to {", ".join(sorted(n for n, m in METHODS.items() if flag in m.flags | m.reads))}')
        for flag in given
        if flag in special and flag not in method.flags | method.reads and values[flag] != method.defaults.get(flag)
    ]
    return mistakes, idle + _unread(method, chosen, values, given)


_DEFAULTS = {f.name: f.default for group in (RlhfArgs, TaskArgs) for f in fields(group)}
ON = frozenset(name for name, default in _DEFAULTS.items() if default is True)
"""Flags of methods that are true unless given: false asks for something."""


def _unread(method: Method, chosen: list[str], values: Mapping[str, Any], given: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(flag, why it has no effect) for given flags that none of the chosen built-in losses reads."""
    losses = chosen or method.losses[:1]
    if any(loss not in method.losses for loss in losses):
        return []
    return [
        (flag, f'with --loss_type {" ".join(losses)}; it is read by {", ".join(readers)}')
        for flag, readers in method.only.items()
        if flag in given and values[flag] not in (None, _DEFAULTS[flag]) and not set(losses) & set(readers)
    ]


def _wrong_model(name: str, method: Method, values: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Given settings that ask for another model, or other samples, than the method trains."""
    found = []
    task = method.defaults.get('task_type', 'causal_lm')
    if values.get('rlhf_type') and 'task_type' in given and values['task_type'] != task:
        found.append(f'--task_type {values["task_type"]} does not go with --rlhf_type {name}, which trains a {task} model; drop it')
    if values.get('truncation_strategy') == 'split' and name not in ('pt', 'sft'):
        found.append(f'--truncation_strategy split cuts plain text for pt and sft; {name} needs whole samples: use delete, left or right')
    return found


def _how(values: Mapping[str, Any], name: str) -> str:
    if values.get('rlhf_type'):
        return f'--rlhf_type {name}'
    return f'--task_type {name}' if values.get('task_type', 'causal_lm') != 'causal_lm' else f'swift {name}'
