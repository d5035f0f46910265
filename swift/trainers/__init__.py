"""Training: one Trainer on transformers' Trainer, the forward, callbacks, optimizers, checkpoints, metrics."""

from swift.core.lazy import lazy_face

__getattr__, __dir__, __all__ = lazy_face(
    __name__,
    {
        'Trainer': 'swift.trainers.trainer',
        'TrainingArguments': 'transformers',
        'TrainerCallback': 'transformers',
        # trainers for a model in hand are put together above this room; the path is a public one all the same
        'EmbeddingTrainer': 'swift.pipelines.in_hand',
        'RerankerTrainer': 'swift.pipelines.in_hand',
    },
)
