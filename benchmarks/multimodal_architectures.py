"""Every architecture of transformers that reads images, videos or audio beside text, tiny and with its processor.

    python benchmarks/multimodal_architectures.py                     # all in plain transformers, one process each
    python benchmarks/multimodal_architectures.py llava qwen2_vl      # some
    python benchmarks/multimodal_architectures.py --part 1/4          # a quarter of them
    python benchmarks/multimodal_architectures.py --swift             # through sft, merge-lora and infer as well
    python benchmarks/multimodal_architectures.py --table results.jsonl > table.md
    python benchmarks/multimodal_architectures.py --describe llava    # what the processor gives

One JSON line an architecture goes to stdout (or `--out`).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
for _name, _value in (('OMP_NUM_THREADS', '1'), ('HF_HUB_OFFLINE', '1'), ('TOKENIZERS_PARALLELISM', 'false')):
    os.environ.setdefault(_name, _value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('names', nargs='*')
    parser.add_argument('--part', default='1/1', help='which share of the list, such as 2/4')
    parser.add_argument('--out', help='append the JSON lines to this file')
    parser.add_argument('--limit', type=int, default=240, help='seconds for one architecture')
    parser.add_argument('--swift', action='store_true', help='train, merge and answer on the command line as well')
    parser.add_argument('--table', nargs='+', help='print a Markdown table from result files')
    parser.add_argument('--describe', action='store_true', help='print what the processors give')
    parser.add_argument('--one', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.table:
        print(table([json.loads(line) for path in args.table for line in open(path, encoding='utf-8')]))
    elif args.one:
        print(json.dumps(measure(args.one, args.swift, args.describe), ensure_ascii=False))
    else:
        sweep(args)


def sweep(args: argparse.Namespace) -> None:
    """One process an architecture: none can spoil or stop the others."""
    from tests.helpers.vlm import model_types

    index, count = map(int, args.part.split('/'))
    for name in args.names or model_types()[index - 1 :: count]:
        flags = [flag for flag, wanted in (('--swift', args.swift), ('--describe', args.describe)) if wanted]
        line = json.dumps(in_a_process(name, flags, args.limit), ensure_ascii=False)
        if args.out:
            with open(args.out, 'a', encoding='utf-8') as file:
                file.write(line + '\n')
        print(line, flush=True)


def in_a_process(name: str, flags: list[str], limit: int) -> dict[str, Any]:
    command = [sys.executable, '-W', 'ignore', os.path.abspath(__file__), '--one', name, *flags]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return dict(model_type=name, error=f'more than {limit} s')
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        return json.loads(lines[-1])
    return dict(model_type=name, error=' '.join(done.stderr.split())[-300:] or f'exit code {done.returncode}')


def measure(name: str, swift: bool, describe: bool) -> dict[str, Any]:
    """What works with one architecture: by way (`plain`, `swift`) and kind of row."""
    from tests.helpers.architectures import quiet
    from tests.helpers.vlm import check_family, family_facts, habits_of, media_of, save_vlm

    quiet()
    start = time.perf_counter()
    facts = family_facts(name)
    result: dict[str, Any] = dict(model_type=name, media=media_of(name))
    if 'reason' in facts or not facts:
        return result | dict(reason=facts.get('reason', 'no facts about its tokens and sizes yet'))
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, 'base')
        try:
            save_vlm(path, name)
            if describe:
                from tests.helpers.vlm_describe import describe as facts_of

                return result | facts_of(path, **habits_of(name))
            result |= dict(plain=check_family(name, path), known=facts.get('fails', {}))
            result['seconds'] = round(time.perf_counter() - start, 1)
            if swift:
                result['swift'] = {
                    kind: through_swift(path, kind, os.path.join(directory, kind)) for kind in media_of(name)
                }
        except Exception as error:
            result['error'] = f'{type(error).__name__}: {" ".join(str(error).split())[:300]}'
    return result


def through_swift(path: str, kind: str, directory: str) -> dict[str, Any]:
    """Two steps of LoRA on rows with one medium, merged, and answers of the merged model, each by its command.

    Other media of the same shapes must give another first loss: a run that drops its pictures ends with exit code 0.
    """
    data, others = (rows(kind, os.path.join(directory, name), shift) for name, shift in (('data', 0), ('others', 99)))
    train = f'sft --model {path} --add_version false --learning_rate 1e-3 --logging_steps 1 --report_to none'
    train += ' --per_device_train_batch_size 2 --max_length 4096' + _plain(path)
    answers = f'{directory}/answers.jsonl'
    steps = dict(
        sft=f'{train} --dataset {data} --output_dir {directory}/run --max_steps 2 --save_steps 2',
        others=f'{train} --dataset {others} --output_dir {directory}/run2 --max_steps 1 --save_strategy no',
        merge=f'merge-lora --adapters {directory}/run/checkpoint-2 --output_dir {directory}/merged',
        infer=f'infer --model {directory}/merged --val_dataset {data} --max_new_tokens 4 --result_path {answers}',
    )
    for step, flags in steps.items():
        said = _said_by(flags.split())
        if said is not None:
            return dict(ok=False, error=f'{step}: {said}')
    first, other = (_first_loss(os.path.join(directory, name, 'logging.jsonl')) for name in ('run', 'run2'))
    if first == other:
        return dict(ok=False, error=f'the loss {first:.4f} does not change with the {kind}')
    with open(answers, encoding='utf-8') as file:
        return dict(ok=True, loss=first, change=abs(first - other), answers=sum(1 for _ in file))


def _said_by(words: list[str]) -> str | None:
    """Run a command in this process; the last line of its complaint, None where it has none."""
    from swift.cli.main import cli_main

    with redirect_stderr(io.StringIO()) as said, redirect_stdout(io.StringIO()):
        code = cli_main(words)
    return ' '.join(said.getvalue().strip().splitlines()[-1:])[:300] if code else None


def _plain(path: str) -> str:
    """Flags for a model without a chat template: its texts are trained as they are."""
    names = ('chat_template.jinja', 'chat_template.json', 'tokenizer_config.json', 'processor_config.json')
    texts = [open(file, encoding='utf-8').read() for name in names if os.path.isfile(file := os.path.join(path, name))]
    own = os.path.isfile(os.path.join(path, names[0])) or any('"chat_template"' in text for text in texts)
    return '' if own else ' --use_chat_template false'


def _first_loss(path: str) -> float:
    with open(path, encoding='utf-8') as file:
        return next(entry['loss'] for entry in map(json.loads, file) if 'loss' in entry)


def rows(kind: str, directory: str, shift: int = 0) -> str:
    """A data set of six rows with one medium each, other media of the same shapes for another `shift`; the path."""
    from tests.helpers.vlm_media import save_medium

    os.makedirs(directory)
    path = os.path.join(directory, 'data.jsonl')
    with open(path, 'w', encoding='utf-8') as file:
        for number in range(6):
            medium = save_medium(os.path.join(directory, f'{kind}-{number}'), kind, number + shift)
            answer = dict(role='assistant', content=f'It is number {number}.')
            turns = [dict(role='user', content=f'<{kind}>What is it?'), answer]
            file.write(json.dumps({'messages': turns, f'{kind}s': [medium]}) + '\n')
    return path


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: what the last result of each architecture says of the commands, or of plain transformers where those were not run."""
    last = {result['model_type']: result for result in results}
    lines = ['| model_type | works with | does not, and why |', '|---|---|---|']
    for name in sorted(last):
        works, fails = _cells(last[name])
        lines.append(f'| {name} | {works} | {fails} |')
    count = sum(bool(_cells(result)[0]) for result in last.values())
    return '\n'.join([f'{count} of {len(last)} work.', '', *lines])


def _cells(result: dict[str, Any]) -> tuple[str, str]:
    """(kinds of media that work, kinds that don't with the reason)."""
    ways = result.get('swift') or result.get('plain')
    if not ways:
        return '', _short(result.get('reason') or result.get('error', 'not run'))
    works = ', '.join(kind for kind, found in ways.items() if found['ok'])
    return works, '; '.join(f'{kind}: {_short(found["error"])}' for kind, found in ways.items() if not found['ok'])


def _short(error: str) -> str:
    """An error without the names of commands and of files that are gone, for a cell."""
    error = re.sub(r'^\w+: swift \w+: (error|failed): |\S*/tmp\S*:? ?|\(SWIFT_DEBUG=1.*|6 of 6 rows are bad.*?first: ', '', error)
    return ' '.join(error.replace('|', '/').split())[:120]


if __name__ == '__main__':
    main()
