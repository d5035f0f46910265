"""Conversations that show something, between messages and tokens: what the chat template gets, and the tokens of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from swift.core.errors import RowError, TemplateError
from swift.core.media import is_medium, media_of
from swift.core.types import IGNORE_INDEX, Conversation, Media, Prompt, Sample
from swift.media import Budget, size_of, storable
from swift.template.grounding import convention_of, ground
from swift.template.jinja import Renderer
from swift.template.media import MediaReader, Run
from swift.template.media_facts import model_type_of
from swift.template.rendered import Rendered, aligned
from swift.template.tokens import Encoded, Tokens


class Showing:
    """What a Template does with media. `reader` None: the model reads text only. `norm_bbox`: units of boxes; None: the family's."""

    def __init__(self, reader: MediaReader | None, tokens: Tokens | None, norm_bbox: str | None = None):
        self.reader, self.tokens, self.norm_bbox = reader, tokens, norm_bbox
        self._printed: dict[tuple[str, str], bool] = {}

    @property
    def identity(self) -> str | None:
        """What decides how many tokens stand for a medium; None: the model reads text only."""
        if self.reader is None:
            return None
        import transformers

        return f'{transformers.__version__} {self.reader.processor.to_json_string()}'

    def grounded(self, talk: Conversation) -> Conversation:
        """The conversation with the names and boxes of its `objects` in place of `<ref-object>` and `<bbox>`, as the family writes them."""
        objects = talk.columns.get('objects')
        if not objects or self.reader is None:
            return talk
        images = [reference for kind, reference in media_of(talk.messages) if kind == 'image']
        sizes = [(size_of('image', reference, Budget()), self.reader.seen_size(reference)) for reference in images]
        return replace(talk, messages=ground(talk.messages, objects, sizes, convention_of(model_type_of(self.reader.processor), self.norm_bbox)))

    # ---- messages

    def messages(self, messages: Sequence[dict], render: Renderer | None) -> list[dict]:
        """Messages as the chat template gets them: media as bare parts where it prints those, else as placeholders in the text.

        `render` None: no template, all contents become texts.
        """
        return [self._message(message, render) if isinstance(message.get('content'), list) else message for message in messages]

    def _message(self, message: dict, render: Renderer | None) -> dict:
        parts = message['content']
        kinds = {part['type'] for part in parts if is_medium(part)}
        if not kinds:
            return message
        if self.reader is None:
            raise RowError(f'the row has {", ".join(sorted(kinds))}s, but the model reads text only;', hint='choose a multimodal model')
        if render is not None and all(self.printed(render, kind) for kind in kinds):
            return {**message, 'content': [{'type': part['type']} if is_medium(part) else part for part in parts]}
        texts = [self.reader.written(part['type']) if is_medium(part) else part.get('text') or '' for part in parts]
        return {**message, 'content': ''.join(texts)}

    def printed(self, render: Renderer, kind: str) -> bool:
        """Whether a chat template itself writes the placeholder of a medium."""
        key = (render.source, kind)
        if key not in self._printed:
            parts = [{'type': kind}, {'type': 'text', 'text': 'words'}]
            text = render.attempt([{'role': 'user', 'content': parts}]) or ''
            self._printed[key] = (self.reader.token(kind) or '\0') in text and 'words' in text
        return self._printed[key]

    def check_tags(self, messages: Sequence[dict], shown: Sequence[tuple[str, Any]]) -> None:
        """RowError for a tag such as `<image>` in what the model is asked, where the row has no medium for it."""
        if self.reader is None:
            return
        there = {kind for kind, _ in shown}
        for kind in self.reader.kinds:
            if kind in there:
                continue
            for message in messages:
                if message['role'] != 'assistant' and f'<{kind}>' in _text_of(message):
                    count = _text_of(message).count(f'<{kind}>')
                    raise RowError(
                        f'the messages have {count} <{kind}> tag{"s" if count > 1 else ""}, but the row has 0 {kind}s;',
                        hint=f'name them in its column {kind}s, or write the tag otherwise',
                    )

    def check_text(self, text: str) -> None:
        """RowError where a text that shows nothing holds the token that stands for a medium."""
        for kind in self.reader.kinds if self.reader is not None else ():
            if (self.reader.token(kind) or '\0') in text:
                raise RowError(f'the text holds {self.reader.token(kind)}, the model\'s own token for {kind}s, but the row has none')

    # ---- tokens

    def encode(self, text: Rendered, limit: int | None = None, strategy: str = 'delete') -> tuple[Rendered, Encoded]:
        """Token ids with the runs that stand for media in them, ranges of spans and parts, and the text that they are of.

        A row longer than `limit` tokens is cut on the side that `strategy` (left, right) says: a medium stays whole or goes.
        """
        whole, row = self._encode(text)
        if limit is None or len(row.ids) <= limit or strategy == 'delete':
            return whole, row
        if strategy == 'split':
            raise RowError('a row that shows something can not be split;', hint='choose --truncation_strategy delete, left or right')
        cut = self._longest(text, limit, left=strategy == 'left')
        if not cut.spans and not cut.all:
            raise RowError(f'no trained token is left within max_length {limit} (the row has {len(row.ids)} tokens)')
        return self._encode(cut) if cut.shown else (cut, self._bare(cut))

    def _bare(self, text: Rendered) -> Encoded:
        """The tokens of what is left of a text when all that it showed is cut off."""
        [row] = self.tokens.batch([text.text], [text.spans], [[part[:2] for part in text.parts]])
        return row

    def _encode(self, text: Rendered) -> tuple[Rendered, Encoded]:
        runs = self.reader.runs(text.text, text.shown)
        if runs is not None:
            full = text.expanded(runs)
            [row] = self.tokens.batch([full.text], [full.spans], [[part[:2] for part in full.parts]])
            return replace(text, spans=full.spans, parts=full.parts, all=False), row
        return self._by_processor(text)

    def _by_processor(self, text: Rendered) -> tuple[Rendered, Encoded]:
        """The same where only the processor knows what it writes: its ids, aligned with those of the text."""
        places = self.reader.places(text.text, text.shown)
        bare = text.expanded([Run(a, b, text.text[a:b]) for _, a, b in places])
        spans = sorted({*bare.spans, *((a, b) for _, a, b in places)})
        [plain] = self.tokens.batch([text.text], [spans], [[part[:2] for part in bare.parts]])
        ranges = dict(zip(spans, plain.spans, strict=True))
        ids = self.reader.ids(text.text, text.shown)
        where = aligned(plain.ids, [ranges[a, b] for _, a, b in places], ids)
        if where is None:
            raise TemplateError('the processor changes the text around the media of this row;', 'use the chat template of the model itself')
        found = [(where[a], where[b]) for a, b in (ranges[span] for span in bare.spans)]
        marks = [(where[a], where[b]) for a, b in plain.marks]
        return replace(text, spans=bare.spans, parts=bare.parts, all=False), Encoded(ids, found, marks)

    def _longest(self, text: Rendered, limit: int, *, left: bool) -> Rendered:
        """As much of the text as fits, cut in front (`left`) or behind; found by halving."""
        places = self.reader.places(text.text, text.shown)
        size = len(text.text)
        fits, cut = 0, size
        while cut - fits > 1:
            middle = (fits + cut) // 2
            part = self._part(text, middle, places, left)
            if len(self._encode(part)[1].ids) <= limit if part.shown else len(self.tokens.ids(part.text)) <= limit:
                fits = middle
            else:
                cut = middle
        return self._part(text, fits, places, left)

    @staticmethod
    def _part(text: Rendered, length: int, places: Sequence[tuple[str, int, int]], left: bool) -> Rendered:
        """The last or first `length` characters, without a placeholder that is only partly in them."""
        size = len(text.text)
        start, end = (size - length, size) if left else (0, length)
        for _, a, b in places:
            if left and a < start < b:
                start = b
            if not left and a < end < b:
                end = a
        return text.cut(start, end, places)

    def recipe(self, text: Rendered) -> dict[str, Any] | None:
        """What a stored sample says about what it shows; None where it shows nothing."""
        if not text.shown:
            return None
        return {'text': text.text, 'media': [[kind, storable(reference)] for kind, reference in text.shown]}

    # ---- tensors

    def read(self, sample: Sample) -> Sample:
        """The sample with its media read and made into tensors. Raises RowError naming the file that can't be."""
        if not sample.media or not any(isinstance(shown, dict) for shown in sample.media):
            return sample
        import torch

        made, at = [], 0
        for shown, length in zip(sample.media, sample.segment_lengths, strict=True):
            if shown is not None:
                ids = sample.input_ids[at : at + length]
                labelled = torch.as_tensor(sample.labels[at : at + length]) != IGNORE_INDEX
                shown = self._tensors(shown, ids, labelled)
            made.append(shown)
            at += length
        return replace(sample, media=made)

    def inputs(self, prompt: Prompt) -> dict[str, Any]:
        """The model's inputs for what a prompt shows, as `generate` takes them for one row."""
        if prompt.media is None:
            return {}
        made = self._tensors(prompt.media, prompt.input_ids, None)
        rows = {name: value[None] for part in (made.aligned, made.nested) for name, value in part.items()}
        return {**rows, **made.listed}

    def _tensors(self, shown: dict[str, Any], ids: Sequence[int], labelled: Any) -> Media:
        return self.reader.tensors(shown['text'], [(kind, reference) for kind, reference in shown['media']], ids, labelled)


def _text_of(message: dict) -> str:
    content = message.get('content')
    if isinstance(content, list):
        return ''.join(part.get('text') or '' for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ''


