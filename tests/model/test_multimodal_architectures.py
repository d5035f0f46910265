"""What the support matrix says of architectures that read images, videos or sounds: trained, merged and asked by the commands."""

import os
import sys
from pathlib import Path

import pytest

from tests.helpers.vlm import model_types, save_vlm

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / 'docs' / 'en' / 'support-matrix.md'
START, END = '<!-- multimodal architectures: start', '<!-- multimodal architectures: end -->'


def documented() -> dict[str, tuple[list[str], str]]:
    """Architecture → (kinds of media that the page says work, what it says of those that don't)."""
    lines = PAGE.read_text(encoding='utf-8').split(START)[1].split(END)[0].splitlines()
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines if line.startswith('| ') and '---' not in line]
    return {name: ([kind for kind in works.split(', ') if kind], why) for name, works, why in rows[1:]}


WORKS = [(name, kind) for name, (kinds, _) in documented().items() for kind in kinds]


def test_the_page_names_every_architecture_and_why_one_fails():
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as images

    page = documented()
    assert page.keys() >= images.keys() & set(model_types())
    assert all(kinds or why for kinds, why in page.values())
    assert sum(name in images and 'image' in kinds for name, (kinds, _) in page.items()) >= 76


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'kind'), WORKS)
def test_what_the_page_says_works(name, kind, tmp_path, monkeypatch):
    monkeypatch.setenv('SWIFT_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(sys, 'path', [os.path.join(ROOT, 'benchmarks'), *sys.path])
    from multimodal_architectures import through_swift

    found = through_swift(save_vlm(tmp_path / 'base', name), kind, str(tmp_path / kind))
    assert found['ok'], found
    assert found['answers'] == 6 and found['change'] > 0
