"""Reward models (Bradley & Terry 1952; Ouyang et al. 2022, arXiv:2203.02155 eq. 1): a number for a conversation.

With r the score of a whole conversation, read at its last token, and m the row's margin (Touvron et al. 2023, arXiv:2307.09288
eq. 2; 0 where the row has none):

    -log σ(r_chosen - r_rejected - m)  +  c · (r_chosen + r_rejected)²

The second term, with c the center_rewards_coefficient, keeps rewards around 0 (Eisenstein et al. 2023, arXiv:2312.09244).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.nn.functional import logsigmoid

from swift.core.errors import RowError, SwiftError
from swift.core.types import Actors, Batch, Conversation, Loss, Message, Sample, Template
from swift.objectives import one_loss
from swift.objectives.preference import Pairs, Preference


class RewardModel(Preference):
    """`args`: loss_type, center_rewards_coefficient (RlhfArgs). The policy has a head with one value."""

    def __init__(self, args: Any):
        super().__init__(args)
        one_loss(args, 'rm')

    def encode_batch(self, conversations: Sequence[Conversation], template: Template) -> list[list[Sample] | RowError]:
        """One sample for every rejected answer; which messages would be trained as text makes no difference."""
        return super().encode_batch([_unmarked(talk) for talk in conversations], template)

    def loss(self, batch: Batch, actors: Actors) -> Loss:
        """The sum over pairs. A tie counts as wrong in the accuracy."""
        rewards = Pairs.of(_single(actors.policy.scores(batch)))
        gap = rewards.gap
        margin = batch.extra.get('margin')
        each = -logsigmoid(gap if margin is None else gap - margin)
        if self.args.center_rewards_coefficient:
            each = each + self.args.center_rewards_coefficient * (rewards.chosen + rewards.rejected).square()
        metrics = {
            'rewards/chosen': rewards.chosen,
            'rewards/rejected': rewards.rejected,
            'rewards/margins': gap,
            'rewards/accuracies': gap > 0,
        }
        return Loss(each.sum(), metrics)


def _unmarked(talk: Conversation) -> Conversation:
    """The conversation without `loss` fields, which could leave nothing of it for the template to keep."""

    def plain(messages: list[Message]) -> list[Message]:
        return [{name: value for name, value in message.items() if name != 'loss'} for message in messages]

    rejected = None if talk.rejected is None else plain(talk.rejected)
    return replace(talk, messages=plain(talk.messages), rejected=rejected, negatives=[plain(other) for other in talk.negatives or []] or None)


def _single(scores: Tensor) -> Tensor:
    """[S] from [S, 1], in float32: the difference of two rewards needs more digits than bfloat16 has."""
    if scores.shape[-1] != 1:
        raise SwiftError(f'a reward model has one score, this head has {scores.shape[-1]};', 'give --num_labels 1')
    return scores[:, 0].float()
