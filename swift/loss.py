"""The import path `swift.loss`: losses by name."""

from swift.core.lazy import lazy_face

__getattr__, __dir__, __all__ = lazy_face(
    __name__,
    {
        'loss_map': 'swift.objectives.custom',
        'register_loss': 'swift.objectives.custom',
        'pair_losses': 'swift.objectives.dpo_losses',
        'register_pair_loss': 'swift.objectives.dpo_losses',
        'MultiTaskLoss': 'swift.objectives.multi_task',
    },
)
