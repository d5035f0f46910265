"""The losses of pairs by name, and how to add one.

With r = log π/π_ref of an answer (w chosen, l rejected), |y| its tokens, s = f(r) for the divergence f (s = r for reverse KL),
z = β (s_w - s_l), σ the logistic function and ε the label smoothing, the loss of a pair is

    sigmoid       -(1-ε) log σ(z) - ε log σ(-z)                             DPO arXiv:2305.18290; ε: cDPO (Mitchell 2023)
    sigmoid_norm  the same with s / |y|                                     Tülu 3 arXiv:2411.15124
    hinge         max(0, 1 - z)                                             SLiC arXiv:2305.10425, RSO arXiv:2309.06657
    ipo           (s_w/|w| - s_l/|l| - 1/(2β))²                             arXiv:2310.12036 eq. 17, per token as its authors do
    robust        (-(1-ε) log σ(z) + ε log σ(-z)) / (1-2ε)                  arXiv:2403.00409
    exo_pair      KL( (σ(z), σ(-z)) ‖ (1-ε, ε) ), ε 1e-3 where it is 0      EXO arXiv:2402.00856 eq. 16
    nca_pair      -log σ(βr_w) - ½ log σ(-βr_w) - ½ log σ(-βr_l)            NCA arXiv:2402.05369
    bco_pair      -log σ(βr_w - δ) - log σ(-(βr_l - δ))                     BCO arXiv:2404.04656; δ: mean reward of the step
    sppo_hard     (r_w - 1/(2β))² + (r_l + 1/(2β))²                         SPPO arXiv:2405.00675 with probabilities 1 and 0
    aot           sigmoid of the i-th smallest log π(w)/π(l) against the    AOT arXiv:2406.05882
                  i-th smallest log π_ref(w)/π_ref(l) of the step
    aot_unpaired  sigmoid of the i-th smallest r_w against the i-th smallest r_l of the step
    apo_zero      1 - σ(βr_w) + σ(βr_l)                                     APO arXiv:2408.06266 eq. 7
    apo_down      σ(βr_w) + 1 - σ(β(r_w - r_l))                             APO eq. 8
    discopop      -log σ(z) (1-m) + exp(-z) m,  m = σ(z/τ)                  DiscoPOP arXiv:2406.08414 eq. 5
    sft           -log π(w) per token of the step                           RPO arXiv:2404.19733 (there: per token of the answer)

aot, aot_unpaired and bco_pair look at all pairs of an optimizer step (`Step`), whatever its micro-batches and processes.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from swift.core.errors import SwiftError
from swift.core.registry import Registry
from swift.objectives.custom import loss_map
from swift.objectives.preference import NLL, Compared, Pairs

PairLoss = Callable[..., Tensor]
"""(pairs: Compared, args: RlhfArgs, **loss_kwargs) → [P]."""

pair_losses = Registry('loss_type')
"""Name → PairLoss; `pair_losses['mine'] = mine` registers."""


def register_pair_loss(name: str, *, whole_step: bool = False) -> Callable[[PairLoss], PairLoss]:
    """Decorator: a loss of pairs for `--loss_type name` of dpo and cpo.

    `whole_step`: it reads `pairs.step.own` and `pairs.step.all`, the log-probabilities of every pair of the optimizer step.
    """

    def add(function: PairLoss) -> PairLoss:
        pair_losses[name] = function
        if whole_step:
            _WHOLE_STEP.add(name)
        return function

    return add


_WHOLE_STEP: set[str] = set()


def whole_step(name: str) -> bool:
    """Whether the loss looks at all pairs of a step."""
    return name in _WHOLE_STEP


def build(names: list[str], kwargs: Mapping[str, Any]) -> dict[str, PairLoss]:
    """Name → loss with those of the keyword arguments that it takes. SwiftError for an unknown name, or an argument none takes."""
    found, unused = {}, set(kwargs)
    for name in names:
        if name in loss_map and name not in pair_losses:
            raise SwiftError(f'loss_type {name!r} is a loss of swift sft;', 'register a loss of pairs by register_pair_loss')
        function = pair_losses[name]
        parameters = list(inspect.signature(function).parameters.values())[2:]
        every = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
        taken = set(kwargs) if every else set(kwargs) & {parameter.name for parameter in parameters}
        unused -= taken
        found[name] = partial(function, **{key: kwargs[key] for key in taken}) if taken else function
    if unused:
        raise SwiftError(f'--loss_kwargs: {sorted(unused)[0]!r} is no argument of --loss_type {" ".join(names)};', 'correct it')
    return found


# ---- divergences

LARGEST = 80.0
"""Exponents end here: e^89 is no float32, and infinity times a gradient of 0 is no number."""


def scores(ratio: Pairs, args: Any) -> Pairs:
    """f'(π/π_ref) up to a constant, from log π/π_ref: the reward that a divergence other than reverse KL implies (arXiv:2309.16240)."""
    kind, alpha = args.f_divergence_type, args.f_alpha_divergence_coef
    if kind == 'forward_kl':  # 1 - 1/t
        return ratio.map(lambda r: -torch.expm1((-r).clamp(max=LARGEST)))
    if kind == 'js_divergence':  # log 2t/(1+t)
        return ratio.map(lambda r: math.log(2) + logsigmoid(r))
    if kind == 'alpha_divergence' and abs(alpha - 1) > 1e-6:  # (t^(α-1) - 1)/(α-1); α → 1 is log t
        return ratio.map(lambda r: torch.expm1(((alpha - 1) * r).clamp(max=LARGEST)) / (alpha - 1))
    return ratio


