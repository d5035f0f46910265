"""Conversations answered by the model that is being trained, for evaluation by generation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from swift.core.errors import SwiftError
from swift.core.log import get_logger
from swift.core.types import Conversation


def answerer(model: Any, template: Any, args: Any, config: Any = None) -> Callable[[Sequence[Conversation]], list[str]]:
    """`conversations → answers`; the engine is made at the first call and samples as `config` (a RequestConfig) says; None: as
    GenerationArgs do. What can't be asked (it is too long, say) gets '', and a warning."""
    from swift.infer_engine import TransformersEngine
    from swift.pipelines.infer import request_config

    config = config or request_config(args)
    made: list[Any] = []

    def answer(conversations: Sequence[Conversation]) -> list[str]:
        if not made:
            made.append(TransformersEngine(model, template=template, max_batch_size=max(args.per_device_eval_batch_size, 8)))
        found = made[0].infer(conversations, config, use_tqdm=False, strict=False)
        if errors := [each for each in found if isinstance(each, SwiftError)]:
            get_logger().warning('%d of %d questions of the evaluation were not asked; the first: %s', len(errors), len(found), errors[0])
        return ['' if isinstance(each, SwiftError) else each.choices[0].message.content or '' for each in found]

    return answer
