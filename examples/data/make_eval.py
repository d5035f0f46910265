"""Writes the small sets for `swift eval`: multiple choice, worked sums in GSM8K's form, and names to write out. Run: python make_eval.py"""

from __future__ import annotations

import json
import random
from pathlib import Path

HERE = Path(__file__).parent


def write(name: str, rows: list[dict]) -> None:
    (HERE / name).write_text(''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows), encoding='utf-8')


def choices(rng: random.Random, count: int) -> list[dict]:
    """Sums with four possible results; the answer is given as its text."""
    rows = []
    for number in range(count):
        a, b = rng.randrange(2, 60), rng.randrange(2, 30)
        plus = number % 2 == 0
        right = a + b if plus else a * b
        wrong = rng.sample([value for value in (right + d for d in (-21, -10, -3, -1, 1, 2, 7, 10, 20)) if value > 0], 3)
        options = [str(value) for value in (right, *wrong)]
        rng.shuffle(options)
        question = f'What is {a} plus {b}?' if plus else f'What is {a} times {b}?'
        rows.append({'question': question, 'choices': options, 'answer': str(right), 'subject': 'sums' if plus else 'products'})
    return rows


def worked(rng: random.Random, count: int) -> list[dict]:
    """Questions whose answers show the way, the result behind ####."""
    rows = []
    for _ in range(count):
        a, b, c = rng.randrange(2, 40), rng.randrange(2, 40), rng.randrange(2, 9)
        rows.append({
            'question': f'A baker makes {a} rolls in the morning and {b} in the afternoon. She sells them at {c} coins each. How many coins does she get?',
            'answer': f'She makes {a} + {b} = <<{a}+{b}={a + b}>>{a + b} rolls.\nShe gets {a + b} * {c} = <<{a + b}*{c}={(a + b) * c}>>{(a + b) * c} coins.\n#### {(a + b) * c}',
        })  # fmt: skip
    return rows


def main() -> None:
    rng = random.Random(5)
    write('eval_choices.jsonl', choices(rng, 40))
    write('eval_worked.jsonl', worked(rng, 24))


if __name__ == '__main__':
    main()
