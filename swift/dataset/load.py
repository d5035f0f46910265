"""`load_dataset`: everything between the entries of --dataset and two sources of conversations."""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from swift.arguments.data import DataArgs
from swift.core.errors import DatasetError, RowError
from swift.dataset.bad_rows import BadRows
from swift.dataset.convert import ShapeError
from swift.dataset.cursor import open_cursor
from swift.dataset.encode import cache_root
from swift.dataset.files import open_rows
from swift.dataset.identity import Identity, is_identity
from swift.dataset.media import Located
from swift.dataset.memory import MemoryRows
from swift.dataset.resolve import Catalog, Found
from swift.dataset.sources import Conversations, Rows, concatenated, interleaved, sampled
from swift.dataset.stream import EntryStream, Stream, entry_stream, mixed


@dataclass(frozen=True)
class Splits:
    """What there is to train and to validate on. None: nothing."""

    train: Any
    """`Conversations` (map-style), or a `Stream` with --streaming."""
    val: Conversations | None
    bad_rows: BadRows
    """The policy that reading shares with encoding: hand it to `encode_rows`."""


def load_dataset(
    args: DataArgs,
    *,
    seed: int = 42,
    use_hf: bool | None = None,
    hub_token: str | None = None,
    bad_rows: BadRows | None = None,
    root_image_dir: str | None = None,
) -> Splits:
    """The training and validation rows that `args` names, mixed, split and shuffled.

    `seed` serves where `args.data_seed` is None. Relative paths of media are looked for below `root_image_dir`, else beside the
    data file; whether they are there is seen when they are encoded. Rows are parsed when they are asked for. Raises DatasetError for what can't
    be found or read, and for rows of a shape nobody knows.
    """
    seed = seed if args.data_seed is None else args.data_seed
    check_args(args)
    catalog = Catalog(
        args.dataset_dir, args.custom_dataset_info, args.columns or {}, not args.disable_auto_column_mapping,
        use_hf, hub_token, args.download_mode == 'force_redownload',
    )  # fmt: skip
    reader = Reader(catalog, Identity.of(args.model_name, args.model_author), seed, root_image_dir)
    bad_rows = bad_rows or BadRows(strict=args.strict)
    val = reader.joined(args.val_dataset, args.val_dataset_shuffle)
    if args.streaming:
        return Splits(reader.stream(args, bad_rows) if args.dataset else None, val, bad_rows)
    pairs = [reader.split(entry, args.split_dataset_ratio, args.dataset_shuffle) for entry in args.dataset]
    trains = [train for train, _ in pairs if train is not None]
    held_out = [held for _, held in pairs if held is not None]
    train = None
    if trains:
        train = interleaved(trains, args.interleave_prob, seed, args.stopping_strategy) if args.interleave_prob else concatenated(trains)
        train = train.shuffled(seed) if args.dataset_shuffle else train
    if held_out:
        val = concatenated(held_out)
        val = val.shuffled(seed) if args.val_dataset_shuffle else val
    return Splits(train, val, bad_rows)


def check_args(args: DataArgs) -> None:
    """Settings that exclude each other. Raises DatasetError."""
    if not 0 <= args.split_dataset_ratio <= 1:
        raise DatasetError(f'--split_dataset_ratio must be between 0 and 1, got {args.split_dataset_ratio}')
    if args.val_dataset and args.split_dataset_ratio:
        raise DatasetError('--val_dataset and --split_dataset_ratio exclude each other;', 'set --split_dataset_ratio 0')
    if args.streaming and args.split_dataset_ratio:
        raise DatasetError('--streaming reads rows once and cannot hold out a share of them;', 'give --val_dataset, or --split_dataset_ratio 0')  # fmt: skip


