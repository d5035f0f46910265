"""The template of a run: the tokenizer's own, the one that was named, or the one its model family is known to use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from swift.core.errors import TemplateError
from swift.core.heads import TASK_HEADS
from swift.core.log import get_logger
from swift.template import get_template, templates_map

logger = get_logger()

_OF_CHATS = ('system', 'agent_template', 'enable_thinking', 'preserve_thinking', 'response_prefix')
"""Settings that only a chat template reads."""


def template_for(processor: Any, args: Any, info: Any, stop_token_ids: Iterable[int] = ()) -> Any:
    """The Template of a model. A base model without a chat template takes the named template of its family, and says so; where it
    has none and its task is to read texts, not to answer, they are read as they are.

    `info` is the ModelInfo of the model; `stop_token_ids` end an answer besides the template's own.
    """
    settings: dict[str, Any] = {}
    if args.use_chat_template and not args.template and not _has_own(processor):
        if info.template in templates_map:
            logger.info('the tokenizer has no chat template; models of type %s use --template %s', info.model_type, info.template)
            settings['template'] = info.template
        elif getattr(args, 'task_type', None) in TASK_HEADS and not getattr(args, 'rlhf_type', None):
            if idle := next((name for name in _OF_CHATS if getattr(args, name, None)), None):
                raise TemplateError(f'--{idle} has no effect: the tokenizer has no chat template;', f'drop --{idle}, or choose a --template')
            logger.info('the tokenizer has no chat template: texts are read as they are')
            settings['use_chat_template'] = False
    return get_template(processor, args, stop_token_ids=stop_token_ids, **settings)


def _has_own(processor: Any) -> bool:
    return any(getattr(owner, 'chat_template', None) for owner in (processor, getattr(processor, 'tokenizer', None)))
