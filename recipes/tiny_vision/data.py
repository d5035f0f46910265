"""Write pictures of digits, or clips of a moving square, with a question about each: train.jsonl, heldout.jsonl and two controls.

digits: the 1,797 scans of handwritten digits that come with scikit-learn, 8 × 8 pixels each, four times as large.
motion: a square that moves left, right, up or down through six frames of 32 × 32 pixels, two frames a second.

What the held-out rows show is in no training row. The controls tell whether a model looks at what it is shown:
train_control.jsonl has the training rows with their answers dealt out at random: what learns from it ends at chance.
heldout_control.jsonl has the held-out rows with spoiled media: the pixels of a digit, or the frames of a clip, in random order.
A trained model is at chance on such digits; of such a clip it can tell the axis only, which is right half of the time.

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
QUESTIONS = {
    'digits': ('images', '<image>Which digit is this?'),
    'motion': ('videos', '<video>Which way does it move?'),
}
FRAMES, FPS = 6, 2
ALL_CLIPS = 2160


def digits(rng: np.random.Generator) -> tuple[list[np.ndarray], list[str]]:
    """(scans as uint8 [8, 8], names), in random order."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise SystemExit('the scans come with scikit-learn: pip install scikit-learn') from None

    found = load_digits()
    order = rng.permutation(len(found.target))
    return [(found.images[i] * 255 / 16).astype(np.uint8) for i in order], [DIGITS[found.target[i]] for i in order]


def motion(rng: np.random.Generator) -> tuple[list[np.ndarray], list[str]]:
    """(clips as uint8 [frames, 32, 32, 3], ways)."""
    ways = [list(WAYS)[i] for i in rng.integers(len(WAYS), size=ALL_CLIPS)]
    return [clip(rng, WAYS[way]) for way in ways], ways


def clip(rng: np.random.Generator, way: tuple[int, int]) -> np.ndarray:
    """Frames of a square of some size, colour and speed on a plain ground; it starts anywhere and stays inside."""
    side = int(rng.integers(6, 11))
    path = rng.uniform(2, 4) * np.arange(FRAMES)
    start = rng.uniform(0, SIDE - side - path[-1])
    along = start + path if sum(way) > 0 else start + path[::-1]
    across = np.full(FRAMES, rng.uniform(0, SIDE - side))
    across, along = across.round().astype(int), along.round().astype(int)
    frames = np.empty((FRAMES, SIDE, SIDE, 3), np.uint8)
    frames[:] = rng.integers(120)
    colour = rng.integers(180, 256, size=3)
    for frame, x, y in zip(frames, *((along, across) if way[0] else (across, along)), strict=True):
        frame[y : y + side, x : x + side] = colour
    return frames


def in_random_order(rng: np.random.Generator, medium: np.ndarray) -> np.ndarray:
    """The pixels of a scan, or the frames of a clip, in another order."""
    return rng.permutation(medium.ravel()).reshape(medium.shape) if medium.ndim == 2 else rng.permutation(medium)


def save(medium: np.ndarray, path: Path) -> str:
    """Write an image or a clip to `path` with the suffix of its format; returns the path from the folder of the rows."""
    if medium.ndim == 2:
        from PIL import Image

        path = path.with_suffix('.png')
        Image.fromarray(medium).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path)
        return f'{path.parent.name}/{path.name}'
    try:
        import av
    except ImportError:
        raise SystemExit('clips are written with PyAV: pip install av') from None

    path = path.with_suffix('.mp4')
    with av.open(str(path), 'w') as file:
        stream = file.add_stream('mpeg4', rate=FPS)
        stream.width = stream.height = SIDE
        stream.pix_fmt, stream.bit_rate = 'yuv420p', 1_000_000
        for frame in medium:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        file.mux(stream.encode())
    return f'{path.parent.name}/{path.name}'


def rows(kind: str, media: list[str], answers: list[str]) -> str:
    """One JSON line for each medium."""
    column, question = QUESTIONS[kind]
    lines = []
    for path, answer in zip(media, answers, strict=True):
        messages = [{'role': 'user', 'content': question}, {'role': 'assistant', 'content': answer}]
        lines.append(json.dumps({'messages': messages, column: [path]}) + '\n')
    return ''.join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kind', choices=list(QUESTIONS), default='digits')
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--seed', type=int, default=42)
    options = parser.parse_args()

    rng = np.random.default_rng(options.seed)
    media, answers = (digits if options.kind == 'digits' else motion)(rng)
    folder = options.out / 'media'
    folder.mkdir(parents=True, exist_ok=True)
    paths = [save(medium, folder / f'{i:04}') for i, medium in enumerate(media)]
    spoiled = [
        save(in_random_order(rng, medium), folder / f'{i:04}_spoiled') for i, medium in enumerate(media[:HELD_OUT])
    ]
    sets = {
        'heldout': (paths[:HELD_OUT], answers[:HELD_OUT]),
        'heldout_control': (spoiled, answers[:HELD_OUT]),
        'train': (paths[HELD_OUT:], answers[HELD_OUT:]),
        'train_control': (paths[HELD_OUT:], rng.permutation(answers[HELD_OUT:]).tolist()),
    }
    for name, (of, say) in sets.items():
        (options.out / f'{name}.jsonl').write_text(rows(options.kind, of, say), encoding='utf-8')
    print(f'{options.out}: {len(paths) - HELD_OUT:,} rows to train on, {HELD_OUT} held out')


if __name__ == '__main__':
    main()
