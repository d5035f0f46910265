"""What `swift verify` compares of models that see and hear: our tokens with the processor's, packed and merged with real media."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from swift.core.errors import RowError, SwiftError
from swift.core.media import media_of
from swift.core.types import IGNORE_INDEX, Conversation, Prompt, Sample
from swift.template.runs import processor_ids

ROWS = 16
"""Rows whose media are read."""
PROCESSOR_FILES = ('processor_config.json', 'preprocessor_config.json')
_LIMITS = {torch.float32: (2e-3, 1e-5), torch.float64: (1e-6, 1e-9)}
_HALF_LIMITS = (0.5, 2e-2)
"""(largest difference of a logit relative to the largest one, KL in nats) that rounding can explain."""


def showing(rows: Sequence[Conversation]) -> list[Conversation]:
    """The first rows that show something."""
    return [row for row in rows if media_of(row.messages)][:ROWS]


def lacks_processor(folder: str, multimodal: bool) -> str | None:
    """Why a checkpoint of a model that sees or hears can't be served by itself; None: it can."""
    if not multimodal or any(os.path.isfile(os.path.join(folder, name)) for name in PROCESSOR_FILES):
        return None
    return f'the files of the processor are missing ({" or ".join(PROCESSOR_FILES)})'


def compared_with_processor(rows: Sequence[Conversation], template: Any, prompt_of: Any) -> tuple[bool | None, str]:
    """(outcome, in words): the ids of prompts that show something are those of the model's own processor on the same files."""
    compared, refused = 0, ''
    for row in showing(rows):
        try:
            prompt = prompt_of(row)
            if prompt.media is None:
                continue
            theirs = processor_ids(template, prompt.media)
            if theirs != list(prompt.input_ids)[-len(theirs) :]:  # a processor that writes around the text by itself
                theirs = processor_ids(template, {**prompt.media, 'text': _bare(prompt.media['text'], template.tokenizer)})
        except SwiftError as error:
            refused = refused or str(error)
            continue
        compared += 1
        ids = list(prompt.input_ids)
        behind = ids[len(ids) - len(theirs) :]  # plain text has the tokenizer's own bos in front
        if behind != theirs:
            at = next((i for i, (a, b) in enumerate(zip(ids, theirs, strict=False)) if a != b), min(len(ids), len(theirs)))
            return False, f'{row.source}: the ids differ from position {at} on ({len(ids)} of ours, {len(theirs)} of the processor)'
    note = f'; not compared: {refused}' if refused else ''
    return (True if compared else None), f'{compared} rows with media compared{note}'


def _bare(text: str, tokenizer: Any) -> str:
    """A prompt without the bos token and the line end that some processors add themselves."""
    return (text.replace(tokenizer.bos_token, '', 1) if tokenizer.bos_token else text).removesuffix('\n')


def samples_of(rows: Sequence[Conversation], template: Any) -> list[Sample]:
    """Two samples that show something, read in full; fewer where there are none."""
    found: list[Sample] = []
    for row in showing(rows):
        try:
            found.append(template.read_media(template.encode(row)[0]))
        except SwiftError:
            continue
        if len(found) == 2:
            break
    return found


class Saw:
    """What a model says to a prompt that shows something, to be compared with what another model says."""

    def __init__(self, model: Any, rows: Sequence[Conversation], template: Any, prompt_of: Any):
        self._inputs: dict[str, Tensor] = {}
        self.kinds = ''
        for row in showing(rows):
            try:
                prompt = prompt_of(row)
                self._inputs = _inputs(model, prompt, template)
            except (RowError, SwiftError):
                continue
            if self._inputs:
                self.kinds = ' and '.join(sorted({f'{kind}s' for kind, _ in prompt.media['media']}))
                break
        self._said = _logits(model, self._inputs) if self._inputs else None

    def compare(self, other: Any) -> tuple[bool | None, str]:
        """(outcome, in words) for another model on the same prompt."""
        if self._said is None:
            return None, ''
        found = _logits(other, self._inputs)
        difference = ((found - self._said).abs().max() / self._said.abs().max().clamp(min=1e-6)).item()
        wanted, got = F.log_softmax(self._said, -1), F.log_softmax(found, -1)
        divergence = max((wanted.exp() * (wanted - got)).sum(-1).mean().item(), 0.0)
        most, nats = _LIMITS.get(_dtype(other), _HALF_LIMITS)
        words = f'with {self.kinds} max|Δlogit| {difference:.1e} of the largest, KL {divergence:.1e}'
        return difference <= most and divergence <= nats, words


def _inputs(model: Any, prompt: Prompt, template: Any) -> dict[str, Tensor]:
    if prompt.media is None:
        return {}
    ids = list(prompt.input_ids)
    media = template.read_media(Sample(ids, [IGNORE_INDEX] * len(ids), media=[prompt.media])).media[0]
    device, dtype = next(model.parameters()).device, _dtype(model)
    inputs = {'input_ids': torch.tensor([ids], device=device), 'attention_mask': torch.ones(1, len(ids), dtype=torch.long, device=device)}
    tensors = {**{name: value[None] for part in (media.aligned, media.nested) for name, value in part.items()}, **media.listed}
    return inputs | {name: value.to(device, dtype if value.is_floating_point() else None) for name, value in tensors.items()}


@torch.no_grad()
def _logits(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """[T, V] float32 logits (hidden states of a model without a head)."""
    output = model.eval()(**inputs)
    return (output.logits if hasattr(output, 'logits') else output.last_hidden_state)[0].float()


def _dtype(model: Any) -> torch.dtype:
    types = [p.dtype for p in model.parameters() if p.is_floating_point()]
    return max(set(types), key=types.count)
