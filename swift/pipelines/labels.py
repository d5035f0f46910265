"""Which classes the rows of a classification name: looked up before the model is built, since its head depends on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

from swift.arguments import Labels
from swift.core.errors import DatasetError, RowError, SwiftError
from swift.core.heads import TASK_HEADS
from swift.core.log import get_logger
from swift.dataset.load import Splits
from swift.model.heads import named_labels, stored_labels
from swift.objectives.classes import ordered, whole_number
from swift.objectives.seq_cls import MULTI, REGRESSION, SINGLE

logger = get_logger()

FEW = 1000
"""Rows that are looked at where the classes are known and only the kind of problem is not."""


@dataclass
class Seen:
    """What the labels of rows look like."""

    rows: int = 0
    lists: int = 0
    fractions: int = 0
    longest: int = 0
    classes: Counter = None  # type: ignore[assignment]

    @staticmethod
    def of(labels: Iterator[Any]) -> Seen:
        seen = Seen(classes=Counter())
        for label in labels:
            values = list(label) if isinstance(label, (list, tuple)) else [label]
            seen.rows += 1
            seen.lists += isinstance(label, (list, tuple))
            seen.longest = max(seen.longest, len(values))
            for value in values:
                seen.fractions += isinstance(value, float) and value % 1 != 0
                seen.classes[value if isinstance(value, (str, int, float)) else repr(value)] += 1
        return seen

    @property
    def problem(self) -> str:
        """A number with a fraction means a regression, a list several classes, anything else one."""
        if self.fractions:
            return REGRESSION
        return MULTI if self.lists else SINGLE


def label_facts(method: str, args: Any, info: Any, splits: Splits) -> Labels | None:
    """The classes of the training rows; None for methods without classes.

    What flags say wins; then what the checkpoint is a classifier of; then what the rows name. Raises SwiftError when rows and flags
    contradict each other, or rows are read as they come and flags don't tell.
    """
    if method not in ('seq_cls', 'token_cls'):
        return None
    stored = stored_labels(info, TASK_HEADS[method])
    names = tuple(args.class_names or named_labels(info, TASK_HEADS[method]) or ())
    count = args.num_labels or len(names) or (len(stored) if stored else None)
    problem = args.problem_type or (info.config.get('problem_type') if stored else None)
    if method == 'token_cls':
        return _words(args, names, count, splits)
    if problem is None and count == 1:
        problem = REGRESSION
    if count and problem:
        return Labels(count, names, problem)
    _must_be_seen(splits, '--num_labels N (or --class_names A B …) and --problem_type')
    seen = Seen.of(islice(_labels(splits.train), FEW if count else None))
    _some(seen, 'label')
    problem = problem or seen.problem
    if problem == REGRESSION:
        return Labels(count or seen.longest, (), problem)
    count, names = _settled(count, names, seen)
    if problem == SINGLE and count < 2:
        raise SwiftError(f'every row has the class {next(iter(seen.classes))!r};', 'there is nothing to tell apart: check the label column')
    return Labels(count, names, problem)


def _words(args: Any, names: tuple[str, ...], count: int | None, splits: Splits) -> Labels:
    if count:
        return Labels(count, names)
    _must_be_seen(splits, '--class_names A B … (or --num_labels N)')
    seen = Seen.of(label for label in _labels(splits.train) if isinstance(label, (list, tuple)))
    _some(seen, 'list of classes (labels or ner_tags)')
    return Labels(*_settled(None, (), seen))


def _labels(source: Any) -> Iterator[Any]:
    """The labels of all rows that have one; bad rows are counted when they are encoded."""
    for index in range(len(source)):
        with suppress(RowError):
            label = source[index].label
            if label is not None:
                yield label


def _must_be_seen(splits: Splits, flags: str) -> None:
    if splits.train is None:
        raise DatasetError('no training data is left;', 'check --dataset and --split_dataset_ratio')
    if not hasattr(splits.train, '__len__'):
        raise SwiftError('with --streaming true rows are not looked at before training, so the classes are not known;', f'give {flags}')


def _some(seen: Seen, what: str) -> None:
    if not seen.rows:
        raise DatasetError(f'no row has a {what};', 'name the column with --columns \'{"theirs": "label"}\'')


def _settled(count: int | None, names: tuple[str, ...], seen: Seen) -> tuple[int, tuple[str, ...]]:
    """(number of classes, names), told in a line; what was given is completed by what the rows have."""
    if names:
        return len(names), names
    found, own = ordered(list(seen.classes))
    if count is None:
        _tell(found, own, seen)
        return found, own
    if own:
        raise SwiftError(f'--num_labels {count}: the rows name their classes ({", ".join(own[:5])}, …);', 'give all names: --class_names A B …')
    return count, ()


def _tell(count: int, names: tuple[str, ...], seen: Seen) -> None:
    rows = Counter()
    for value, number in seen.classes.items():
        rows[str(value) if names else whole_number(value)] += number
    shown = [f'{name} ({rows[name]:,})' for name in (names or range(count))]
    logger.info('%d classes: %s%s', count, ', '.join(shown[:20]), ', …' if count > 20 else '')
    absent = [number for number in range(count) if not names and number not in rows]
    if absent:
        logger.warning('the class %s occurs in no row', ', '.join(map(str, absent[:10])))
