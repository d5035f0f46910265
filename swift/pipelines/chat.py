"""A conversation in the terminal, or through a pipe: `echo hi | swift infer …`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from swift.core.errors import SwiftError
from swift.core.jsonl import append_to_jsonl
from swift.core.media import KINDS
from swift.pipelines.chat_media import ChatMedia
from swift.template.runs import media_kinds

HELP = """Commands: clear (forget the conversation), reset-system (set another system prompt), multi-line (end each message
with a line that holds only #; single-line goes back), help, exit or quit. Ctrl-C stops an answer, Ctrl-D leaves."""


class Chat:
    """Asks, shows the answer, and remembers both. Prompts and hints appear only where somebody types.

    `root`: folder of relative paths of media. `config` holds for every answer; each turn has its own seed, so a conversation can be repeated.
    """

    def __init__(self, engine: Any, config: Any, *, stream: bool = True, result_path: str | None = None, root: str | None = None):
        self._engine, self._config, self._result_path = engine, replace(config, stream=True), result_path
        self._stream = stream
        self._typed = sys.stdin.isatty()
        self._many_lines = False
        self._messages: list[dict[str, Any]] = []
        self._said: list[dict[str, Any]] = []
        kinds = KINDS if engine.template is None else media_kinds(engine.template)  # a server knows itself what it reads
        self._media = ChatMedia(kinds, lambda question: input(question if self._typed else ''), root=root, patient=self._typed)

    def run(self) -> list[dict[str, Any]]:
        """Until the end of the input, `exit` or `quit`. Returns one row for each answer."""
        self._hint(f'{self._engine.name} listens. {self._help}')
        if self._typed:
            with suppress(ImportError):
                import readline  # noqa: F401 - gives input() editing and history
        for text in self._inputs():
            word = text.strip().lower()
            if word in ('exit', 'quit'):
                break
            if not self._obeyed(word) and word:
                self._turn(text)
        return self._said

    @property
    def _help(self) -> str:
        return '\n'.join(filter(None, (HELP, self._media.help)))

    def _inputs(self) -> Iterator[str]:
        interrupts = 0
        while True:
            try:
                text = self._read()
                interrupts = 0
            except EOFError:
                self._hint('')
                return
            except KeyboardInterrupt:
                interrupts += 1
                if interrupts > 1:
                    return
                self._hint('\n(Ctrl-C again, Ctrl-D or exit to leave)')
                continue
            yield text

    def _read(self) -> str:
        if not self._many_lines:
            return input('<<< ' if self._typed else '')
        lines = [input('<<<[multi-line] ' if self._typed else '')]
        if lines[0].strip().lower() in ('single-line', 'exit', 'quit', 'clear', 'help', 'reset-system'):
            return lines[0]
        while not lines[-1].rstrip().endswith('#'):
            try:
                lines.append(input(''))
            except EOFError:
                break
        return '\n'.join(lines).rstrip().removesuffix('#').rstrip()

    def _obeyed(self, word: str) -> bool:
        """Carry out a command; False when the text is a question."""
        if word == 'clear':
            self._messages = [m for m in self._messages if m['role'] == 'system']
            self._media.waiting = []
            self._hint('(forgotten)')
        elif word in ('multi-line', 'single-line'):
            self._many_lines = word == 'multi-line'
            self._hint('(end a message with #)' if self._many_lines else '(one line is one message)')
        elif word == 'reset-system':
            try:
                system = input('<<<[system] ' if self._typed else '').strip()
            except (EOFError, KeyboardInterrupt):
                return True
            self._messages = [{'role': 'system', 'content': system}] if system else []
            self._hint('(new system prompt; the conversation starts again)')
        elif word == 'help':
            self._hint(self._help)
        else:
            return False
        return True

    def _turn(self, text: str) -> None:
        try:
            message = self._media.message(text)
        except KeyboardInterrupt:
            self._hint('\n(dropped)')
            return
        except SwiftError as error:
            print(f'swift infer: {error}', file=sys.stderr)
            return
        if message is None:
            names = ', '.join(f'{kind} {reference[:80]}' for kind, reference in self._media.waiting)
            self._hint(f'({names}: shown with your next message; clear forgets)')
            return
        self._messages.append(message)
        config = replace(self._config, seed=self._config.seed + len(self._said))
        try:
            answer = show(self._engine.infer([{'messages': self._messages}], config)[0], piecewise=self._stream)
        except SwiftError as error:
            self._messages.pop()
            print(f'swift infer: {error}', file=sys.stderr)
            return
        message = {key: value for key, value in vars(answer.choices[0].message).items() if value is not None}
        self._messages.append(message)
        row = {
            'response': message.get('content'),
            'labels': None,
            'finish_reason': answer.choices[0].finish_reason,
            'messages': list(self._messages),
        }
        if answer.choices[0].logprobs:
            row['logprobs'] = answer.choices[0].logprobs
        self._said.append(row)
        if self._result_path:
            append_to_jsonl(self._result_path, row, strict=False)

    def _hint(self, text: str) -> None:
        if self._typed:
            print(text, flush=True)


def show(pieces: Iterator[Any], *, piecewise: bool = True) -> Any:
    """Print an answer as it comes (or at its end) and return it whole. Ctrl-C ends the answer, not the program."""
    from swift.infer_engine.protocol import ChatCompletionResponse, ChatCompletionResponseChoice, ChatMessage, UsageInfo

    message, reason, usage, logprobs = ChatMessage(content=''), 'abort', None, []
    model = ''
    try:
        for piece in pieces:
            model, choice = piece.model, piece.choices[0]
            delta = choice.delta
            if delta.reasoning_content:
                _say(delta.reasoning_content if piecewise else '')
                message.reasoning_content = (message.reasoning_content or '') + delta.reasoning_content
            if delta.content:
                gap = '\n\n' if message.reasoning_content and not message.content else ''
                _say(gap + delta.content if piecewise else '')
                message.content += delta.content
            message.tool_calls = delta.tool_calls or message.tool_calls
            logprobs += choice.logprobs['content'] if choice.logprobs else []
            reason, usage = choice.finish_reason or reason, piece.usage or usage
    except KeyboardInterrupt:
        _say(' [stopped]' if piecewise else '')
    finally:
        if hasattr(pieces, 'close'):
            pieces.close()
    if not piecewise:
        _say('\n\n'.join(part for part in (message.reasoning_content, message.content) if part))
    for call in message.tool_calls or []:
        _say(f'\n[{call["function"]["name"]} {call["function"]["arguments"]}]')
    _say('\n')
    choice = ChatCompletionResponseChoice(0, message, reason, {'content': logprobs} if logprobs else None)
    return ChatCompletionResponse(model, [choice], usage or UsageInfo(0, 0, 0))


def _say(text: str) -> None:
    if text:
        print(text, end='', flush=True)
