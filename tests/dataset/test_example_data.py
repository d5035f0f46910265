"""The shipped rows are what their maker makes, and read as what they are for."""

import base64
import importlib
import io
import json
import sys
from pathlib import Path

import pytest

from swift.dataset import DatasetLoader

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / 'examples' / 'data'


@pytest.fixture(scope='module')
def made():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'path', [str(DATA), str(ROOT / 'recipes' / 'tiny_chat'), *sys.path])
        return importlib.import_module('objective_rows').files()


def read(name):
    return [json.loads(line) for line in (DATA / name).read_text(encoding='utf-8').splitlines()]


def test_every_file_is_what_its_maker_makes(made):
    for name, rows in made.items():
        assert read(name) == rows, name


@pytest.mark.parametrize(('name', 'fits'), [
    ('preference', lambda talk: talk.rejected and talk.rejected != talk.messages and not talk.negatives),
    ('preference_shorter', lambda talk: len(talk.messages[-1]['content']) < len(talk.rejected[-1]['content'])),
    ('kto', lambda talk: talk.label in (True, False) and talk.messages[-1]['role'] == 'assistant'),
    ('embedding', lambda talk: len(talk.positives) == 1 and len(talk.negatives) == 2),
    ('reranker', lambda talk: len(talk.positives) == 1 and len(talk.negatives) == 4),
    ('similarity', lambda talk: len(talk.positives) == 1 and 0 <= talk.label <= 1),
    ('classification', lambda talk: talk.text and isinstance(talk.label, str)),
    ('token_classification', lambda talk: len(talk.columns['tokens']) == len(talk.label)),
])  # fmt: skip
def test_rows_read_as_what_they_are_for(name, fits):
    for part in (name, f'{name}_heldout'):
        if (DATA / f'{part}.jsonl').exists():
            found = DatasetLoader.load(str(DATA / f'{part}.jsonl'))
            assert all(fits(found[index]) for index in range(len(found))), part


@pytest.mark.parametrize('name', ['preference', 'preference_shorter', 'embedding', 'reranker', 'classification'])
def test_held_out_rows_ask_something_else(name):
    trained, held = ({str(next(iter(row.values()))) for row in read(f'{part}.jsonl')} for part in (name, f'{name}_heldout'))
    assert not trained & held


def test_the_better_answer_is_right():
    for part in ('preference', 'preference_heldout'):
        for row in read(f'{part}.jsonl'):
            assert row['chosen'].isdigit() and row['rejected'].isdigit() and row['chosen'] != row['rejected']


# ---- images, videos and sounds

MEDIA = ('digits', 'shapes', 'grounding', 'shapes_preference', 'shapes_embedding', 'tones', 'motion')


@pytest.fixture(scope='module')
def media(tmp_path_factory):
    """What make_media.py makes, and where."""
    pytest.importorskip('sklearn')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'path', [str(DATA), *sys.path])
        folder = tmp_path_factory.mktemp('made')
        return importlib.import_module('make_media').files(folder), folder


def pixels(file):
    image = pytest.importorskip('PIL.Image').open(file)
    return [image.seek(i) or image.convert('RGB').tobytes() for i in range(getattr(image, 'n_frames', 1))]


def test_every_file_with_media_is_what_its_maker_makes(media):
    rows, folder = media
    for name, expected in rows.items():
        found = read(f'{name}.jsonl')
        if name.startswith('digits'):  # compressed bytes depend on the zlib at hand
            for row, other in zip(found, expected, strict=True):
                one, two = (pixels(io.BytesIO(base64.b64decode(r.pop('images')[0].split(',')[1]))) for r in (row, other))
                assert one == two
        assert found == expected, name
    files = sorted(path.relative_to(folder) for path in folder.rglob('*.*'))
    assert files == sorted(path.relative_to(DATA) for path in (DATA / 'media').rglob('*.*'))
    for path in files:
        same = (DATA / path).read_bytes() == (folder / path).read_bytes()
        assert same or (path.suffix != '.wav' and pixels(DATA / path) == pixels(folder / path)), path


def test_all_of_it_is_small_and_its_names_are_declared():
    assert sum(path.stat().st_size for path in [*DATA.rglob('media/*/*'), *(DATA / f'{name}.jsonl' for name in MEDIA)]) < 1_000_000
    for name in MEDIA:
        for part in (name, f'{name}_heldout'):
            found = DatasetLoader.load(part, dataset_dir=str(DATA))
            talks = [found[index] for index in range(len(found))]
            shown = [ref for talk in talks for ref in talk.images + talk.videos + talk.audios]
            assert len(shown) == len(talks) and all(ref.startswith('data:') or Path(ref).is_file() for ref in shown)


def test_the_boxes_are_around_the_shapes():
    image = pytest.importorskip('PIL.Image')
    for row in read('grounding.jsonl')[2::3]:
        seen = image.open(DATA / row['images'][0]).convert('L').point(lambda value: value < 255 and 255)
        for left, top, right, bottom in row['objects']['bbox']:
            box = seen.crop((left - 1, top - 1, right + 1, bottom + 1)).getbbox()
            assert box == (1, 1, right - left + 1, bottom - top + 1)


def test_the_tones_have_the_pitch_of_their_name():
    import wave

    import numpy as np

    pitches = {'do': 262, 're': 294, 'mi': 330, 'fa': 349, 'sol': 392, 'la': 440, 'ti': 494, 'high do': 523}
    for row in read('tones.jsonl') + read('tones_heldout.jsonl'):
        with wave.open(str(DATA / row['audios'][0])) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), np.uint8) - 128.0
        spectrum = np.abs(np.fft.rfft(samples, 8 * 8000))
        heard = spectrum.argmax() / 8
        assert abs(heard - pitches[row['response']]) < 0.015 * heard
