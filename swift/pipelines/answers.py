"""Conversations answered by the model that is being trained, for evaluation by generation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from swift.core.types import Conversation


def answerer(model: Any, template: Any, args: Any) -> Callable[[Sequence[Conversation]], list[str]]:
    """`conversations → answers`; the engine is made at the first call and samples as GenerationArgs say (default: greedy)."""
    from swift.infer_engine import InferRequest, TransformersEngine
    from swift.pipelines.infer import request_config

    config = request_config(args)
    made: list[Any] = []

    def answer(conversations: Sequence[Conversation]) -> list[str]:
        if not made:
            made.append(TransformersEngine(model, template=template, max_batch_size=max(args.per_device_eval_batch_size, 8)))
        requests = [InferRequest(messages=talk.messages, tools=talk.tools) for talk in conversations]
        return [response.choices[0].message.content or '' for response in made[0].infer(requests, config, use_tqdm=False)]

    return answer
