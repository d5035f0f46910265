"""Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290) and its relatives: swift/objectives/dpo_losses.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from swift.arguments.methods import METHODS
from swift.core.errors import SwiftError
from swift.core.types import AnswerTokens
from swift.objectives import loss_names
from swift.objectives.dpo_losses import build, whole_step
from swift.objectives.preference import NLL, Compared, PairLikelihoods, segment_counts, segment_sums


class ByName(PairLikelihoods):
    """Base of methods whose losses are chosen by `--loss_type`. `args`: loss_type, loss_weights, loss_kwargs and what the losses read."""

    method = 'dpo'

    def __init__(self, args: Any):
        super().__init__(args)
        self.names = loss_names(args) or [METHODS[self.method].losses[0]]
        for name in self.names:
            owners = [owner for owner, method in METHODS.items() if name in method.losses]
            if owners and self.method not in owners:
                raise SwiftError(f'loss_type {name!r} is no loss of {self.method};', f'it belongs to {", ".join(owners)}')
        steep = [name for name in self.names if name in ('ipo', 'sppo_hard')]
        if steep and not args.beta:
            raise SwiftError(f'--loss_type {steep[0]} aims at 1/(2 beta), which --beta 0 makes infinite;', 'give a beta above 0')
        self.losses = build(self.names, args.loss_kwargs or {})
        self.weights = dict(zip(self.names, args.loss_weights or [1.0] * len(self.names), strict=True))
        if len(self.losses) < len(self.names):
            raise SwiftError(f'--loss_type {" ".join(self.names)} names a loss twice;', 'give it once, with its --loss_weights')
        self.whole_step = any(whole_step(name) for name in self.names)

    def terms(self, pairs: Compared) -> dict[str, tuple[float, Tensor]]:
        """Every loss of `--loss_type` with its weight."""
        return {name: (self.weights[name], self._values(name, pairs)) for name in self.names}

    def _values(self, name: str, pairs: Compared) -> Tensor:
        values = self.losses[name](pairs, self.args)
        if values.shape != pairs.policy.chosen.shape:
            wanted = list(pairs.policy.chosen.shape)
            raise SwiftError(f'loss_type {name!r} returned a tensor of shape {list(values.shape)};', f'return one value a pair, {wanted}')
        return values


class DPO(ByName):
    """`args`: beta, loss_type, loss_weights, loss_kwargs, label_smoothing, rpo_alpha, ld_alpha, use_weighting, f_divergence_type,
    f_alpha_divergence_coef, discopop_tau, reference_free (RlhfArgs).

    rpo_alpha      adds the loss sft with this weight (RPO, arXiv:2404.19733).
    ld_alpha       weight of the tokens of the longer answer beyond the length of the shorter (LD-DPO, arXiv:2409.06411).
    use_weighting  multiplies every loss but sft by Π over both answers of exp(mean over tokens of log p - log Σ p²) (WPO,
                   arXiv:2406.11827 eq. 2), without gradient.
    reference_free the reference is uniform: its log-probabilities are 0 and no reference is run.
    """

    roles = ('policy', 'reference')

    def __init__(self, args: Any):
        super().__init__(args)
        if args.reference_free:
            self.roles = ('policy',)
        self._refuse_contradictions()

    def terms(self, pairs: Compared) -> dict[str, tuple[float, Tensor]]:
        terms = super().terms(pairs)
        if self.args.use_weighting:
            terms = {name: (w, values if name == NLL else values * pairs.confidence) for name, (w, values) in terms.items()}
        if self.args.rpo_alpha:
            terms[NLL] = (self.args.rpo_alpha + terms.get(NLL, (0.0,))[0], pairs.nll)
        return terms

    def _want(self) -> tuple[str, ...]:
        return ('collision',) if self.args.use_weighting else ()

    def _emphasis(self, tokens: AnswerTokens, segments: int) -> Tensor | None:
        if self.args.ld_alpha is None:
            return None
        counts = segment_counts(tokens, segments)
        shared = counts.reshape(-1, 2).amin(1).repeat_interleave(2)
        place = torch.arange(len(tokens.segment), device=counts.device) - (counts.cumsum(0) - counts)[tokens.segment]
        return torch.where(place < shared[tokens.segment], 1.0, float(self.args.ld_alpha))

    def _confidence(self, tokens: AnswerTokens, segments: int) -> Tensor:
        if not self.args.use_weighting:
            return super()._confidence(tokens, segments)
        sums = segment_sums(tokens, tokens.logps.detach() - tokens.collision, segments)
        return (sums / segment_counts(tokens, segments).clamp(min=1)).reshape(-1, 2).sum(1).exp()

    def _refuse_contradictions(self) -> None:
        """SwiftError for settings whose combination means nothing."""
        args, divergence = self.args, self.args.f_divergence_type
        gaps = METHODS['dpo'].only['f_divergence_type']
        without = [name for name in self.names if name in METHODS['dpo'].losses and name not in gaps]
        if divergence != 'reverse_kl' and without:
            raise SwiftError(f'--f_divergence_type {divergence} means nothing to --loss_type {without[0]};', f'choose among {", ".join(gaps)}')
        if divergence != 'reverse_kl' and args.reference_free:
            raise SwiftError(f'--f_divergence_type {divergence} measures against a reference;', 'drop it or --reference_free true')
        ranked = [name for name in self.names if name.startswith('aot')]
        if args.use_weighting and ranked:
            raise SwiftError(f'--use_weighting true weighs pairs, which --loss_type {ranked[0]} takes apart;', 'drop one of them')
        if 'robust' in self.names and not 0 <= args.label_smoothing < 0.5:
            raise SwiftError('--loss_type robust needs --label_smoothing from 0 to below 0.5;', f'got {args.label_smoothing}')
