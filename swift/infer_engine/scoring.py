"""Models that answer with numbers: classes of a text or of its words, scores, vectors, rankings.

    engine = ScoringEngine(encode, forward, Classes(['bad', 'good']))
    engine.infer([conversation])      # [{'response': 'good', 'probabilities': {'bad': 0.1, 'good': 0.9}}]

How a row becomes tokens and how the model is run is handed in, since both must be what training did: `encode` is the training
method's own, `forward` its model. What the numbers mean is a reading (`Classes`, `Words`, `Reward`, `Vectors`, `Ranking`).
A result is a dict that JSON can hold; its `response` is the answer in one value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np

from swift.core.errors import RowError, SwiftError
from swift.core.types import Conversation, Sample

Result = dict[str, Any]

Encode = Callable[[Sequence[Conversation]], Sequence['Sample | SwiftError']]
"""Conversations → the sample of each, or why it has none."""

Forward = Callable[[Sequence[Sample]], Sequence[np.ndarray]]
"""Samples → for each the model's float outputs: [segments, values], for words [words, classes]."""


class Reading(Protocol):
    """What the outputs of one sample mean."""

    def __call__(self, talk: Conversation, sample: Sample, values: np.ndarray) -> Result: ...


class ScoringEngine:
    """Conversations → results, in their order.

    `load` reads what a sample shows. Samples are put into batches of similar length, at most `max_batch_size` samples and `max_batch_tokens` tokens each (one that
    is longer goes alone). A bad row becomes its error and disturbs no other.
    """

    def __init__(
        self,
        encode: Encode,
        forward: Forward,
        read: Reading,
        *,
        load: Callable[[Sample], Sample] = lambda sample: sample,
        name: str = '',
        max_batch_size: int = 64,
        max_batch_tokens: int = 1 << 14,
    ):
        if max_batch_size < 1:
            raise SwiftError(f'max_batch_size={max_batch_size} must be at least 1;', 'it is the number of samples at once')
        self.name = name
        self._encode, self._forward, self._read, self._load = encode, forward, read, load
        self._size, self._tokens = max_batch_size, max_batch_tokens

    def infer(self, conversations: Sequence[Conversation]) -> list[Result | SwiftError]:
        """The result of every conversation, or the SwiftError that says why it has none."""
        samples = self._encode(conversations)
        results: list[Result | SwiftError] = list(samples)
        places = [index for index, sample in enumerate(samples) if isinstance(sample, Sample)]
        for batch in self._batches(places, samples):
            loaded = {index: self._loaded(samples[index]) for index in batch}
            results = [loaded.get(index, result) for index, result in enumerate(results)]
            batch = [index for index in batch if isinstance(loaded[index], Sample)]
            for index, values in zip(batch, self._forward([loaded[index] for index in batch]) if batch else (), strict=True):
                results[index] = self._result(conversations[index], samples[index], np.asarray(values, dtype=np.float64))
        return results

    def _loaded(self, sample: Sample) -> Sample | SwiftError:
        """The sample with what it shows, or why that can't be read."""
        try:
            return self._load(sample)
        except RowError as error:
            return error.at(sample.source)

    def infer_each(self, conversations: Iterable[Conversation | SwiftError]) -> Iterator[Result | SwiftError]:
        """`infer` for any number of conversations, a window at a time; an error that comes in goes out in its place."""
        asked = iter(conversations)
        while window := list(islice(asked, 8 * self._size)):
            good = [item for item in window if isinstance(item, Conversation)]
            results = iter(self.infer(good))
            for item in window:
                yield next(results) if isinstance(item, Conversation) else item

    def _result(self, talk: Conversation, sample: Sample, values: np.ndarray) -> Result | SwiftError:
        if not np.isfinite(values).all():
            return RowError('the model gives no finite number for it', talk.source)
        return self._read(talk, sample, values)

    def _batches(self, places: list[int], samples: Sequence[Any]) -> Iterator[list[int]]:
        """Indices of samples that run together, longest first."""
        batch: list[int] = []
        tokens = 0
        for index in sorted(places, key=lambda place: -len(samples[place])):
            if batch and (len(batch) == self._size or tokens + len(samples[index]) > self._tokens):
                yield batch
                batch, tokens = [], 0
            batch.append(index)
            tokens += len(samples[index])
        if batch:
            yield batch


