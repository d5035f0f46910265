"""The engine that `--infer_backend` names, where it is not transformers."""

from __future__ import annotations

import os
from typing import Any

from swift.arguments.backends import engine_settings


def other_engine(args: Any) -> Any:
    """A server's client, or vLLM, SGLang, LMDeploy with the model of these settled arguments."""
    return {'client': _client, 'vllm': _vllm, 'sglang': _hosted, 'lmdeploy': _hosted}[args.infer_backend](args)


def _client(args: Any) -> Any:
    from swift.infer_engine.client import ClientEngine

    return ClientEngine(
        args.base_url, args.model, api_key=args.api_key or os.environ.get('OPENAI_API_KEY'), timeout=args.client_timeout,
        max_retries=args.client_retries, concurrency=args.max_batch_size, system=args.system,
    )  # fmt: skip


def _vllm(args: Any) -> Any:
    """vLLM where this environment has it, else the server of another one (engine_python)."""
    from swift.infer_engine.remote_model import generation_of, python_for
    from swift.model.load import load_processor, model_info
    from swift.pipelines.templates import template_for

    python_for('vllm', args.engine_python)  # whether it is there, before anything is read
    info = model_info(args)
    ends = generation_of(info.model_dir).eos_token_id
    ends = [] if ends is None else ends if isinstance(ends, list) else [ends]
    template = template_for(load_processor(args), args, info, ends)
    settings = _loading(args, 'max_model_len') | engine_settings(args)
    if args.engine_python:
        from swift.infer_engine.vllm_server import VllmServer

        return VllmServer(info.model_dir, info.adapters, python=args.engine_python, template=template, **settings)
    from swift.infer_engine.vllm import VllmEngine

    return VllmEngine(info.model_dir, info.adapters, template=template, **settings)


def _hosted(args: Any) -> Any:
    from swift.model.load import model_info

    if args.infer_backend == 'sglang':
        from swift.infer_engine.sglang import SglangEngine as Engine
    else:
        from swift.infer_engine.lmdeploy import LmdeployEngine as Engine
    info = model_info(args)
    length = {'sglang': 'context_length', 'lmdeploy': 'session_len'}[args.infer_backend]
    settings = _loading(args, length) | engine_settings(args)
    return Engine(info.model_dir, info.adapters, python=args.engine_python, system=args.system, **settings)


def _loading(args: Any, length: str) -> dict[str, Any]:
    """Flags of the model as an engine's own settings; what was not given is left to the engine."""
    given = {'dtype': args.torch_dtype if 'torch_dtype' in args.sources else None, length: args.max_model_len}
    return {**{name: value for name, value in given.items() if value is not None}, **({'trust_remote_code': True} if args.trust_remote_code else {})}
