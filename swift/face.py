"""`Swift`: tuning functions and whole commands under one name.

    Swift.prepare_model(model, LoRAConfig(r=8))
    result = Swift.sft(model='tiny', dataset='data.jsonl', num_train_epochs=1)
"""

from __future__ import annotations

from typing import Any

from swift import pipelines
from swift.tuners.face import Swift as _Tuning


class Swift(_Tuning):
    """Prepare, load and merge tuners; run the commands with keyword arguments named as the flags."""

    @staticmethod
    def sft(**config: Any) -> dict[str, Any]:
        """`swift sft`; returns what `sft_main` does."""
        return pipelines.sft_main(config)

    @staticmethod
    def pt(**config: Any) -> dict[str, Any]:
        """`swift pt`; returns what `pretrain_main` does."""
        return pipelines.pretrain_main(config)

    @staticmethod
    def rlhf(**config: Any) -> dict[str, Any]:
        """`swift rlhf`; returns what `rlhf_main` does."""
        return pipelines.rlhf_main(config)

    @staticmethod
    def infer(**config: Any) -> Any:
        """`swift infer`."""
        return pipelines.infer_main(config)

    @staticmethod
    def export(**config: Any) -> Any:
        """`swift export`."""
        return pipelines.export_main(config)
