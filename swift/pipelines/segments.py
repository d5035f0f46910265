"""What the parts of a sample are to its training method, for pages that show samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from swift.core.types import Sample

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
