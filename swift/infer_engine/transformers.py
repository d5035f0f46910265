"""The engine that needs nothing but transformers: continuous batching over slots, for any causal language model."""

from __future__ import annotations

import asyncio
import queue
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import wait
from contextlib import contextmanager
from itertools import islice
from typing import Any

from transformers import GenerationConfig, PreTrainedModel

from swift.core.errors import SwiftError
from swift.core.log import get_logger
from swift.core.types import IGNORE_INDEX, Completion, Media, Prompt, Sample, Template
from swift.infer_engine.base import InferEngine
from swift.infer_engine.guided import Guides
from swift.infer_engine.lanes import Lane, SlotLane
from swift.infer_engine.loading import context_of, load, name_of, room_for, weights_of, with_adapters
from swift.infer_engine.mailbox import Mailbox
from swift.infer_engine.prefixes import Prefixes
from swift.infer_engine.probe import pads_on_the_left, runs_in_slots
from swift.infer_engine.protocol import AdapterRequest, RequestConfig
from swift.infer_engine.row import Chunk, Row
from swift.infer_engine.sampling import Settings, settled
from swift.infer_engine.static import StaticLane
from swift.infer_engine.wearing import ANY, SLOTS, STATIC, Wardrobe
from swift.infer_engine.worker import Worker

MEDIA_BATCH = 4
"""Prompts that show something are read together up to this many times `prefill_tokens`."""


