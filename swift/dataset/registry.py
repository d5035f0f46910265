"""Names of data sets: built-in facts and `register_dataset`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from swift.core.errors import DatasetError
from swift.core.types import Row
from swift.dataset.convert import AutoPreprocessor, RowPreprocessor
from swift.dataset.messages import Tags

Preprocess = Callable[..., Any]


@dataclass(frozen=True)
class SubsetDataset:
    """One subset of a data set, where it is read differently from the others."""

    name: str = 'default'
    """How users name it."""
    subset: str | None = None
    """What it is called on the hub. None: `name`."""
    split: Sequence[str] | None = None
    """Splits to read. None: those of the data set."""
    preprocess_func: Preprocess | None = None
    """None: that of the data set."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Renames columns (theirs → ours)."""


@dataclass(frozen=True)
class DatasetMeta:
    """Where a data set is and how its rows are read.

    `preprocess_func` is a preprocessor, or a function row → row that runs before the shape is recognised.
    """

    ms_dataset_id: str | None = None
    hf_dataset_id: str | None = None
    dataset_path: str | None = None
    """A file, folder or pattern here."""
    dataset_name: str | None = None
    """Short name. None: the ids are its names."""
    ms_revision: str | None = None
    hf_revision: str | None = None
    subsets: Sequence[str | SubsetDataset] = ('default',)
    split: Sequence[str] = ('train',)
    preprocess_func: Preprocess | None = None
    """None: the shape is recognised by itself."""
    load_function: Callable[[], Sequence[Row]] | None = None
    """Gives the rows (anything with len and [i]) instead of a path or hub."""
    columns: Mapping[str, str] = field(default_factory=dict)
    rows: int | None = None
    """Only so many rows, unless the entry says otherwise."""
    tags: Sequence[str] = ()
    help: str | None = None

    def names(self) -> list[str]:
        """All names it answers to."""
        return [name for name in (self.dataset_name, self.ms_dataset_id, self.hf_dataset_id) if name]

    def subset_list(self) -> list[SubsetDataset]:
        """Its subsets as objects."""
        return [item if isinstance(item, SubsetDataset) else SubsetDataset(item) for item in self.subsets]

    def converter(self, subset: SubsetDataset, columns: Mapping[str, str], auto: bool) -> Any:
        """What turns its rows into conversations, with the user's `columns` on top of its own."""
        renames = {**self.columns, **subset.columns, **columns}
        function = subset.preprocess_func or self.preprocess_func
        if function is None:
            return AutoPreprocessor(columns=renames, auto=auto)
        if isinstance(function, RowPreprocessor):
            return function if not renames else Renamed(function, renames)
        return FunctionPreprocessor(function, columns=renames, auto=auto)


class FunctionPreprocessor(AutoPreprocessor):
    """A user's function row → row (None leaves the row out), then the shape is recognised."""

    def __init__(self, function: Preprocess, **kwargs: Any):
        super().__init__(**kwargs)
        self.function = function

    def preprocess(self, row: Row) -> Row | None:
        made = self.function(row)
        return made if made is None or not isinstance(made, Mapping) else super().preprocess(dict(made))


class Renamed(RowPreprocessor):
    """Another preprocessor behind renamed columns."""

    def __init__(self, inner: RowPreprocessor, columns: Mapping[str, str]):
        super().__init__(columns=columns, tags=inner.tags)
        self.inner = inner

    def preprocess(self, row: Row) -> Row | None:
        return self.inner.preprocess(self.inner.renamed(row))


_registered: dict[str, DatasetMeta] = {}


def register_dataset(meta: DatasetMeta, *, exist_ok: bool = False) -> None:
    """Make a data set known under its name and ids. A name that is taken is an error unless `exist_ok`."""
    if not (meta.names() or meta.dataset_path):
        raise DatasetError('a data set to register needs a dataset_name, an id or a dataset_path')
    for name in meta.names() or [str(meta.dataset_path)]:
        if name.lower() in _registered and _registered[name.lower()] != meta and not exist_ok:
            raise DatasetError(f'data set {name!r} is registered already;', 'pass exist_ok=True to replace it')
        _registered[name.lower()] = meta


def known_datasets() -> dict[str, DatasetMeta]:
    """Every known name (lower case) → its meta: registered ones over built-in ones."""
    return {**builtin(), **_registered}


@cache
def builtin() -> dict[str, DatasetMeta]:
    """The built-in facts by name (lower case)."""
    facts = json.loads(Path(__file__).with_name('builtin.json').read_text(encoding='utf-8'))
    made: dict[str, DatasetMeta] = {}
    for entry in facts['datasets']:
        meta = meta_of_custom(entry, Path())
        for name in meta.names():
            made.setdefault(name.lower(), meta)
    for short, (target, subset) in facts['short_names'].items():
        meta = made[target.lower()]
        made[short] = meta if subset is None else _only(meta, short, subset)
    return made


def _only(meta: DatasetMeta, name: str, subset: str) -> DatasetMeta:
    chosen = [item for item in meta.subset_list() if item.name == subset] or [SubsetDataset(subset)]
    return DatasetMeta(meta.ms_dataset_id, meta.hf_dataset_id, dataset_name=name, subsets=chosen, split=meta.split,
                       preprocess_func=meta.preprocess_func, columns=meta.columns, tags=meta.tags)  # fmt: skip


_CUSTOM_KEYS = {
    'ms_dataset_id', 'hf_dataset_id', 'dataset_path', 'dataset_name', 'ms_revision', 'hf_revision', 'subsets', 'split',
    'columns', 'messages', 'tags', 'help', 'huge_dataset',
}  # fmt: skip


def meta_of_custom(entry: Mapping[str, Any], folder: Path) -> DatasetMeta:
    """The meta of one entry of the list dialect (and of the built-in facts)."""
    unknown = sorted(set(entry) - _CUSTOM_KEYS)
    if unknown:
        raise DatasetError(f'data set entry {entry.get("dataset_name") or entry.get("dataset_path")}: unknown keys {unknown};',
                           f'known: {", ".join(sorted(_CUSTOM_KEYS))}')  # fmt: skip
    where = entry.get('dataset_path')
    if where is not None and not os.path.isabs(os.path.expanduser(where)):
        where = str(folder / where)
    tags = _tags(entry.get('messages'))
    columns = dict(entry.get('columns', {}))
    return DatasetMeta(
        ms_dataset_id=entry.get('ms_dataset_id'),
        hf_dataset_id=entry.get('hf_dataset_id'),
        dataset_path=where,
        dataset_name=entry.get('dataset_name'),
        ms_revision=entry.get('ms_revision'),
        hf_revision=entry.get('hf_revision'),
        subsets=[_subset(item) for item in entry.get('subsets', ['default'])],
        split=entry.get('split', ['train']),
        preprocess_func=AutoPreprocessor(tags=tags) if tags else None,
        columns=columns,
        tags=entry.get('tags', []),
        help=entry.get('help'),
    )


def _subset(item: str | Mapping[str, Any]) -> SubsetDataset:
    if isinstance(item, str):
        return SubsetDataset(item)
    name = item.get('name') or item.get('subset') or 'default'
    return SubsetDataset(name, item.get('subset'), item.get('split'), columns=item.get('columns', {}))


def _tags(declared: Mapping[str, Any] | None) -> Tags | None:
    """Role and content names of the list dialect's `messages`."""
    if not declared:
        return None
    roles = {declared[f'{role}_role']: role for role in ('user', 'assistant', 'system') if declared.get(f'{role}_role')}
    return Tags(declared.get('role_key'), declared.get('content_key'), roles)
