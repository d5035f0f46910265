"""A model's answers to the rows of a file, judged by functions of one's own.

    def exact(predictions, references):
        return {'accuracy': sum(p == r for p, r in zip(predictions, references)) / len(predictions)}

    results = Evaluator(model_path='output/run', eval_dataset='rows.jsonl', metrics=[exact], batch_size=8).evaluate()
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from swift.core.errors import SwiftError

Metric = Callable[[Sequence[Any], Sequence[Any]], Mapping[str, Any]]
"""(predictions, references) → {name: figure}."""


class Evaluator:
    """Answers every row as `swift infer` does and hands answers and references to the metrics.

    `model_path`: an id, a directory, a run or a checkpoint. `metrics`: functions, or names of `swift.metrics.eval_metrics_map` and
    `swift.plugin.orms` (accuracy, exact, …).
    `batch_size`: answers generated at once. Further keyword arguments are flags of swift infer (temperature is 0 unless given).
    """

    def __init__(
        self, model_path: str, eval_dataset: str | Sequence[str], metrics: Sequence[Metric | str] = (), batch_size: int = 8, **flags: Any
    ):
        if not metrics:
            raise SwiftError('an Evaluator without metrics says nothing;', 'give metrics=[function] or names such as rouge')
        self.metrics = [_metric(metric) for metric in metrics]
        self.flags = {'val_dataset': eval_dataset, 'max_batch_size': batch_size, **flags}
        self.model_path = model_path
        self.rows: list[dict[str, Any]] = []
        """The answered rows of the last evaluation."""

    def evaluate(self) -> dict[str, Any]:
        """The figures of all metrics. Rows without a reference are left out; raises SwiftError when none is left."""
        from swift.arguments import parse_args
        from swift.pipelines.infer import SwiftInfer
        from swift.pipelines.scoring import SCORING, task_of

        with tempfile.TemporaryDirectory() as folder:
            flags = {'model': self.model_path, 'result_path': os.path.join(folder, 'answers.jsonl'), **self.flags}
            if task_of(parse_args('infer', flags, quiet=True)) not in SCORING:
                flags = {'temperature': 0.0, **flags}
            self.rows = SwiftInfer(parse_args('infer', flags, quiet=True)).main()
        pairs = [(row['response'], row['labels']) for row in self.rows if row['labels'] is not None and 'error' not in row]
        if not pairs:
            raise SwiftError('no row of the evaluation data has an answer to compare with;', 'give rows with a response or a label')
        predictions, references = (list(column) for column in zip(*pairs, strict=True))
        return {name: value for metric in self.metrics for name, value in metric(predictions, references).items()}


def _metric(metric: Metric | str) -> Metric:
    if not isinstance(metric, str):
        return metric
    from swift.rewards import load_reward, orms
    from swift.trainers.metrics import eval_metrics_map

    if metric in eval_metrics_map or metric.partition(':')[0] not in orms:
        return eval_metrics_map[metric]
    reward = load_reward(metric)

    def mean(predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, float]:
        scores = [score for score in reward(list(map(str, predictions)), {'solution': references}) if score is not None]
        return {metric: sum(scores) / max(len(scores), 1)}

    return mean
