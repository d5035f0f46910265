"""Towers of random weights learn: from what they are shown, and only from that.

The short tests tell two kinds of pictures, sounds or clips apart. The slow ones are whole runs, as in `examples/train/multimodal`:
digits, notes and motion that were never shown are named in nine of ten cases, after at most five minutes of one core. With
pixels or samples in random order, or answers dealt out at random, nothing is left but chance.
`python -m tests.pipelines.test_learns_to_see [image audio video]` prints the figures.
"""

import importlib.util
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from swift.pipelines.infer import infer_main
from swift.pipelines.train import sft_main

RECIPES = Path(__file__).resolve().parents[2] / 'recipes'
KINDS = ('image', 'audio', 'video')
TRAIN = dict(tuner_type='full', freeze_vit=False, freeze_aligner=False, per_device_train_batch_size=8, learning_rate=1e-3,
             warmup_ratio=0.05, logging_steps=20, save_only_model=True, report_to='none')  # fmt: skip
EPOCHS = {'image': 5, 'audio': 5, 'video': 4}
STEPS = {'image': 40, 'audio': 30, 'video': 15}
CHANCE = {'image': 1 / 10, 'audio': 1 / 12, 'video': 1 / 4}
ANSWERS = {'image': ('zero', 'one'), 'audio': ('C', 'F#'), 'video': ('night', 'day')}
"""What the short tests tell apart."""


def recipe(name: str):
    """The module of a file in `recipes`."""
    spec = importlib.util.spec_from_file_location(name.replace('/', '_'), RECIPES / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_model(folder: Path, kind: str) -> str:
    """The model of the recipe for a kind of medium; its path."""
    made = recipe('tiny_audio/make').make() if kind == 'audio' else recipe('tiny_vision/make').make(kind)
    for part in made:
        part.save_pretrained(folder / 'model')
    return str(folder / 'model')


def write_all_data(folder: Path, kind: str) -> None:
    """The recipe's data for a kind of medium."""
    if kind == 'audio':
        recipe('tiny_audio/data').write(folder)
    else:
        recipe('tiny_vision/data').write(folder, 'digits' if kind == 'image' else 'motion')


def write_two(folder: Path, kind: str, count: int = 48) -> None:
    """train.jsonl and heldout.jsonl about media of two kinds."""
    rng, names = np.random.default_rng(0), ANSWERS[kind]
    data = recipe('tiny_audio/data' if kind == 'audio' else 'tiny_vision/data')
    if kind == 'image':
        media = [(scan, name) for scan, name in zip(*data.digits(rng), strict=True) if name in names]
    elif kind == 'audio':
        media = [(sound, name) for sound, name in zip(*data.tones(rng, 600), strict=True) if name in names]
    else:
        light = rng.integers(2, size=2 * count)
        media = [(np.full((4, 32, 32, 3), 40 + 170 * i + rng.integers(40), np.uint8), names[i]) for i in light]
    (folder / 'media').mkdir()
    paths = [data.save(medium, folder / 'media' / f'{i:03}.wav') for i, (medium, _) in enumerate(media[: 2 * count])]
    said = [name for _, name in media[: 2 * count]]
    about = {'image': ['digits'], 'audio': [], 'video': ['motion']}[kind]
    for name, part in (('train', slice(count, None)), ('heldout', slice(count))):
        data.write_rows(folder / f'{name}.jsonl', *about, paths[part], said[part])


def train(model: str, rows: Path, **more) -> dict:
    """What `swift sft` returns, with the recipes' settings."""
    return sft_main({**TRAIN, 'model': model, 'dataset': str(rows), 'output_dir': str(rows.parent / f'run_{rows.stem}'), **more})


def accuracy(checkpoint: str, rows: Path) -> float:
    """Share of right answers of a checkpoint to the questions of a file."""
    answers = infer_main(dict(model=checkpoint, val_dataset=str(rows), max_batch_size=64, max_new_tokens=8, temperature=0,
                              result_path=str(rows.parent / f'{Path(checkpoint).parent.name}_{rows.name}')))  # fmt: skip
    return sum(answer['response'] == answer['labels'] for answer in answers) / len(answers)


def needs(kind: str) -> None:
    pytest.importorskip({'image': 'sklearn', 'video': 'av'}.get(kind, 'numpy'))


@pytest.mark.parametrize('kind', KINDS)
def test_it_tells_two_apart_by_what_it_is_shown(tmp_path, kind):
    needs(kind)
    write_two(tmp_path, kind)
    model = write_model(tmp_path, kind)
    result = train(model, tmp_path / 'train.jsonl', max_steps=STEPS[kind], logging_steps=1)
    losses = [entry['loss'] for entry in result['log_history'] if 'loss' in entry]
    assert np.mean(losses[-5:]) < 0.2 * losses[0]
    # The question is always the same: only the medium can tell which of the two answers is right.
    assert accuracy(result['last_model_checkpoint'], tmp_path / 'heldout.jsonl') >= 0.9


@pytest.mark.parametrize('kind', KINDS)
def test_the_language_model_still_speaks(tmp_path, kind):
    rows = tmp_path / 'rows.jsonl'
    rows.write_text(json.dumps({'query': '12 + 30 = ?', 'response': '42'}) + '\n', encoding='utf-8')
    assert accuracy(write_model(tmp_path / kind, kind), rows) == 1


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_it_names_what_it_was_never_shown(tmp_path, kind):
    needs(kind)
    found = whole_run(tmp_path, kind)
    assert found['seconds'] < 300
    assert found['heldout'] >= 0.9
    assert found['heldout_control'] < CHANCE[kind] + 0.1
    assert found.get('heldout_order', 0) < 0.65  # the axis, and a guess


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_answers_dealt_out_at_random_teach_nothing(tmp_path, kind):
    needs(kind)
    found = whole_run(tmp_path, kind, rows='train_control', epochs=2)
    assert found['heldout'] < CHANCE[kind] + 0.08


def whole_run(folder: Path, kind: str, rows: str = 'train', epochs: int | None = None) -> dict[str, float]:
    """Train as the recipe says; {file of held-out rows: accuracy, 'seconds': of one core, for the training}."""
    write_all_data(folder, kind)
    model = write_model(folder, kind)
    start = sum(os.times()[:4])
    result = train(model, folder / f'{rows}.jsonl', num_train_epochs=epochs or EPOCHS[kind])
    seconds = sum(os.times()[:4]) - start
    checkpoint = result['last_model_checkpoint']
    return {'seconds': seconds} | {path.stem: accuracy(checkpoint, path) for path in sorted(folder.glob('heldout*.jsonl'))}


if __name__ == '__main__':
    import tempfile

    for medium in sys.argv[1:] or KINDS:
        clock = time.time()
        figures = whole_run(Path(tempfile.mkdtemp()), medium)
        print(medium, ', '.join(f'{name} {value:.3f}' for name, value in figures.items()), f'({time.time() - clock:.0f} s in all)')
