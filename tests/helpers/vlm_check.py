"""Whether a multimodal checkpoint works in plain transformers: loss, pixels that matter, gradients, generation."""

from __future__ import annotations

import inspect
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.helpers.vlm_media import medium, metadata

QUESTION, ANSWER = 'What is it?', 'The answer is 42.'
TOWER = re.compile(r'vision|visual|image|vit|audio|speech|encoder|patch|pixel|vq')


@dataclass(frozen=True)
class Habits:
    """How rows are made for a processor."""

    media: tuple[str, ...] = ()
    """Kinds of media to try; none: all that the processor has a part for."""
    bare: bool = False
    """There is no chat template, and the processor puts the mark of an image into the text itself."""
    single: bool = False
    """One medium a row."""
    discrete: bool = False
    """The model turns pixels into tokens: no gradient reaches the tower."""
    part: str = ''
    """The part of the model that reads and writes text, where the whole has no forward."""
    call: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the processor's call for videos (`videos_kwargs`)."""


def check_plain(path: str, **habits: Any) -> dict[str, Any]:
    """Try every kind of row on the checkpoint: what came of it by name, `ok` and numbers or `error`.

    Rows: text alone; one and two of every medium; a batch of rows with one and with two; a row with a medium and one
    without. For one medium: a finite loss that changes with the medium, gradients in the tower, four generated tokens.
    `habits` are the fields of Habits.
    """
    subject = Subject(path, habits := Habits(**habits))
    found: dict[str, Any] = {}
    for kind in habits.media or subject.media:
        found[kind] = _tried(lambda kind=kind: subject.one(kind))
        if not habits.single:
            found[f'two_{kind}s'] = _tried(lambda kind=kind: subject.loss([[kind, kind]]))
        found[f'{kind}_batch'] = _tried(lambda kind=kind: subject.batch([[kind], [kind] * (2 - habits.single)]))
    found['text'] = _tried(lambda: subject.loss([[]]))
    found['image_and_text'] = _tried(lambda: subject.loss([[subject.media[0]], []]))
    return found


