"""The engine that `--infer_backend` names, where it is not transformers."""

from __future__ import annotations

import os
from typing import Any


def other_engine(args: Any) -> Any:
    """A server's client, or vLLM, SGLang, LMDeploy with the model of these arguments."""
    return {'client': _client}[args.infer_backend](args)


def _client(args: Any) -> Any:
    from swift.infer_engine.client import ClientEngine

    return ClientEngine(
        args.base_url, args.model, api_key=args.api_key or os.environ.get('OPENAI_API_KEY'), timeout=args.client_timeout,
        max_retries=args.client_retries, concurrency=args.max_batch_size, system=args.system,
    )  # fmt: skip
