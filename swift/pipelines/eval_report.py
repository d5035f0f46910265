"""The report of an evaluation: report.json with every answer, report.md to read, and a table for the terminal."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from swift.core.jsonl import write_json, write_text

SHOWN = 1000
"""Items in the Markdown page at most; report.json has all."""
_CELL = 160


def write_report(folder: str, report: Mapping[str, Any]) -> None:
    """Write both files, report.json last: where it is, the evaluation is complete."""
    write_text(os.path.join(folder, 'report.md'), as_markdown(report))
    write_json(os.path.join(folder, 'report.json'), dict(report))


def rows_of(report: Mapping[str, Any]) -> list[list[str]]:
    """A line for each data set and metric, and for each group of it."""
    lines = []
    for name, part in report['datasets'].items():
        for metric, figure in part['metrics'].items():
            lines.append([name, part['kind'], metric, _figure(figure), _interval(figure), str(figure['count'])])
        for group, figures in part.get('groups', {}).items():
            for metric, figure in list(figures.items())[:1]:
                lines.append([f'  {group}', '', metric, _figure(figure), _interval(figure), str(figure['count'])])
    return lines


HEAD = ['data set', 'kind', 'metric', 'mean', '95 % interval', 'rows']


def as_table(report: Mapping[str, Any]) -> str:
    """The figures, in columns."""
    lines = [HEAD, *rows_of(report)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(HEAD))]
    return '\n'.join('  '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def as_markdown(report: Mapping[str, Any]) -> str:
    """The page."""
    lines = [f'# {report["model"]}', '', _row(HEAD), _row(['---'] * len(HEAD))]
    lines += [_row([cell.strip() for cell in line]) for line in rows_of(report)]
    lines += ['', '## Settings', '', '| | |', '|---|---|']
    lines += [_row([key, _short(value)]) for key, value in report['settings'].items() if value not in (None, [], {}, '')]
    lines += ['', '## Time', '', _row(['rows', 'tokens written', 'seconds', 'rows/s', 'tokens/s']), _row(['---:'] * 5)]
    lines.append(_row([str(report['timings'][key]) for key in ('rows', 'tokens', 'seconds', 'rows_per_second', 'tokens_per_second')]))
    for name, part in report['datasets'].items():
        lines += ['', f'## {name}', '', *_notes(part), *_items(part['items'])]
    return '\n'.join(lines) + '\n'


def _notes(part: Mapping[str, Any]) -> list[str]:
    notes = [f'{part["asked"]} rows asked, {part["failed"]} not answered, {part["cut"]} answers reached the longest length.']
    if len(part['items']) > SHOWN:
        notes.append(f'The first {SHOWN} of {len(part["items"])} are shown; report.json has all.')
    return [*notes, '']


def _items(items: Sequence[Mapping[str, Any]]) -> list[str]:
    names = list(dict.fromkeys(name for item in items for name in item['scores']))
    lines = [_row(['', 'question', 'right answer', 'answer', *names]), _row(['---:', '---', '---', '---', *['---:'] * len(names)])]
    for item in items[:SHOWN]:
        said = item['response'] if item.get('error') is None else f'error: {item["error"]}'
        scores = [f'{value:g}' if (value := item['scores'].get(name)) is not None else '' for name in names]
        lines.append(_row([str(item['index']), _short(item['question']), _short(item['reference']), _short(said), *scores]))
    return lines


def _row(cells: Sequence[str]) -> str:
    return '| ' + ' | '.join(cells) + ' |'


def _short(value: Any) -> str:
    text = ' '.join(str('' if value is None else value).split()).replace('|', '\\|')
    return text if len(text) <= _CELL else text[: _CELL - 1] + '…'


def _figure(figure: Mapping[str, float]) -> str:
    return f'{figure["mean"]:.4f}'


def _interval(figure: Mapping[str, float]) -> str:
    return f'{figure["low"]:.4f} – {figure["high"]:.4f}' if 'low' in figure else ''
