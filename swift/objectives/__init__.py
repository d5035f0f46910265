"""One file per training method: encode, collate, weight, loss. `get_objective(name, args)` is the door."""

from __future__ import annotations

from typing import Any

from swift.arguments.methods import METHODS
from swift.core.errors import SwiftError, did_you_mean
from swift.core.registry import Registry

OBJECTIVES = Registry(
    'training method',
    {
        'sft': 'swift.objectives.sft:SFT',
        'pt': 'swift.objectives.sft:SFT',
        'dpo': 'swift.objectives.dpo:DPO',
        'kto': 'swift.objectives.kto:KTO',
        'orpo': 'swift.objectives.orpo:ORPO',
        'cpo': 'swift.objectives.cpo:CPO',
        'simpo': 'swift.objectives.simpo:SimPO',
        'rm': 'swift.objectives.rm:RewardModel',
        'seq_cls': 'swift.objectives.seq_cls:SequenceClassification',
        'token_cls': 'swift.objectives.token_cls:TokenClassification',
        'embedding': 'swift.objectives.embedding:Embedding',
        'reranker': 'swift.objectives.reranker:Reranker',
        'generative_reranker': 'swift.objectives.generative_reranker:GenerativeReranker',
        'multi_task': 'swift.objectives.multi_task:MultiTask',
    },
)
"""Name → Objective class."""


def loss_names(args: Any) -> list[str]:
    """The losses of `--loss_type`: one or none in swift sft, several in swift rlhf."""
    chosen = getattr(args, 'loss_type', None) or []
    return [chosen] if isinstance(chosen, str) else list(chosen)


def one_loss(args: Any, method: str) -> str:
    """The loss of a method that takes one of its own: `--loss_type`, or its default. Raises SwiftError for anything else."""
    known = METHODS[method].losses
    names = loss_names(args) or [known[0]]
    if len(names) > 1:
        raise SwiftError(f'--loss_type {" ".join(names)}: {method} takes one loss;', f'give one of {", ".join(known)}')
    if names[0] not in known:
        near = did_you_mean(names[0], known, cutoff=0.5)
        raise SwiftError(f'--loss_type {names[0]!r} is no loss of {method}: {", ".join(known)};', near or 'choose one of them')
    if getattr(args, 'loss_kwargs', None):
        raise SwiftError(f'--loss_kwargs: {names[0]} takes none;', 'drop it')
    return names[0]


def get_objective(name: str, args: Any, hidden_size: int | None = None):
    """The objective `name`, built complete from its own argument group. `hidden_size`: of the model, where it is known.

    For `sft` and `pt` a `loss_type` other than None or cross_entropy selects a registered loss of the user's own.
    """
    if name in ('sft', 'pt') and (losses := loss_names(args)) not in ([], ['cross_entropy']):
        from swift.objectives.custom import CustomLoss

        return CustomLoss(args, losses[0])
    return OBJECTIVES[name](args, hidden_size) if name == 'multi_task' else OBJECTIVES[name](args)
