"""SimPO (Meng et al. 2024, arXiv:2405.14734 eq. 6): the mean log-probability of an answer is its reward, no reference is needed.

    L = -log σ(β (log π(w)/|w| - log π(l)/|l|) - γ)

`cpo_alpha` > 0 adds cpo_alpha · (-log π(w) per token of the step): CPO-SimPO.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from swift.objectives.cpo import CPO
from swift.objectives.dpo_losses import register_pair_loss, smooth
from swift.objectives.preference import Compared


@register_pair_loss('simpo')
def simpo(pairs: Compared, args: Any) -> Tensor:
    return smooth(args.beta * pairs.policy.gap - args.simpo_gamma, args.label_smoothing)


class SimPO(CPO):
    """`args`: beta, simpo_gamma, label_smoothing, cpo_alpha, loss_type, loss_weights, loss_kwargs (RlhfArgs).

    Rewards and log-probabilities in the metrics are means over the tokens of an answer; margins are without gamma.
    """

    method = 'simpo'
    averaged = True