def _tried(attempt: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return dict(ok=True, **attempt())
    except Exception as error:
        return dict(ok=False, error=f'{type(error).__name__}: {" ".join(str(error).split())[:300]}')


class Subject:
    """A checkpoint with its processor, and how its rows are made."""

    def __init__(self, path: str, habits: Habits = Habits()):
        import transformers
        from transformers import AutoProcessor

        with open(os.path.join(path, 'config.json'), encoding='utf-8') as file:
            config = json.load(file)
        self.habits = habits
        self.processor = AutoProcessor.from_pretrained(path)
        self.model = getattr(transformers, config['architectures'][0]).from_pretrained(path)
        self.model = getattr(self.model, habits.part) if habits.part else self.model
        self.arguments = inspect.signature(self.model.forward).parameters
        parts = dict(image='image_processor', video='video_processor', audio='feature_extractor')
        self.rate = getattr(getattr(self.processor, 'feature_extractor', None), 'sampling_rate', 16000)
        self.media = [kind for kind, part in parts.items() if hasattr(self.processor, part)]

    def text(self, kinds: list[str], answer: str = ANSWER) -> str:
        """The rendered text of a question about media of these kinds, with its answer."""
        parts = [{'type': kind} for kind in kinds] + [{'type': 'text', 'text': QUESTION}]
        messages: list[dict[str, Any]] = [{'role': 'user', 'content': parts}]
        if not getattr(self.processor, 'chat_template', None):
            if self.habits.bare:
                return f'{QUESTION} {answer}'
            marks = ''.join(getattr(self.processor, f'{kind}_token') for kind in kinds)
            return f'{marks}{QUESTION} {answer}'
        if not answer:
            return self.processor.apply_chat_template(messages, add_generation_prompt=True)
        return self.processor.apply_chat_template(
            [*messages, {'role': 'assistant', 'content': [{'type': 'text', 'text': answer}]}]
        )

    def inputs(
        self, rows: list[list[str]], *, shift: int = 0, answer: str = ANSWER, nested: bool = False, **settings: Any
    ) -> Any:
        """The processor's tensors of rows of media; other media of the same sizes for another `shift`."""
        texts = [self.text(kinds, answer) for kinds in rows]
        given: dict[str, Any] = {}
        for kind, argument in (('image', 'images'), ('video', 'videos'), ('audio', 'audio')):
            made = [
                [medium(kind, 7 * row + number + shift, self.rate) for number in range(kinds.count(kind))]
                for row, kinds in enumerate(rows)
            ]
            if any(made):
                given[argument] = made if nested else [item for row in made for item in row]
        made = self.processor(text=texts, **given, return_tensors='pt', **self.settings(given, rows, texts), **settings)
        made.pop('video_metadata', None)
        return made

    def settings(self, given: dict[str, Any], rows: list[list[str]], texts: list[str]) -> dict[str, Any]:
        """Arguments by modality: a plain `padding=True` would reach the sounds too and undo their full windows."""
        text: dict[str, Any] = dict(padding=True)
        bos = self.processor.tokenizer.bos_token
        if bos and texts[0].startswith(bos):
            text['add_special_tokens'] = False
        settings: dict[str, Any] = dict(text_kwargs=text)
        if 'audio' in given:
            settings['audio_kwargs'] = dict(sampling_rate=self.rate)
        if 'videos' in given:
            count = sum(kinds.count('video') for kinds in rows)
            known = dict(do_sample_frames=False, return_metadata=True, video_metadata=[metadata()] * count)
            settings['videos_kwargs'] = known | self.habits.call.get('videos_kwargs', {})
        if 'mm_token_type_ids' in self.arguments:
            settings['return_mm_token_type_ids'] = True
        return settings

    def tried(self, rows: list[list[str]], **settings: Any) -> Any:
        """`inputs` with a list of media a row, or one flat list where that is refused (bare: the reverse)."""
        try:
            return self.inputs(rows, nested=not self.habits.bare, **settings)
        except (ValueError, TypeError, AttributeError, IndexError) as error:
            try:
                return self.inputs(rows, nested=self.habits.bare, **settings)
            except Exception:
                raise error from None

    def labels(self, inputs: Any) -> Any:
        """All ordinary tokens are labels; an encoder-decoder's are those of the answer."""
        ids = inputs['input_ids'].clone()
        if self.model.config.is_encoder_decoder:
            tokens = self.processor.tokenizer([ANSWER] * len(ids), return_tensors='pt')
            return tokens['input_ids']
        special = [number for number, token in self.processor.tokenizer.added_tokens_decoder.items() if token.special]
        for number in special:
            ids[ids == number] = -100
        return ids

    def loss(self, rows: list[list[str]], **settings: Any) -> dict[str, Any]:
        """The loss of a batch, finite."""
        inputs = self.tried(rows, **settings)
        return dict(loss=_finite(self.forward(inputs).loss), tokens=inputs['input_ids'].shape[1])

    def forward(self, inputs: Any) -> Any:
        """The model on the processor's tensors with labels."""
        return self.model(**self.cast(inputs), labels=self.labels(inputs))

    def cast(self, inputs: Any) -> dict[str, Any]:
        """The tensors for the model: real numbers in its own type (some processors give bfloat16), no labels."""
        import torch

        def fit(value: Any) -> Any:
            return (
                value.to(self.model.dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value
            )

        return {name: fit(value) for name, value in inputs.items() if name != 'labels'}

    def one(self, kind: str) -> dict[str, Any]:
        """A row with one medium: loss, change with the medium, gradients, generation."""
        import torch

        inputs = self.tried([[kind]])
        self.model.train()
        loss = self.forward(inputs).loss
        loss.backward()
        self.model.eval()
        tower = {name: weight for name, weight in self.model.named_parameters() if TOWER.search(name)}
        moved = [name for name, weight in tower.items() if weight.grad is not None and bool(weight.grad.any())]
        self.model.zero_grad()
        with torch.no_grad():
            values = [_finite(self.forward(self.tried([[kind]], shift=shift)).loss) for shift in (0, 99)]
        if values[0] == values[1]:
            raise AssertionError(f'the loss {values[0]:.4f} does not change with the {kind}')
        if not moved and not self.habits.discrete:
            raise AssertionError(f'no gradient in {len(tower)} weights of the tower')
        tokens = self.generate([[kind]])
        return dict(
            loss=_finite(loss), change=abs(values[0] - values[1]), moved=len(moved), tower=len(tower), generated=tokens
        )

    def batch(self, rows: list[list[str]]) -> dict[str, Any]:
        """Rows in a batch: a loss, and the answers."""
        return self.loss(rows) | dict(generated=self.generate(rows))

    def generate(self, rows: list[list[str]]) -> list[list[int]]:
        """Four tokens for each row."""
        import torch

        side, self.processor.tokenizer.padding_side = self.processor.tokenizer.padding_side, 'left'
        inputs = self.tried(rows, answer='')
        self.processor.tokenizer.padding_side = side
        with torch.no_grad():
            out = self.model.generate(**self.cast(inputs), max_new_tokens=4, min_new_tokens=4, do_sample=False)
        return out[:, -4:].tolist()


def _finite(loss: Any) -> float:
    import math

    value = float(loss)
    if not math.isfinite(value):
        raise AssertionError(f'the loss is {value}')
    return value
