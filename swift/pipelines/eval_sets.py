"""From the entries of --eval_dataset to questions: files read, kinds found, examples put before the questions."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from swift.core.errors import DatasetError, RowError, SwiftError, did_you_mean
from swift.pipelines.eval_kinds import KNOWN, ChoiceText, Item, Kind, eval_kinds, kind_of

SETTINGS = {'kind', 'path', 'limit', 'num_shots', 'few_shot_num', 'shots_dataset', 'metrics', 'prompt', 'system'}
"""Keys of --eval_dataset_args for one data set."""
GROUPS = ('subject', 'task', 'category', 'subset', 'level')
"""Columns that divide a data set: figures are given for each value too."""


@dataclass
class EvalSet:
    """One data set, ready to be asked."""

    name: str
    kind_name: str
    kind: Kind
    items: list[Item | RowError]
    metrics: list[str]
    settings: dict[str, Any] = field(default_factory=dict)


def read_sets(args: Any) -> list[EvalSet]:
    """The data sets of EvalArguments. Raises DatasetError for what can't be found or read."""
    _check_settings(args)
    names: set[str] = set()
    sets = []
    for entry in args.eval_dataset:
        kind, path = split_entry(entry, args.eval_dataset_args)
        stem = os.path.basename(os.path.normpath(path)).removesuffix('.gz')
        base = kind if kind and kind not in eval_kinds else os.path.splitext(stem)[0]
        name, number = base, 2
        while name in names:
            name, number = f'{base}-{number}', number + 1
        names.add(name)
        own = {**args.eval_dataset_args.get(entry, {}), **args.eval_dataset_args.get(path, {}), **args.eval_dataset_args.get(base, {})}
        sets.append(read_set(name, KNOWN.get(kind, kind) if kind else own.get('kind'), path, args, own))
    return sets


def split_entry(entry: str, settings: Mapping[str, Any]) -> tuple[str | None, str]:
    """(kind or benchmark, path) of an entry: a path, `kind:path`, or the name of a benchmark whose path stands in the settings."""
    if os.path.exists(entry):
        return None, entry
    kind, colon, path = entry.partition(':')
    if not colon and 'path' in settings.get(entry, {}):
        kind, path = entry, settings[entry]['path']
    elif not colon:
        if entry.lower() in KNOWN:
            raise DatasetError(
                f'{entry} is not on this machine, and swift eval asks local files;',
                f'give its file: --eval_dataset {entry}:path/to/{entry.lower()}.jsonl (or a server and --eval_backend EvalScope)',
            )
        near = did_you_mean(entry, [*KNOWN, *eval_kinds])
        raise DatasetError(f'--eval_dataset {entry}: no such file;', near or 'give FILE or KIND:FILE')
    if kind.lower() not in KNOWN and kind not in eval_kinds:
        near = did_you_mean(kind, [*eval_kinds, *KNOWN])
        raise DatasetError(f'--eval_dataset {entry}: no such file, and {kind!r} is no kind of evaluation;', near or f'known: {", ".join(eval_kinds)}')
    if kind not in eval_kinds and KNOWN[kind.lower()] is None:
        raise DatasetError(f'{kind} runs code or checkers that swift eval does not have;', 'ask it through --eval_backend EvalScope')
    if not os.path.exists(path):
        raise DatasetError(f'--eval_dataset {entry}: no such file: {path}')
    return (kind if kind in eval_kinds else kind.lower()), path


def read_set(name: str, kind_name: str | None, path: str, args: Any, own: Mapping[str, Any]) -> EvalSet:
    """The questions of one file or folder, with their examples."""
    rows = _Rows(path, args)
    first = next((row for row in (rows.get(index) for index in range(len(rows))) if not isinstance(row, RowError)), None)
    if first is None:
        raise DatasetError(f'{path} has no row that can be read;', str(rows.get(0)) if len(rows) else 'it is empty')
    kind_name = kind_name or kind_of(first)
    kind = eval_kinds[kind_name]
    kind = kind() if isinstance(kind, type) else kind
    if kind_name == 'choice' and args.eval_mode == 'likelihood':
        kind = ChoiceText()
    limit = own.get('limit', args.eval_limit)
    count = len(rows) if limit is None else min(limit, len(rows))
    prompt, system = own.get('prompt'), own.get('system')
    items = [_item(rows.get(index), kind, rows, index, prompt) for index in range(count)]
    shots = int(own.get('num_shots', own.get('few_shot_num', args.num_shots)))
    if shots:
        source = own.get('shots_dataset', args.shots_dataset)
        items = with_shots(items, shots, _Rows(source, args) if source else rows, kind, prompt, named=source is not None)
    if system is not None:
        items = [item if isinstance(item, RowError) else _with_system(item, system) for item in items]
    metrics = list(own.get('metrics') or args.eval_metrics or kind.metrics)
    settings = {'path': path, 'rows': len(rows), 'asked': count, 'num_shots': shots, 'metrics': metrics, 'digest': rows.digest}
    return EvalSet(name, kind_name, kind, items, metrics, settings | ({'prompt': prompt} if prompt else {}))


