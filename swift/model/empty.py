"""A model without its weights, to count parameters on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swift.model.load import build_config, model_class

if TYPE_CHECKING:
    from swift.arguments.model import ModelArgs
    from swift.model.info import ModelInfo


def empty_model(args: ModelArgs, info: ModelInfo) -> Any:
    """The architecture that `args` names on the meta device: shapes and names without memory. Raises ModelError."""
    import torch

    config = build_config(info, args)
    cls = model_class(info, config, args)
    with torch.device('meta'):
        build = getattr(cls, 'from_config', None) or cls._from_config
        return build(config)
