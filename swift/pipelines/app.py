"""What the chat page talks to: an engine, its adapters or models by name, and answers as they grow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from swift.arguments.deploy import named
from swift.core.errors import SwiftError
from swift.core.media import KINDS
from swift.core.plugins import load_plugins

THINK, THINK_END = '<think>', '</think>'


@dataclass
class Answer:
    """An answer so far. `message`: as it would join the conversation; `tokens`: 0 until it is complete."""

    message: dict[str, Any]
    reason: str = 'abort'
    """`abort` while it is not complete."""
    tokens: int = 0


class Talk:
    """The engine of `swift app`: the model of AppArguments in this process, or the server at base_url."""

    def __init__(self, args: Any):
        load_plugins(args.external_plugins)
        from swift.pipelines.infer import build_engine
        from swift.template.runs import media_kinds

        pairs = [named(adapter) for adapter in args.adapters]
        self._adapters = {name: path for name, path in pairs if name is not None}
        self.engine = build_engine(replace(args, adapters=[path for name, path in pairs if name is None]))
        self._remote = args.infer_backend == 'client'
        self.name = self.engine.name
        self.system = args.system
        has = KINDS if self._remote else media_kinds(self.engine.template)
        if args.is_multimodal and not has:
            raise SwiftError(f'--is_multimodal: {self.name} reads text only;', 'drop the flag')
        self.kinds = has if (args.is_multimodal or (args.is_multimodal is None and not self._remote)) else ()
        self.defaults = self._defaults(args)
        self.choices = self._choices()

    def _choices(self) -> list[str]:
        """Names the page can switch between; '' is the model without an adapter of its own name."""
        if not self._remote:
            return ['', *self._adapters] if self._adapters else []
        return list(dict.fromkeys([self.name, *self.engine.remote.models()]))

    def _defaults(self, args: Any) -> dict[str, Any]:
        """What the flags say about answers; once one of them does, the rest is filled from the model's generation config."""
        drawn = {name: getattr(args, name) for name in ('temperature', 'top_p', 'top_k', 'repetition_penalty')}
        stored = getattr(self.engine, 'generation_config', None)
        if stored is not None and any(value is not None for value in drawn.values()):
            if drawn['temperature'] is None and not stored.do_sample:
                drawn['temperature'] = 0.0
            drawn = {name: getattr(stored, name, None) if value is None else value for name, value in drawn.items()}
        return {'max_tokens': args.max_new_tokens, 'seed': args.seed if 'seed' in args.sources else None, **drawn}

    def read(self, text: str, files: Sequence[str]) -> dict[str, Any]:
        """The user's message with the files it shows. Raises SwiftError naming one that the model does not read."""
        if not files:
            return {'role': 'user', 'content': text}
        from swift.dataset.media import kind_of

        parts = []
        for path in files:
            kind = kind_of(path)
            if kind not in self.kinds:
                raise SwiftError(f'{path} is no {" or ".join(self.kinds)} file;', 'the model reads no others')
            parts.append({'type': kind, kind: path})
        return {'role': 'user', 'content': [*parts, {'type': 'text', 'text': text}]}

    def ask(self, messages: Sequence[dict], choice: str | None, settings: dict[str, Any]) -> Iterator[Answer]:
        """The answer as it grows; closing the iterator stops it. `settings`: fields of a RequestConfig."""
        from swift.infer_engine.protocol import AdapterRequest, RequestConfig

        adapter = None
        if choice and choice != self.name:
            adapter = AdapterRequest(choice, self._adapters.get(choice, choice))
        config = RequestConfig(stream=True, **settings)
        answer = Answer({'role': 'assistant', 'content': ''})
        pieces = self.engine.infer([{'messages': list(messages)}], config, adapter_request=adapter)[0]
        with closing(pieces):
            said, thoughts = '', ''
            for piece in pieces:
                choice_, delta = piece.choices[0], piece.choices[0].delta
                said, thoughts = said + (delta.content or ''), thoughts + (delta.reasoning_content or '')
                answer.message = _message(said, thoughts, delta.tool_calls)
                answer.reason = choice_.finish_reason or answer.reason
                answer.tokens = piece.usage.completion_tokens if piece.usage else 0
                yield answer


def _message(said: str, thoughts: str, calls: list[dict] | None) -> dict[str, Any]:
    """The assistant's message; thoughts that a server leaves in the text are taken out of it."""
    if not thoughts and said.lstrip().startswith(THINK):
        inner, end, rest = said.lstrip().removeprefix(THINK).partition(THINK_END)
        thoughts, said = inner.strip('\n'), rest.lstrip('\n') if end else ''
    message: dict[str, Any] = {'role': 'assistant', 'content': said}
    if thoughts:
        message['reasoning_content'] = thoughts
    if calls:
        message['tool_calls'] = calls
    return message
