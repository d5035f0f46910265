"""An engine behind a server that is sent token ids: our template makes the prompt, as in training; the server only continues it."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from swift.core.errors import SwiftError
from swift.core.types import Completion, Prompt
from swift.infer_engine.protocol import AdapterRequest, RequestConfig
from swift.infer_engine.remote import Call, Remote
from swift.infer_engine.remote_engine import RemoteEngine
from swift.infer_engine.remote_model import RemoteModel, sampling
from swift.infer_engine.row import Chunk

COMPLETIONS, LOAD_ADAPTER = '/completions', '/load_lora_adapter'


class TokenEngine(RemoteEngine):
    """Sends token ids to /v1/completions of a server such as vLLM's, which must tell the ids of its answers (`return_token_ids`).

    `loaded`: adapters that the server has, by name → directory; `default`: the one that requests use which name none.
    """

    def __init__(
        self, remote: Remote, model: RemoteModel, *, loaded: dict[str, str] | None = None, default: str | None = None, concurrency: int = 256
    ):
        super().__init__(remote, model.template, model.name, model.max_model_len, concurrency=concurrency)
        self.generation_config = model.generation_config
        self._loaded, self._default = dict(loaded or {}), default
        self._loading = threading.Lock()

    def _ask(self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None, call: Call) -> list[Completion]:
        answer = self.remote.post(COMPLETIONS, self._body(prompt, config, adapter), call)
        choices = sorted(answer['choices'], key=lambda choice: choice['index'])
        found = [
            Completion(_ids(c), c['text'], c['finish_reason'], self._logprobs(c, config), len(prompt.input_ids)) for c in choices
        ]
        return found if len(found) == config.n else [replace(found[0]) for _ in range(config.n)]

    def _follow(self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None, call: Call) -> Iterator[Chunk]:
        body = self._body(prompt, config, adapter)
        whole = [Completion([], '', '', [] if config.logprobs else None, len(prompt.input_ids)) for _ in range(body['n'])]
        copies = range(config.n) if body['n'] < config.n else None
        for event in self.remote.events(COMPLETIONS, {**body, 'stream': True}, call):
            for choice in event.get('choices') or []:
                answer, ids, logprobs = whole[choice['index']], _ids(choice), self._logprobs(choice, config)
                answer.token_ids += ids
                answer.text += choice['text']
                answer.logprobs = answer.logprobs + (logprobs or []) if config.logprobs else None
                answer.finish_reason = choice.get('finish_reason') or ''
                for index in copies or [choice['index']]:
                    yield Chunk(index, choice['text'], ids, logprobs, replace(answer) if answer.finish_reason else None)
        if not all(answer.finish_reason for answer in whole):
            raise SwiftError('the stream ended before the answer did;', 'ask again')

    def stream(self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None) -> Iterator[Chunk]:
        """Pieces of the completions as they come. Generation runs from this call on, read or not."""
        return self._pieces(prompt, config, adapter)

    def stream_async(self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None) -> AsyncIterator[Chunk]:
        """`stream` on the event loop."""
        return self._pieces_async(prompt, config, adapter)

    def _body(self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None) -> dict[str, Any]:
        if prompt.media:
            raise SwiftError('this engine is sent token ids, which show no images, videos or sounds;', 'use --infer_backend transformers or client')
        settings = sampling(prompt, config, self.generation_config, self.tokenizer, self.max_model_len)
        body = {'model': self._adapter(adapter), 'prompt': prompt.input_ids, 'return_token_ids': True, **settings}
        if config.logprobs:
            body |= {'logprobs': max(1, config.top_logprobs or 0), 'return_tokens_as_token_ids': True}
        return body

    def _adapter(self, adapter: AdapterRequest | None) -> str:
        """The name of the adapter (or the model) on the server, which is told of an adapter when it is first asked for."""
        if adapter is None:
            return self._default or self.name
        with self._loading:
            known = self._loaded.get(adapter.name)
            if known not in (None, adapter.path):
                raise SwiftError(f'adapter {adapter.name!r} is {known} already, not {adapter.path};', 'give the other one another name')
            if known is None:
                try:
                    with suppress(ValueError):  # its answer is a sentence, not JSON
                        self.remote.post(LOAD_ADAPTER, {'lora_name': adapter.name, 'lora_path': adapter.path})
                except SwiftError as error:
                    if 'answered no JSON' not in error.message:
                        raise SwiftError(f'adapter {adapter.name!r}: {error.message}', 'start the engine with a max_lora_rank that fits it') from error
                self._loaded[adapter.name] = adapter.path
        return adapter.name

    def _logprobs(self, choice: dict[str, Any], config: RequestConfig) -> list[dict] | None:
        """The entries of the tokens of a choice, as completions hold them."""
        given = choice.get('logprobs')
        if not config.logprobs or not given:
            return [] if config.logprobs else None
        name = self.tokenizer.decode
        entries = []
        for token, logprob, top in zip(given['tokens'], given['token_logprobs'], given['top_logprobs'], strict=True):
            ranked = sorted(((_id(key), value) for key, value in (top or {}).items()), key=lambda pair: -pair[1])
            wanted = [(i, name([i]), value) for i, value in ranked[: config.top_logprobs or 0]]
            entries.append({'token_id': _id(token), 'token': name([_id(token)]), 'logprob': logprob, 'top': wanted})
        return entries


def _ids(choice: dict[str, Any]) -> Sequence[int]:
    ids = choice.get('token_ids')
    if ids is None:
        raise SwiftError('the server does not tell the token ids of its answers;', 'ask it with --infer_backend client')
    return list(ids)


def _id(token: str) -> int:
    """`token_id:123` → 123."""
    return int(token.rsplit(':', 1)[1])
