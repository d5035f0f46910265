"""A metric of your own for generated answers, and the optimizer that trains for it.

swift sft --external_plugins examples/custom/metric.py --predict_with_generate true --eval_metric same_numbers --optimizer calm ...
"""

import re

import torch

from swift.plugin import OptimizerCallback, eval_metrics_map, optimizers_map


def same_numbers(predictions, references):
    """Percentage of answers that name the same numbers as the reference, in whatever words."""
    pairs = [(re.findall(r'\d+', mine), re.findall(r'\d+', theirs)) for mine, theirs in zip(predictions, references, strict=True)]
    return {'same_numbers': 100 * sum(mine == theirs for mine, theirs in pairs) / max(len(pairs), 1)}


class Calm(OptimizerCallback):
    """AMSGrad: the step never grows again where gradients were large once."""

    def create_optimizer(self):
        return torch.optim.AdamW(self.groups(), lr=self.args.learning_rate, amsgrad=True)


eval_metrics_map['same_numbers'] = same_numbers
optimizers_map['calm'] = Calm
