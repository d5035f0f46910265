"""Training: one Trainer on transformers' Trainer, the forward, callbacks, optimizers, checkpoints, metrics."""
