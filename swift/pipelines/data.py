"""Rows → samples for training, planning, previewing and verifying: the same path for all four."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

from swift.core.errors import DatasetError
from swift.core.log import get_logger
from swift.core.types import Conversation, Sample
from swift.dataset.bad_rows import BadRows
from swift.dataset.encode import LazySamples, encode_rows
from swift.dataset.load import Splits, load_dataset

logger = get_logger()


@dataclass(frozen=True)
class Encoded:
    """What a run trains and validates on. None: nothing."""

    train: Any
    """Samples by index, or a stream of them with --streaming."""
    val: Any
    splits: Splits


@dataclass(frozen=True)
class Encode:
    """`list[Conversation] → list[list[Sample] | RowError]`; picklable, so that worker processes can call it."""

    objective: Any
    template: Any

    def __call__(self, conversations: list[Conversation]) -> list[Any]:
        return self.objective.encode_batch(conversations, self.template)


def load_rows(args: Any) -> Splits:
    """Read, mix and split the rows that `args` names."""
    return load_dataset(args, seed=args.data_seed, use_hf=args.use_hf, hub_token=args.hub_token, root_image_dir=args.root_image_dir)


def encode_data(args: Any, objective: Any, template: Any, *, splits: Splits | None = None, train: bool = True) -> Encoded:
    """Tokenise the rows of `splits` (None: of what `args` names).

    Raises DatasetError when there is nothing to train on, or too many rows are bad.
    """
    splits = splits or load_rows(args)
    if train and splits.train is None:
        raise DatasetError('no training data is left;', 'check --dataset and --split_dataset_ratio')
    encode = Encode(objective, template)
    key = cache_key(objective, template)
    rows = partial(_samples, args=args, encode=encode, key=key)
    train_samples = None
    if train:
        train_samples = _stream(splits, args, encode) if args.streaming else rows(splits.train, splits.bad_rows, 'training data')
    val = rows(splits.val, BadRows(strict=args.strict), 'validation data') if splits.val is not None else None
    return Encoded(train_samples, val, splits)


def cache_key(objective: Any, template: Any) -> str:
    """Everything that decides which tokens a row becomes, besides the row: method, template, and the code of both."""
    method = f'{type(objective).__module__}.{type(objective).__qualname__}|{objective.fingerprint}'
    settings = f'{method}|{template.fingerprint}|{_code_hash()}'
    return hashlib.blake2b(settings.encode(), digest_size=16).hexdigest()


@cache
def _code_hash() -> str:
    """Of the files that make samples of rows: tokens stored by other code are not taken up."""
    import swift.objectives
    import swift.template

    digest = hashlib.blake2b(digest_size=16)
    for room in (swift.objectives, swift.template):
        for path in sorted(Path(room.__file__).parent.glob('*.py')):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _samples(source: Any, bad_rows: BadRows, title: str, *, args: Any, encode: Encode, key: str) -> Any:
    if args.lazy_tokenize:
        return LazySamples(source, encode, bad_rows)
    return encode_rows(
        source,
        encode,
        cache_key=key,
        num_proc=args.dataset_num_proc,
        bad_rows=bad_rows,
        load_from_cache_file=args.load_from_cache_file,
        title=title,
    )


def _stream(splits: Splits, args: Any, encode: Encode) -> Any:
    from swift.dataset.stream_encode import StreamSamples

    return StreamSamples(splits.train, encode, num_proc=args.dataset_num_proc, bad_rows=splits.bad_rows)


def first_samples(samples: Any, count: int = 2) -> list[Sample]:
    """At most `count` samples from any kind of source, without moving its position. Raises DatasetError when there is none."""
    if hasattr(samples, 'stream'):
        found = [sample for sample, _ in islice(samples.samples(samples.beginning(0)), count)]
    elif hasattr(samples, 'fetch'):
        every = (sample for index in range(len(samples)) for sample in samples.fetch(index))
        found = list(islice(every, count))
    else:
        found = [samples[index] for index in range(min(count, len(samples)))]
    if not found:
        raise DatasetError('no row is left to train on;', 'see the rows that were skipped, and --max_length')
    return found
