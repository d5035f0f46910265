"""The stand-in for torchvision: its numbers against those of the real one, and how it takes its place."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import swift
from swift.core import stand_in
from swift.media import vision_ops
from tests.media import cases

assert swift.__version__ and importlib.import_module('torchvision').__version__
REFERENCE = np.load(Path(__file__).with_name('data') / 'vision.npz')
FUNCTIONS, PROCESSORS = cases.function_cases(), cases.processor_cases()


class Old:
    """The older functional module, as the stand-in offers it."""

    InterpolationMode = vision_ops.InterpolationMode
    resize = staticmethod(vision_ops.resize_v1)
    to_tensor = staticmethod(vision_ops.to_tensor)
    to_pil_image = staticmethod(vision_ops.to_pil_image)


def test_every_reference_number_is_compared():
    assert set(REFERENCE) == {*FUNCTIONS, *PROCESSORS}


@pytest.mark.parametrize('name', FUNCTIONS)
def test_functions_give_the_numbers_of_torchvision(name):
    out, expected = FUNCTIONS[name](vision_ops, Old).numpy(), REFERENCE[name]
    assert out.dtype == expected.dtype and out.shape == expected.shape
    # uint8 kernels may round one step apart on another kind of processor
    assert np.abs(out.astype(float) - expected.astype(float)).max() <= (1e-5 if out.dtype.kind == 'f' else 1)


@pytest.mark.parametrize('name', PROCESSORS)
def test_processors_give_the_pixels_they_give_with_torchvision(name):
    out, expected = cases.sampled(PROCESSORS[name]()), REFERENCE[name]
    assert out.shape == expected.shape
    assert np.abs(out - expected).max() < 0.02  # one step of 255, normalised


FAKE = {
    'works': '__version__ = "9.9"\nfrom torchvision import ops\n',
    'broken': 'from torchvision import ops\nraise RuntimeError("operator torchvision::nms does not exist")\n',
}
ASK = """
import swift, torchvision
from swift.core.stand_in import in_use
print(in_use(), torchvision.__version__, 'torchvision.ops' in __import__('sys').modules, type(torchvision.__loader__).__name__)
from torchvision.transforms.v2 import functional
print(functional.InterpolationMode.BICUBIC.value)
"""


def python(code: str, path: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, 'PYTHONPATH': f'{path}{os.pathsep}{Path(__file__).parents[2]}'}
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=environment, cwd=path, timeout=100)


def installed(kind: str, folder: Path) -> Path:
    """A folder for PYTHONPATH with a package named torchvision in it."""
    for name in ('', 'ops', 'transforms', 'transforms/v2'):
        (folder / 'torchvision' / name).mkdir(parents=True, exist_ok=True)
        (folder / 'torchvision' / name / '__init__.py').touch()
    (folder / 'torchvision/__init__.py').write_text(FAKE[kind])
    (folder / 'torchvision/transforms/v2/functional.py').write_text(
        'import enum\nclass InterpolationMode(enum.Enum):\n    BICUBIC = "the real one"\n'
    )
    return folder


def test_a_torchvision_that_loads_is_left_alone(tmp_path):
    done = python(ASK, installed('works', tmp_path))
    assert done.stdout.splitlines() == ['False 9.9 True SourceFileLoader', 'the real one'], done.stderr


def test_a_torchvision_that_does_not_load_is_replaced_and_named_in_the_log(tmp_path):
    done = python(ASK, installed('broken', tmp_path))
    assert done.stdout.splitlines() == [f'True {stand_in.VERSION} False _Loader', 'bicubic'], done.stderr
    assert done.stderr.count('operator torchvision::nms does not exist') == 1


def test_a_folder_of_that_name_is_not_torchvision(tmp_path):
    (tmp_path / 'torchvision').mkdir()
    done = python('import swift, torchvision; print(torchvision.__version__)', tmp_path)
    assert done.stdout.strip() == stand_in.VERSION, done.stderr


@pytest.mark.parametrize(('order', 'late'), [('swift, transformers', False), ('transformers, swift', True)])
def test_transformers_must_not_have_looked_before(tmp_path, order, late):
    if not stand_in.in_use():
        pytest.skip('a torchvision is installed here')
    done = python(f'import {order}; from swift.core.stand_in import came_late; print(came_late())', tmp_path)
    assert done.stdout.split() == [str(late)], done.stderr


@pytest.mark.parametrize(
    'statement',
    [
        'import torchvision.ops',
        'from torchvision import models',
        'from torchvision.ops.boxes import batched_nms',
        'from torchvision.transforms import Compose',
        'from torchvision.transforms.v2.functional import adjust_hue',
    ],
)
def test_what_it_has_not_is_said_to_be_missing(statement):
    if not stand_in.in_use():
        pytest.skip('a torchvision is installed here')
    with pytest.raises(ModuleNotFoundError, match='torchvision is not installed') as caught:
        exec(statement, {})
    assert caught.value.name == 'torchvision'


def test_resize_without_torchs_lanczos_goes_through_pillow(monkeypatch):
    image = cases.pixels(2, 3, 17, 23)
    direct = vision_ops.resize(image, [8, 11], vision_ops.InterpolationMode.LANCZOS)
    monkeypatch.setattr(vision_ops, '_torch_has_lanczos', lambda: False)
    through = vision_ops.resize(image, [8, 11], vision_ops.InterpolationMode.LANCZOS)
    assert through.shape == (2, 3, 8, 11) and through.dtype == torch.uint8
    assert (through.int() - direct.int()).abs().max() <= 1


def test_box_averages():
    image = torch.arange(16, dtype=torch.float32).reshape(1, 4, 4)
    assert vision_ops.resize(image, [2, 2], 'box').tolist() == [[[2.5, 4.5], [10.5, 12.5]]]


def test_a_file_is_decoded_upright(tmp_path):
    from PIL import Image

    from swift.media.vision_io import ImageReadMode, decode_image

    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90°
    Image.new('RGB', (20, 10), (200, 0, 0)).save(tmp_path / 'a.png', exif=exif)
    data = torch.frombuffer(bytearray((tmp_path / 'a.png').read_bytes()), dtype=torch.uint8)
    assert decode_image(data).shape == (3, 10, 20)
    assert decode_image(str(tmp_path / 'a.png'), ImageReadMode.RGB, apply_exif_orientation=True).shape == (3, 20, 10)
    with pytest.raises(RuntimeError, match='not a readable image'):
        decode_image(data[:20])
