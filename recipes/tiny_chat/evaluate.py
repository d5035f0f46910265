"""Accuracy of a model on the held-out questions, task by task: an answer counts when it equals the right one exactly."""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

from tasks import ARITHMETIC


def accuracies(model: str, rows: list[dict], adapter: str | None = None, batch_size: int = 128) -> dict[str, tuple[int, int]]:
    """Task → (right answers, questions), greedily decoded."""
    from swift import AdapterRequest, InferRequest, RequestConfig, TransformersEngine

    engine = TransformersEngine(model, max_batch_size=batch_size)
    questions = [InferRequest(messages=row['messages'][:-1]) for row in rows]
    config = RequestConfig(max_tokens=32, temperature=0)
    answers = engine.infer(questions, config, adapter_request=AdapterRequest('adapter', adapter) if adapter else None)
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for row, answer in zip(rows, answers, strict=True):
        said = (answer.choices[0].message.content or '').strip()
        counts[row['task']][0] += said == row['solution']
        counts[row['task']][1] += 1
    return {task: (right, asked) for task, (right, asked) in counts.items()}


def share(counts: dict[str, tuple[int, int]], tasks) -> float:
    """Mean accuracy over those of the tasks that were asked, each task counting the same."""
    kept = [counts[task] for task in tasks if task in counts]
    return sum(right / asked for right, asked in kept) / len(kept)


def as_table(counts: dict[str, tuple[int, int]]) -> str:
    """A Markdown table with the two means at its end."""
    lines = ['| task | held-out questions | right |', '|---|---:|---:|']
    lines += [f'| {task} | {asked} | {right / asked:.0%} |' for task, (right, asked) in counts.items()]
    others = [task for task in counts if task not in ARITHMETIC]
    for name, tasks in (('arithmetic', ARITHMETIC), ('other tasks', others)):
        if any(task in counts for task in tasks):
            lines.append(f'| **{name}, mean** | | **{share(counts, tasks):.0%}** |')
    return '\n'.join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--model', default='tiny')
    parser.add_argument('--adapter')
    parser.add_argument('--data', type=Path, required=True, help='heldout.jsonl of generate.py')
    parser.add_argument('--json', type=Path, help='write the counts here too')
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.data.read_text(encoding='utf-8').splitlines()]
    counts = accuracies(options.model, rows, options.adapter)
    print(as_table(counts))
    if options.json:
        options.json.write_text(json.dumps(counts, indent=1), encoding='utf-8')


if __name__ == '__main__':
    main()
