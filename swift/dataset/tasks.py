"""Rows of several tasks in one data set: `task_templates` of a dataset_info.json, and the names of all tasks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from swift.core.errors import DatasetError, RowError, did_you_mean
from swift.core.types import Conversation, Row
from swift.dataset.convert import MESSAGES, RESPONSE, AutoPreprocessor, said
from swift.dataset.preference import filled

ANSWERS = (*RESPONSE, 'summary', 'translation')
"""Columns of the answer, in this order; `answer` of a task's template names another one."""
TEMPLATE_KEYS = ('system', 'prompt_template', 'answer')
_BESIDE = {'images', 'image', 'videos', 'video', 'audios', 'audio', 'label', 'tools', 'history'}
"""Columns that go with the conversation whatever the template asks for."""


class TaskPreprocessor(AutoPreprocessor):
    """Rows of several tasks, each with its own system prompt and a prompt filled from the row's columns.

    `templates`: task → `{"system": …, "prompt_template": "… {column} …", "answer": column}`, system and answer optional.
    A row names its task in `task`; without it, the one template whose placeholders the row fills is taken. The task
    becomes the channel, so that every task's loss is logged by itself. A row with `messages` is taken as it is.
    """

    def __init__(self, templates: Mapping[str, Mapping[str, str]], *, columns: Mapping[str, str] | None = None):
        super().__init__(columns=columns)
        self.templates = {name: dict(template) for name, template in templates.items()}

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks in the order of their templates."""
        return tuple(self.templates)

    def preprocess(self, row: Row) -> Row | None:
        row = dict(row)
        task = row.pop('task', None)
        if task is None:
            task = self._guess(row)
        if task not in self.templates:
            raise RowError(f'unknown task {task!r};', hint=did_you_mean(str(task), self.templates) or f'known: {", ".join(self.templates)}')
        template = self.templates[task]
        system = {'system': template['system']} if template.get('system') and row.get('system') is None else {}
        if self.first(row, MESSAGES):
            return super().preprocess({**row, **system, 'channel': task})
        prompt = template.get('prompt_template', '{query}')
        wanted = placeholders(prompt)
        missing = [name for name in wanted if row.get(name) is None]
        if missing:
            raise RowError(f'the task {task!r} needs the columns {missing}, the row has {sorted(map(str, row))}')
        query = _PLACE.sub(lambda found: str(row[found[1]]), prompt)
        answer = self._answer(row, task, template.get('answer'), wanted)
        kept = {key: value for key, value in row.items() if key not in wanted and key != answer}
        return said(self.common({**kept, **system, 'channel': task}), query, row[answer] if answer else None)

    def _answer(self, row: Row, task: str, declared: str | None, wanted: list[str]) -> str | None:
        """The column of the answer; None for a row that is only a prompt. Raises RowError when columns are left, but no answer."""
        names = (declared,) if declared else ANSWERS
        found = next((name for name in names if name not in wanted and filled(row.get(name))), None)
        left = sorted(str(name) for name in row if name not in wanted and name not in _BESIDE and filled(row[name]))
        if found is None and (left or declared):
            remedy = 'add it' if declared else 'name the column in the template: "answer": "…"'
            raise RowError(f'the task {task!r} finds no answer in the columns {left}; it is read from {", ".join(names)};', hint=remedy)
        return found

    def _guess(self, row: Row) -> str:
        filled_by = [
            name
            for name, template in self.templates.items()
            if (wanted := placeholders(template.get('prompt_template', '{query}'))) and all(row.get(key) is not None for key in wanted)
        ]
        if len(filled_by) != 1:
            raise RowError(f'no column task, and {len(filled_by)} of the task templates fit the columns {sorted(map(str, row))}')
        return filled_by[0]


_PLACE = re.compile(r'\{(\w+)\}')


def placeholders(prompt: str) -> list[str]:
    """The columns that a prompt template is filled from."""
    return _PLACE.findall(prompt)


def check_templates(templates: Any, where: str) -> None:
    """Raises DatasetError when `task_templates` is not what it should be. `where` begins the message."""
    if not isinstance(templates, Mapping) or not all(isinstance(item, Mapping) for item in templates.values()):
        raise DatasetError(f'{where}: task_templates must be an object of objects;', '{"task": {"system": …, "prompt_template": …}}')
    for task, template in templates.items():
        unknown = sorted(set(template) - set(TEMPLATE_KEYS))
        if unknown:
            near = did_you_mean(unknown[0], TEMPLATE_KEYS) or f'known: {", ".join(TEMPLATE_KEYS)}'
            raise DatasetError(f'{where}: the template of {task!r} has unknown keys {unknown};', near)


def task_of(talk: Conversation) -> str | None:
    """The task that a row names: its `channel`, else its column `task`."""
    task = talk.channel if talk.channel is not None else talk.columns.get('task')
    return None if task is None else str(task)


def task_names(source: Any) -> tuple[str, ...]:
    """All tasks of a source of conversations: in the order of their templates where all rows have one, else sorted.

    Without templates every row is looked at, so a stream without templates gives none.
    """
    declared = [_declared(convert) for convert in _converters(source)]
    if declared and all(declared):
        return tuple(dict.fromkeys(name for names in declared for name in names))
    if not hasattr(source, '__len__'):
        return ()
    found = set()
    for index in range(len(source)):
        try:
            found.add(task_of(source[index]))
        except RowError:
            continue  # counted when the rows are encoded
    return tuple(sorted(name for name in found if name is not None))


def _declared(convert: Any) -> tuple[str, ...]:
    return getattr(convert, 'tasks', None) or (_declared(convert.inner) if hasattr(convert, 'inner') else ())


def _converters(source: Any) -> Iterator[Any]:
    """What converts the rows of a map-style source or of a stream."""
    if hasattr(source, 'convert'):
        yield source.convert
    for part in [*getattr(source, 'parts', ()), *getattr(source, 'streams', ()), *([source.node] if hasattr(source, 'node') else [])]:
        yield from _converters(part)
