"""Contrastive preference optimisation (Xu et al. 2024, arXiv:2401.08417): no reference, and the likelihood of chosen answers beside it.

    L = L_prefer(β (log π(w) - log π(l))) + cpo_alpha · (-log π(w) per token of the step)

The paper's L_prefer is the sigmoid loss (eq. 3), its likelihood a sum over tokens; here it is a mean over them, so that
cpo_alpha does not depend on length. Losses: sigmoid, hinge, ipo of swift/objectives/dpo_losses.py with a reference of 0.
"""

from __future__ import annotations

from torch import Tensor

from swift.objectives.dpo import ByName
from swift.objectives.preference import NLL, Compared


class CPO(ByName):
    """`args`: beta, loss_type, loss_weights, loss_kwargs, label_smoothing, cpo_alpha (RlhfArgs)."""

    method = 'cpo'

    def terms(self, pairs: Compared) -> dict[str, tuple[float, Tensor]]:
        terms = super().terms(pairs)
        return {**terms, NLL: (self.args.cpo_alpha, pairs.nll)} if self.args.cpo_alpha else terms
