"""Ask a trained checkpoint: a file of questions (batch), a conversation (interactive), or one question (single).

python inference_test.py --checkpoint ./output/lora_test/checkpoint-100
python inference_test.py --checkpoint ./output/lora_test/checkpoint-100 --questions-file test_questions.json --output results.json
python inference_test.py --checkpoint ./output/lora_test/checkpoint-100 --mode interactive
python inference_test.py --checkpoint ./output/lora_test/checkpoint-100 --mode single --question "Who are you?"

Whether the checkpoint is a LoRA or a whole model is seen from its files. Further flags are those of `swift infer`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from typing import Any

from swift.arguments.saved import find_checkpoint
from swift.core.errors import SwiftError

QUESTIONS = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'test_questions.json')


def kind_of(checkpoint: str) -> tuple[str, str]:
    """(`lora` or `full`, the checkpoint's directory) of a checkpoint, or of a run with checkpoints in it."""
    path = find_checkpoint(checkpoint) or checkpoint
    if os.path.isfile(os.path.join(path, 'adapter_config.json')):
        return 'lora', path
    if os.path.isfile(os.path.join(path, 'config.json')) or not os.path.isdir(path):
        return 'full', path  # what is no directory may be the name of a model
    raise SwiftError(f'{checkpoint} holds neither adapter_config.json nor config.json;', 'give the directory of a checkpoint')


def questions_of(path: str) -> list[str]:
    """The questions of a JSON file: a list of texts or of {"question": …}, or {"questions": such a list}."""
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file)
    except (OSError, ValueError) as error:
        raise SwiftError(f'--questions-file {path} can not be read: {error};', 'it should hold a JSON list of questions') from None
    rows = content.get('questions') if isinstance(content, dict) else content
    found = [row.get('question') if isinstance(row, dict) else row for row in rows] if isinstance(rows, list) else []
    if not found or not all(isinstance(question, str) and question for question in found):
        raise SwiftError(f'--questions-file {path} holds no list of questions;', 'write ["…", "…"] or [{"question": "…"}, …]')
    return found


class Tester:
    """A checkpoint that is asked. `words`: further flags of `swift infer`."""

    def __init__(self, checkpoint: str, words: list[str]):
        kind, path = kind_of(checkpoint)
        print(f'{path}: {"LoRA adapter" if kind == "lora" else "whole model"}', file=sys.stderr)
        self._words = ['--adapters' if kind == 'lora' else '--model', path, *words]

    def answer(self, questions: list[str]) -> list[dict[str, Any]]:
        """Question, answer and seconds of each, in order; all of them are under way at once."""
        from swift.arguments import parse_args
        from swift.infer_engine import InferRequest
        from swift.pipelines.infer import build_engine, request_config

        args = parse_args('infer', self._words)
        engine, config = build_engine(args), request_config(args)

        async def one(question: str) -> dict[str, Any]:
            started = time.perf_counter()
            answer = await engine.infer_async(InferRequest([{'role': 'user', 'content': question}]), config)
            return {'question': question, 'answer': answer.choices[0].message.content, 'time': round(time.perf_counter() - started, 3)}

        async def all_of_them() -> list[dict[str, Any]]:
            return list(await asyncio.gather(*map(one, questions)))

        return asyncio.run(all_of_them())

    def converse(self) -> None:
        """A conversation by keyboard (or through a pipe), until `exit`."""
        from swift import infer_main

        infer_main(self._words)


def main(words: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--checkpoint', required=True, help='directory of a checkpoint, or of a run')
    parser.add_argument('--mode', choices=('batch', 'interactive', 'single'), help='batch, or single where a --question is given')
    parser.add_argument('--question', help='single: what is asked')
    parser.add_argument('--questions-file', '--questions_file', default=QUESTIONS, help='batch: JSON file of questions')
    parser.add_argument('--output', help='batch: JSON file of the results; results-DATE.json without it')
    known, rest = parser.parse_known_args(words)
    mode = known.mode or ('single' if known.question else 'batch')
    try:
        if mode == 'single' and not known.question:
            raise SwiftError('--mode single needs --question;', 'write what is asked behind it')
        tester = Tester(known.checkpoint, rest)
        if mode == 'interactive':
            tester.converse()
        elif mode == 'single':
            print(tester.answer([known.question])[0]['answer'])
        else:
            _batch(tester, questions_of(known.questions_file), known.output or time.strftime('results-%Y%m%d-%H%M%S.json'))
    except SwiftError as error:
        for line in str(error).splitlines():
            print(f'inference_test: error: {line}', file=sys.stderr)
        return 2
    return 0


def _batch(tester: Tester, questions: list[str], output: str) -> None:
    results = tester.answer(questions)
    with open(output, 'w', encoding='utf-8') as file:
        json.dump(results, file, ensure_ascii=False, indent=2)
    for number, row in enumerate(results, 1):
        print(f'[{number}/{len(results)}] {row["question"]}\n{row["answer"]}  ({row["time"]:.2f} s)\n')
    print(f'results: {output}')


if __name__ == '__main__':
    raise SystemExit(main())
