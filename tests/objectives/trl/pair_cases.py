"""Settings of the golden numbers of dpo, cpo, simpo and orpo: label → (method, settings of RlhfArgs, which are also TRL's)."""

from __future__ import annotations

from typing import Any

_SCORES = ('sigmoid', 'sigmoid_norm', 'hinge', 'ipo', 'robust', 'exo_pair', 'discopop')
_STEEP = (('discopop', 'forward_kl'), ('ipo', 'forward_kl'))
"""Exponentials of exponentials and their squares: the last bit of a float32 log-probability is 1e-5 of the loss and more."""


def _dpo(loss: str | list[str], **settings: Any) -> tuple[str, dict[str, Any]]:
    return 'dpo', {'loss_type': [loss] if isinstance(loss, str) else loss, 'beta': 0.1, **settings}


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{f'dpo {loss}': _dpo(loss) for loss in (
        'sigmoid', 'hinge', 'ipo', 'bco_pair', 'sppo_hard', 'nca_pair', 'aot', 'aot_unpaired', 'apo_zero', 'apo_down', 'discopop',
        'sigmoid_norm', 'sft', 'robust',
    )},
    **{f'dpo {loss} beta 0.5': _dpo(loss, beta=0.5) for loss in ('sigmoid', 'hinge', 'ipo', 'sppo_hard', 'discopop')},
    **{f'dpo {loss} smoothed': _dpo(loss, label_smoothing=0.2) for loss in ('robust', 'exo_pair', 'aot', 'aot_unpaired')},
    'dpo exo_pair by default': _dpo('exo_pair', label_smoothing=1e-3),
    'dpo discopop tau': _dpo('discopop', discopop_tau=0.3),
    **{f'dpo {loss} {kind}': _dpo(loss, f_divergence_type=kind, label_smoothing=0.1 if loss in ('robust', 'exo_pair') else 0.0)
       for loss in _SCORES for kind in ('forward_kl', 'js_divergence', 'alpha_divergence') if (loss, kind) not in _STEEP},
    **{f'dpo sigmoid alpha {alpha}': _dpo('sigmoid', f_divergence_type='alpha_divergence', f_alpha_divergence_coef=alpha)
       for alpha in (0.0, 0.9, 1.0, 1.5)},
    **{f'dpo {loss} ld_alpha {alpha}': _dpo(loss, ld_alpha=alpha)
       for loss, alpha in (('sigmoid', 0.0), ('sigmoid', 0.5), ('ipo', 0.5), ('aot', 0.5), ('sft', 0.5))},
    **{f'dpo {loss} weighted': _dpo(loss, use_weighting=True) for loss in ('sigmoid', 'sigmoid_norm', 'ipo', 'nca_pair')},
    'dpo three losses': _dpo(['sigmoid', 'hinge', 'sft'], loss_weights=[0.8, 0.2, 1.5]),
    'dpo two losses': _dpo(['ipo', 'apo_zero']),
    'dpo three losses ld_alpha': _dpo(['aot', 'sigmoid', 'sft'], loss_weights=[0.5, 0.2, 0.1], ld_alpha=0.3),
    **{f'cpo {loss} alpha {alpha}': ('cpo', dict(loss_type=[loss], beta=0.1, cpo_alpha=alpha))
       for loss in ('sigmoid', 'hinge', 'ipo') for alpha in (0.0, 1.0)},
    'cpo sigmoid smoothed': ('cpo', dict(loss_type=['sigmoid'], beta=0.3, cpo_alpha=0.5, label_smoothing=0.1)),
    'simpo': ('simpo', dict(loss_type=['simpo'], beta=2.0, simpo_gamma=1.0, cpo_alpha=0.0)),
    'simpo gamma 0.3': ('simpo', dict(loss_type=['simpo'], beta=2.5, simpo_gamma=0.3, cpo_alpha=0.0)),
    'simpo smoothed': ('simpo', dict(loss_type=['simpo'], beta=2.0, simpo_gamma=1.0, cpo_alpha=0.0, label_smoothing=0.1)),
    'cpo-simpo': ('simpo', dict(loss_type=['simpo'], beta=2.0, simpo_gamma=1.0, cpo_alpha=1.0)),
    'orpo': ('orpo', dict(beta=0.1)),
    'orpo beta 0.5': ('orpo', dict(beta=0.5)),
    'orpo one-token prompts': ('orpo', dict(beta=0.1)),
}  # fmt: skip


def rows_of(label: str, rows: list[dict]) -> list[dict]:
    """The rows of a case. With prompts of one token, a whole conversation and its answer have the same predicted tokens."""
    if label.endswith('one-token prompts'):
        return [{**row, 'prompt': row['prompt'][:1]} for row in rows]
    return rows