# ---- what the numbers mean


@dataclass(frozen=True)
class Classes:
    """One text → its class, its classes, or its values. `names`: the classes by number; empty: numbers are all there is."""

    names: Sequence[str] = ()
    problem_type: str = 'single_label_classification'

    def __call__(self, talk: Conversation, sample: Sample, values: np.ndarray) -> Result:
        """`response`: the class; the list of classes above one half (multi label); the value or values (regression)."""
        row = values[0]
        if self.problem_type == 'regression':
            return {'response': _number(row[0]) if len(row) == 1 else [_number(value) for value in row]}
        several = self.problem_type == 'multi_label_classification'
        shares = sigmoid(row) if several else softmax(row)
        probabilities = {str(name): _number(share) for name, share in zip(self._named(len(row)), shares, strict=True)}
        names = self._named(len(row))
        chosen = [name for name, share in zip(names, shares, strict=True) if share > 0.5] if several else names[int(shares.argmax())]
        return {'response': chosen, 'probabilities': probabilities}

    def _named(self, count: int) -> list[Any]:
        return list(self.names) if len(self.names) == count else list(range(count))


@dataclass(frozen=True)
class Words:
    """The words of one text → the class of each. `names`: the classes by number.

    `Sample.extra` says which words the outputs belong to: from number `first` on, those that `own` a token.
    """

    names: Sequence[str] = ()

    def __call__(self, talk: Conversation, sample: Sample, values: np.ndarray) -> Result:
        """`response`: one class a word, None for words that were cut off; `words`: each with its class and the probability of that."""
        words, extra = talk.words, sample.extra or {}
        listed: list[Result] = [{'word': word, 'label': None} for word in words]
        own = extra.get('own') or [True] * len(values)
        for place, (there, shares) in enumerate(zip(own, softmax(values), strict=True), extra.get('first', 0)):
            if there:
                best = int(shares.argmax())
                listed[place] |= {'label': self.names[best] if self.names else best, 'probability': _number(shares[best])}
        return {'response': [word['label'] for word in listed], 'words': listed}


@dataclass(frozen=True)
class Reward:
    """An answer → its score; a row with rejected answers → the scores of all, and by how much the chosen one leads."""

    def __call__(self, talk: Conversation, sample: Sample, values: np.ndarray) -> Result:
        """`response`: the score of the (chosen) answer; `rejected_scores` and `margin` (to the best of them) where there are any."""
        chosen, *others = (_number(value) for value in values[:, 0])
        if not others:
            return {'response': chosen}
        return {'response': chosen, 'rejected_scores': others, 'margin': _number(chosen - max(others))}


@dataclass(frozen=True)
class Vectors:
    """Texts → vectors of length 1. `dims`: keep this many dimensions (Matryoshka); None: all."""

    dims: int | None = None

    def __call__(self, talk: Conversation, sample: Sample, values: np.ndarray) -> Result:
        """`response`: the vector of the text itself; `similarities`: cosines with the row's positives, then its negatives."""
        vectors = values[:, : self.dims] if self.dims else values
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
        result: Result = {'response': [_number(value, 8) for value in vectors[0]]}
        if len(vectors) > 1:
            result['similarities'] = [_number(value) for value in vectors[1:] @ vectors[0]]
        return result


@dataclass(frozen=True)
class Ranking:
    """A query and its documents → the score of each. The outputs are log-odds of belonging; scores are probabilities."""

    def __call__(self, talk: Conversation, sample: Sample, values: np.ndarray) -> Result:
        """`response`: one score a document, positives first, then negatives; `ranking`: their numbers, best first."""
        scores = sigmoid(values[:, 0])
        order = np.argsort(-values[:, 0], kind='stable')  # the log-odds still tell scores apart that round to 1
        return {'response': [_number(score, 8) for score in scores], 'ranking': [int(number) for number in order]}


def softmax(values: np.ndarray) -> np.ndarray:
    """Probabilities along the last axis."""
    shifted = np.exp(values - values.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def sigmoid(values: np.ndarray) -> np.ndarray:
    """Probability from log-odds, without overflow."""
    return np.exp(-np.logaddexp(0.0, -values))


def _number(value: Any, digits: int = 6) -> float:
    """A float with as many significant digits as float32 carries."""
    return float(f'{float(value):.{digits}g}')
