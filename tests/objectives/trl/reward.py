"""The tiny reward model of the golden numbers."""

from __future__ import annotations

from transformers import Qwen3ForSequenceClassification

from tests.helpers.tiny import build_model
from tests.objectives.trl.batch import fill


def reward_model() -> Qwen3ForSequenceClassification:
    """A Qwen3 in float32 with a head of one value, whose weights depend on their names only. No dropout."""
    config = build_model().config
    config.num_labels = 1
    return fill(Qwen3ForSequenceClassification(config)).eval()