def _z(pairs: Compared, args: Any) -> Tensor:
    return args.beta * scores(pairs.ratio, args).gap


def _per_token(pairs: Compared, args: Any) -> Tensor:
    return (scores(pairs.ratio, args) / pairs.lengths).gap


def smooth(z: Tensor, epsilon: float) -> Tensor:
    """-log σ(z), of a label that is wrong with probability epsilon."""
    return -(1 - epsilon) * logsigmoid(z) - epsilon * logsigmoid(-z)


# ---- the losses


@register_pair_loss('sigmoid')
def sigmoid(pairs: Compared, args: Any) -> Tensor:
    return smooth(_z(pairs, args), args.label_smoothing)


@register_pair_loss('sigmoid_norm')
def sigmoid_norm(pairs: Compared, args: Any) -> Tensor:
    return smooth(args.beta * _per_token(pairs, args), args.label_smoothing)


@register_pair_loss('hinge')
def hinge(pairs: Compared, args: Any) -> Tensor:
    return torch.relu(1 - _z(pairs, args))


@register_pair_loss('ipo')
def ipo(pairs: Compared, args: Any) -> Tensor:
    return (_per_token(pairs, args) - 1 / (2 * args.beta)).square()


@register_pair_loss('robust')
def robust(pairs: Compared, args: Any) -> Tensor:
    z, epsilon = _z(pairs, args), args.label_smoothing
    return (-(1 - epsilon) * logsigmoid(z) + epsilon * logsigmoid(-z)) / (1 - 2 * epsilon)


@register_pair_loss('exo_pair')
def exo_pair(pairs: Compared, args: Any) -> Tensor:
    z, epsilon = _z(pairs, args), args.label_smoothing or 1e-3
    right, wrong = logsigmoid(z), logsigmoid(-z)
    return right.exp() * (right - math.log1p(-epsilon)) + wrong.exp() * (wrong - math.log(epsilon))


@register_pair_loss('nca_pair')
def nca_pair(pairs: Compared, args: Any) -> Tensor:
    reward = pairs.ratio.map(lambda r: args.beta * r)
    return -logsigmoid(reward.chosen) - 0.5 * logsigmoid(-reward.chosen) - 0.5 * logsigmoid(-reward.rejected)


@register_pair_loss('bco_pair', whole_step=True)
def bco_pair(pairs: Compared, args: Any) -> Tensor:
    every = pairs.step.all
    delta = args.beta * (every[:, :2] - every[:, 2:]).mean() if len(every) else 0.0
    reward = pairs.ratio.map(lambda r: args.beta * r - delta)
    return -logsigmoid(reward.chosen) - logsigmoid(-reward.rejected)


@register_pair_loss('sppo_hard')
def sppo_hard(pairs: Compared, args: Any) -> Tensor:
    aim = 0.5 / args.beta
    return (pairs.ratio.chosen - aim).square() + (pairs.ratio.rejected + aim).square()


@register_pair_loss('aot', whole_step=True)
def aot(pairs: Compared, args: Any) -> Tensor:
    own, every = pairs.step.own, pairs.step.all
    partner = _opposite(own[:, 0] - own[:, 1], every[:, 0] - every[:, 1], every[:, 2] - every[:, 3])
    return smooth(args.beta * (pairs.policy.gap - partner), args.label_smoothing)


@register_pair_loss('aot_unpaired', whole_step=True)
def aot_unpaired(pairs: Compared, args: Any) -> Tensor:
    """Both sides learn: each answer's term holds its partner fixed, and the two terms of a rank count once."""
    own, every = pairs.step.own[:, :2] - pairs.step.own[:, 2:], pairs.step.all[:, :2] - pairs.step.all[:, 2:]
    below = _opposite(own[:, 0], every[:, 0], every[:, 1])
    above = _opposite(own[:, 1], every[:, 1], every[:, 0])
    both = smooth(args.beta * (pairs.ratio.chosen - below), args.label_smoothing)
    both = both + smooth(args.beta * (above - pairs.ratio.rejected), args.label_smoothing)
    return both - 0.5 * both.detach()


def _opposite(own: Tensor, every: Tensor, other: Tensor) -> Tensor:
    """For each of `own` (all found in `every`): the value of `other` [N] with the same rank that it has in `every` [N]."""
    if not len(every):  # a filler of a step without pairs
        return torch.zeros_like(own)
    ordered, own = every.sort().values, own.contiguous()
    first = torch.searchsorted(ordered, own)
    last = torch.searchsorted(ordered, own, right=True) - 1
    middle = ((first + last) // 2).clamp(0, len(every) - 1)  # equal values share the middle one of their ranks
    return other.sort().values[middle]


@register_pair_loss('apo_zero')
def apo_zero(pairs: Compared, args: Any) -> Tensor:
    reward = pairs.ratio.map(lambda r: args.beta * r)
    return torch.sigmoid(-reward.chosen) + torch.sigmoid(reward.rejected)


@register_pair_loss('apo_down')
def apo_down(pairs: Compared, args: Any) -> Tensor:
    reward = pairs.ratio.map(lambda r: args.beta * r)
    return torch.sigmoid(reward.chosen) + torch.sigmoid(-reward.gap)


@register_pair_loss('discopop')
def discopop(pairs: Compared, args: Any) -> Tensor:
    z = _z(pairs, args)
    share = torch.sigmoid(z / args.discopop_tau)
    return -logsigmoid(z) * (1 - share) + torch.exp(-z) * share


@register_pair_loss(NLL)
def sft(pairs: Compared, args: Any) -> Tensor:
    return pairs.nll
