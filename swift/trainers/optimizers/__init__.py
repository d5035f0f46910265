"""Optimizers by name: `--optimizer NAME` picks an entry of `optimizers_map`; `--optim NAME` one of transformers' own."""

from swift.trainers.optimizers.base import OptimizerCallback, create_optimizer, optimizers_map

__all__ = ['OptimizerCallback', 'create_optimizer', 'optimizers_map']