class TransformersEngine(InferEngine):
    """Answers with a transformers model that lives in this process.

    `model`: an id or directory (a run or checkpoint directory too), or a loaded model; then `template` is needed.
    `adapters`: one LoRA directory that every request uses unless it names another by `AdapterRequest`.
    `settings` of a model given by name: `torch_dtype`, `max_pixels`, `system`, … (fields of ModelArgs and TemplateArgs).
    `max_batch_size`: answers generated at once. Requests from any number of threads or tasks share the batches.
    `prefix_cache_tokens`: tokens of prompts and answers whose keys and values are kept, so that prompts that begin alike are read once; 0:
    none, None: an eighth of the room for answers. `weights_stay`: nobody else changes the weights, so they are kept between calls
    too; None: so it is for a model given by name.
    The model's generation_config gives the defaults of sampling and is never changed.
    """

    def __init__(
        self,
        model: str | PreTrainedModel | Any,
        adapters: Sequence[str] | str | None = None,
        *,
        template: Template | None = None,
        max_batch_size: int = 64,
        max_model_len: int | None = None,
        prefill_tokens: int | None = None,
        kv_cache_tokens: int | None = None,
        prefix_cache_tokens: int | None = None,
        weights_stay: bool | None = None,
        generation_config: GenerationConfig | None = None,
        **settings: Any,
    ):
        if max_batch_size < 1:
            raise SwiftError(f'max_batch_size={max_batch_size} must be at least 1;', 'it is the number of answers at once')
        if prefix_cache_tokens is not None and prefix_cache_tokens < 0:
            raise SwiftError(f'prefix_cache_tokens={prefix_cache_tokens} must be at least 0;', '0 keeps nothing')
        adapters = [adapters] if isinstance(adapters, str) else list(adapters or [])
        self._weights_stay = isinstance(model, str) if weights_stay is None else weights_stay
        if isinstance(model, str):
            model, template, name, context = load(model, adapters, template, settings)
            max_model_len = max_model_len or context
        else:
            if settings:
                raise SwiftError(f'{", ".join(settings)}: only for a model given by id or path;', 'leave them out')
            name = name_of(model)
            model = with_adapters(model, adapters)
        if template is None:
            raise SwiftError('a loaded model comes without a template;', 'pass template=get_template(…)')
        longest = max_model_len or context_of(model)
        super().__init__(template, name, longest)
        self._wardrobe = Wardrobe(model)
        self.generation_config = generation_config or model.generation_config
        self._max_rows = max_batch_size
        self._prefill_tokens = prefill_tokens or (8192 if model.device.type == 'cuda' else 2048)
        self._kv_tokens, self._prefix_tokens = kv_cache_tokens, prefix_cache_tokens
        self._prefixes: Prefixes | None = None
        self._weights: tuple | None = None
        """Of which state of the weights the kept keys and values are."""
        self._way: tuple[str, Any] | None = None
        self._joins: dict[Any, bool] = {}
        """Whether rows that show something can share a batch, by what they show."""
        self._guides = Guides(self.tokenizer)
        self._mailbox: Mailbox | None = None
        self._worker = Worker(self._lane_for, self._running, self._wardrobe.turn)

    @property
    def model(self) -> Any:
        """The model, with every adapter that was asked for."""
        return self._wardrobe.model

    # -- requests

    def generate(
        self,
        prompts: Sequence[Prompt],
        configs: Sequence[RequestConfig],
        adapters: Sequence[AdapterRequest | None],
        on_done: Callable[[int], None] | None = None,
    ) -> list[list[Completion] | SwiftError]:
        """For each prompt the `n` completions its config asks for, or why what it shows can't be read."""
        rows = [self._rows(*each) for each in zip(prompts, configs, adapters, strict=True)]
        if on_done:
            for index, some in enumerate(rows):
                some[-1].future.add_done_callback(lambda _, index=index: on_done(index))
        flat = [row for some in rows for row in some]
        try:
            self._worker.submit(flat)
            return [_outcome(some) for some in rows]
        finally:
            self._give_up(flat)

    def generate_each(
        self, asked: Iterable[tuple[Prompt, RequestConfig, AdapterRequest | None]]
    ) -> Iterator[list[Completion] | SwiftError]:
        """`generate` for any number of prompts, in order; places never wait while prompts are left."""
        running: deque[list[Row]] = deque()
        asked = iter(asked)
        try:
            while True:
                room = 4 * self._max_rows - sum(not row.done for rows in running for row in rows)
                for item in islice(asked, max(room, 0)):
                    running.append(self._rows(*item))
                    self._worker.submit(running[-1])
                if not running:
                    return
                done = _outcome(running[0])
                running.popleft()
                yield done
        finally:
            self._give_up([row for rows in running for row in rows])

    def _give_up(self, rows: list[Row]) -> None:
        """Stop what is not done, and wait for the model: the caller may use it right away."""
        _cancel(rows)
        wait([row.future for row in rows])
        self._worker.settle()

    def stream(self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None) -> Iterator[Chunk]:
        """Pieces of the completions as they come. Generation runs from this call on, read or not."""
        pieces: queue.SimpleQueue[Chunk | BaseException] = queue.SimpleQueue()
        rows = self._rows(prompt, config, adapter, pieces.put)
        self._worker.submit(rows)
        return self._read(rows, pieces)

    def _read(self, rows: list[Row], pieces: queue.SimpleQueue) -> Iterator[Chunk]:
        left = len(rows)
        try:
            while left:
                piece = pieces.get()
                if isinstance(piece, BaseException):
                    raise piece
                left -= piece.completion is not None
                yield piece
        finally:  # whoever stops reading stops the answer
            self._give_up(rows)

    async def generate_async(
        self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None
    ) -> list[Completion]:
        """`generate` for one prompt; waiting costs no thread."""
        rows = await self._rows_async(prompt, config, adapter)
        self._worker.submit(rows)
        try:
            return list(await asyncio.gather(*(asyncio.wrap_future(row.future) for row in rows)))
        except asyncio.CancelledError:
            _cancel(rows)
            raise

    async def stream_async(
        self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None
    ) -> AsyncIterator[Chunk]:
        """`stream` on the event loop."""
        loop, pieces = asyncio.get_running_loop(), asyncio.Queue()
        if self._mailbox is None or self._mailbox.loop is not loop:
            self._mailbox = Mailbox(loop)
        post = self._mailbox.post
        rows = await self._rows_async(prompt, config, adapter, lambda piece: post(pieces, piece))
        self._worker.submit(rows)
        left = len(rows)
        try:
            while left:
                piece = await pieces.get()
                if isinstance(piece, BaseException):
                    raise piece
                left -= piece.completion is not None
                yield piece
        finally:
            _cancel(rows)

    # -- prompt and config → rows

    def _rows(
        self,
        prompt: Prompt,
        config: RequestConfig,
        adapter: AdapterRequest | None,
        on_chunk: Callable[[Chunk], None] | None = None,
    ) -> list[Row]:
        settings = self.settings(prompt, config)
        name, form = self._wardrobe.name(adapter), config.form()
        return [
            Row(
                prompt, settings, self.tokenizer, choice=choice, adapter=name, on_chunk=on_chunk,
                guide=form and self._guides.guide(form, settings.stop_ids, prompt.text),
            )
            for choice in range(config.n)
        ]  # fmt: skip

    async def _rows_async(self, prompt: Prompt, config: RequestConfig, *rest: Any) -> list[Row]:
        """`_rows`; what takes a while (forms are compiled) is not done on the event loop."""
        if config.form() is None:
            return self._rows(prompt, config, *rest)
        return await asyncio.to_thread(self._rows, prompt, config, *rest)

    def settings(self, prompt: Prompt, config: RequestConfig) -> Settings:
        """The config with everything that is open filled from generation_config, template and context length."""
        return settled(prompt, config, self.generation_config, self.tokenizer, self.max_model_len)

    # -- what the worker asks for: all of it happens in the worker's thread

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Around everything the worker does. What was read before counts as long as the weights are the same."""
        with self._wardrobe.as_found() as training:
            if self._prefixes and (training or not self._weights_stay or self._weights != weights_of(self.model)):
                self._prefixes.clear()
            yield
            if self._prefixes and self._weights_stay:
                self._weights = weights_of(self.model)
            elif self._prefixes:
                self._prefixes.clear()

    def _lane_for(self, row: Row) -> tuple[object, Callable[[], Lane]]:
        mixed = self._wardrobe.mixes(row.adapter)
        if self._way is None:
            self._wardrobe.use((STATIC, row.adapter))
            size = runs_in_slots(self.model)
            self._way = (SLOTS, size) if size is not None else (STATIC, pads_on_the_left(self.model))
            get_logger().debug('%s is answered in %s', self.name, self._way)
        if self._way[0] == SLOTS and row.settings.num_beams == 1 and not row.prompt.media:
            return (SLOTS, ANY if mixed else row.adapter), lambda: self._slot_lane(mixed)
        return (STATIC, row.adapter), self._static_lane

    def _slot_lane(self, mixed: bool) -> SlotLane:
        rows, prefixes = room_for(self.model, self._way[1], self._kv_tokens, self._prefix_tokens)
        if self._prefixes is None:
            self._prefixes = Prefixes(prefixes)
        return SlotLane(self.model, self._max_rows, self._prefill_tokens, rows, self._prefixes, self._wardrobe.wear if mixed else None)

    def _static_lane(self) -> StaticLane:
        way, fact = self._way
        return StaticLane(
            self.model, self._max_rows, way == SLOTS or fact, self._media, MEDIA_BATCH * self._prefill_tokens, self._joins
        )

    def _media(self, prompt: Prompt) -> Media:
        """What a prompt shows, as tensors. Raises RowError naming a file that can't be read."""
        nothing = [IGNORE_INDEX] * len(prompt.input_ids)
        with self._reading:
            return self.template.read_media(Sample(prompt.input_ids, nothing, media=[prompt.media])).media[0]


def _outcome(rows: Sequence[Row]) -> list[Completion] | SwiftError:
    """The completions of one prompt, or the mistake in it. Any other error is raised."""
    try:
        return [row.future.result() for row in rows]
    except SwiftError as error:
        return error


def _cancel(rows: Sequence[Row]) -> None:
    """Rows that are done are not changed by it."""
    for row in rows:
        row.cancelled = True
