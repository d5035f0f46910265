"""`swift sft --eval_dataset`: questions with known answers, asked of the model at every evaluation of its training."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from swift.core.dist import is_master, rank, world_size
from swift.core.errors import RowError
from swift.parallel import group
from swift.pipelines.eval_judge import judge_set, judges_of
from swift.pipelines.eval_kinds import Item
from swift.pipelines.eval_sets import EvalSet, read_sets

ANSWERS = 'eval_answers.jsonl'
LONGEST = 512
"""Tokens of an answer, unless --max_new_tokens or --eval_generation_config say otherwise."""


class QuestionEval:
    """`evaluation(step)` → `{'sums_accuracy': …}`: for each data set its figures; the processes share the work.

    Each call appends the answers to `run_dir/eval_answers.jsonl`. A row that can't be asked is a wrong answer.
    """

    def __init__(self, generate: Callable[[Sequence[Any]], Sequence[str]], sets: Sequence[EvalSet], run_dir: str):
        self.generate, self.sets, self.run_dir = generate, list(sets), run_dir
        for each in self.sets:
            judges_of(each.metrics, each.kind)  # unknown names are told before the training

    def __call__(self, step: int = 0) -> dict[str, float]:
        """Ask, judge, write. Called on every process; every process gets the same figures."""
        start = time.monotonic()
        asked = [(s, i, item) for s, each in enumerate(self.sets) for i, item in enumerate(each.items) if isinstance(item, Item)]
        mine = asked[rank() :: world_size()]
        answers = self.generate([item.talk for _, _, item in mine]) if mine else []
        said = {(s, i): a for part in group.gather([(s, i, a) for (s, i, _), a in zip(mine, answers, strict=True)]) for s, i, a in part}
        found: dict[str, float] = {}
        lines: list[dict[str, Any]] = []
        for number, each in enumerate(self.sets):
            kept = [i for i, item in enumerate(each.items) if isinstance(item, Item)]
            figures, scores = judge_set([said[number, i] for i in kept], [each.items[i] for i in kept], each.metrics, each.kind)
            share = len(kept) / len(each.items)  # rows that can't be asked count as wrong
            found |= {f'{each.name}_{metric}': figure['mean'] * share for metric, figure in figures.items()}
            lines += [
                {'step': step, 'dataset': each.name, 'index': i, 'response': said[number, i], 'reference': each.items[i].reference, 'scores': score}
                for i, score in zip(kept, scores, strict=True)
            ]
        if is_master():
            self._write(lines)
        return {**found, 'questions_runtime': round(time.monotonic() - start, 3)}

    def _write(self, lines: Sequence[dict[str, Any]]) -> None:
        os.makedirs(self.run_dir, exist_ok=True)
        with open(os.path.join(self.run_dir, ANSWERS), 'a', encoding='utf-8') as stream:
            stream.writelines(json.dumps(line, ensure_ascii=False, default=str) + '\n' for line in lines)


def question_eval(model: Any, template: Any, args: Any, run_dir: str) -> QuestionEval:
    """The evaluation of --eval_dataset, by the model as it is when it is asked. Raises SwiftError for what can't be read or judged."""
    from swift.pipelines.answers import answerer
    from swift.pipelines.eval import eval_config

    sets = read_sets(SimpleNamespace(
        eval_dataset=args.eval_dataset, eval_dataset_args=args.eval_dataset_args, eval_limit=args.eval_limit, eval_metrics=[],
        eval_mode='generate', num_shots=0, shots_dataset=None, columns={}, root_image_dir=args.root_image_dir,
    ))  # fmt: skip
    for each in sets:
        if args.strict and (bad := next((item for item in each.items if isinstance(item, RowError)), None)):
            raise bad
    longest = LONGEST if args.max_new_tokens is None else args.max_new_tokens
    asked = replace(args, max_new_tokens=longest, temperature=args.temperature or 0.0)
    return QuestionEval(answerer(model, template, args, eval_config(asked)), sets, run_dir)
