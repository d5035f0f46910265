"""Write the small data sets with images, videos and sounds beside this file (the same every time).

digits: scans of written digits (scikit-learn's, 8 × 8), inside the rows as data URIs. shapes: drawn pictures with questions in
English and Chinese; grounding: the same pictures, with boxes; shapes_preference, shapes_embedding: the same again, as better and
worse answers and as texts that belong to a picture. tones: short sounds, to name the note. motion: clips of a moving square, to
say where it goes. Each has a `_heldout` file about media that no training row shows.

    python examples/data/make_media.py [--out folder] [--times 10]

`--times` makes so many times the rows, for a longer training (digits end with the 1,797 that there are).
"""

import argparse
import base64
import json
import math
import struct
import wave
import zlib
from pathlib import Path
from random import Random

HERE = Path(__file__).resolve().parent
COLOURS = {'red': (220, 40, 40), 'green': (40, 170, 60), 'blue': (50, 80, 220), 'yellow': (240, 200, 40), 'black': (20, 20, 20)}
SHAPES = ('circle', 'square', 'triangle', 'cross')
CHINESE = {
    'red': '红色', 'green': '绿色', 'blue': '蓝色', 'yellow': '黄色', 'black': '黑色',
    'circle': '圆形', 'square': '正方形', 'triangle': '三角形', 'cross': '十字',
}  # fmt: skip
SIDE = 64
NOTES = {'do': 262, 're': 294, 'mi': 330, 'fa': 349, 'sol': 392, 'la': 440, 'ti': 494, 'high do': 523}
"""Name → Hz"""
RATE = 8000
WAYS = {'left': (-1, 0), 'right': (1, 0), 'up': (0, -1), 'down': (0, 1)}


# ---- digits


def digits(times=1):
    """{file: rows}"""
    from sklearn.datasets import load_digits

    scans = load_digits()
    order = list(range(len(scans.target)))
    Random(0).shuffle(order)

    def row(number):
        pixels = [[min(255, 17 * int(value)) for value in line] for line in scans.images[order[number]]]
        uri = 'data:image/png;base64,' + base64.b64encode(png(pixels)).decode()
        return {'query': '<image>Which digit is this?', 'response': str(scans.target[order[number]]), 'images': [uri]}

    train = min(1000 * times, len(order) - 200)
    return {'digits': [row(200 + i) for i in range(train)], 'digits_heldout': [row(i) for i in range(200)]}


