"""`swift preview`: samples as the model sees them, with what is trained marked."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from swift.core.types import IGNORE_INDEX, Sample
from swift.pipelines.base import SwiftPipeline

GREEN, DIM, OFF = '\x1b[32m', '\x1b[2m', '\x1b[0m'


def preview_main(args: Any = None) -> list[dict[str, Any]]:
    """Print the first samples, trained text in green (between ⟦ ⟧ where there are no colours); returns them as dicts."""
    return SwiftPreview(args).main()


class SwiftPreview(SwiftPipeline):
    """The pipeline of `swift preview`; loads the tokenizer, not the model."""

    command = 'preview'

    def run(self) -> list[dict[str, Any]]:
        """Encode as training would and show `--num_samples` samples."""
        from swift.arguments import Facts, resolve
        from swift.model.load import load_processor, model_info
        from swift.pipelines.data import encode_data, first_samples
        from swift.pipelines.methods import settle
        from swift.pipelines.templates import template_for

        info = model_info(self.args)
        args = resolve(self.args, Facts(model_max_length=info.max_model_len))
        template = template_for(load_processor(args), args, info)
        method = settle(args, self.command, info)
        samples = first_samples(encode_data(method.args, method.objective, template, splits=method.splits).train, args.num_samples)
        color = sys.stdout.isatty() and 'NO_COLOR' not in os.environ
        shown = []
        for number, sample in enumerate(samples, 1):
            facts = describe(sample)
            head = f'sample {number} · {facts["source"]} · {facts["tokens"]} tokens, {facts["trained"]} trained'
            print(f'{DIM}── {head} ──{OFF}' if color else f'── {head} ──')
            print(marked(sample, template.tokenizer, color))
            shown.append({**facts, 'text': marked(sample, template.tokenizer, False)})
        return shown


def describe(sample: Sample) -> dict[str, Any]:
    """Source, number of tokens, of trained tokens, and of segments; the weights that differ from 1."""
    labels = np.asarray(sample.labels)
    facts: dict[str, Any] = {
        'source': sample.source or 'in memory',
        'tokens': len(labels),
        'trained': int((labels != IGNORE_INDEX).sum()),
        'segments': len(sample.segment_lengths),
    }
    if sample.weights is not None:
        weights = np.asarray(sample.weights)[labels != IGNORE_INDEX]
        facts['weights'] = sorted({round(float(weight), 4) for weight in weights})
    return facts


def marked(sample: Sample, tokenizer: Any, color: bool) -> str:
    """The whole text of a sample; what is trained is green, or between ⟦ and ⟧, with its weight where that is not 1."""
    pieces = []
    for ids, trained, weight in runs(sample):
        text = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        note = '' if weight == 1 else f'×{weight:g} '
        if not trained:
            pieces.append(text)
        elif color:
            pieces.append(f'{GREEN}{note}{text}{OFF}')
        else:
            pieces.append(f'⟦{note}{text}⟧')
    return ''.join(pieces)


def runs(sample: Sample) -> Iterator[tuple[list[int], bool, float]]:
    """Longest runs of tokens that are alike in being trained and in weight: (ids, trained, weight)."""
    ids = np.asarray(sample.input_ids)
    trained = np.asarray(sample.labels) != IGNORE_INDEX
    weights = np.ones(len(ids)) if sample.weights is None else np.asarray(sample.weights, dtype=float)
    weights = np.where(trained, weights, 0.0)
    edges = np.flatnonzero((np.diff(trained.astype(int)) != 0) | (np.diff(weights) != 0)) + 1
    for part in np.split(np.arange(len(ids)), edges):
        if len(part):
            yield ids[part].tolist(), bool(trained[part[0]]), float(weights[part[0]])
