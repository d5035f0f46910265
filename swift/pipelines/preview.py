"""`swift preview`: samples as the model sees them, with what is trained marked."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from swift.core.types import IGNORE_INDEX, Sample
from swift.pipelines.base import SwiftPipeline
from swift.pipelines.preview_page import Page, check_free
from swift.pipelines.preview_pieces import Piece, amount, media_in, medium_facts, pieces, seen_of, text_of
from swift.pipelines.segments import part_names, shown_label

DIM, OFF = '\x1b[2m', '\x1b[0m'


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
        if args.html:
            check_free(args.html)
        samples = first_samples(encode_data(method.args, method.objective, template, splits=method.splits).train, args.num_samples)
        color = sys.stdout.isatty() and 'NO_COLOR' not in os.environ
        shown, page = [], Page(f'{os.path.basename(os.path.normpath(info.model_dir))} · {method.name}', template, len(samples))
        for number, sample in enumerate(samples, 1):
            facts = describe(sample, method.name, method.args.class_names)
            parts = [pieces(part, seen_of(part, template), template.tokenizer) for part in segments(sample)]
            facts['media'] = [medium_facts(item) for part in parts for item in media_in(part)]
            _show(number, facts, parts, color)
            texts = [text_of(part, False) for part in parts]
            shown.append({**facts, 'text': ''.join(texts), 'texts': texts})
            if args.html:
                page.add(head_of(number, facts), facts['parts'], parts)
        if args.html:
            page.write(args.html)
            print(f'page       {args.html}')
        return shown


def _show(number: int, facts: dict[str, Any], parts: list[list[Piece]], color: bool) -> None:
    """Print a sample: a line about it, a line for each medium, and its text."""
    print(_line('──', head_of(number, facts), color))
    names: dict[str, int] = {}
    for medium in facts['media']:
        names[medium['kind']] = names.get(medium['kind'], 0) + 1
        print(f'   {medium["kind"]} {names[medium["kind"]]} · {medium["size"]} · {amount(medium["tokens"])} · {medium["name"]}')
    for name, part in zip(facts['parts'] or [''], parts, strict=True):
        if name:
            print(_line('┄┄', f'{name} · {sum(piece.tokens for piece in part)} tokens', color))
        print(text_of(part, color))


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
    weights, media = sample.weights, sample.media or [None] * len(ends)
    return [
        Sample(sample.input_ids[s], sample.labels[s], None if weights is None else weights[s], media=[shown] if shown else None)
        for s, shown in zip(spans, media, strict=True)
    ]


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
