"""Media between stored samples and batches: read where batches are made, by the loader's workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from threading import Lock
from typing import Any

from swift.core.errors import DatasetError, RowError
from swift.core.types import Batch, Sample
from swift.dataset.bad_rows import BadRows
from swift.dataset.loader import filler

LOOKED_AT = 64
"""Rows among which the start-up check looks for some that show something."""


class ReadingCollate:
    """`list[Sample] → Batch`: reads what the samples show, then collates.

    A sample whose media can't be read is a bad row: named, counted and left out; too many stop the run. A batch of nothing else
    becomes a filler of one sample that could be read before, so that all processes stay in step.
    """

    def __init__(self, template: Any, collate: Callable[[list[Sample]], Batch], bad_rows: BadRows):
        self.template, self.collate, self.bad_rows = template, collate, bad_rows
        self._spare: Sample | None = None
        self._lock = Lock()

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        read, first = [], None
        for sample in samples:
            try:
                read.append(self.template.read_media(sample))
            except RowError as error:
                first = first or error.at(sample.source)
                with self._lock:
                    self.bad_rows.add(error.at(sample.source))
        with self._lock:
            self.bad_rows.good(len(read))
            self._spare = read[0] if read else self._spare
        if read:
            return self.collate(read)
        if self._spare is None:
            raise DatasetError(f'no row of the first batch can be read: {first};', 'mend or remove it')
        batch = self.collate([filler(self._spare)])
        batch.extra['filler'] = True
        return batch


def samples_to_check(samples: Any, template: Any, first: Sequence[Sample]) -> list[Sample]:
    """The samples that the start-up check runs the model on: the first ones, and the first of those near them that show something.

    Raises DatasetError where none of them can be read.
    """
    found = list(first)
    if not any(sample.media for sample in found):
        found += list(islice((sample for sample in _near(samples) if sample.media), 2))
    read, wrong = [], None
    for sample in found:
        try:
            read.append(template.read_media(sample))
        except RowError as error:  # counted when its batch is made
            wrong = wrong or error.at(sample.source)
    if not read and wrong is not None:
        raise DatasetError(f'none of the first rows can be read: {wrong};', 'mend or remove them')
    return read


def _near(samples: Any) -> Any:
    from swift.pipelines.data import first_samples

    return first_samples(samples, LOOKED_AT)
