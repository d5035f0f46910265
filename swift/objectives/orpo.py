"""ORPO (Hong et al. 2024, arXiv:2403.07691): the likelihood of the chosen answer, and its odds against the rejected one.

    L = -log π(w) per token of the step - β log σ(log odds(w) - log odds(l)),   odds(y) = p / (1 - p),  log p = log π(y)/|y|

The paper's π is of the answer given its prompt (eq. 1 and 2), so the likelihood is of labelled tokens only; prompts are not
trained. The paper takes the mean over the tokens of each answer, here it is the mean over the tokens of the step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from swift.objectives.dpo import ByName
from swift.objectives.dpo_losses import register_pair_loss
from swift.objectives.preference import NLL, Compared

CERTAIN = -1e-6
"""Mean log-probability above which the odds are held constant: an answer that is certain has no finite odds."""


@register_pair_loss('orpo')
def orpo(pairs: Compared, args: Any) -> Tensor:
    return -args.beta * logsigmoid(log_odds(pairs))


def log_odds(pairs: Compared) -> Tensor:
    """[P] log odds of the chosen answers minus those of the rejected ones, from mean log-probabilities."""
    return pairs.policy.map(lambda logp: logp - _log1mexp(logp.clamp(max=CERTAIN))).gap


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x < 0, exact at both ends."""
    return torch.where(x < -0.6931472, torch.log1p(-x.exp()), torch.log(-torch.expm1(x)))


class ORPO(ByName):
    """`args`: beta, loss_type, loss_weights, loss_kwargs (RlhfArgs).

    Rewards and log-probabilities in the metrics are means over the tokens of an answer.
    """

    method = 'orpo'
    averaged = True

    def terms(self, pairs: Compared) -> dict[str, tuple[float, Tensor]]:
        return {**super().terms(pairs), NLL: (1.0, pairs.nll)}

    def metrics(self, pairs: Compared, terms: dict[str, tuple[float, Tensor]]) -> dict[str, Tensor]:
        odds = log_odds(pairs)
        return {**super().metrics(pairs, terms), 'log_odds_chosen': odds, 'log_odds_ratio': logsigmoid(odds)}
