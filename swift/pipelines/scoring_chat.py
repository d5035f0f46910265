"""Asking a scoring model in the terminal, or through a pipe: one line is one text, or one row as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from swift.core.errors import RowError, SwiftError
from swift.core.jsonl import append_to_jsonl
from swift.core.types import Conversation

HELP = {
    'seq_cls': 'Type a text; its class comes back.',
    'token_cls': 'Type a text; every word comes back with its class.',
    'rm': 'Type a question ||| an answer; its score comes back.',
    'embedding': 'Type a text for the start of its vector, or a text ||| another ||| … for their similarities with the first.',
    'reranker': 'Type a query ||| a document ||| another …; their scores come back, best first.',
    'generative_reranker': 'Type a query ||| a document ||| another …; their scores come back, best first.',
}
SEPARATOR = '|||'


class ScoringChat:
    """Reads lines until the input ends, `exit` or `quit`; prints an answer for each."""

    def __init__(self, scorer: Any, *, plain: bool, result_path: str | None = None):
        """`plain`: texts are asked as plain text instead of as a message of the user (models without chat template)."""
        self._scorer, self._plain, self._path = scorer, plain, result_path
        self._typed = sys.stdin.isatty()

    def run(self) -> list[dict[str, Any]]:
        """One row for each answer."""
        if self._typed:
            print(f'{self._scorer.engine.name} listens. {HELP[self._scorer.task]} A row as JSON works too. exit, quit or Ctrl-D leaves.')
            with suppress(ImportError):
                import readline  # noqa: F401 - gives input() editing and history
        rows = []
        for line in self._lines():
            try:
                talk = talk_of(line, self._scorer.task, self._plain)
                [result] = self._scorer.engine.infer([talk])
                if isinstance(result, SwiftError):
                    raise result
            except SwiftError as error:
                print(f'swift infer: {error}', file=sys.stderr)
                continue
            print(shown(result, self._scorer.task), flush=True)
            rows.append({**result, 'messages': talk.messages})
            if self._path:
                append_to_jsonl(self._path, rows[-1], strict=False)
        return rows

    def _lines(self) -> Iterator[str]:
        while True:
            try:
                line = input('<<< ' if self._typed else '').strip()
            except (EOFError, KeyboardInterrupt):
                return
            if line.lower() in ('exit', 'quit'):
                return
            if line:
                yield line


def talk_of(line: str, task: str, plain: bool = False) -> Conversation:
    """The conversation that a line stands for. Raises RowError."""
    if line.startswith('{'):
        with suppress(json.JSONDecodeError):
            from swift.dataset import AutoPreprocessor

            return AutoPreprocessor()(json.loads(line))
    first, *others = (part.strip() for part in line.split(SEPARATOR))
    if task == 'rm':
        if len(others) != 1:
            raise RowError('a reward model judges an answer;', hint=f'type: question {SEPARATOR} answer')
        return Conversation([{'role': 'user', 'content': first}, {'role': 'assistant', 'content': others[0]}])
    if task in ('seq_cls', 'token_cls') and plain:
        return Conversation([{'role': 'assistant', 'content': line}], text=True)
    if task in ('seq_cls', 'token_cls'):
        return Conversation([{'role': 'user', 'content': line}], columns={'tokens': line.split()} if task == 'token_cls' else {})
    return Conversation([{'role': 'user', 'content': first}], positives=[[{'role': 'user', 'content': text}] for text in others] or None)


def shown(result: dict[str, Any], task: str) -> str:
    """A result in one line."""
    response = result['response']
    if task == 'seq_cls' and 'probabilities' in result:
        best = sorted(result['probabilities'].items(), key=lambda item: -item[1])[:5]
        chosen = ', '.join(map(str, response)) if isinstance(response, list) else response
        return f'{chosen or "none"}   ({", ".join(f"{name} {share:.1%}" for name, share in best)})'
    if task == 'token_cls':
        return ' '.join(f'{word["word"]}/{word["label"]}' for word in result['words'])
    if task == 'embedding':
        if 'similarities' in result:
            return ' '.join(f'{value:.4f}' for value in result['similarities'])
        return f'[{", ".join(f"{value:.4f}" for value in response[:8])}, …] {len(response)} dimensions'
    if 'ranking' in result:
        return '   '.join(f'{number + 1}: {response[number]:.4f}' for number in result['ranking'])
    return f'{response:.4f}' if isinstance(response, float) else str(response)
