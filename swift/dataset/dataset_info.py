"""dataset_info.json in its two dialects.

An object `{"name": {"file_name": …, "formatting": "alpaca"|"sharegpt", "columns": {ours: theirs}, "tags": …}}`, or a list
`[{"dataset_path": …, "columns": {theirs: ours}, …}]`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swift.core.errors import DatasetError
from swift.core.types import Row
from swift.dataset.convert import RESPONSE, AutoPreprocessor
from swift.dataset.media import OTHERS
from swift.dataset.messages import Tags
from swift.dataset.registry import DatasetMeta, SubsetDataset, meta_of_custom
from swift.dataset.tasks import TaskPreprocessor, check_templates

_SHARED = (
    'system', 'tools', 'images', 'videos', 'audios', 'chosen', 'rejected', 'rejected_response', 'rejected_messages', 'margin',
    'history', 'channel', 'label', 'anchor', 'positive', 'negative', 'positive_messages', 'negative_messages', 'sentence1',
    'sentence2', 'score', 'tokens', 'text', 'objects', *OTHERS,
)  # fmt: skip
_ALPACA = {'prompt': 'instruction', 'query': 'input', 'response': 'output'}
_KEYS = {
    'hf_hub_url', 'ms_hub_url', 'om_hub_url', 'script_url', 'cloud_file_name', 'file_name', 'formatting', 'ranking', 'subset',
    'split', 'folder', 'num_samples', 'columns', 'tags', 'task_templates',
}  # fmt: skip


def read_dataset_info(path: str | os.PathLike) -> dict[str, DatasetMeta]:
    """Name (as written) → meta of a dataset_info.json of either dialect. Raises DatasetError.

    An object maps names to entries with file_name or hub urls, formatting, columns (ours → theirs) and tags; a list holds
    entries with dataset_path or ids, columns (theirs → ours). Relative paths start at the file's folder.
    """
    path = Path(path).expanduser()
    try:
        info = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise DatasetError(f"can't read {path} ({error})") from error
    made: dict[str, DatasetMeta] = {}
    if isinstance(info, list):
        for number, entry in enumerate(info):
            if not isinstance(entry, dict):
                raise DatasetError(f'{path}: entry {number} must be an object')
            meta = meta_of_custom(entry, path.parent)
            for name in meta.names() or [str(meta.dataset_path)]:
                made[name] = meta
    elif isinstance(info, dict):
        for name, entry in info.items():
            made[name] = meta_of(name, entry, path)
    else:
        raise DatasetError(f'{path} must be a JSON object or list')
    return made


def meta_of(name: str, entry: Any, path: Path) -> DatasetMeta:
    """The meta of one entry of the file `path`. Raises DatasetError."""
    if not isinstance(entry, Mapping):
        raise DatasetError(f'{path}: the entry {name!r} must be an object')
    unknown = sorted(set(entry) - _KEYS)
    if unknown:
        raise DatasetError(f'{path}: the entry {name!r} has unknown keys {unknown};', f'known: {", ".join(sorted(_KEYS))}')
    file_name = entry.get('file_name')
    subset = SubsetDataset('default', entry.get('subset') or entry.get('folder') or 'default')
    return DatasetMeta(
        ms_dataset_id=entry.get('ms_hub_url'),
        hf_dataset_id=entry.get('hf_hub_url'),
        dataset_path=None if file_name is None else str(path.parent / file_name),
        dataset_name=name,
        subsets=[subset],
        split=[entry.get('split', 'train')],
        preprocess_func=_preprocessor(name, entry, path),
        rows=entry.get('num_samples'),
    )


def _preprocessor(name: str, entry: Mapping[str, Any], path: Path) -> AutoPreprocessor:
    formatting, declared = entry.get('formatting', 'alpaca'), entry.get('columns') or {}
    if formatting not in ('alpaca', 'sharegpt', 'openai'):
        raise DatasetError(f'{path}: {name}: unknown formatting {formatting!r};', 'known: alpaca, sharegpt, openai')
    if entry.get('task_templates'):
        check_templates(entry['task_templates'], f'{path}: {name}')
        return TaskPreprocessor(entry['task_templates'], columns={theirs: ours for ours, theirs in declared.items() if theirs != ours})
    columns = {declared[key]: key for key in _SHARED if declared.get(key)}
    if declared.get('kto_tag'):
        columns[declared['kto_tag']] = 'label'
    if formatting == 'alpaca':
        if set(declared) == {'prompt'}:  # only a prompt: plain text for pre-training
            columns[declared['prompt']] = 'text'
        else:
            columns.update({declared[key]: ours for key, ours in _ALPACA.items() if declared.get(key)})
    elif declared.get('messages'):
        columns[declared['messages']] = 'messages'
    columns = {theirs: ours for theirs, ours in columns.items() if theirs != ours}
    kind = RankedPreprocessor if entry.get('ranking') else AutoPreprocessor
    return kind(columns=columns, tags=_tags(entry.get('tags') or {}))


class RankedPreprocessor(AutoPreprocessor):
    """Rows of `"ranking": true`: a response that is a list holds the chosen answer first, then the rejected ones."""

    def preprocess(self, row: Row) -> Row | None:
        name = self.first(row, RESPONSE)
        answers = row.get(name) if name else None
        if isinstance(answers, (list, tuple)) and len(answers) > 1:
            row = {**row, 'chosen': answers[0], 'rejected': list(answers[1:])}
            del row[name]
        return super().preprocess(row)


def _tags(declared: Mapping[str, str]) -> Tags:
    names = {'user': 'user', 'assistant': 'assistant', 'observation': 'tool', 'function': 'tool_call', 'system': 'system'}
    roles = {declared[f'{theirs}_tag']: ours for theirs, ours in names.items() if declared.get(f'{theirs}_tag')}
    return Tags(declared.get('role_tag'), declared.get('content_tag'), roles or None)
