"""Every training method as the proofs need it: a command, rows, what its log shows, and the variants that must keep its laws.

A new method adds one entry to CASES; the contract suite, the whole runs, the two-process runs and the support matrix read it.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Rows = list[dict[str, Any]]
WORDS = 'the quick brown fox jumps over the lazy dog while you are fine and I thank the world for today'.split()
CLASSES = ('low', 'middle', 'high')


@dataclass(frozen=True)
class Case:
    """One training method in small."""

    command: str
    """`sft`, `pt` or `rlhf`."""
    rows: Callable[[int], Rows]
    """The first n rows of a small data set that the method learns from."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Flags besides model, data and what every run has."""
    logged: tuple[str, ...] = ()
    """Metrics of its training log, besides loss."""
    measured: tuple[str, ...] = ()
    """Metrics of its evaluation, besides loss."""
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {'plain': {}})
    """Name → flags; each keeps the laws of the contract suite."""
    indifferent: tuple[str, ...] = ()
    """Variants whose gradient is 0 where chosen and rejected are the same, and policy and reference are."""
    streamed: Mapping[str, Any] = field(default_factory=dict)
    """Further flags where rows are streamed, and so can't be looked at before."""
    encoders: bool = False
    """Whether encoder models (the BERT family) learn by it too."""


def _draw(seed: int) -> random.Random:
    return random.Random(seed)


def said(draw: random.Random, low: int = 1, high: int = 12) -> str:
    """Some words."""
    return ' '.join(draw.choice(WORDS) for _ in range(draw.randint(low, high)))


def chat_rows(count: int) -> Rows:
    """Two turns each; the first answer counts half."""
    draw, rows = _draw(1), []
    for number in range(count):
        first, second = said(draw), said(draw)
        rows.append({'channel': 'ab'[number % 2], 'messages': [
            {'role': 'user', 'content': said(draw)}, {'role': 'assistant', 'content': first, 'loss': 0.5},
            {'role': 'user', 'content': said(draw)}, {'role': 'assistant', 'content': second},
        ]})  # fmt: skip
    return rows


def task_rows(count: int) -> Rows:
    """Chats that belong to one of two tasks."""
    return [{'task': row['channel'], 'messages': row['messages'][:2]} for row in chat_rows(count)]


def text_rows(count: int) -> Rows:
    draw = _draw(2)
    return [{'text': said(draw, 8, 30)} for _ in range(count)]


def pair_rows(count: int) -> Rows:
    """Answers of different length and of the same, a margin, every third prompt with a system message."""
    draw, rows = _draw(3), []
    for number in range(count):
        good = said(draw, 2)
        bad = said(draw) if number % 2 else ' '.join(sorted(good.split(), key=lambda word: draw.random()))
        row = {'query': said(draw), 'response': good, 'rejected_response': f'{bad} fox', 'margin': draw.random()}
        rows.append({**row, 'system': 'Be brief.'} if number % 3 == 0 else row)
    return rows


def judged_rows(count: int) -> Rows:
    draw = _draw(4)
    return [{'query': said(draw), 'response': said(draw), 'label': draw.random() < 0.5 if number > 1 else not number}
            for number in range(count)]  # fmt: skip


def labelled(make: Callable[[random.Random, int], Any]) -> Callable[[int], Rows]:
    """Rows of a text and a label."""

    def rows(count: int) -> Rows:
        draw = _draw(5)
        return [{'messages': [{'role': 'user', 'content': said(draw, 3, 12)}], 'label': make(draw, number)} for number in range(count)]

    return rows


def tagged_rows(count: int) -> Rows:
    """Words with a tag each."""
    draw, rows = _draw(7), []
    for _ in range(count):
        words = said(draw, 3, 12).split()
        rows.append({'tokens': words, 'label': [CLASSES[len(word) % 3] for word in words]})
    return rows


def group_rows(count: int) -> Rows:
    """An anchor or query, a text that belongs to it, and one or two that don't."""
    draw, rows = _draw(6), []
    for number in range(count):
        query, positive, *negatives = (said(draw, 3, 12) for _ in range(3 + number % 2))
        rows.append({'query': query, 'positive': positive, 'negative': negatives})
    return rows


PAIRS = ('rewards/accuracies', 'rewards/margins')
SCORES = ('accuracy',)


def _losses(names: str) -> dict[str, dict[str, Any]]:
    return {name: dict(loss_type=name) for name in names.split()}


_DPO_LOSSES = 'hinge ipo robust exo_pair bco_pair sppo_hard nca_pair aot aot_unpaired apo_zero apo_down discopop sigmoid_norm sft'

