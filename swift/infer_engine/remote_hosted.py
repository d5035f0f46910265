"""An OpenAI-compatible server that we start for a model: it is sent messages, and lives as long as its engine."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from swift.core.errors import SwiftError
from swift.core.ports import free_port
from swift.core.types import Prompt
from swift.infer_engine.client import ClientEngine
from swift.infer_engine.loading import check_adapter
from swift.infer_engine.protocol import AdapterRequest, RequestConfig
from swift.infer_engine.remote_model import python_for
from swift.infer_engine.remote_process import READY_SECONDS, ServerProcess, flags_from


class HostedEngine(ClientEngine):
    """Starts a server and asks it. A subclass names its `package` and writes `command`.

    `python`: the interpreter of the environment that has the package; None: this one. `adapters`: one that every request uses.
    `system`: the system prompt of conversations that have none. `settings`: the server's own flags, by their names with underscores.
    The prompt is made by the server, from the chat template in the model's folder.
    """

    package = ''

    def __init__(
        self,
        model: str,
        adapters: Sequence[str] | str | None = None,
        *,
        python: str | None = None,
        system: str | None = None,
        concurrency: int = 256,
        seconds: float = READY_SECONDS,
        **settings: Any,
    ):
        from swift.arguments import ModelArgs
        from swift.model.load import model_info

        python = python_for(self.package, python)
        info = model_info(ModelArgs(model=model, adapters=[adapters] if isinstance(adapters, str) else list(adapters or [])))
        if len(info.adapters) > 1:
            raise SwiftError(f'{self.package} puts one adapter on a request, not {len(info.adapters)};', 'merge them first: --merge_lora true')
        name, adapter = os.path.basename(os.path.normpath(info.model_dir)), None
        for path in info.adapters:
            check_adapter(path)
            adapter = (f'{os.path.basename(os.path.normpath(path))}-adapter', path)
        port = free_port()
        words = [python, *self.command(info.model_dir, name, port, adapter), *flags_from(settings)]
        self._process = ServerProcess(words, port, self.package, seconds=seconds)
        super().__init__(self._process.remote.base_url, adapter[0] if adapter else name, system=system, concurrency=concurrency)

    def _body(self, prompt: Prompt, config: RequestConfig, adapter: AdapterRequest | None) -> dict[str, Any]:
        form = config.form()
        if form and form.kind != 'json':
            raise SwiftError(f'{form.field}: {self.package} is asked for JSON schemas only;', 'use response_format, or --infer_backend transformers')
        return super()._body(prompt, config, adapter)

    @staticmethod
    @abstractmethod
    def command(directory: str, name: str, port: int, adapter: tuple[str, str] | None) -> list[str]:
        """The words behind `python` that serve this directory under this name. `adapter`: name and directory."""

    def close(self) -> None:
        """End the server."""
        self._process.close()

    def __enter__(self) -> HostedEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

