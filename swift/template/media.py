"""A processor as the template needs it: placeholders become the run of tokens that stand for a medium, media become tensors.

The processor of the model is the authority for both. How long a run is follows from the size of a medium, which its header tells:
a blank one of that size goes through the processor once, and what it writes is remembered. Real pixels and sounds are read by
`tensors`, in the workers that make batches.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from swift.core.errors import RowError, SwiftError, TemplateError
from swift.core.media import KINDS
from swift.core.types import Media
from swift.media import Budget, Video, blank, load, name_of, size_of
from swift.template.counting import ImageCounter
from swift.template.media_facts import MediaFacts
from swift.template.roles import Roles

Shown = tuple[str, Any]
"""(kind, reference) of one medium."""

_ARGUMENT = {'image': 'images', 'video': 'videos', 'audio': 'audio'}
_PART = {'image': ('image_processor',), 'video': ('video_processor',), 'audio': ('feature_extractor', 'audio_processor')}
_NOT_INPUTS = ('input_ids', 'attention_mask', 'labels', 'text_replacement_offsets', 'video_metadata')
_REMEMBERED = 20_000


@dataclass(frozen=True)
class Run:
    """What stands for one medium."""

    start: int
    """Where its placeholder stands in the text."""
    end: int
    written: str
    """What the processor writes in place of the placeholder."""


class MediaReader:
    """The media side of a processor. `settings`: its keyword arguments by part (`images_kwargs`, …), from the budgets."""

    def __init__(self, processor: Any, facts: MediaFacts, budget: Budget, settings: dict[str, dict[str, Any]]):
        self.processor, self.facts, self.budget, self.settings = processor, facts, budget, settings
        self.kinds = tuple(kind for kind in KINDS if self._part(kind) is not None and (self.token(kind) or kind == 'image'))
        self.rate = int(getattr(self._part('audio'), 'sampling_rate', None) or 16_000)
        self._known: OrderedDict[tuple, list[str] | None] = OrderedDict()
        self._roles = Roles(self._probe, self.kinds)
        self._flat_lists = False

    def __reduce__(self):
        return MediaReader, (self.processor, self.facts, self.budget, self.settings)

    def token(self, kind: str) -> str | None:
        """The placeholder that the processor looks for in a text; None: it reads no such media, or has no place for them in the text
        (captioning models such as BLIP, whose decoder looks at an image from everywhere)."""
        own = self.facts.token(kind) or getattr(self.processor, f'{kind}_token', None)
        return None if own is None else str(own)

    def written(self, kind: str) -> str:
        """A medium in a text that no template writes: the placeholder, with what the model expects around it."""
        return (self.facts.written(kind) or '{token}').format(token=self.token(kind) or '', processor=self.processor)

    def _part(self, kind: str) -> Any:
        return next((part for name in _PART[kind] if (part := getattr(self.processor, name, None)) is not None), None)

    # ---- lengths

    def sizes(self, shown: Sequence[Shown]) -> list[tuple[str, tuple]]:
        """(kind, size) of every medium, from headers. Raises RowError naming the file that is missing or broken."""
        for kind, _ in shown:
            if kind not in self.kinds:
                has = ', '.join(f'{k}s' for k in self.kinds) or 'text only'
                raise RowError(f'the row has {kind}s, but the model reads {has};', hint=f'leave the {kind}s away, or choose another model')
        if self.facts.one_kind and {'image', 'video'} <= {kind for kind, _ in shown}:
            raise RowError('the row has images and videos, of which this model takes one kind at a time;', hint='make two rows of it')
        return [(kind, size_of(kind, reference, self.budget, self.rate)) for kind, reference in shown]

    def seen_size(self, reference: Any) -> tuple[int, int]:
        """(height, width) of an image as it reaches the model: after the budget, and after a resizing to whole patches."""
        size = size_of('image', reference, self.budget)
        made = self.processed(self.token('image') or 'a', [('image', blank('image', size))])
        patch = getattr(self._part('image'), 'patch_size', None)
        if 'image_grid_thw' not in made or not isinstance(patch, int):
            return size
        _, rows, columns = map(int, made['image_grid_thw'][0])
        return rows * patch, columns * patch

    def runs(self, text: str, shown: Sequence[Shown]) -> list[Run] | None:
        """The run of every placeholder in `text`, in its order. None: only the processor itself can encode this text.

        Raises RowError where placeholders and media don't match.
        """
        places = self.places(text, shown)
        sizes = self.sizes(shown)
        if len(places) < len(shown):
            return []
        order = _by_place([kind for kind, _ in shown], [kind for kind, _, _ in places])
        written = self._written_for(tuple(sizes[i] for i in order))
        if written is None:
            return None
        return [Run(start, end, words) for (_, start, end), words in zip(places, written, strict=True)]

    def places(self, text: str, shown: Sequence[Shown]) -> list[tuple[str, int, int]]:
        """(kind, start, end) of every placeholder, counted against the media."""
        counts = {kind: sum(k == kind for k, _ in shown) for kind in self.kinds if self.token(kind)}
        pattern = '|'.join(f'(?P<{kind}>{re.escape(self.token(kind))})' for kind, count in counts.items() if count)
        places = [(match.lastgroup, *match.span()) for match in re.finditer(pattern, text)] if pattern else []
        for kind, count in counts.items():
            found = sum(k == kind for k, _, _ in places) if count else text.count(self.token(kind))
            if found != count and not (count == 0 and self._is_shared(kind, counts)):
                raise RowError(
                    f'the text has {found} {self.token(kind)} but the row has {count} {kind}s;',
                    hint=f'write <{kind}> where a {kind} goes; the model\'s own token can not be used as text',
                )
        return places

    def _is_shared(self, kind: str, counts: dict[str, int]) -> bool:
        """Whether another kind that is there uses the same placeholder."""
        return any(count and self.token(other) == self.token(kind) for other, count in counts.items() if other != kind)

    def _written_for(self, sizes: tuple) -> list[str] | None:
        """What the processor writes for media of these sizes, in order of their places; None: it does not say."""
        if sizes not in self._known and all(kind == 'image' for kind, _ in sizes) and self._counter.works:
            return [self._counter(size) for _, size in sizes]
        return self._tried(sizes)

    @cached_property
    def _counter(self) -> ImageCounter:
        return ImageCounter(self.processor, self.settings.get('images_kwargs', {}), self.token('image'), self._tried)

    def _tried(self, sizes: tuple) -> list[str] | None:
        """The same by giving it blank media of these sizes."""
        if sizes not in self._known:
            text = ' '.join(self.written(kind) for kind, _ in sizes)
            made = self.processed(text, [(kind, blank(kind, size, self.rate)) for kind, size in sizes])
            self._known[sizes] = self._said_by(made, text, len(sizes))
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return self._known[sizes]

    def _said_by(self, made: dict[str, Any], text: str, count: int) -> list[str] | None:
        """The replacements of `count` placeholders, where the text with them in it is what the processor has tokenised."""
        offsets = made.get('text_replacement_offsets')
        if not offsets or len(offsets[0]) != count:
            return None
        found = iter([offset['replacement'] for offset in offsets[0]])
        tokens = '|'.join(re.escape(token) for token in {self.token(kind) for kind in self.kinds} if token)
        full = re.sub(tokens, lambda match: next(found, ''), text)
        ours = self.processor.tokenizer(full, add_special_tokens=False)['input_ids']
        theirs = [int(token) for token in made['input_ids'][0]]
        same = any(theirs[i : i + len(ours)] == ours for i in range(len(theirs) - len(ours) + 1))
        return [offset['replacement'] for offset in offsets[0]] if same else None

    def ids(self, text: str, shown: Sequence[Shown]) -> list[int]:
        """Token ids by the processor itself, for those that don't say what they write."""
        media = [(kind, blank(kind, size, self.rate)) for kind, size in self.sizes(shown)]
        return list(map(int, self.processed(text, media)['input_ids'][0]))

    def tokens_per_second(self) -> float:
        """How many tokens stand for a second of sound. Raises TemplateError where the model hears nothing, or doesn't say."""
        heard = getattr(getattr(self.processor, 'feature_extractor', None), 'n_samples', None)  # longer sounds are cut to as many samples
        seconds = min(10.0, heard / self.rate) if heard else 10.0
        written = self._written_for((('audio', (int(seconds * self.rate),)),)) if 'audio' in self.kinds else None
        if not written:
            raise TemplateError('--audio_max_token_num: this model has no countable tokens for sounds;', 'drop it')
        return written[0].count(self.token('audio')) / seconds

    # ---- tensors

    def tensors(self, text: str, shown: Sequence[Shown], ids: Sequence[int], labelled: Any = None) -> Media:
        """The model's inputs for the media of one segment. `ids`: its tokens as they were encoded; `labelled` [L]: which are trained."""
        media = [(kind, load(kind, reference, self.budget, self.rate)) for kind, reference in shown]
        try:
            made = self.processed(text, media)
        except SwiftError as error:
            names = ', '.join(name_of(reference) for _, reference in shown)
            raise RowError(f'{names}: {error.message}') from error
        own = [int(token) for token in made['input_ids'][0]]
        self._check_runs(own, ids, shown)
        result = Media()
        for name, value in made.items():
            if name in _NOT_INPUTS or not hasattr(value, 'shape'):
                continue
            role = self._roles.of(name, {kind for kind, _ in shown})
            if role == 'aligned':
                result.aligned[name] = self._aligned(name, value[0], own, ids, labelled)
            elif role == 'nested':
                result.nested[name] = value.flatten(0, 1)
            else:
                result.listed[name] = value
        return result

    def _check_runs(self, own: list[int], ids: Sequence[int], shown: Sequence[Shown]) -> None:
        """RowError where the media have other sizes than when the row was encoded."""
        marks = {self.processor.tokenizer.convert_tokens_to_ids(self.token(kind)) for kind, _ in shown if self.token(kind)}
        marks |= {getattr(self.processor, f'{kind}_token_id', None) for kind, _ in shown}
        theirs, ours = (sum(token in marks for token in row) for row in (own, map(int, ids)))
        names = ', '.join(name_of(reference) for _, reference in shown)
        if theirs and not ours:
            raise RowError(f'{names}: {type(self.processor).__name__} writes tokens for it where it likes, which is not supported', hint='choose another model')
        if theirs != ours:
            raise RowError(f'{names} changed since its row was encoded;', hint='encode anew: --load_from_cache_file false')

    def _aligned(self, name: str, value: Any, own: list[int], ids: Sequence[int], labelled: Any) -> Any:
        """Values of the processor's tokens for ours: where a text goes on otherwise after its last medium, the last value goes on."""
        import torch

        if self.facts.follows_labels(name):
            return torch.zeros(len(ids), dtype=value.dtype) if labelled is None else labelled.to(value.dtype)
        ids = [int(token) for token in ids]
        start = next((i for i in range(len(own) - len(ids) + 1) if own[i : i + len(ids)] == ids), None)
        if start is not None:  # some put a token in front
            return value[start : start + len(ids)]
        same = next((i for i, (a, b) in enumerate(zip(own, ids, strict=False)) if a != b), min(len(own), len(ids)))
        if value.dim() == 1 and bool(value[same:].any()):
            raise TemplateError('the processor reads the text of this row in another way than the tokenizer;', 'choose the model\'s own template')
        kept = value[: min(same, len(ids))]
        last = value[same - 1 : same] if value.dim() > 1 and same else value.new_zeros(1, *value.shape[1:])
        return torch.cat([kept, last.expand(len(ids) - len(kept), *value.shape[1:])])

    # ---- the processor

    def processed(self, text: str | list[str], media: Sequence[tuple[str, Any]] | Sequence[Sequence[tuple[str, Any]]]) -> dict[str, Any]:
        """The processor's outputs for one text, or for several (padded). Raises TemplateError with its own words."""
        rows_of_text, rows = ([text], [media]) if isinstance(text, str) else (text, media)
        settings = {name: dict(values) for name, values in self.settings.items()}
        texts = settings.setdefault('text_kwargs', {})
        texts.update(add_special_tokens=False, padding=not isinstance(text, str))
        arguments: dict[str, Any] = {'text': rows_of_text, 'return_tensors': 'pt', 'return_text_replacement_offsets': True}
        for kind in KINDS:
            found = [[medium for k, medium in row if k == kind] for row in rows]
            if any(found):
                arguments[_ARGUMENT[kind]] = self._as_taken(kind, found)
        videos = [medium for row in rows for kind, medium in row if kind == 'video']
        if videos:
            given = {'do_sample_frames': False, 'return_metadata': True, 'video_metadata': [_metadata(video) for video in videos]}
            settings['videos_kwargs'] = {**settings.get('videos_kwargs', {}), **given}
        if 'audio' in arguments:
            settings['audio_kwargs'] = {**settings.get('audio_kwargs', {}), 'sampling_rate': self.rate}
        return self._run(arguments, settings)

    def _as_taken(self, kind: str, rows: list[list[Any]]) -> list[Any]:
        if kind == 'image' and not self._flat_lists:
            return rows
        flat = [medium for row in rows for medium in row]
        return [video.tensor() for video in flat] if kind == 'video' else flat

    def _run(self, arguments: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
        try:
            return dict(self.processor(**arguments, **self.facts.asks, **settings))
        except Exception as error:  # a processor may fail with anything
            if 'images' in arguments and not self._flat_lists:
                self._flat_lists = True
                images = [image for row in arguments['images'] for image in row]
                try:
                    return dict(self.processor(**{**arguments, 'images': images}, **self.facts.asks, **settings))
                except Exception:
                    self._flat_lists = False
            reason = str(error).strip().split('\n', 1)[0] or type(error).__name__
            raise TemplateError(f'{type(self.processor).__name__} refuses this row: {reason}') from error

    def _probe(self, kind: str) -> tuple[dict, dict, dict]:
        """Outputs for a short text, for a longer one, and for two rows with one and with two media of a kind."""
        token = self.written(kind) if (self.token(kind) or '') in self.written(kind) else self.token(kind)
        medium = (kind, blank(kind, self.facts.probe_size(kind, self.rate), self.rate))
        short, longer = (self.processed(f'{token} {words}', [medium]) for words in ('a', 'a b c d e f g'))
        try:
            rows = self.processed([f'{token} a', f'{token} {token} a'], [[medium], [medium, medium]])
        except SwiftError:  # a processor that takes one medium a row, or one row at a time
            rows = {}
        return short, longer, rows


def _by_place(kinds: Sequence[str], places: Sequence[str]) -> list[int]:
    """Index of the medium that belongs to every placeholder: those of a kind in their order."""
    queues = {kind: [i for i, k in enumerate(kinds) if k == kind] for kind in set(kinds)}
    return [queues[kind].pop(0) for kind in places]


def _metadata(video: Video) -> Any:
    from transformers.video_utils import VideoMetadata

    return VideoMetadata(
        total_num_frames=video.total, fps=video.fps, width=video.width, height=video.height, duration=video.duration,
        video_backend='pyav', frames_indices=list(video.indices),
    )  # fmt: skip