CASES: dict[str, Case] = {
    'sft': Case(
        'sft', chat_rows, logged=('token_acc',), measured=('token_acc',),
        variants={
            'plain': {},
            'smoothed': dict(label_smoothing_factor=0.1),
            'dft': dict(enable_dft_loss=True),
            'z-loss': dict(z_loss_coef=1e-3),
            'channels': dict(enable_channel_loss=True),
            'sequences': dict(acc_strategy='seq'),
        },
    ),
    'pt': Case('pt', text_rows, logged=('token_acc',), measured=('token_acc',)),
    'dpo': Case(
        'rlhf', pair_rows, dict(rlhf_type='dpo'), PAIRS, PAIRS,
        variants={
            'plain': {},
            **_losses(_DPO_LOSSES),
            'smoothed': dict(label_smoothing=0.1),
            'robust-smoothed': dict(loss_type='robust', label_smoothing=0.1),
            'several': dict(loss_type=['sigmoid', 'bco_pair', 'sft'], loss_weights=[0.8, 0.2, 1.0]),
            'rpo': dict(rpo_alpha=0.5),
            'ld': dict(ld_alpha=0.5),
            'wpo': dict(use_weighting=True),
            'forward_kl': dict(f_divergence_type='forward_kl'),
            'js': dict(f_divergence_type='js_divergence'),
            'alpha': dict(f_divergence_type='alpha_divergence', f_alpha_divergence_coef=0.7),
            'free': dict(reference_free=True),
        },
        indifferent=(
            'plain', 'hinge', 'ipo', 'robust', 'exo_pair', 'bco_pair', 'sppo_hard', 'nca_pair', 'aot', 'aot_unpaired', 'apo_zero',
            'discopop', 'sigmoid_norm', 'smoothed', 'robust-smoothed', 'ld', 'wpo', 'forward_kl', 'js', 'alpha', 'free',
        ),
    ),
    'kto': Case(
        'rlhf', judged_rows, dict(rlhf_type='kto'), ('kl', 'rewards/chosen', 'rewards/rejected'), ('kl',),
        variants={
            'plain': {},
            'weighted': dict(desirable_weight=1.5, undesirable_weight=0.7),
            'no-kl': dict(calculate_KL=False),
            'apo_zero_unpaired': dict(loss_type='apo_zero_unpaired'),
        },
    ),
    'orpo': Case('rlhf', pair_rows, dict(rlhf_type='orpo'), PAIRS, PAIRS),
    'cpo': Case(
        'rlhf', pair_rows, dict(rlhf_type='cpo'), PAIRS, PAIRS,
        variants={
            'plain': {},
            **_losses('hinge ipo'),
            'smoothed': dict(label_smoothing=0.1),
            'no-nll': dict(cpo_alpha=0.0),
            'hinge-no-nll': dict(loss_type='hinge', cpo_alpha=0.0),
            'ipo-no-nll': dict(loss_type='ipo', cpo_alpha=0.0),
            'several': dict(loss_type=['sigmoid', 'ipo'], loss_weights=[0.8, 0.2]),
        },
        indifferent=('no-nll', 'hinge-no-nll', 'ipo-no-nll'),
    ),
    'simpo': Case(
        'rlhf', pair_rows, dict(rlhf_type='simpo'), PAIRS, PAIRS,
        variants={'plain': {}, 'gamma': dict(simpo_gamma=0.3), 'smoothed': dict(label_smoothing=0.1), 'nll': dict(cpo_alpha=0.5)},
        indifferent=('plain', 'gamma', 'smoothed'),
    ),
    'rm': Case(
        'rlhf', pair_rows, dict(rlhf_type='rm'), PAIRS, PAIRS,
        variants={'plain': {}, 'centred': dict(center_rewards_coefficient=0.1)}, indifferent=('plain',),
    ),
    'seq_cls': Case(
        'sft', labelled(lambda draw, number: CLASSES[number % 3]), dict(task_type='seq_cls'), SCORES, SCORES,
        streamed=dict(class_names=list(CLASSES), problem_type='single_label_classification'), encoders=True,
    ),
    'token_cls': Case(
        'sft', tagged_rows, dict(task_type='token_cls'), SCORES, SCORES, streamed=dict(class_names=list(CLASSES)), encoders=True
    ),
    'embedding': Case(
        'sft', group_rows, dict(task_type='embedding'),
        variants={
            'plain': {},
            'own-only': dict(infonce_use_batch=False),
            **_losses('triplet cosine_similarity contrastive online_contrastive cosent'),
            'two-hard': dict(infonce_hard_negatives=2),
            'masked': dict(infonce_mask_fake_negative=True, infonce_fake_neg_margin=0.01),
            'qq-dd': dict(infonce_include_qq=True, infonce_include_dd=True),
            'mrl': dict(mrl_dims=[16, 32]),
            'mean': dict(pooling='mean'),
        },
        encoders=True,
    ),
    'reranker': Case(
        'sft', group_rows, dict(task_type='reranker'),
        variants={'plain': {}, 'listwise': dict(loss_type='listwise_reranker', listwise_temperature=0.5), 'cut': dict(max_negative_samples=1)},
        encoders=True,
    ),
    'generative_reranker': Case(
        'sft', group_rows, dict(task_type='generative_reranker', positive_token='a', negative_token='n'),
        variants={'plain': {}, 'listwise': dict(loss_type='listwise_reranker', listwise_temperature=0.5), 'cut': dict(max_negative_samples=1)},
    ),
    'multi_task': Case(
        'sft', task_rows, dict(task_type='multi_task'), streamed=dict(tasks=['a', 'b']),
        variants={'plain': {}, 'weighted': dict(task_weights=[1.0, 0.5]), 'uncertain': dict(routing_strategy='uncertainty'),
                  'routed': dict(routing_strategy='learned')},
    ),
}  # fmt: skip
"""Method → its case; the names are those of `swift.objectives.OBJECTIVES`."""


def case_settings(name: str, folder: str, model: str, *, rows: Rows | None = None, count: int = 8, **more: Any) -> dict[str, Any]:
    """Flags of a run of the method on rows that are written to `folder`."""
    case = CASES[name]
    path = os.path.join(folder, f'{name}.jsonl')
    with open(path, 'w', encoding='utf-8') as file:
        for row in case.rows(count) if rows is None else rows:
            file.write(json.dumps(row, ensure_ascii=False) + '\n')
    streamed = case.streamed if more.get('streaming') else {}
    return {'model': model, 'dataset': path, 'report_to': 'none', 'max_length': 256, **case.settings, **streamed, **more}
