"""From an entry of --dataset to files: local paths, names of a dataset_info.json, registered names, ids of a hub."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from swift.core.errors import DatasetError, did_you_mean
from swift.core.hub import download_dataset, list_dataset_files, use_hugging_face
from swift.core.jsonl import write_json
from swift.dataset.convert import AutoPreprocessor, ChangedRows
from swift.dataset.dataset_info import read_dataset_info
from swift.dataset.encode import cache_root
from swift.dataset.files import FORMATS, file_format
from swift.dataset.registry import DatasetMeta, SubsetDataset, known_datasets
from swift.dataset.select import card_configs, is_about_media, select_files
from swift.dataset.syntax import Spec, exists, is_pattern, parse_spec


@dataclass(frozen=True)
class Found:
    """One data set, located: what is to be read, and how."""

    name: str
    files: list[str]
    """Local paths."""
    convert: Any
    rows: int | None = None
    """How many rows are wanted. None: all."""
    made: Any = None
    """Rows that a load_function gave instead of files."""


@dataclass(frozen=True)
class Catalog:
    """Everything that decides what a name means."""

    dataset_dir: str | None = None
    custom_dataset_info: Sequence[str] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    auto: bool = True
    use_hf: bool | None = None
    token: str | None = None
    force_download: bool = False
    split: str | None = None
    """Take this split instead of those of the data set."""
    function: Callable[..., Any] | None = None
    """A user's function row → row, run on every row of known shape."""

    def find(self, entry: str) -> list[Found]:
        """The data sets of an entry, one for each subset. Raises DatasetError."""
        found = self._find(entry)
        if self.function is None:
            return found
        return [replace(item, convert=ChangedRows(item.convert, self.function)) for item in found]

    def _find(self, entry: str) -> list[Found]:
        spec = parse_spec(entry)
        if exists(spec.name):
            files = local_files(spec.name, spec.subsets or ('default',), self._splits(('train',)))
            return [Found(spec.text, files, AutoPreprocessor(columns=self.columns, auto=self.auto), spec.rows)]
        declared = self._declared()
        meta = declared.get(spec.name) or known_datasets().get(spec.name.lower())
        if meta is None:
            if '/' not in spec.name or file_format(spec.name) or spec.name.startswith(('.', '/', '~')):
                raise self._not_found(spec.name, declared)
            meta = DatasetMeta(ms_dataset_id=spec.name, hf_dataset_id=spec.name, subsets=spec.subsets or ('default',))
        return [self._of_meta(spec, meta, subset) for subset in chosen_subsets(meta, spec)]

    def _splits(self, default: Sequence[str]) -> Sequence[str]:
        return default if self.split is None else (self.split,)

    def _declared(self) -> dict[str, DatasetMeta]:
        """Names of the user's dataset_info.json files."""
        paths = [os.path.expanduser(path) for path in self.custom_dataset_info]
        if self.dataset_dir:
            path = os.path.join(os.path.expanduser(self.dataset_dir), 'dataset_info.json')
            if not os.path.exists(path):
                raise DatasetError(f'--dataset_dir {self.dataset_dir} has no dataset_info.json')
            paths.append(path)
        return {name: meta for path in paths for name, meta in read_dataset_info(path).items()}

    def _of_meta(self, spec: Spec, meta: DatasetMeta, subset: SubsetDataset) -> Found:
        convert = meta.converter(subset, self.columns, self.auto)
        rows = spec.rows or meta.rows
        if meta.load_function is not None:
            return Found(spec.text, [], convert, rows, made=meta.load_function())
        splits = self._splits(subset.split or meta.split)
        folder = subset.subset or subset.name
        if meta.dataset_path is not None:
            if not exists(meta.dataset_path):
                raise DatasetError(f'{spec.name}: the file {meta.dataset_path} does not exist')
            return Found(spec.text, local_files(meta.dataset_path, (folder,), splits), convert, rows)
        return Found(spec.text, self._from_hub(spec, meta, folder, splits), convert, rows)

    def _from_hub(self, spec: Spec, meta: DatasetMeta, subset: str, splits: Sequence[str]) -> list[str]:
        hf = use_hugging_face(self.use_hf if spec.use_hf is None else spec.use_hf)
        name = meta.hf_dataset_id if hf else meta.ms_dataset_id
        if name is None:
            other, flag = ('ModelScope', 'MS::') if hf else ('Hugging Face', 'HF::')
            raise DatasetError(f'{spec.name} is on {other} only;', f'write {flag}{meta.names()[0]}, or --use_hf {str(not hf).lower()}')
        hub = dict(revision=meta.hf_revision if hf else meta.ms_revision, use_hf=hf, token=self.token)
        return hub_files(name, subset, splits, hub, self.force_download)

    def _not_found(self, name: str, declared: Mapping[str, DatasetMeta]) -> DatasetError:
        if file_format(name) or name.startswith(('.', '/', '~')) or is_pattern(name):
            folder = Path(os.path.expanduser(name)).parent
            near = did_you_mean(Path(name).name, os.listdir(folder) if folder.is_dir() else [])
            known = ', '.join([*declared, *short_names()][:12])
            return DatasetError(f'Dataset {name!r} not found: no such file in {folder.absolute()};', near or f'Available datasets: {known}')
        every = [*declared, *known_datasets()]
        near = did_you_mean(name.lower(), every, n=2)
        shown = ', '.join([*declared, *short_names()][:24])
        return DatasetError(
            f'Dataset {name!r} not found. Available datasets: {shown}, … ({len(every)} in all);',
            f'{near} ' if near else 'register it in dataset_info.json and give --dataset_dir, or give a file or an id owner/name',
        )


