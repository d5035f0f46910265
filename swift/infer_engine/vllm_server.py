"""vLLM in a process of its own, in an environment of its own: started here, sent token ids, ended with us."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from swift.core.errors import SwiftError
from swift.core.ports import free_port
from swift.core.types import Template
from swift.infer_engine.remote_model import RemoteModel, needed_rank, python_for
from swift.infer_engine.remote_process import READY_SECONDS, ServerProcess, flags_from
from swift.infer_engine.remote_tokens import TokenEngine

MODULE = 'vllm.entrypoints.openai.api_server'
QUIET = {'VLLM_NO_USAGE_STATS': '1', 'DO_NOT_TRACK': '1', 'VLLM_ALLOW_RUNTIME_LORA_UPDATING': '1'}


class VllmServer(TokenEngine):
    """Answers by a vLLM server that lives as long as this object (`close`, or `with`).

    `python`: the interpreter of the environment that has vllm; None: this one. `adapters`: one that every request uses unless it names
    another. `settings`: vLLM's engine arguments by their own names; requests that name adapters need `max_lora_rank`.
    """

    def __init__(
        self,
        model: str,
        adapters: Sequence[str] | str | None = None,
        *,
        python: str | None = None,
        template: Template | None = None,
        seconds: float = READY_SECONDS,
        **settings: Any,
    ):
        python = python_for('vllm', python)
        found = RemoteModel.find(model, adapters, template)
        if len(found.adapters) > 1:
            raise SwiftError(f'vLLM puts one adapter on a request, not {len(found.adapters)};', 'merge them first: --merge_lora true')
        default = {_adapter_name(path): path for path in found.adapters}
        found.max_model_len = settings.get('max_model_len') or found.max_model_len
        port = free_port()
        words = [python, '-m', MODULE, '--model', found.directory, '--served-model-name', found.name, '--host', '127.0.0.1', '--port', str(port)]
        words += ['--generation-config', 'vllm']  # ours fills in what a request leaves open
        rank = settings.pop('max_lora_rank', None)
        if default or rank:
            words += ['--enable-lora', '--max-lora-rank', str(needed_rank(found.adapters, rank))]
        if default:
            words += ['--lora-modules', *(f'{name}={path}' for name, path in default.items())]
        self._process = ServerProcess([*words, *flags_from(settings)], port, 'vllm', environment=_environment(), seconds=seconds)
        super().__init__(self._process.remote, found, loaded=default, default=next(iter(default), None))

    def close(self) -> None:
        """End the server."""
        self._process.close()

    def __enter__(self) -> VllmServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _adapter_name(path: str) -> str:
    return f'{os.path.basename(os.path.normpath(path))}-adapter'


def _environment() -> dict[str, str]:
    """Variables for the server: it asks nobody, and it may be told of adapters while it runs."""
    return {name: value for name, value in QUIET.items() if name not in os.environ}
