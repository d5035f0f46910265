"""Classification of words: names, places, parts of speech. Cross entropy of every word's class, read off its first token.

A row is a text cut into words with one class each; it is read as plain text, between the tokenizer's own special tokens. Every word
weighs 1. Words that the tokenizer drops are not trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from swift.core.errors import RowError, RowTooLong
from swift.core.media import media_of
from swift.core.types import IGNORE_INDEX, Actors, Batch, Conversation, Loss, Sample, Template
from swift.objectives.base import Objective
from swift.objectives.classes import Classes
from swift.objectives.preference import missing
from swift.objectives.scores import class_figures, entity_figures, marks_entities
from swift.objectives.texts import Specials

OUTSIDE = 'O'
"""The class of words that belong to no entity; it counts for the accuracy only."""


class TokenClassification(Objective):
    """`args`: num_labels, class_names (ModelArgs)."""

    columns = ('label',)

    def __init__(self, args: Any):
        super().__init__(args)
        self.classes = Classes.of(args)

    # ---- rows

    @property
    def fingerprint(self) -> str:
        """Which number a word's class becomes."""
        return f'words {self.classes}'

    def encode_batch(self, conversations: Sequence[Conversation], template: Template) -> list[list[Sample] | RowError]:
        """One sample a row; its `label` holds one class number a word that is left, IGNORE_INDEX where nothing is trained."""
        results: list[list[Sample] | RowError] = []
        for talk, sample in zip(conversations, self.read_batch(conversations, template), strict=True):
            try:
                if isinstance(sample, RowError):
                    raise sample
                results.append([self._labelled(talk, sample)])
            except RowError as error:
                results.append(error.at(talk.source))
        return results

    def _labelled(self, talk: Conversation, sample: Sample) -> Sample:
        words, labels = talk.words, talk.label
        if not isinstance(labels, (list, tuple)):
            raise missing(talk, 'list of classes, one for each word', 'labels or ner_tags beside tokens')
        if len(labels) != len(words):
            raise RowError(f'the row has {len(words)} words and {len(labels)} classes: there must be one for each word')
        numbers = [self.classes.number(label) for label in labels]
        first = sample.extra['first']
        kept = numbers[first : first + len(sample.extra['words'])]
        sample.label = [n if own else IGNORE_INDEX for n, own in zip(kept, sample.extra['own'], strict=True)]
        if not any(sample.extra['own']):
            raise RowError('the tokenizer drops every word of this row')
        return sample

    def read_batch(self, conversations: Sequence[Conversation], template: Template) -> list[Sample | RowError]:
        """The texts alone, whatever their labels.

        `extra`: `words` the position of every word's first token, `own` whether it has one, `first` how many words were cut off
        at the start.
        """
        specials = Specials.of(template.tokenizer)
        texts = [talk.words for talk in conversations]
        encoded = template.words(texts)
        results: list[Sample | RowError] = []
        for talk, (ids, ranges) in zip(conversations, encoded, strict=True):
            try:
                results.append(_sample(talk, ids, ranges, specials, template))
            except RowError as error:
                results.append(error.at(talk.source))
        return results

    def word_counts(self, samples: Sequence[Sample]) -> list[int]:
        """Number of words of every sample: rows of `scores`."""
        return [len(sample.extra['words']) for sample in samples]

    def collate(self, samples: Sequence[Sample], padded: bool = False) -> Batch:
        """`extra['words']`: `index` [W] flat position of every word, `begins` [W] whether it is its text's first, and where
        samples are labelled `targets` [W]."""
        batch = super().collate(samples, padded)
        width = batch.input_ids.shape[-1]
        ends = batch.lengths.cumsum(0)
        starts = (torch.arange(len(samples)) * width if padded or self.rows else ends - batch.lengths).tolist()
        places = [start + place for start, sample in zip(starts, samples, strict=True) for place in sample.extra['words']]
        begins = [place == 0 for sample in samples for place in range(len(sample.extra['words']))]
        words = {'index': torch.tensor(places), 'begins': torch.tensor(begins)}
        if all(sample.label is not None for sample in samples):
            words['targets'] = torch.tensor([number for sample in samples for number in sample.label])
        batch.extra['words'] = words
        return batch

    def weight(self, batch: Batch) -> float:
        """Words with a class."""
        return 0.0 if batch.extra.get('filler') else float((batch.extra['words']['targets'] != IGNORE_INDEX).sum())

    # ---- the loss

    def scores(self, batch: Batch, actors: Actors) -> Tensor:
        """[W, C] of every word."""
        return actors.policy.logits(batch, batch.extra['words']['index'])

    def loss(self, batch: Batch, actors: Actors) -> Loss:
        targets, begins = batch.extra['words']['targets'], batch.extra['words']['begins']
        scores = self.scores(batch, actors).float()
        total = F.cross_entropy(scores, targets, ignore_index=IGNORE_INDEX, reduction='sum')
        predicted, trained = scores.detach().argmax(-1), targets != IGNORE_INDEX
        outputs = {} if torch.is_grad_enabled() else {'predicted': predicted, 'targets': targets, 'begins': begins}
        return Loss(total, {'accuracy': (predicted == targets)[trained]}, outputs)

    def measure(self, outputs: dict[str, Tensor]) -> dict[str, float]:
        """f1, precision, recall of entities where classes are tags (B-, I-, …); else F1 of the classes without `O`."""
        names, targets = self.classes.names, outputs['targets']
        known = targets != IGNORE_INDEX
        if marks_entities(names):
            outside = names.index(OUTSIDE) if OUTSIDE in names else 0
            predicted, truth = (torch.where(known, values, outside) for values in (outputs['predicted'], targets))
            return entity_figures(predicted, truth, outputs['begins'], names)
        ignored = names.index(OUTSIDE) if OUTSIDE in names else None
        return class_figures(outputs['predicted'][known], targets[known], self.classes.count, ignored)


def _sample(talk: Conversation, ids: list[int], ranges: list[tuple[int, int]], specials: Specials, template: Template) -> Sample:
    """The sample of one text, cut to max_length; words of which nothing is left go with their tokens."""
    if media_of(talk.messages):
        kinds = ', '.join(sorted({f'{kind}s' for kind, _ in media_of(talk.messages)}))
        raise RowError(f'the row has {kinds}, but classes are given to words, which are read as plain text;', hint='use --task_type seq_cls')
    if not ids:
        raise RowError('the text of this row is empty')
    before, after = list(specials.before), list(specials.after)
    limit, size = template.max_length, len(before) + len(ids) + len(after)
    begin, end = 0, len(ids)
    if limit is not None and size > limit:
        if template.truncation_strategy == 'delete':
            raise RowTooLong(f'the row has {size} tokens, more than max_length {limit}')
        room = limit - len(before) - len(after)
        if room < 1:
            raise RowError(f'max_length {limit} leaves no room for a text between its special tokens')
        begin, end = (0, room) if template.truncation_strategy == 'right' else (len(ids) - room, len(ids))
    kept = [number for number, (first, _) in enumerate(ranges) if begin <= min(first, len(ids) - 1) < end]
    if not kept:
        raise RowError(f'no word begins within max_length {limit}')
    whole = [*before, *ids[begin:end], *after]
    places = [len(before) + min(ranges[number][0], len(ids) - 1) - begin for number in kept]
    own = [ranges[number][1] > ranges[number][0] for number in kept]
    extra = {'words': places, 'own': own, 'first': kept[0]}
    return Sample(whole, [IGNORE_INDEX] * len(whole), channel=talk.channel, source=talk.source, extra=extra)
