"""dataset_info.json in its two dialects.

An object `{"name": {"file_name": …, "formatting": "alpaca"|"sharegpt", "columns": {ours: theirs}, "tags": …}}`, or a list
`[{"dataset_path": …, "columns": {theirs: ours}, …}]`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swift.core.errors import DatasetError, RowError
from swift.core.types import Row
from swift.dataset.convert import RESPONSE, AutoPreprocessor
from swift.dataset.messages import Tags
from swift.dataset.registry import DatasetMeta, SubsetDataset, meta_of_custom

_SHARED = (
    'system', 'tools', 'images', 'videos', 'audios', 'chosen', 'rejected', 'rejected_response', 'rejected_messages', 'margin',
    'history', 'channel', 'label', 'anchor', 'positive', 'negative', 'positive_messages', 'negative_messages', 'sentence1',
    'sentence2', 'score', 'tokens', 'text',
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
        return TaskPreprocessor(entry['task_templates'])
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
    return AutoPreprocessor(columns=columns, tags=_tags(entry.get('tags') or {}))


def _tags(declared: Mapping[str, str]) -> Tags:
    names = {'user': 'user', 'assistant': 'assistant', 'observation': 'tool', 'function': 'tool_call', 'system': 'system'}
    roles = {declared[f'{theirs}_tag']: ours for theirs, ours in names.items() if declared.get(f'{theirs}_tag')}
    return Tags(declared.get('role_tag'), declared.get('content_tag'), roles or None)


class TaskPreprocessor(AutoPreprocessor):
    """Rows of several tasks, each with its own system prompt and a prompt filled from the row's columns.

    A row names its task in `task`; without it, the one template whose placeholders the row fills is taken. The task
    becomes the channel, so that every task's loss is logged by itself.
    """

    def __init__(self, templates: Mapping[str, Mapping[str, str]]):
        super().__init__()
        self.templates = {name: dict(template) for name, template in templates.items()}

    def preprocess(self, row: Row) -> Row | None:
        row = dict(row)
        task = row.pop('task', None) or self._guess(row)
        if task not in self.templates:
            raise RowError(f'unknown task {task!r};', hint=f'known: {", ".join(self.templates)}')
        template = self.templates[task]
        prompt = template.get('prompt_template', '{query}')
        missing = [field for field in _fields(prompt) if row.get(field) is None]
        if missing:
            raise RowError(f'the task {task!r} needs the columns {missing}, the row has {sorted(row)}')
        answer = next((key for key in RESPONSE if row.get(key) is not None and key not in _fields(prompt)), None)
        query = re.sub(r'\{(\w+)\}', lambda found: str(row[found[1]]), prompt)
        made = {'query': query, 'response': row[answer] if answer else None, 'channel': task}
        if template.get('system'):
            made['system'] = template['system']
        media = {key: value for key, value in row.items() if key in ('images', 'image', 'videos', 'audios', 'label')}
        return super().preprocess({**made, **media})

    def _guess(self, row: Row) -> str:
        filled = {
            name: fields
            for name, template in self.templates.items()
            if (fields := _fields(template.get('prompt_template', '{query}'))) and all(row.get(key) is not None for key in fields)
        }
        if len(filled) != 1:
            raise RowError(f'no column task, and {len(filled)} of the task templates fit the columns {sorted(row)}')
        return next(iter(filled))


def _fields(prompt: str) -> list[str]:
    return re.findall(r'\{(\w+)\}', prompt)
