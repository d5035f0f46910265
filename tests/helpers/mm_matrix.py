"""Every training method on rows that show something: which families and kinds of media, which whole runs, the table of the support matrix."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers.methods import CASES, Rows
from tests.helpers.vlm_media import save_medium

PAGE = Path(__file__).resolve().parents[2] / 'docs' / 'en' / 'support-matrix.md'
START, END = '<!-- multimodal methods: start (tests/helpers/mm_matrix.py) -->', '<!-- multimodal methods: end -->'
METHODS = [name for name in CASES if name != 'token_cls']
"""Words have classes of their own, and what they are read beside plays no part: token_cls refuses such rows."""
FAMILIES = {'image': ('qwen2_vl', 'llava'), 'video': ('qwen2_vl',), 'audio': ('qwen2_audio',)}
"""Kind of medium → architectures that the runs are made with."""

Show = Callable[[int], str]
"""Number → path of a medium, another one for every number."""


@dataclass(frozen=True)
class Run:
    """One whole run: a method on an architecture with rows that show one kind of medium."""

    method: str
    family: str
    kind: str
    tuner: str
    packing: bool

    def __str__(self) -> str:
        return '-'.join((self.method, self.family, self.kind, self.tuner, 'packed' if self.packing else 'padded'))

    @property
    def settings(self) -> dict[str, Any]:
        """Flags of the run."""
        tuner = {'tuner_type': self.tuner} | ({'lora_rank': 4} if self.tuner == 'lora' else {})
        rows = {'packing': True, 'packing_length': 2000, 'per_device_train_batch_size': 1}
        return {**tuner, **(rows if self.packing else {'padding_free': False, 'per_device_train_batch_size': 4})}


RUNS = [
    Run(method, family, kind, tuner, packing)
    for method in METHODS
    for kind, families in FAMILIES.items()
    for family in families
    for tuner in ('lora', 'full')
    for packing in (True, False)
]
FAST = {
    'dpo-qwen2_vl-image-lora-packed', 'kto-qwen2_vl-video-full-packed', 'embedding-llava-image-lora-packed', 'seq_cls-qwen2_audio-audio-lora-padded',
}  # fmt: skip
"""Runs that are made by default; all others with `-m slow`."""


def shower(folder: str | os.PathLike, kind: str) -> Show:
    """Media of noise as files of a folder, made when they are asked for."""
    os.makedirs(folder, exist_ok=True)
    made: dict[int, str] = {}

    def show(number: int) -> str:
        if number not in made:
            made[number] = save_medium(os.path.join(folder, f'{kind}{number}'), kind, number)
        return made[number]

    return show


def shown_rows(method: str, count: int, kind: str, show: Show) -> Rows:
    """The method's rows (tests/helpers/methods.py): in turn one medium, nothing, two media, and one that an answer or another text shows."""
    rows = []
    for number, row in enumerate(CASES[method].rows(count)):
        place = number % 4
        media = [show(2 * number + i) for i in range({0: 1, 1: 0, 2: 2, 3: 1}[place])]
        change = _of_group if 'positive' in row else _of_talk
        rows.append(change(dict(row), f'<{kind}>', f'{kind}s', media, place == 3) if media else row)
    return rows


def _of_talk(row: dict[str, Any], tag: str, column: str, media: list[str], other: bool) -> dict[str, Any]:
    if other and 'rejected_response' in row:
        return {**row, 'query': f'{tag}{row["query"]}', column: media, f'rejected_{column}': [media[0].replace(*_swapped(media[0]))]}
    tags = tag * len(media)
    if 'messages' in row:
        first, *rest = row['messages']
        return {**row, 'messages': [{**first, 'content': tags + first['content']}, *rest], column: media}
    name = 'text' if 'text' in row else 'query'
    return {**row, name: tags + row[name], column: media}


def _swapped(path: str) -> tuple[str, str]:
    """A medium's own number → that of the first one, which is always there."""
    name = Path(path).stem
    return name, name.rstrip('0123456789') + '0'


def _of_group(row: dict[str, Any], tag: str, column: str, media: list[str], other: bool) -> dict[str, Any]:
    """The anchor is nothing but a medium, or two and words; or the text that belongs to it shows one."""
    if other:
        return {**row, 'positive': f'{tag}{row["positive"]}', f'positive_{column}': media}
    query = tag if len(media) == 1 else f'{tag}{row["query"]}{tag}'
    return {**row, 'query': query, column: media}


def table() -> str:
    """The table of the support matrix: every “yes” of it is one architecture or more, run by a test."""
    heads = [f'{kind}, {tuner}' for kind in FAMILIES for tuner in ('LoRA', 'full')]
    lines = ['| method | ' + ' | '.join(heads) + ' |', '|---' * (len(heads) + 1) + '|']
    for method in CASES:
        cells = ['yes' if method in METHODS else '– (reads words alone)'] * len(heads)
        lines.append('| ' + ' | '.join([method, *cells]) + ' |')
    return '\n'.join(lines)


def documented() -> str | None:
    """What stands in the support matrix between the marks; None: it has none."""
    text = PAGE.read_text(encoding='utf-8')
    return text.split(START)[1].split(END)[0].strip() if START in text else None


def write() -> None:
    """Put the table into the support matrix, between its marks (at the end of the page where there are none)."""
    text = PAGE.read_text(encoding='utf-8')
    if START not in text:
        text = f'{text.rstrip()}\n\n## Methods on rows that show something\n{START}\n{END}\n'
    before, rest = text.split(START)
    PAGE.write_text(f'{before}{START}\n{table()}\n{END}{rest.split(END)[1]}', encoding='utf-8')


if __name__ == '__main__':
    write()
