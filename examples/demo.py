"""The main job in one go: ask, train, ask again, merge, ask a third time. `make demo` runs it.

The built-in model doesn't know the made-up words of data/new_words.jsonl. An adapter learns them; the questions asked
are worded in a way that the training rows don't have. Ends with 1 if the loss didn't fall or the answers got no better.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from unicodedata import east_asian_width

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / 'demo_output'
TAUGHT = 'examples/data/new_words.jsonl'
ASKED = 'examples/data/new_words_ask.jsonl'
SUMS = 'examples/data/arithmetic_heldout.jsonl'


def swift(*words: str) -> None:
    """Run one swift command as it would be typed, with its own output."""
    print('\n$ swift ' + ' '.join(words), flush=True)
    done = subprocess.run([sys.executable, '-m', 'swift.cli.main', *words], cwd=ROOT)
    if done.returncode:
        sys.exit(f'demo: `swift {words[0]}` ended with code {done.returncode}')


def ask(name: str, *model: str) -> list[dict]:
    """Answers of a model to the questions about the new words and to forty sums it never saw."""
    path = OUT / f'{name}.jsonl'
    relative = str(path.relative_to(ROOT))
    swift('infer', *model, '--val_dataset', ASKED, f'{SUMS}#40', '--max_batch_size', '64', '--max_new_tokens', '32',
          '--temperature', '0', '--result_path', relative)  # fmt: skip
    return [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]


def right(rows: list[dict]) -> int:
    return sum(row['response'].strip() == row['labels'].strip() for row in rows)


def losses(run: Path) -> list[float]:
    lines = (run / 'logging.jsonl').read_text(encoding='utf-8').splitlines()
    return [row['loss'] for row in map(json.loads, lines) if 'loss' in row]


def table(answers: dict[str, list[dict]], words: int) -> None:
    columns = ['question', 'wanted', *answers]
    rows = []
    for i in range(words):
        first = answers['before'][i]
        question = next(m['content'] for m in reversed(first['messages']) if m['role'] == 'user')
        rows.append([question, first['labels'], *(rows_of[i]['response'] for rows_of in answers.values())])
    rows = [[' '.join(cell.split())[:38] for cell in row] for row in rows]
    widths = [max(width(row[c]) for row in [columns, *rows]) for c in range(len(columns))]
    for row in [columns, ['-' * w for w in widths], *rows]:
        print('  '.join(cell + ' ' * (wide - width(cell)) for cell, wide in zip(row, widths, strict=True)).rstrip())


def width(text: str) -> int:
    """Columns of a terminal that the text takes."""
    return sum(2 if east_asian_width(char) in 'WF' else 1 for char in text)


def main() -> int:
    start = time.time()
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    run, merged = OUT / 'lora', OUT / 'merged'
    before = ask('before', '--model', 'tiny')
    swift('sft', '--model', 'tiny', '--dataset', TAUGHT, '--tuner_type', 'lora', '--lora_rank', '16', '--num_train_epochs', '12',
          '--per_device_train_batch_size', '8', '--learning_rate', '4e-3', '--logging_steps', '10',
          '--add_version', 'false', '--output_dir', str(run.relative_to(ROOT)))  # fmt: skip
    after = ask('after', '--adapters', str(run.relative_to(ROOT)))
    swift('merge-lora', '--adapters', str(run.relative_to(ROOT)), '--output_dir', str(merged.relative_to(ROOT)))
    again = ask('merged', '--model', str(merged.relative_to(ROOT)))

    words = sum(1 for _ in (ROOT / ASKED).open(encoding='utf-8'))
    answers = {'before': before, 'after': after, 'merged': again}
    curve = losses(run)
    first, last = sum(curve[:3]) / len(curve[:3]), sum(curve[-3:]) / len(curve[-3:])
    print()
    table(answers, words)
    print()
    print(f'loss          {first:.3f} -> {last:.3f}')
    for name, rows in answers.items():
        sums = rows[words:]
        print(f'{name:<8} new words {right(rows[:words]):>2}/{words}   sums never seen {right(sums):>2}/{len(sums)}')
    print(f'time          {time.time() - start:.0f} s')

    failures = []
    if not last < 0.7 * first:
        failures.append('the loss did not fall')
    for name in ('after', 'merged'):
        if right(answers[name][:words]) < max(right(before[:words]) + words // 2, 1):
            failures.append(f'the answers {name} training are no better' if name == 'after' else 'the merged model forgot the answers')
    print('demo failed: ' + '; '.join(failures) if failures else 'demo passed')
    return bool(failures)


if __name__ == '__main__':
    sys.exit(main())
