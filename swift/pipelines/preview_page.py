"""Samples as one HTML page: pictures, frames and sounds as the model gets them, beside the text with what is trained of it marked.

Self-contained (media are data URIs, scaled to thumbnails), without scripts, light or dark as the reader's system is.
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import uuid
import wave
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from swift.core.errors import SwiftError
from swift.media.refs import name_of
from swift.pipelines.preview_pieces import Piece, size_words
from swift.template.runs import load_seen

EDGE, FRAMES, COLUMNS = 384, 12, 4
"""Longest edge of a picture in pixels, most frames of a video, frames beside each other."""
ROOM = 3_000_000
"""Bytes for the sounds of a page of at most ten samples, before base64."""
_STYLE = """
:root { color-scheme: light dark; --ground: #f6f7f9; --card: #fff; --line: #d9dde3; --ink: #1c2128; --soft: #667080; --mark: #c9f0d3; --chip: #dfe8fb; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14171b; --card: #1d2126; --line: #343a42; --ink: #e4e7eb; --soft: #97a1ae; --mark: #1d5631; --chip: #2b3a5c; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 24px 16px; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 20px; margin: 0 0 4px; }
p.about { margin: 0 0 20px; color: var(--soft); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; margin: 0 0 18px; overflow: hidden; }
h2 { font-size: 14px; font-weight: 600; margin: 0; padding: 10px 16px; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
.part { display: flex; flex-wrap: wrap; gap: 16px; padding: 14px 16px; }
.part + .part { border-top: 1px dashed var(--line); }
.part > h3 { flex: 1 0 100%; margin: 0; font-size: 13px; color: var(--soft); font-weight: 600; }
.media { flex: 0 1 400px; min-width: 220px; }
.text { flex: 1 1 420px; min-width: 260px; white-space: pre-wrap; overflow-wrap: anywhere; font: 13px/1.6 ui-monospace, monospace; }
figure { margin: 0 0 12px; }
figure img { display: block; max-width: 100%; border: 1px solid var(--line); border-radius: 6px; }
figure img.tiny { image-rendering: pixelated; }
audio { width: 100%; }
figcaption { font-size: 12px; color: var(--soft); overflow-wrap: anywhere; }
figcaption b { color: var(--ink); }
mark { background: var(--mark); color: inherit; border-radius: 3px; padding: 1px 0; }
mark sup { color: var(--soft); }
.chip { background: var(--chip); border-radius: 9px; padding: 1px 8px; white-space: nowrap; font-family: system-ui, sans-serif; font-size: 12px; }
.bad { border: 1px solid #c43; border-radius: 6px; padding: 8px; color: #c43; }
"""


def check_free(path: str) -> None:
    """SwiftError where a file is already."""
    if os.path.lexists(path):
        raise SwiftError(f'--html {path} exists already;', 'choose another file, or remove it')


class Page:
    """Collects samples; `write` makes the file. `count`: how many there will be, which decides the room for each sound."""

    def __init__(self, title: str, template: Any, count: int):
        self._title, self._template = title, template
        self._room = ROOM // max(count, 10)
        self._sections: list[str] = []

    def add(self, head: str, names: Sequence[str], parts: Sequence[Sequence[Piece]]) -> None:
        """One more sample: a line about it, the names of its segments (none for a single text), their pieces."""
        inner = ''.join(self._part(name, part) for name, part in zip(names or [''], parts, strict=True))
        self._sections.append(f'<section><h2>{escape(head)}</h2>{inner}</section>')

    def _part(self, name: str, part: Sequence[Piece]) -> str:
        title = f'<h3>{escape(name)} · {sum(piece.tokens for piece in part)} tokens</h3>' if name else ''
        media = [piece for piece in part if piece.medium is not None]
        figures = ''.join(self._figure(piece, len(media)) for piece in media)
        figures = f'<div class="media">{figures}</div>' if figures else ''
        return f'<div class="part">{title}{figures}<div class="text">{"".join(map(_span, part))}</div></div>'

    def _figure(self, piece: Piece, count: int) -> str:
        seen = piece.medium
        facts = f'{size_words(seen)} · {piece.amount} · {name_of(seen.reference)}'
        try:
            body, note = _BODIES[seen.kind](load_seen(self._template, seen), seen.rate, self._room // count)
        except SwiftError as error:
            body, note = f'<div class="bad">{escape(str(error))}</div>', ''
        return f'<figure>{body}<figcaption><b>{piece.label}</b> · {escape(facts + note)}</figcaption></figure>'

    def write(self, path: str) -> None:
        """Write the page as a whole; SwiftError where a file is already."""
        about = 'What the model gets: media within their budgets, and the text of every sample; what is trained is marked.'
        html = (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
            f'<title>swift preview · {escape(self._title)}</title><style>{_STYLE}</style></head>\n'
            f'<body><h1>{escape(self._title)}</h1><p class="about">{about}</p>\n' + '\n'.join(self._sections) + '\n</body></html>\n'
        )
        _write_new(path, html)


def _write_new(path: str, text: str) -> None:
    """Write aside, then give it its name, which must be free."""
    folder = os.path.dirname(os.path.abspath(path))
    aside = os.path.join(folder, f'.{os.path.basename(path)}.{uuid.uuid4().hex[:8]}')
    try:
        os.makedirs(folder, exist_ok=True)
        with open(aside, 'w', encoding='utf-8') as file:
            file.write(text)
        check_free(path)
        os.rename(aside, path)
    except OSError as error:
        raise SwiftError(f'--html {path} can not be written: {error.strerror or error}') from error
    finally:
        with contextlib.suppress(OSError):  # it has its own name by now, or was never there
            os.unlink(aside)


def _span(piece: Piece) -> str:
    if piece.medium is not None:
        return f'<span class="chip">{piece.label} · {piece.amount}</span>'
    if not piece.trained:
        return escape(piece.text)
    weight = '' if piece.weight == 1 else f'<sup>×{piece.weight:g}</sup>'
    return f'<mark>{weight}{escape(piece.text)}</mark>'


# ---- media as HTML: (element, what to add to the caption)


def _picture(image: Any, rate: int, room: int) -> tuple[str, str]:
    width, height = image.size
    grow = max(1, 160 // max(width, height))
    if max(width, height) > EDGE:
        image = image.copy()
        image.thumbnail((EDGE, EDGE))
    elif grow > 1:  # small ones are shown pixel by pixel
        return f'<img class="tiny" width="{width * grow}" height="{height * grow}" alt="" src="{_uri(image)}">', ''
    return f'<img width="{image.width}" height="{image.height}" alt="" src="{_uri(image)}">', ''


def _frames(video: Any, rate: int, room: int) -> tuple[str, str]:
    from PIL import Image

    count = len(video.frames)
    chosen = np.unique(np.linspace(0, count - 1, min(count, FRAMES)).round().astype(int))
    columns = min(len(chosen), COLUMNS)
    width = EDGE // columns - 3
    height = max(1, round(width * video.height / video.width))
    sheet = Image.new('RGB', (columns * (width + 3) - 3, -(-len(chosen) // columns) * (height + 3) - 3), (128, 128, 128))
    for place, index in enumerate(chosen):
        row, column = divmod(place, columns)
        sheet.paste(Image.fromarray(video.frames[index]).resize((width, height)), (column * (width + 3), row * (height + 3)))
    note = '' if len(chosen) == count else f' · {len(chosen)} of its {count} frames are shown'
    return f'<img width="{sheet.width}" height="{sheet.height}" alt="" src="{_uri(sheet)}">', note


def _sound(samples: np.ndarray, rate: int, room: int) -> tuple[str, str]:
    most = max(rate, room // 2)
    note = f' · its first {most / rate:.1f} s' if len(samples) > most else ''
    buffer = io.BytesIO()
    with wave.open(buffer, 'wb') as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples[:most], -1, 1) * 32767).astype('<i2').tobytes())
    return f'<audio controls src="data:audio/wav;base64,{base64.b64encode(buffer.getvalue()).decode()}"></audio>', note


_BODIES = {'image': _picture, 'video': _frames, 'audio': _sound}


def _uri(image: Any) -> str:
    buffer = io.BytesIO()
    kind = 'png' if image.width * image.height <= 4096 else 'jpeg'
    image.save(buffer, format=kind.upper(), **({} if kind == 'png' else {'quality': 82}))
    return f'data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}'