def with_shots(items: list[Any], count: int, rows: _Rows, kind: Kind, prompt: str | None, *, named: bool) -> list[Any]:
    """Every question with `count` answered examples before it, none of them the question itself."""
    pool: list[tuple[str, Item]] = []
    for index in range(len(rows)):
        item = _item(rows.get(index), kind, rows, index, prompt)
        if isinstance(item, Item) and item.reference is not None and _question(item) not in {question for question, _ in pool}:
            pool.append((_question(item), item))
        if len(pool) > count:
            break
    found = []
    for item in items:
        if isinstance(item, RowError):
            found.append(item)
            continue
        examples = [example for question, example in pool if question != _question(item)][:count]
        if len(examples) < count:
            raise SwiftError(f'{count} examples are wanted and there are {len(examples)} besides the question;', 'lower --num_shots, or give --shots_dataset')
        found.append(_shown(item, examples))
    return found


def _shown(item: Item, examples: list[Item]) -> Item:
    head = [message for message in item.talk.messages if message.get('role') == 'system']
    rest = [message for message in item.talk.messages if message.get('role') != 'system']
    before: list[Any] = []
    for example in examples:
        before += [message for message in example.talk.messages if message.get('role') != 'system']
        before.append({'role': 'assistant', 'content': example.said, 'loss': False})
    return replace(item, talk=replace(item.talk, messages=[*head, *before, *rest]))


def _with_system(item: Item, system: str) -> Item:
    rest = [message for message in item.talk.messages if message.get('role') != 'system']
    return replace(item, talk=replace(item.talk, messages=[{'role': 'system', 'content': system}, *rest]))


def _question(item: Item) -> str:
    return str(item.talk.messages[-1].get('content'))


def _item(row: Any, kind: Kind, rows: _Rows, index: int, prompt: str | None) -> Item | RowError:
    if isinstance(row, RowError):
        return row
    try:
        talk = rows.convert(kind.row(row), rows.place(index))
        item = kind.read(talk, prompt)
    except RowError as error:
        return error.at(rows.place(index))
    group = next((str(row[name]) for name in GROUPS if isinstance(row.get(name), str | int)), None)
    return replace(item, group=group)


class _Rows:
    """The rows of a file or folder, as dicts, in order."""

    def __init__(self, path: str, args: Any):
        from swift.dataset.convert import AutoPreprocessor
        from swift.dataset.encode import cache_root
        from swift.dataset.files import open_rows
        from swift.dataset.media import Located
        from swift.dataset.resolve import local_files

        if not os.path.exists(path):
            raise DatasetError(f'no such file: {path}')
        files = [open_rows(file, cache_root()) for file in local_files(path, ('default',), ('test', 'validation', 'train'))]
        self._places = [(file, index) for file in files for index in range(len(file))]
        self.digest = '-'.join(str(file.digest) for file in files)
        self._renamer = AutoPreprocessor(columns=args.columns) if args.columns else None
        self.convert = Located(AutoPreprocessor(), args.root_image_dir)

    def __len__(self) -> int:
        return len(self._places)

    def get(self, index: int) -> dict[str, Any] | RowError:
        """A row, or what is wrong with it."""
        file, place = self._places[index]
        try:
            return self._renamer.renamed(file[place]) if self._renamer else dict(file[place])
        except RowError as error:
            return error.at(self.place(index))

    def place(self, index: int) -> str:
        """`file:line`."""
        file, place = self._places[index]
        return file.place(place)


def _check_settings(args: Any) -> None:
    """Raises SwiftError for settings of data sets that nobody reads."""
    for name, own in args.eval_dataset_args.items():
        if not isinstance(own, Mapping):
            raise SwiftError(f'--eval_dataset_args: {name} must be a JSON object;', 'write {"name": {"num_shots": 5}}')
        for key in own:
            if key not in SETTINGS:
                near = did_you_mean(key, SETTINGS)
                raise SwiftError(f'--eval_dataset_args: {name} has no setting {key!r};', near or f'known: {", ".join(sorted(SETTINGS))}')
        stems = {os.path.splitext(os.path.basename(entry.rpartition(':')[2]))[0] for entry in args.eval_dataset}
        heads = {entry.partition(':')[0].lower() for entry in args.eval_dataset}
        if name not in {*args.eval_dataset, *stems, *heads, *(entry.partition(':')[2] for entry in args.eval_dataset)}:
            raise SwiftError(f'--eval_dataset_args: {name} is none of the data sets;', f'they are: {", ".join(args.eval_dataset)}')
