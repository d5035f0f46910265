"""The shipped rows are what their maker makes, and read as what they are for."""

import importlib
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
