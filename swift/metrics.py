"""The import path `swift.metrics`: metrics by name."""

from swift.core.lazy import lazy_face

__getattr__, __dir__, __all__ = lazy_face(
    __name__,
    {
        'eval_metrics_map': 'swift.trainers.metrics',
        'MeanMetric': 'swift.trainers.metrics',
        'compute_acc': 'swift.trainers.metrics',
    },
)
