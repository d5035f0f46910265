"""The template of a run: the tokenizer's own, the one that was named, or the one its model family is known to use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from swift.core.log import get_logger
from swift.template import get_template, templates_map

logger = get_logger()


def template_for(processor: Any, args: Any, info: Any, stop_token_ids: Iterable[int] = ()) -> Any:
    """The Template of a model. A base model without a chat template takes the named template of its family, and says so.

    `info` is the ModelInfo of the model; `stop_token_ids` end an answer besides the template's own.
    """
    settings = {}
    if args.use_chat_template and not args.template and not _has_own(processor) and info.template in templates_map:
        logger.info('the tokenizer has no chat template; models of type %s use --template %s', info.model_type, info.template)
        settings['template'] = info.template
    return get_template(processor, args, stop_token_ids=stop_token_ids, **settings)


def _has_own(processor: Any) -> bool:
    return any(getattr(owner, 'chat_template', None) for owner in (processor, getattr(processor, 'tokenizer', None)))
