"""`swift preview`: samples as the model sees them, with what is trained marked."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from swift.core.types import IGNORE_INDEX, Sample
from swift.pipelines.base import SwiftPipeline
from swift.pipelines.segments import part_names, shown_label

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
        args = resolve(self.args, Facts(model_max_length=info.max_model_len, multimodal=info.is_multimodal))
        template = template_for(load_processor(args), args, info)
        method = settle(args, self.command, info)
        samples = first_samples(encode_data(method.args, method.objective, template, splits=method.splits).train, args.num_samples)
        color = sys.stdout.isatty() and 'NO_COLOR' not in os.environ
        shown = []
        for number, sample in enumerate(samples, 1):
            facts = describe(sample, method.name, method.args.class_names)
            print(_line('──', head_of(number, facts), color))
            for name, part in zip(facts['parts'] or [''], segments(sample), strict=True):
                if name:
                    print(_line('┄┄', f'{name} · {len(part)} tokens', color))
                print(marked(part, template.tokenizer, color))
            texts = [marked(part, template.tokenizer, False) for part in segments(sample)]
            shown.append({**facts, 'text': ''.join(texts), 'texts': texts})
        return shown


def head_of(number: int, facts: dict[str, Any]) -> str:
    """One line about a sample."""
    trained = f', {facts["trained"]} trained' if facts['trained'] or not facts['parts'] and not facts['label'] else ''
    label = f' · label {facts["label"]}' if facts['label'] else ''
    return f'sample {number} · {facts["source"]} · {facts["tokens"]} tokens{trained}{label}'


def _line(rule: str, text: str, color: bool) -> str:
    return f'{DIM}{rule} {text} {rule}{OFF}' if color else f'{rule} {text} {rule}'


def segments(sample: Sample) -> list[Sample]:
    """Every segment as a sample of its own."""
    ends = list(accumulate(sample.segment_lengths))
    spans = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
    weights = sample.weights
    return [Sample(sample.input_ids[s], sample.labels[s], None if weights is None else weights[s]) for s in spans]


def describe(sample: Sample, method: str = 'sft', class_names: Sequence[str] = ()) -> dict[str, Any]:
    """Source, number of tokens, of trained tokens, and of segments; what the segments are, the label; the weights that differ from 1."""
    labels = np.asarray(sample.labels)
    facts: dict[str, Any] = {
        'source': sample.source or 'in memory',
        'tokens': len(labels),
        'trained': int((labels != IGNORE_INDEX).sum()),
        'segments': len(sample.segment_lengths),
        'parts': part_names(method, sample),
        'label': shown_label(method, sample, class_names),
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
