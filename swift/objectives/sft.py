"""Supervised fine-tuning and pre-training: cross entropy of the labelled tokens.

Per token with log-probability l, mean log-probability over the vocabulary m, log-partition s and weight w:

    w · ((1 - ε) · (-l) + ε · (-m) + c · s²)                     ε label smoothing, c the z-loss (arXiv:2204.02311)
    w · (-p · l) with p = exp(l) held constant                   dynamic fine-tuning (arXiv:2508.05629)

The sum is divided by the number of labelled tokens: a weight above 1 makes a token count more, not the others less.
"""

from __future__ import annotations

import torch
from torch import Tensor

from swift.core.types import Actors, AnswerTokens, Batch, Loss
from swift.objectives.base import Objective


class SFT(Objective):
    """`args`: label_smoothing_factor, enable_dft_loss, z_loss_coef, enable_channel_loss, acc_strategy (TrainArgs)."""

    def loss(self, batch: Batch, actors: Actors) -> Loss:
        tokens = actors.policy.answer_logps(batch, want=self._want())
        each = self._each(tokens)
        metrics = {} if self.args.acc_strategy == 'seq' else {'token_acc': tokens.correct}
        if self.args.acc_strategy == 'seq':
            metrics['seq_acc'] = whole_answers(tokens, len(batch.lengths))
        if self.args.enable_channel_loss:
            metrics.update(by_channel(each.detach(), tokens.segment, batch.channels))
        if batch.weights is not None:
            each = each * batch.weights.reshape(-1)[tokens.index]
        return Loss(each.sum(), metrics)

    def _want(self) -> tuple[str, ...]:
        args = self.args
        names = ('mean_logps',) if args.label_smoothing_factor else ()
        return (*names, 'logsumexp') if args.z_loss_coef else names

    def _each(self, tokens: AnswerTokens) -> Tensor:
        """[N] loss of every labelled token, without its weight."""
        smooth = self.args.label_smoothing_factor
        each = -tokens.logps
        if smooth:
            each = (1 - smooth) * each - smooth * tokens.mean_logps
        if self.args.enable_dft_loss:
            each = each * tokens.logps.detach().exp()
        if self.args.z_loss_coef:
            each = each + self.args.z_loss_coef * tokens.logsumexp.square()
        return each


def by_channel(each: Tensor, segment: Tensor, channels: list[str | None] | None) -> dict[str, Tensor]:
    """`loss_<channel>` → losses of the tokens of that channel."""
    names = sorted({name for name in channels or () if name is not None})
    places = {name: torch.tensor([c == name for c in channels], device=segment.device) for name in names}
    return {f'loss_{name}': each[place[segment]] for name, place in places.items()}


def whole_answers(tokens: AnswerTokens, segments: int) -> Tensor:
    """For every segment with a label: 1 when all its labelled tokens are right, else 0."""
    device = tokens.segment.device
    wrong = torch.zeros(segments, device=device).index_add_(0, tokens.segment, (~tokens.correct).float())
    asked = torch.zeros(segments, dtype=torch.bool, device=device)
    asked[tokens.segment] = True
    return (wrong == 0)[asked]
