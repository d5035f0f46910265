"""Learning from preferences: which method, its reference model, its coefficients."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class RlhfArgs:
    """What the preference objectives need, and where their reference model comes from."""

    rlhf_type: Literal['dpo', 'kto', 'orpo', 'cpo', 'simpo', 'rm'] | None = 'dpo'
    """Method: dpo, kto, orpo, cpo, simpo, or rm (reward model)."""
    loss_type: list[str] = field(default_factory=list)
    """Loss of the method (dpo: sigmoid, hinge, ipo, robust, …; several are added up), or names a plugin registered; none: the method's own."""
    loss_weights: list[float] | None = None
    """Weight of each loss in loss_type; None: 1 each."""
    beta: float | None = None
    """How strongly the policy is held to the reference; None: 0.1 (simpo: 2)."""
    label_smoothing: float = 0.0
    """Probability that a preference is labelled the wrong way round (dpo, cpo, simpo)."""
    rpo_alpha: float | None = None
    """Weight of the mean log-likelihood of chosen answers added to the dpo loss; None: not added."""
    ld_alpha: float | None = None
    """Weight of the tokens beyond the length that both answers share (length-desensitised dpo); None: 1."""
    discopop_tau: float = 0.05
    """Temperature of the discopop loss."""
    f_divergence_type: Literal['reverse_kl', 'forward_kl', 'js_divergence', 'alpha_divergence'] = 'reverse_kl'
    """Divergence that holds the policy to the reference (dpo)."""
    f_alpha_divergence_coef: float = 0.5
    """Alpha of the alpha divergence."""
    use_weighting: bool = False
    """Weigh every pair by its probability under the policy (WPO)."""
    reference_free: bool = False
    """Without a reference model: a uniform one takes its place (dpo)."""
    ref_model: str | None = None
    """Reference model; None: the model as it was before training."""
    ref_adapters: list[str] = field(default_factory=list)
    """Adapters on the reference model."""
    ref_model_type: str | None = None
    """Model family of ref_model; inferred from config.json."""
    ref_model_revision: str | None = None
    """Branch, tag or commit of ref_model."""
    precompute_ref_log_probs: bool = False
    """Compute the reference's log-probabilities once, before training, and keep them on disk."""
    sync_ref_model: bool = False
    """Let the reference follow the policy (TR-DPO)."""
    ref_model_sync_steps: int = 512
    """Optimizer steps between two moves of the reference."""
    ref_model_mixup_alpha: float = 0.6
    """Share of the policy in the reference after a move."""
    cpo_alpha: float | None = None
    """Weight of the log-likelihood of chosen answers in cpo and simpo; None: 1 (simpo: 0)."""
    simpo_gamma: float = 1.0
    """Margin by which simpo wants chosen answers ahead."""
    desirable_weight: float = 1.0
    """Weight of desirable rows in kto."""
    undesirable_weight: float = 1.0
    """Weight of undesirable rows in kto."""
    calculate_KL: bool | None = None
    """Estimate the KL term of kto from mismatched answers; None: where the loss has one."""
    center_rewards_coefficient: float | None = None
    """Weight of the squared sum of both rewards in rm, which keeps them around 0; None: not added."""
