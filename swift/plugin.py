"""The import path `swift.plugin`: the registries that a user's plugin file fills, each loaded on first use."""

from swift.core.lazy import lazy_face

_NAMES = {
    'loss_map': 'swift.objectives.custom',
    'register_loss': 'swift.objectives.custom',
    'register_pair_loss': 'swift.objectives.dpo_losses',
    'pair_losses': 'swift.objectives.dpo_losses',
    'TaskRouter': 'swift.objectives.multi_task',
    'MultiTaskLoss': 'swift.objectives.multi_task',
    'callbacks_map': 'swift.trainers.callbacks',
    'optimizers_map': 'swift.trainers.optimizers',
    'OptimizerCallback': 'swift.trainers.optimizers',
    'eval_metrics_map': 'swift.trainers.metrics',
    'ORM': 'swift.rewards',
    'orms': 'swift.rewards',
    'PRM': 'swift.rewards',
    'prms': 'swift.rewards',
    'eval_kinds': 'swift.pipelines.eval_kinds',
    'tuners_map': 'swift.tuners',
    'Tuner': 'swift.tuners',
    'templates_map': 'swift.template',
    'register_template': 'swift.template',
    'models_map': 'swift.model',
    'register_model': 'swift.model',
    'register_dataset': 'swift.dataset',
}

__getattr__, __dir__, __all__ = lazy_face(__name__, _NAMES)