def png(pixels):
    """A picture, rows of grey values or of (red, green, blue), as the bytes of a PNG file."""

    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    grey = isinstance(pixels[0][0], int)
    lines = b''.join(b'\0' + bytes(line if grey else [value for pixel in line for value in pixel]) for line in pixels)
    head = struct.pack('>IIBBBBB', len(pixels[0]), len(pixels), 8, 0 if grey else 2, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', zlib.compress(lines, 9)) + chunk(b'IEND', b'')


# ---- shapes


def scene(rng):
    """(pixels, things): two or three shapes of different kinds and colours, in different quarters; a thing is (colour, shape, box)."""
    pixels = [[(255, 255, 255)] * SIDE for _ in range(SIDE)]
    count = rng.choice((2, 3))
    things = []
    for shape, colour, quarter in zip(rng.sample(SHAPES, count), rng.sample(list(COLOURS), count), rng.sample(range(4), count), strict=True):
        size = rng.randrange(14, 25, 2)
        room = SIDE // 2 - size
        left, top = (SIDE // 2 * way + rng.randint(1, room - 1) for way in (quarter % 2, quarter // 2))
        for y in range(size):
            for x in range(size):
                if inside(shape, (x + 0.5) / size * 2 - 1, (y + 0.5) / size * 2 - 1):
                    pixels[top + y][left + x] = COLOURS[colour]
        things.append((colour, shape, [left, top, left + size, top + size]))
    return pixels, things


def inside(shape, x, y):
    """Whether a point of the square from -1 to 1 belongs to a shape."""
    if shape == 'circle':
        return x * x + y * y <= 1
    if shape == 'triangle':
        return abs(x) <= (y + 1) / 2 + 0.05  # its tip is two pixels
    return shape == 'square' or abs(x) <= 0.34 or abs(y) <= 0.34


def say(question, answer):
    return {'messages': [{'role': 'user', 'content': f'<image>{question}'}, {'role': 'assistant', 'content': answer}]}


def shape_questions(rng, things):
    """Rows without their image: a colour, a shape and a number, in both languages."""
    colour, shape, _ = rng.choice(things)
    other, kind, _ = rng.choice(things)
    return [
        say(f'What colour is the {shape}?', colour), say(f'{CHINESE[shape]}是什么颜色?', CHINESE[colour]),
        say(f'Which shape is {other}?', kind), say(f'什么形状是{CHINESE[other]}的?', CHINESE[kind]),
        say('How many shapes are there?', str(len(things))), say('有几个图形?', str(len(things))),
    ]  # fmt: skip


def grounding(rng, things):
    """Rows without their image, with `objects`: one thing to find, and all of them to list."""
    colour, shape, box = rng.choice(things)
    names, boxes = [f'{c} {s}' for c, s, _ in things], [b for _, _, b in things]
    chinese = CHINESE[colour] + CHINESE[shape]
    every = {'ref': names, 'bbox': boxes}
    return [
        {**say('Where is the <ref-object>?', '<bbox>'), 'objects': {'ref': [f'{colour} {shape}'], 'bbox': [box]}},
        {**say('请找到<ref-object>。', '<bbox>'), 'objects': {'ref': [chinese], 'bbox': [box]}},
        {**say('What is where?', ', '.join(['<ref-object><bbox>'] * len(things))), 'objects': every},
    ]


def preference(rng, things):
    """The right colour is better than another one."""
    colour, shape, _ = rng.choice(things)
    wrong = rng.choice([name for name in COLOURS if name != colour])
    return [{'prompt': f'<image>What colour is the {shape}?', 'chosen': f'It is {colour}.', 'rejected': f'It is {wrong}.'}]


def embedding(rng, things):
    """What a picture shows belongs to it; another sentence does not."""
    colour, shape, _ = rng.choice(things)
    other = rng.choice([name for name in COLOURS if name != colour])
    return [{'anchor': '<image>', 'positive': f'a {colour} {shape}', 'negative': [f'a {other} {shape}']}]


def shapes(out, times=1):
    """{file: rows}; writes the pictures to media/shapes."""
    makers = {'shapes': shape_questions, 'grounding': grounding, 'shapes_preference': preference, 'shapes_embedding': embedding}
    files = {}
    for part, first, count in (('_heldout', 0, 10), ('', 1000, 30 * times)):
        for number in range(first, first + count):
            rng = Random(number)
            pixels, things = scene(rng)
            path = f'media/shapes/{number:04d}.png'
            save(out / path, png(pixels))
            for name, make in makers.items():
                files.setdefault(name + part, []).extend({**row, 'images': [path]} for row in make(rng, things))
    return files


# ---- tones


def tones(out, times=1):
    """{file: rows}; writes the sounds to media/tones: a note with one overtone, of different loudness, length and tuning."""
    files = {}
    for part, first, count in (('_heldout', 0, 2), ('', 100, 6 * times)):
        for number in range(first, first + count):
            for place, (note, pitch) in enumerate(NOTES.items()):
                rng = Random(number * 100 + place)
                path = f'media/tones/{number:03d}-{note.replace(" ", "-")}.wav'
                save(out / path, b'')
                with wave.open(str(out / path), 'wb') as file:
                    file.setparams((1, 1, RATE, 0, 'NONE', None))
                    file.writeframes(tone(rng, pitch))
                row = {'query': '<audio>Which note is this?', 'response': note, 'audios': [path]}
                files.setdefault(f'tones{part}', []).append(row)
    return files


def tone(rng, pitch):
    """8-bit samples."""
    pitch, loud, over, phase = pitch * rng.uniform(0.99, 1.01), rng.uniform(0.4, 0.9), rng.uniform(0, 0.5), rng.uniform(0, 6)
    samples = []
    for index in range(int(RATE * rng.uniform(0.2, 0.3))):
        angle = 2 * math.pi * pitch * index / RATE + phase
        value = (math.sin(angle) + over * math.sin(2 * angle)) / (1 + over)
        samples.append(128 + round(120 * loud * value))
    return bytes(samples)


# ---- motion


def motion(out, times=1):
    """{file: rows}; writes the clips to media/motion: eight frames of a square that moves."""
    files = {}
    for part, first, count in (('_heldout', 0, 2), ('', 100, 8 * times)):
        for number in range(first, first + count):
            for place, way in enumerate(WAYS):
                path = f'media/motion/{number:03d}-{way}.gif'
                save(out / path, gif(clip(Random(number * 10 + place), way)))
                row = {'query': '<video>Where does it go?', 'response': way, 'videos': [path]}
                files.setdefault(f'motion{part}', []).append(row)
    return files


def clip(rng, way, side=32, frames=8):
    """Frames as rows of grey values."""
    size, step = rng.randrange(6, 11), 2
    shade, (dx, dy) = rng.randrange(150, 256), WAYS[way]
    travel = step * (frames - 1)
    starts = [rng.randint(0, side - size - travel) + (travel if way_ < 0 else 0) if way_ else rng.randint(0, side - size) for way_ in (dx, dy)]
    made = []
    for number in range(frames):
        left, top = starts[0] + dx * step * number, starts[1] + dy * step * number
        made.append([[shade if left <= x < left + size and top <= y < top + size else 0 for x in range(side)] for y in range(side)])
    return made


def gif(frames):
    """Frames as the bytes of a GIF file, eight of them a second."""
    from io import BytesIO

    from PIL import Image

    images = []
    for pixels in frames:
        image = Image.new('L', (len(pixels[0]), len(pixels)))
        image.putdata([value for line in pixels for value in line])
        images.append(image)
    file = BytesIO()
    images[0].save(file, 'GIF', save_all=True, append_images=images[1:], duration=120, loop=0, disposal=1, optimize=False)
    return file.getvalue()


# ---- all


def save(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def files(out, times=1):
    """{file: rows} of all of them; writes the media below `out`."""
    return {**digits(times), **shapes(out, times), **tones(out, times), **motion(out, times)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--out', type=Path, default=HERE)
    parser.add_argument('--times', type=int, default=1)
    options = parser.parse_args()
    for name, rows in files(options.out, options.times).items():
        text = ''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows)
        save(options.out / f'{name}.jsonl', text.encode())


if __name__ == '__main__':
    main()
