"""What a server answers with, under which names, and how much it takes on at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from swift.core.errors import did_you_mean
from swift.core.jsonl import append_to_jsonl
from swift.infer_engine.protocol import AdapterRequest, RequestConfig
from swift.infer_engine.server.errors import ApiError
from swift.infer_engine.server.metrics import Metrics

if TYPE_CHECKING:  # the server listens before the engine's packages are imported
    from swift.infer_engine.base import InferEngine
    from swift.infer_engine.server.scoring import ScoreQueue


@dataclass(frozen=True)
class ServedModel:
    """A name in requests. `adapter`: what answers under it; None: the model itself. `root`: the id or path it is read from."""

    name: str
    root: str = ''
    adapter: AdapterRequest | None = None


@dataclass(frozen=True)
class Limits:
    """How much a server takes on; beyond it, requests are refused."""

    running: int = 64
    """Answers generated at once."""
    waiting: int = 1024
    """Answers that may wait beyond those."""
    body: int = 64 << 20
    """Bytes of a request."""
    seconds: float | None = 600.0
    """Time of a request, waiting included. None: any."""
    logprobs: int = 20
    """Alternatives for every token."""


@dataclass
class Served:
    """A model that is served, and the settings of its server. Until `opened` it answers nothing but that it is loading.

    `models`: the first is the model itself. `aliases`: other names for it. `usual`: settings of requests that name none.
    """

    models: Sequence[ServedModel]
    aliases: Sequence[str] = ()
    usual: RequestConfig = field(default_factory=RequestConfig)
    limits: Limits = field(default_factory=Limits)
    api_key: str | None = None
    owned_by: str = 'swift'
    media_root: str | None = None
    """Folder of the files that requests may name. None: none."""
    media_hosts: Sequence[str] = ()
    """Hosts that media are fetched from. Empty: any."""
    result_path: str | None = None
    """File that answers are appended to. None: they are not kept."""
    verbose: bool = False
    """Log every request."""
    engine: InferEngine | None = None
    scores: ScoreQueue | None = None
    """What answers with numbers; None: the model generates."""
    metrics: Metrics = field(default_factory=Metrics)
    created: int = field(default_factory=lambda: int(time.time()))
    draining: bool = False
    """Whether new requests are refused, because the server ends."""

    def __post_init__(self):
        self._rows = 0
        self._writing = threading.Lock()
        self.metrics.gauges |= {
            'answers_running': ('Answers that are generated now.', lambda: min(self._rows, self.limits.running)),
            'answers_waiting': ('Answers that wait for a place.', lambda: max(0, self._rows - self.limits.running)),
        }

    @property
    def ready(self) -> bool:
        """Whether the model is loaded."""
        return self.engine is not None or self.scores is not None

    def model(self, name: str) -> ServedModel:
        """What answers under a name. Raises ApiError 404 with the names there are."""
        if name in self.aliases:
            return self.models[0]
        for model in self.models:
            if model.name == name:
                return model
        names = [model.name for model in self.models]
        near = did_you_mean(name, names) or f'served: {", ".join(names)}'
        raise ApiError(404, f'model: there is no {name!r:.200} here; {near}', param='model', code='model_not_found')

    def generator(self, path: str) -> InferEngine:
        """The engine. Raises ApiError where the model gives numbers, not text."""
        if self.engine is None:
            kind = self.scores.task if self.scores else 'model'
            raise ApiError(400, f'{path}: the model ({kind}) answers with numbers, not with text', param='model', code='unsupported_endpoint')
        return self.engine

    def scorer(self, path: str, tasks: Mapping[str, Any] | Sequence[str]) -> ScoreQueue:
        """What gives numbers. Raises ApiError where the model does something else than `tasks`."""
        if self.scores is None or self.scores.task not in tasks:
            kind = self.scores.task if self.scores else 'a model that generates text'
            needed = ', '.join(tasks)
            raise ApiError(400, f'{path} needs a model for {needed}; served is {kind}', param='model', code='unsupported_endpoint')
        return self.scores

    @contextmanager
    def places(self, answers: int) -> Iterator[None]:
        """Room for so many answers while they are made. Raises ApiError 429 where too many wait already."""
        limit = self.limits.running + self.limits.waiting
        if self._rows and self._rows + answers > limit:
            raise ApiError(
                429, f'{self._rows} answers are asked for already, and the server takes {limit}; try again later',
                code='queue_full', headers={'Retry-After': '1'},
            )  # fmt: skip
        self._rows += answers
        try:
            yield
        finally:
            self._rows -= answers

    def keep(self, row: Callable[[], dict[str, Any]]) -> None:
        """Append a row to the file of results, if there is one."""
        if self.result_path:
            with self._writing:
                append_to_jsonl(self.result_path, row(), strict=False)
