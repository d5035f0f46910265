"""Multiple choice by likelihood: each choice is put in as the answer, and the likeliest is the model's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from swift.core.errors import SwiftError
from swift.core.types import Conversation
from swift.pipelines.eval_kinds import LETTERS, Item

WINDOW = 16
"""Questions whose choices are encoded together."""
TOKENS = 8192
"""Tokens that go through the model at once."""


class Likelihoods:
    """`each(items)` → for every item {'letter', 'letter_norm', 'logps', …}, or the SwiftError that says why it has none.

    The log-probability of a choice is summed over its tokens, the one that ends the turn included; `norm`: divided by the number
    of characters, so that long choices are no worse off.
    """

    def __init__(self, engine: Any):
        if not hasattr(engine, 'model'):
            raise SwiftError('--eval_mode likelihood needs the model in this process;', 'leave --infer_backend at transformers')
        self._template, self._model = engine.template, engine.model
        self._plan: Any = None

    def each(self, items: Iterator[Item]) -> Iterator[dict[str, Any] | SwiftError]:
        """In the order of the items."""
        while window := list(islice(items, WINDOW)):
            talks = [answered(item, choice) for item in window for choice in item.choices]
            encoded = iter(self._template.encode_batch(talks))
            groups = [[next(encoded) for _ in item.choices] for item in window]
            wrong = [next((found for found in group if isinstance(found, SwiftError)), None) for group in groups]
            samples = [found[0] for group, error in zip(groups, wrong, strict=True) if error is None for found in group]
            sums = iter(self._sums([self._template.read_media(sample) for sample in samples]) if samples else ())
            for item, error in zip(window, wrong, strict=True):
                yield error if error is not None else verdict(item, [next(sums) for _ in item.choices])

    def _sums(self, samples: Sequence[Any]) -> list[float]:
        import torch

        from swift.pipelines.reference_logps import reference_values
        from swift.trainers import selfcheck
        from swift.trainers.forward import ModelActor

        if self._plan is None:
            self._plan = selfcheck.plan(self._model, samples[:2], flat=True)
        actor, device = ModelActor(self._model, self._plan), next(self._model.parameters()).device
        order = sorted(range(len(samples)), key=lambda index: len(samples[index]))
        sums = [0.0] * len(samples)
        with torch.inference_mode():
            for batch in _batches(order, samples):
                for index, values in zip(batch, reference_values([samples[i] for i in batch], actor, self._plan, device), strict=True):
                    sums[index] = float(values.sum())
        return sums


def _batches(order: Sequence[int], samples: Sequence[Any]) -> Iterator[list[int]]:
    batch: list[int] = []
    total = 0
    for index in order:
        if batch and total + len(samples[index]) > TOKENS:
            yield batch
            batch, total = [], 0
        batch.append(index)
        total += len(samples[index])
    if batch:
        yield batch


def answered(item: Item, choice: str) -> Conversation:
    """The question with a choice as its answer; nothing before it counts."""
    earlier = [{**message, 'loss': False} if message.get('role') == 'assistant' else message for message in item.talk.messages]
    return replace(item.talk, messages=[*earlier, {'role': 'assistant', 'content': choice}])


def verdict(item: Item, sums: Sequence[float]) -> dict[str, Any]:
    """The likeliest choice, and the likeliest for its length."""
    normed = [value / max(len(choice), 1) for value, choice in zip(sums, item.choices, strict=True)]
    best = [LETTERS[max(range(len(sums)), key=values.__getitem__)] for values in (sums, normed)]
    return {'letter': best[0], 'letter_norm': best[1], 'logps': [round(value, 6) for value in sums]}
