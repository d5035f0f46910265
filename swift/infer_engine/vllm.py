"""vLLM in this process: prompts as token ids of our own template, adapters by LoRARequest, streaming."""

from __future__ import annotations

import asyncio
import itertools
import os
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from swift.core.errors import SwiftError
from swift.core.types import Completion, Prompt, Template
from swift.infer_engine.base import InferEngine
from swift.infer_engine.loading import check_adapter
from swift.infer_engine.protocol import AdapterRequest, RequestConfig
from swift.infer_engine.remote_model import RemoteModel, missing, needed_rank, sampling
from swift.infer_engine.row import Chunk


class VllmEngine(InferEngine):
    """Answers with vLLM's engine, which batches whatever is asked at the same time.

    `model`, `adapters`, `template`: as of TransformersEngine. `settings`: vLLM's engine arguments by their own names
    (`tensor_parallel_size`, `gpu_memory_utilization`, `max_model_len`, …); requests that name adapters need `max_lora_rank`.
    Where vllm is installed in another environment, `vllm_server.VllmServer` answers the same.
    """

    def __init__(self, model: str, adapters: Sequence[str] | str | None = None, *, template: Template | None = None, **settings: Any):
        os.environ.setdefault('VLLM_NO_USAGE_STATS', '1')
        try:
            from vllm import AsyncEngineArgs, AsyncLLMEngine
        except ImportError as error:
            raise missing('vllm') from error
        found = RemoteModel.find(model, adapters, template)
        if len(found.adapters) > 1:
            raise SwiftError(f'vLLM puts one adapter on a request, not {len(found.adapters)};', 'merge them first: --merge_lora true')
        rank = settings.pop('max_lora_rank', None)
        if found.adapters or rank:
            settings |= {'enable_lora': True, 'max_lora_rank': needed_rank(found.adapters, rank)}
        self._has_lora = bool(settings.get('enable_lora'))
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name='swift-vllm', daemon=True).start()
        self._engine = self._on_loop(self._start(AsyncLLMEngine, AsyncEngineArgs(model=found.directory, **settings)))
        longest = self._engine.model_config.max_model_len
        super().__init__(found.template, found.name, longest)
        self.generation_config = found.generation_config
        self._numbers = itertools.count(1)
        self._adapters: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._default = AdapterRequest('default', found.adapters[0]) if found.adapters else None

    @staticmethod
    async def _start(engine: Any, args: Any) -> Any:
        """The engine must be made on the loop that it will live on."""
        return engine.from_engine_args(args)

    def _on_loop(self, task: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(task, self._loop).result()

    def close(self) -> None:
        """End vLLM's processes."""
        self._engine.shutdown()
        self._loop.call_soon_threadsafe(self._loop.stop)
        del self._engine  # its own end needs modules that are gone when the interpreter ends

    # -- requests

    def generate(
        self,
        prompts: Sequence[Prompt],
        configs: Sequence[RequestConfig],
        adapters: Sequence[AdapterRequest | None],
        on_done: Callable[[int], None] | None = None,
    ) -> list[list[Completion] | SwiftError]:
        """The choices of each answer, or why there is none."""
        futures = [self._sent(*each) for each in zip(prompts, configs, adapters, strict=True)]
        if on_done:
            for index, future in enumerate(futures):
                future.add_done_callback(lambda _, index=index: on_done(index))
        try:
            return [_outcome(future) for future in futures]
        finally:
            for future in futures:
                future.cancel()

    async def generate_async(self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None) -> list[Completion]:
        """`generate` for one prompt without blocking the event loop; a cancelled task stops the answer."""
        return await asyncio.wrap_future(self._sent(prompt, config, adapter))

    def stream(self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None) -> Iterator[Chunk]:
        """Pieces of the completions as they come. Generation runs from this call on, read or not."""
        pieces: queue.SimpleQueue[Any] = queue.SimpleQueue()
        task = asyncio.run_coroutine_threadsafe(self._pump(prompt, config, adapter, pieces.put), self._loop)
        return _read(pieces, task)

    async def stream_async(self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None) -> AsyncIterator[Chunk]:
        """`stream` on the event loop of the caller."""
        loop, pieces = asyncio.get_running_loop(), asyncio.Queue()
        task = asyncio.run_coroutine_threadsafe(
            self._pump(prompt, config, adapter, lambda piece: loop.call_soon_threadsafe(pieces.put_nowait, piece)), self._loop
        )
        try:
            while (piece := await pieces.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            task.cancel()

    # -- on vLLM's loop

    def _sent(self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None) -> Future:
        return asyncio.run_coroutine_threadsafe(self._whole(prompt, config, adapter), self._loop)

    async def _whole(self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None) -> list[Completion]:
        found: dict[int, Completion] = {}
        async for chunk in self._follow(prompt, config, adapter):
            if chunk.completion is not None:
                found[chunk.choice] = chunk.completion
        return [found[index] for index in sorted(found)]

    async def _pump(self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None, put: Callable[[Any], Any]) -> None:
        try:
            async for chunk in self._follow(prompt, config, adapter):
                put(chunk)
            put(None)
        except Exception as error:
            put(error)

    async def _follow(self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None) -> AsyncIterator[Chunk]:
        """The pieces of one answer; whoever stops reading stops it."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        if prompt.media:
            raise SwiftError('this engine is sent token ids, which show no images, videos or sounds;', 'use --infer_backend transformers')
        settings = sampling(prompt, config, self.generation_config, self.tokenizer, self.max_model_len)
        if config.logprobs:
            settings['logprobs'] = config.top_logprobs or 0
        params = SamplingParams(**settings, output_kind=RequestOutputKind.DELTA)
        whole = [Completion([], '', '', [] if config.logprobs else None, len(prompt.input_ids)) for _ in range(settings['n'])]
        copies = range(config.n) if settings['n'] < config.n else None
        asked = {'prompt_token_ids': list(prompt.input_ids)}
        outputs = self._engine.generate(asked, params, f'swift-{next(self._numbers)}', lora_request=self._lora(adapter or self._default))
        async for output in outputs:
            for news in output.outputs:
                answer, ids = whole[news.index], list(news.token_ids)
                logprobs = self._logprobs(ids, news.logprobs, config)
                answer.token_ids += ids
                answer.text += news.text
                answer.logprobs = answer.logprobs + (logprobs or []) if config.logprobs else None
                answer.finish_reason = news.finish_reason or ''
                for index in copies or [news.index]:
                    yield Chunk(index, news.text, ids, logprobs, replace(answer) if answer.finish_reason else None)

    def _lora(self, adapter: AdapterRequest | None) -> Any:
        """vLLM's name for an adapter, numbered when it is first asked for."""
        from vllm.lora.request import LoRARequest

        if adapter is None:
            return None
        if not self._has_lora:
            raise SwiftError(f'adapter {adapter.name!r}: this engine was started without adapters;', 'give it max_lora_rank')
        with self._lock:
            known = self._adapters.get(adapter.name)
            if known is None:
                check_adapter(adapter.path)
                known = self._adapters[adapter.name] = LoRARequest(adapter.name, len(self._adapters) + 1, adapter.path)
            elif known.lora_path != adapter.path:
                raise SwiftError(f'adapter {adapter.name!r} is {known.lora_path} already, not {adapter.path};', 'give the other one another name')
        return known

    def _logprobs(self, ids: Sequence[int], given: Any, config: RequestConfig) -> list[dict] | None:
        """The entries of these tokens, as completions hold them."""
        if not config.logprobs:
            return None
        name, entries = self.tokenizer.decode, []
        for token, ranked in zip(ids, given or [], strict=True):
            top = sorted(ranked.items(), key=lambda pair: pair[1].rank)[: config.top_logprobs or 0]
            wanted = [(i, name([i]), entry.logprob) for i, entry in top]
            entries.append({'token_id': token, 'token': name([token]), 'logprob': ranked[token].logprob, 'top': wanted})
        return entries


def _outcome(future: Future) -> list[Completion] | SwiftError:
    try:
        return future.result()
    except SwiftError as error:
        return error


def _read(pieces: queue.SimpleQueue, task: Future) -> Iterator[Chunk]:
    try:
        while (piece := pieces.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
    finally:  # whoever stops reading stops the answer
        task.cancel()
