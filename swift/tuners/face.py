"""`Swift` and `LoRAConfig`: tuning from Python, as ms-swift spells it.

    from swift import Swift, LoRAConfig
    model = Swift.prepare_model(model, LoRAConfig(r=8, lora_alpha=32, target_modules='all-linear'))
    model.save_pretrained('adapter')
    model = Swift.from_pretrained(base, 'adapter')
    model = Swift.merge_and_unload(model)
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from peft import LoraConfig, PeftConfig
from peft import PeftModel as SwiftModel  # noqa: F401  (a public name)

from swift.core.errors import ModelError
from swift.tuners import targets
from swift.tuners.merging import merge
from swift.tuners.modules import find_all_linears
from swift.tuners.registry import load_adapter


class SwiftConfig(PeftConfig):
    """The common base of configurations, for type checks."""


@dataclass
class LoRAConfig(LoraConfig):
    """peft.LoraConfig with the defaults of this package (rank 8, alpha 32, dropout 0.05, all linear layers).

    The short spellings `alpha`, `dropout`, `rank` are understood.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        for short, full in (('alpha', 'lora_alpha'), ('dropout', 'lora_dropout'), ('rank', 'r'), ('lora_rank', 'r')):
            if short in kwargs:
                if full in kwargs and kwargs[full] != kwargs[short]:
                    raise ModelError(f'LoRAConfig: {short}={kwargs[short]} and {full}={kwargs[full]} contradict each other.')
                kwargs[full] = kwargs.pop(short)
        defaults = dict(r=8, lora_alpha=32, lora_dropout=0.05, target_modules='all-linear', task_type='CAUSAL_LM')
        super().__init__(*args, **{**defaults, **kwargs})


class _SwiftBase:
    """The tuning functions under one name."""

    @staticmethod
    def prepare_model(model: Any, config: Any, **_: Any) -> Any:
        """Wrap a model with the adapter of a PEFT (or LoRAConfig) configuration.

        `target_modules='all-linear'` means every plain linear layer except heads and routers.
        """
        from copy import deepcopy

        from swift.tuners.peft import _wrap, remember_start, taken_for_experts

        config = deepcopy(config)
        if getattr(config, 'target_modules', None) in ('all-linear', 'all', 'DEFAULT'):
            skipped = taken_for_experts(model)
            names = [name for name in find_all_linears(model) if name.rpartition('.')[2] not in skipped]
            config.target_modules = targets.shortest(model, names)
        tuned = _wrap(model, config)
        remember_start(tuned, config)
        return tuned

    @staticmethod
    def from_pretrained(
        model: Any, model_id: str | os.PathLike | dict[str, str], adapter_name: str = 'default', *, is_trainable: bool = False
    ) -> Any:
        """Put stored adapters on a model; `model_id` may be `{name: directory}`."""
        if isinstance(model_id, dict):
            return load_adapter(model, list(model_id.values()), trainable=is_trainable, names=list(model_id))
        return load_adapter(model, [os.fspath(model_id)], trainable=is_trainable, names=[adapter_name])

    @staticmethod
    def merge_and_unload(model: Any) -> Any:
        """The base model with the adapter folded in, checked against base + adapter."""
        return merge(model)[0]


class Swift(_SwiftBase):
    """Prepare, load and merge tuners on a model."""
