"""Write pictures of digits, or clips of a moving square, with a question about each: training rows, held-out rows, controls.

digits: the 1,797 scans of handwritten digits that come with scikit-learn, 8 × 8 pixels each, shown four times as large.
motion: a square that moves left, right, up or down through four frames of 32 × 32 pixels, two frames a second.

What heldout.jsonl shows is in no row of train.jsonl. The controls tell whether a model looks at what it is shown:
train_control.jsonl has the training rows with their answers dealt out at random: what learns from it ends at chance.
heldout_control.jsonl has the held-out rows with the pixels of every picture or frame in random order: the best model is at chance.
heldout_order.jsonl (motion) has the frames in random order: they show the axis only, so half of the answers are right.

    python recipes/tiny_vision/data.py --kind digits --out output/digits
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

SIDE = 32  # pixels
HELD_OUT = 360  # rows
DIGITS = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')
WAYS = {'left': (-1, 0), 'right': (1, 0), 'up': (0, -1), 'down': (0, 1)}
"""Answer → the direction in (x, y), y pointing down."""
CLIPS, FRAMES, FPS = 2160, 4, 2
ASKED = {
    'digits': ('images', '<image>Which digit is this?'),
    'motion': ('videos', '<video>Which way does it move?'),
}


def digits(rng: np.random.Generator) -> tuple[list[np.ndarray], list[str]]:
    """(scans as uint8 [8, 8], their names), in random order."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise SystemExit('the scans come with scikit-learn: pip install scikit-learn') from None

    found = load_digits()
    order = rng.permutation(len(found.target))
    return [(found.images[i] * 255 / 16).astype(np.uint8) for i in order], [DIGITS[found.target[i]] for i in order]


def motion(rng: np.random.Generator, count: int = CLIPS) -> tuple[list[np.ndarray], list[str]]:
    """(clips as uint8 [frames, 32, 32, 3], the ways of their squares)."""
    ways = [list(WAYS)[i] for i in rng.integers(len(WAYS), size=count)]
    return [_clip(rng, WAYS[way]) for way in ways], ways


def _clip(rng: np.random.Generator, way: tuple[int, int]) -> np.ndarray:
    """A square of some size, colour and speed on a plain ground; it starts anywhere, and stays inside."""
    side = int(rng.integers(6, 11))
    path = rng.uniform(3.5, 6.5) * np.arange(FRAMES)
    along = rng.uniform(0, SIDE - side - path[-1]) + (path if sum(way) > 0 else path[::-1])
    across = np.full(FRAMES, rng.uniform(0, SIDE - side))
    frames = np.full((FRAMES, SIDE, SIDE, 3), rng.integers(120), np.uint8)
    colour = rng.integers(180, 256, size=3)
    for frame, (x, y) in zip(frames, zip(*((along, across) if way[0] else (across, along)), strict=True), strict=True):
        left, top = round(x), round(y)
        frame[top : top + side, left : left + side] = colour
    return frames


def shuffled(rng: np.random.Generator, medium: np.ndarray) -> np.ndarray:
    """A scan, or every frame of a clip, with its pixels in random order."""
    if medium.ndim == 2:
        return rng.permutation(medium.ravel()).reshape(medium.shape)
    return np.stack([rng.permutation(frame.reshape(-1, 3)).reshape(frame.shape) for frame in medium])


def save(medium: np.ndarray, path: Path) -> str:
    """Write a scan or a clip to `path` with the suffix of its format; returns the path from the folder of the rows."""
    if medium.ndim == 2:
        from PIL import Image

        path = path.with_suffix('.png')
        Image.fromarray(medium).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path)
    else:
        path = path.with_suffix('.mp4')
        _save_clip(medium, path)
    return f'{path.parent.name}/{path.name}'


def _save_clip(frames: np.ndarray, path: Path) -> None:
    try:
        import av
    except ImportError:
        raise SystemExit('clips are written with PyAV: pip install av') from None

    with av.open(str(path), 'w') as file:
        stream = file.add_stream('mpeg4', rate=FPS)
        stream.width = stream.height = SIDE
        stream.pix_fmt, stream.bit_rate = 'yuv420p', 1_000_000
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        file.mux(stream.encode())


def write_rows(path: Path, kind: str, media: list[str], answers: list[str]) -> None:
    """One JSON line for each medium."""
    column, question = ASKED[kind]
    with path.open('w', encoding='utf-8') as file:
        for medium, answer in zip(media, answers, strict=True):
            messages = [{'role': 'user', 'content': question}, {'role': 'assistant', 'content': answer}]
            file.write(json.dumps({'messages': messages, column: [medium]}) + '\n')


def write(out: Path, kind: str, seed: int = 42) -> None:
    """Write all files of a kind into a folder; the same for the same seed."""
    rng = np.random.default_rng(seed)
    media, answers = digits(rng) if kind == 'digits' else motion(rng)
    folder = out / 'media'
    folder.mkdir(parents=True, exist_ok=True)
    paths = [save(medium, folder / f'{i:04}') for i, medium in enumerate(media)]
    asked, right = media[:HELD_OUT], answers[:HELD_OUT]
    write_rows(out / 'heldout.jsonl', kind, paths[:HELD_OUT], right)
    write_rows(out / 'train.jsonl', kind, paths[HELD_OUT:], answers[HELD_OUT:])
    write_rows(out / 'train_control.jsonl', kind, paths[HELD_OUT:], rng.permutation(answers[HELD_OUT:]).tolist())
    spoiled = [save(shuffled(rng, medium), folder / f'{i:04}_shuffled') for i, medium in enumerate(asked)]
    write_rows(out / 'heldout_control.jsonl', kind, spoiled, right)
    if kind == 'motion':
        mixed = [save(rng.permutation(medium), folder / f'{i:04}_order') for i, medium in enumerate(asked)]
        write_rows(out / 'heldout_order.jsonl', kind, mixed, right)
    print(f'{out}: {len(paths) - HELD_OUT:,} rows to train on, {HELD_OUT} held out')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--kind', choices=list(ASKED), default='digits')
    parser.add_argument('--seed', type=int, default=42)
    options = parser.parse_args()
    write(options.out, options.kind, options.seed)


if __name__ == '__main__':
    main()
