"""Evaluation by generation (`--predict_with_generate`): answers are generated, compared with the references, and kept in a file.

The engine is handed in as a function, because trainers know no engine.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from swift.core.dist import is_master, rank, world_size
from swift.core.errors import DatasetError
from swift.core.types import Conversation
from swift.parallel import group
from swift.trainers.metrics import TextMetric, eval_metrics_map

Generate = Callable[[Sequence[Conversation]], Sequence[str]]
"""Conversations that end with a user's turn → the answers' texts, in the same order."""

PREDICTIONS = 'predict.jsonl'


class GenerationEval:
    """`evaluation(step)` → `{'rouge-l': …, 'bleu-4': …, …}` over the validation rows; the processes share the work.

    `rows` end with the reference answer (an assistant message). `metric` is a name of eval_metrics_map or a function
    `(predictions, references) → {name: number}`. Each call appends its answers to `run_dir/predict.jsonl` in row order.
    """

    def __init__(self, generate: Generate, rows: Sequence[Conversation], run_dir: str, metric: str | TextMetric = 'nlg'):
        self.generate = generate
        self.run_dir = run_dir
        self.metric: TextMetric = eval_metrics_map[metric] if isinstance(metric, str) else metric
        self.prompts: list[Conversation] = []
        self.references: list[str] = []
        for row in rows:
            prompt, reference = split_answer(row)
            if reference is not None:
                self.prompts.append(prompt)
                self.references.append(reference)
        if not self.prompts:
            raise DatasetError('--predict_with_generate: no validation row ends with an assistant message to compare with;',
                               'check --val_dataset')

    def __call__(self, step: int = 0) -> dict[str, float]:
        """Generate, compare, write. Called on every process; every process gets the same figures."""
        start = time.monotonic()
        mine = list(range(rank(), len(self.prompts), world_size()))
        answers = self.generate([self.prompts[index] for index in mine]) if mine else []
        pairs = dict(pair for part in group.gather(list(zip(mine, answers, strict=True))) for pair in part)
        predictions = [pairs[index] for index in range(len(self.prompts))]
        scores = {name: float(value) for name, value in self.metric(predictions, self.references).items()}
        if is_master():
            self._write(step, predictions)
        return {**scores, 'generate_runtime': round(time.monotonic() - start, 3)}

    def _write(self, step: int, predictions: Sequence[str]) -> None:
        os.makedirs(self.run_dir, exist_ok=True)
        with open(os.path.join(self.run_dir, PREDICTIONS), 'a', encoding='utf-8') as stream:
            for prompt, prediction, reference in zip(self.prompts, predictions, self.references, strict=True):
                record: dict[str, Any] = {'step': step, 'response': prediction, 'labels': reference, 'messages': prompt.messages}
                stream.write(json.dumps(record, ensure_ascii=False, default=str) + '\n')


def split_answer(row: Conversation) -> tuple[Conversation, str | None]:
    """The conversation up to its last assistant message, and that message's text; (row, None) when it doesn't end with one."""
    if not row.messages or row.messages[-1].get('role') != 'assistant':
        return row, None
    content = row.messages[-1].get('content')
    if isinstance(content, list):
        content = ''.join(part.get('text', '') for part in content if part.get('type') == 'text')
    if not content:
        return row, None
    return dataclasses.replace(row, messages=row.messages[:-1]), content
