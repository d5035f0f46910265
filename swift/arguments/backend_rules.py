"""Checks of `--infer_backend` and of what belongs to it."""

from __future__ import annotations

from typing import Any

from swift.arguments.aliases import ASKING
from swift.arguments.backends import BackendArgs, ClientArgs
from swift.arguments.media import MediaArgs
from swift.arguments.model import ModelArgs
from swift.arguments.rules import NoEffect, Values
from swift.arguments.template import TemplateArgs

CLIENTS = ('infer', 'app')
"""Those of them that can ask a server by its address."""
SERVERS = ('vllm', 'sglang', 'lmdeploy')
"""Engines that can run in an environment of their own."""

_LOCAL = tuple(
    name
    for group in (ModelArgs, TemplateArgs, MediaArgs)
    for name in group.__dataclass_fields__
    if name not in ('model', 'system', 'task_type')
)
"""Flags of a model that is loaded here."""

_TRANSFORMERS = tuple(
    'attn_impl experts_impl new_special_tokens rope_scaling rope_scaling_factor device_map max_memory offload_folder init_strategy '
    'model_kwargs num_labels problem_type class_names'.split()
)
"""Flags of loading a model with transformers."""
_TEMPLATE = tuple(name for group in (TemplateArgs, MediaArgs) for name in group.__dataclass_fields__ if name != 'system')


def _own(backend: str) -> tuple[str, ...]:
    return tuple(name for name in BackendArgs.__dataclass_fields__ if name.startswith(f'{backend}_'))


BACKEND_NO_EFFECT: tuple[NoEffect, ...] = (
    NoEffect(tuple(ClientArgs.__dataclass_fields__), lambda v: v['infer_backend'] != 'client', 'without --infer_backend client', CLIENTS),
    NoEffect(
        (*_LOCAL, 'merge_lora'), lambda v: v['infer_backend'] == 'client', 'with --infer_backend client: the server has the model', CLIENTS
    ),
    NoEffect(('engine_python',), lambda v: v['infer_backend'] not in SERVERS, f'unless --infer_backend is {", ".join(SERVERS)}', ASKING),
    NoEffect(
        ('max_batch_size',),
        lambda v: v['infer_backend'] in SERVERS,
        f'with --infer_backend {", ".join(SERVERS)}, which batch by their own settings',
        ASKING,
    ),
    NoEffect(('prefix_cache_tokens',), lambda v: v['infer_backend'] != 'transformers', 'unless --infer_backend is transformers', ASKING),
    NoEffect(_TRANSFORMERS, lambda v: v['infer_backend'] in SERVERS, f'with --infer_backend {", ".join(SERVERS)}, which load models their own way', ASKING),
    NoEffect(_TEMPLATE, lambda v: v['infer_backend'] in ('sglang', 'lmdeploy'), 'with --infer_backend sglang, lmdeploy, which write prompts themselves', ASKING),
    *(
        NoEffect(_own(backend), lambda v, backend=backend: v['infer_backend'] != backend, f'unless --infer_backend is {backend}', ASKING)
        for backend in SERVERS
    ),
)


def implied_backend(settings: dict[str, tuple[Any, str]]) -> None:
    """An address asks for the engine that uses it."""
    if settings.get('base_url', (None,))[0] and 'infer_backend' not in settings:
        settings['infer_backend'] = ('client', 'by --base_url')


def backend_mistakes(command: str, v: Values) -> list[str]:
    """What an engine can't be built from."""
    if v.get('infer_backend') != 'client':
        return []
    if command not in CLIENTS:
        return [f'--infer_backend client is for swift {" and ".join(CLIENTS)}; swift {command} has its own flags for a server']
    if not v['base_url']:
        return ['--infer_backend client needs --base_url, the address of an OpenAI-compatible server']
    return []
