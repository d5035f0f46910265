"""Write the data of tiny-chat: `pt.jsonl` (text), `sft.jsonl` and `last.jsonl` (messages, tools), and `heldout.jsonl` (questions never trained).

The same seed gives the same files.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from random import Random

from tasks import ARITHMETIC, TASKS, conversation, document, draw, last_rows


def write(path: Path, rows) -> int:
    number = 0
    with path.open('w', encoding='utf-8') as file:
        for number, row in enumerate(rows, start=1):  # noqa: B007
            file.write(json.dumps(row, ensure_ascii=False) + '\n')
    return number


def held_out(rng: Random, per_task: int):
    """Distinct held-out questions, at most `per_task` of a task, with the task's name and its answer as `solution`."""
    for task in [task for task in TASKS if task != 'small_talk']:
        seen = set()
        for _ in range(50 * per_task):
            example = draw(rng, held_out=True, task=task)
            if example.key in seen:
                continue
            seen.add(example.key)
            group = 'arithmetic' if task in ARITHMETIC else 'other'
            yield {
                'task': task,
                'group': group,
                'messages': [{'role': 'user', 'content': example.question}, {'role': 'assistant', 'content': example.answer}],
                'solution': example.answer,
            }
            if len(seen) == per_task:
                break


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--seed', type=int, default=42)
    parser.add_argument('--documents', type=int, default=12_000, help='rows of pt.jsonl, about 100 tokens each')
    parser.add_argument('--conversations', type=int, default=150_000, help='rows of sft.jsonl, about 30 tokens each')
    parser.add_argument('--last', type=int, default=12_000, help='rows of last.jsonl')
    parser.add_argument('--per_task', type=int, default=100, help='held-out questions of every task')
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rng = Random(options.seed)
    print('pt.jsonl', write(options.out / 'pt.jsonl', ({'text': document(rng)} for _ in range(options.documents))))
    print('sft.jsonl', write(options.out / 'sft.jsonl', (conversation(rng) for _ in range(options.conversations))))
    later = Random(options.seed + 2)
    print('last.jsonl', write(options.out / 'last.jsonl', (last_rows(later) for _ in range(options.last))))
    print('heldout.jsonl', write(options.out / 'heldout.jsonl', held_out(Random(options.seed + 1), options.per_task)))


if __name__ == '__main__':
    main()
