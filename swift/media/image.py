"""Pictures: their size from the header, their pixels as RGB."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
from PIL import Image

from swift.core.errors import RowError
from swift.media.budget import Budget, scaled
from swift.media.dicom import dicom_pixels, dicom_size
from swift.media.refs import name_of, source

_ORIENTATION = 0x0112
"""EXIF field that says how a picture lies."""
_T = Image.Transpose
_UPRIGHT = {
    2: _T.FLIP_LEFT_RIGHT, 3: _T.ROTATE_180, 4: _T.FLIP_TOP_BOTTOM, 5: _T.TRANSPOSE,
    6: _T.ROTATE_270, 7: _T.TRANSVERSE, 8: _T.ROTATE_90,
}  # fmt: skip
"""Its value → what sets the picture upright."""
_FAILURES = (OSError, ValueError, TypeError, SyntaxError, EOFError, IndexError, KeyError, struct.error, Image.DecompressionBombError)
"""What Pillow's readers raise on broken files."""


def image_size(ref: Any, budget: Budget) -> tuple[int, int]:
    """(height, width) that `load_image` gives, without decoding. Raises RowError naming the file."""
    return scaled(*_stored_size(ref), budget.min_pixels, budget.max_pixels)


def _stored_size(ref: Any) -> tuple[int, int]:
    if isinstance(ref, Image.Image):
        return _upright_size(ref)
    if hasattr(ref, 'shape'):
        return tuple(map(int, _channels_last(np.asarray(ref)).shape[:2]))
    found = source(ref)
    if _is_dicom(found):
        return dicom_size(found, name_of(ref))
    if isinstance(found, str) and found.endswith('.npy'):
        return _stored_size(np.load(found, mmap_mode='r', allow_pickle=False))
    with _opened(found, ref) as image:
        return _upright_size(image)


def _orientation(image: Image.Image) -> int:
    """The EXIF value as the header has it. A TIFF turns itself upright, its size included."""
    if image.format == 'TIFF':
        return 1
    try:
        return int(Image.Image.getexif(image).get(_ORIENTATION, 1))  # a PNG's own getexif would decode the picture
    except _FAILURES:  # broken EXIF of a good picture
        return 1


def _upright_size(image: Image.Image) -> tuple[int, int]:
    turned = _orientation(image) >= 5
    return (image.width, image.height) if turned else (image.height, image.width)


def _upright(image: Image.Image) -> Image.Image:
    turn = _UPRIGHT.get(_orientation(image))
    image.load()
    return image if turn is None else image.transpose(turn)


def load_image(ref: Any, budget: Budget) -> Image.Image:
    """The picture upright, RGB, 8 bits a channel, transparent parts on white, within the budget. Raises RowError naming the file."""
    image = _pixels(ref)
    height, width = scaled(image.height, image.width, budget.min_pixels, budget.max_pixels)
    return image if (height, width) == (image.height, image.width) else image.resize((width, height), Image.Resampling.BICUBIC)


def _pixels(ref: Any) -> Image.Image:
    if isinstance(ref, Image.Image):
        return _rgb(_upright(ref))
    if hasattr(ref, 'shape'):
        return _from_array(np.asarray(ref))
    found = source(ref)
    if _is_dicom(found):
        return _from_array(dicom_pixels(found, name_of(ref)))
    if isinstance(found, str) and found.endswith('.npy'):
        return _from_array(np.load(found, allow_pickle=False))
    with _opened(found, ref) as image:
        try:
            return _rgb(_upright(image))
        except _FAILURES as error:
            raise RowError(f'{name_of(ref)} can not be decoded (cut short? {_line(error)})') from error


def _opened(found: str | bytes, ref: Any) -> Image.Image:
    try:
        return Image.open(io.BytesIO(found) if isinstance(found, bytes) else found)
    except _FAILURES as error:
        raise RowError(f'{name_of(ref)} is not a readable image ({_line(error)})') from error


def _line(error: BaseException) -> str:
    text = str(error).split('\n', 1)[0]
    return 'unknown or broken format' if 'cannot identify' in text else text or type(error).__name__


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(('I', 'F')):  # more than 8 bits a channel
        return _from_array(np.asarray(image))
    if image.mode in ('RGBA', 'LA', 'PA', 'RGBa', 'La') or 'transparency' in image.info:
        if image.mode == 'La':
            image = image.convert('LA')
        image = image.convert('RGBA')
        ground = Image.new('RGBA', image.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, image).convert('RGB')
    return image.convert('RGB')


def _channels_last(values: np.ndarray) -> np.ndarray:
    if values.ndim == 3 and values.shape[0] in (1, 3, 4) and values.shape[2] not in (1, 3, 4):
        return np.moveaxis(values, 0, -1)
    return values


def _from_array(values: np.ndarray) -> Image.Image:
    """[H, W], [H, W, C] or [C, H, W]: bytes as they are, 16 bits by their upper half, floats from 0 to 1 as shares of white."""
    values = _channels_last(values)
    if values.ndim not in (2, 3):
        raise RowError(f'an array of shape {list(values.shape)} is no picture')
    if values.dtype != np.uint8:
        values = np.clip(np.nan_to_num(np.asarray(values, np.float64)) * _to_bytes(values), 0, 255).round().astype(np.uint8)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    return _rgb(Image.fromarray(values))


def _to_bytes(values: np.ndarray) -> float:
    """The factor that takes values to 0…255."""
    top = float(np.nanmax(values)) if values.size else 0.0
    if values.dtype.kind in 'fb' and top <= 1.0:
        return 255.0
    if values.dtype.kind != 'u' and top <= 255:
        return 1.0
    return 255.0 / (65535.0 if top <= 65535 else top)


def _is_dicom(found: str | bytes) -> bool:
    if isinstance(found, bytes):
        return found[128:132] == b'DICM'
    return found.lower().endswith(('.dcm', '.dicom'))