class Reader:
    """Opens what the catalog finds."""

    def __init__(self, catalog: Catalog, identity: Identity | None = None, seed: int = 42, root: str | None = None):
        self.catalog, self.identity, self.seed, self.root = catalog, identity, seed, root

    def rows(self, found: Found) -> Rows:
        """The rows of one located data set, checked by a look at the first one."""
        if found.made is not None:
            files: list[Any] = [MemoryRows(found.made, found.name)]
        else:
            cache = cache_root()
            files = [open_rows(path, cache) for path in found.files]
        if not any(len(file) for file in files):
            raise DatasetError(f'{found.name} has no rows')
        rows = Rows(found.name, files, self.convert_for(found, first_rows(files, 24)))
        _check_shape(found.name, lambda: rows[0])
        return rows

    def convert_for(self, found: Found, first: Sequence[Any]) -> Any:
        """What converts its rows: with media where they lie, and {{name}} and {{author}} filled where rows are about the model itself."""
        if not is_identity(first):
            return Located(found.convert, self.root)
        if self.identity is None:
            raise DatasetError(
                f'{found.name} asks for the name of the model: its rows hold {{{{name}}}} or {{{{author}}}};',
                'give --model_name and --model_author',
            )
        return Located(self.identity.filling(found.convert), self.root)

    def stream(self, args: DataArgs, bad_rows: BadRows) -> Stream:
        """All entries of --dataset as one stream."""
        nodes = []
        for entry in args.dataset:
            found = self.catalog.find(entry)
            parts = [self._entry_stream(item, args) for item in found]
            nodes.append(mixed(parts, None, self.seed, args.stopping_strategy))
        return Stream(mixed(nodes, args.interleave_prob, self.seed, args.stopping_strategy), bad_rows)

    def _entry_stream(self, found: Found, args: DataArgs) -> EntryStream:
        settings = {'seed': self.seed, 'shuffle': args.dataset_shuffle, 'buffer': args.shuffle_buffer_size}
        first, cursor = [], open_cursor(found.files[0]) if found.files else None
        while cursor is not None and len(first) < 24 and (placed := cursor.read()) is not None:
            first.append(placed)
        convert = self.convert_for(found, [row for row, _ in first if not isinstance(row, RowError)])
        if first and not isinstance(first[0][0], RowError):
            _check_shape(found.name, lambda: convert(*first[0]))
        return entry_stream(found, convert, **settings)

    def source(self, entry: str) -> tuple[Conversations, int | None]:
        """All conversations of an entry, and how many of them are wanted."""
        found = self.catalog.find(entry)
        return concatenated([Conversations.of(self.rows(item)) for item in found]), found[0].rows

    def split(self, entry: str, ratio: float, shuffle: bool) -> tuple[Conversations | None, Conversations | None]:
        """(train, held-out) of an entry. No row is in both, however often rows are repeated."""
        source, wanted = self.source(entry)
        size = len(source)
        wanted = size if wanted is None else wanted
        rng = np.random.Generator(np.random.PCG64([self.seed, zlib.crc32(entry.encode())]))
        if not ratio:
            rows = np.arange(size) if wanted == size else sampled(size, wanted, rng if shuffle else None)
            return source.take(rows), None
        order = rng.permutation(size) if shuffle else np.arange(size)
        held = min(size, max(1, round(ratio * min(wanted, size))))
        kept = order[held:] if shuffle else order[: size - held]
        left_out = order[:held] if shuffle else order[size - held :]
        train = source.take(kept[sampled(len(kept), wanted - held, None)]) if len(kept) and wanted > held else None
        return train, source.take(left_out)

    def joined(self, entries: Sequence[str], shuffle: bool) -> Conversations | None:
        """All entries one after the other."""
        sources = [self.split(entry, 0.0, shuffle)[0] for entry in entries]
        if not sources:
            return None
        whole = concatenated([source for source in sources if source is not None])
        return whole.shuffled(self.seed) if shuffle else whole


def _check_shape(name: str, convert_first: Callable[[], Any]) -> None:
    """Stop at once when the first row is of no known shape."""
    try:
        convert_first()
    except ShapeError as error:
        raise DatasetError(f'{name}: {error}') from error
    except RowError:
        pass  # one bad row: the policy for bad rows decides


def first_rows(files: Sequence[Any], count: int) -> list[Any]:
    """The first rows of the files that can be parsed."""
    made: list[Any] = []
    for file in files:
        for index in range(min(len(file), count - len(made))):
            with contextlib.suppress(RowError):
                made.append(file[index])
    return made


class DatasetLoader:
    """Data sets by name from Python."""

    @staticmethod
    def load(
        name: str,
        *,
        preprocess_function: Any = None,
        dataset_dir: str | None = None,
        split: str | None = None,
        columns: dict[str, str] | None = None,
        use_hf: bool | None = None,
        seed: int = 42,
        root_image_dir: str | None = None,
    ) -> Conversations:
        """The conversations of an entry such as `--dataset` takes (file, folder, name, id; `#500` for 500 rows).

        `preprocess_function` gets each row as a dict (with `messages`, made from its columns where it has none) and returns
        a row of any known shape, or None to leave it out. Relative paths of media are looked for below `root_image_dir`
        (default: the environment's ROOT_IMAGE_DIR), else beside the data file. Raises DatasetError (a ValueError) for an unknown name.
        """
        catalog = Catalog(dataset_dir, columns=columns or {}, use_hf=use_hf, split=split, function=preprocess_function)
        root = root_image_dir or os.environ.get('ROOT_IMAGE_DIR')
        source, _ = Reader(catalog, None, seed, root).split(name, 0.0, False)
        assert source is not None  # without a ratio nothing is held out
        return source

    @staticmethod
    def concat_datasets(datasets: Sequence[Conversations]) -> Conversations | None:
        """The data sets one after the other; None for none."""
        return concatenated(list(datasets)) if datasets else None

    @staticmethod
    def interleave_datasets(
        datasets: Sequence[Conversations],
        probabilities: Sequence[float] | None = None,
        *,
        seed: int = 42,
        stopping_strategy: str = 'first_exhausted',
    ) -> Conversations | None:
        """Rows drawn from the data sets in turn, or with probabilities; None for none."""
        return interleaved(list(datasets), probabilities, seed, stopping_strategy) if datasets else None
