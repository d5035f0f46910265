"""What the parts of a sample are to its training method, for pages that show samples; samples of nothing, to try a model on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from swift.core.types import IGNORE_INDEX, Sample

PAIRS = frozenset({'dpo', 'orpo', 'cpo', 'simpo', 'rm'})
"""Methods whose sample is a chosen and a rejected conversation."""
GROUPS = frozenset({'embedding', 'reranker', 'generative_reranker'})
"""Methods whose sample is a group of texts."""


def part_names(method: str, sample: Sample) -> list[str]:
    """The name of every segment of a sample; [] where a sample is simply one text."""
    count = len(sample.segment_lengths)
    if method in PAIRS:
        return ['chosen', 'rejected']
    if method == 'kto':
        return [judgement(sample.label), *['answer of another row, for the KL term'] * (count - 1)]
    if method == 'embedding':
        positives = int((sample.extra or {}).get('positives', 0))
        return ['anchor', *['positive'] * positives, *['negative'] * (count - 1 - positives)]
    if method in GROUPS:
        positives = int((sample.extra or {}).get('positives', 0))
        return ['query with positive document'] * positives + ['query with negative document'] * (count - positives)
    return []


def judgement(label: Any) -> str:
    """What a KTO label says."""
    return 'desirable' if label else 'undesirable'


def shown_label(method: str, sample: Sample, names: Sequence[str] = ()) -> str:
    """The label of a sample of a classifier or an embedding model with its name, '' where there is none or the parts tell it."""
    label = sample.label
    if label is None or method in PAIRS | {'kto', 'sft', 'pt'}:
        return ''
    if isinstance(label, (list, tuple)):
        return ' '.join(_named(item, names) for item in label)
    return _named(label, names)


def _named(label: Any, names: Sequence[str]) -> str:
    known = isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(names)
    return f'{names[label]} ({label})' if known else str(label)


def text_samples(tokenizer: Any) -> list[Sample]:
    """Two unlabelled samples of 48 and 32 tokens drawn at random from the words of a tokenizer, none of them special."""
    special = {*tokenizer.all_special_ids, *getattr(tokenizer, 'added_tokens_decoder', {})}
    words = np.array([token for token in range(len(tokenizer)) if token not in special])
    ids = np.random.default_rng(0).choice(words, 80).tolist()
    return [Sample(ids[:48], [IGNORE_INDEX] * 48), Sample(ids[48:], [IGNORE_INDEX] * 32)]