def short_names() -> list[str]:
    """Known names that are no ids."""
    return [name for name, meta in known_datasets().items() if '/' not in name and name != meta.hf_dataset_id]


def chosen_subsets(meta: DatasetMeta, spec: Spec) -> list[SubsetDataset]:
    """The subsets an entry asks for. Raises DatasetError when it has to say which."""
    known = {subset.name: subset for subset in meta.subset_list()}
    if spec.subsets == ('all',):
        return list(known.values())
    if spec.subsets:
        return [known.get(name) or SubsetDataset(name) for name in spec.subsets]
    if len(known) == 1:
        return list(known.values())
    if 'default' in known:
        return [known['default']]
    raise DatasetError(f'{spec.name} has several subsets;', f'choose: {spec.name}:{{{",".join(known)}}} or {spec.name}:all')


def local_files(name: str, subsets: Sequence[str], splits: Sequence[str]) -> list[str]:
    """The files of a path: itself, what a pattern matches, or the data files of a folder. Raises DatasetError."""
    path = os.path.expanduser(name)
    if os.path.isfile(path):
        if file_format(path) is None:
            raise DatasetError(f'{name}: unknown kind of file;', f'known: {" ".join(FORMATS)}, each also with .gz')
        return [path]
    if os.path.isdir(path):
        return [file for subset in subsets for file in _folder_files(path, subset, splits, one_format=False)]
    found = sorted(file for file in glob.glob(path, recursive=True) if os.path.isfile(file) and file_format(file))
    if not found:
        raise DatasetError(f'{name}: matches no data file;', f'known: {" ".join(FORMATS)}, each also with .gz')
    return found


def _folder_files(folder: str, subset: str, splits: Sequence[str], one_format: bool) -> list[str]:
    relative = [
        os.path.relpath(os.path.join(root, file), folder).replace(os.sep, '/')
        for root, _, files in os.walk(folder)
        for file in files
    ]
    card = os.path.join(folder, 'README.md')
    configs = card_configs(Path(card).read_text(encoding='utf-8')) if os.path.exists(card) else None
    return [os.path.join(folder, path) for path in select_files(relative, subset, splits, folder, configs, one_format)]


def hub_files(name: str, subset: str, splits: Sequence[str], hub: dict[str, Any], force: bool = False) -> list[str]:
    """Local copies of the files of a repository that hold a subset and split; only those are fetched, and media beside a metadata file.

    Which files those are is remembered, so that an offline run finds what an earlier one fetched.
    """
    question = json.dumps([name, subset, list(splits), hub['revision'], hub['use_hf']])
    memory = cache_root() / 'hub' / f'{hashlib.blake2b(question.encode(), digest_size=12).hexdigest()}.json'
    try:
        chosen = _listed(name, subset, splits, hub)
    except DatasetError as error:
        if 'offline' not in str(error) or not memory.exists():
            raise
        chosen = json.loads(memory.read_text(encoding='utf-8'))
    beside = [f'{os.path.dirname(path)}/*'.lstrip('/') for path in chosen if is_about_media(path)]
    folder = download_dataset(name, subset=subset, allow_patterns=[*chosen, *beside], force=force, **hub)
    memory.parent.mkdir(parents=True, exist_ok=True)
    write_json(str(memory), chosen)
    return [os.path.join(folder, path) for path in chosen]


def _listed(name: str, subset: str, splits: Sequence[str], hub: dict[str, Any]) -> list[str]:
    paths = list_dataset_files(name, **hub)
    configs = None
    if 'README.md' in paths:
        folder = download_dataset(name, allow_patterns=['README.md'], **hub)
        card = Path(folder) / 'README.md'
        configs = card_configs(card.read_text(encoding='utf-8')) if card.exists() else None
    return select_files(paths, subset, splits, name, configs)
