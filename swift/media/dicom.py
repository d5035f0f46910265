"""DICOM pictures (`.dcm`) as a doctor's screen shows them: the first frame, through the window that the file asks for.

Needs pydicom, the extra `dicom`; compressed pixels need what pydicom names in its message.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from swift.core.errors import MissingDependencyError, RowError


def dicom_size(found: str | bytes, name: str) -> tuple[int, int]:
    """(height, width) by the header. Raises RowError naming the file."""
    dataset = _read(found, name, header=True)
    return int(dataset.Rows), int(dataset.Columns)


def dicom_pixels(found: str | bytes, name: str) -> np.ndarray:
    """[H, W] or [H, W, 3] uint8 of the first frame. Raises RowError naming the file."""
    dataset = _read(found, name, header=False)
    try:
        values = dataset.pixel_array
        if int(dataset.get('NumberOfFrames') or 1) > 1:
            values = values[0]
        if dataset.get('PhotometricInterpretation') == 'PALETTE COLOR':
            from pydicom.pixels import apply_color_lut

            values = apply_color_lut(values, dataset)
        return _colors(values) if values.ndim == 3 else _through_window(values, dataset)
    except Exception as error:  # the many decoders that pydicom calls have errors of their own
        raise RowError(f'the pixels of {name} can not be decoded ({_line(error)})') from error


def _read(found: str | bytes, name: str, *, header: bool) -> Any:
    try:
        import pydicom
    except ImportError as error:
        raise MissingDependencyError('pydicom', 'a DICOM image', 'dicom') from error
    try:
        data = io.BytesIO(found) if isinstance(found, bytes) else found
        dataset = pydicom.dcmread(data, stop_before_pixels=header, force=True)  # force: files without the preamble
    except Exception as error:
        raise RowError(f'{name} is not a readable DICOM image ({_line(error)})') from error
    if not dataset.get('Rows') or not dataset.get('Columns'):
        raise RowError(f'{name} is not a readable DICOM image (it states no rows and columns)')
    if not header and 'PixelData' not in dataset:
        raise RowError(f'{name} has no pixels (cut short?)')
    if not getattr(dataset.file_meta, 'TransferSyntaxUID', None):
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    return dataset


def _colors(values: np.ndarray) -> np.ndarray:
    """Colour pixels of 8 or 16 bits as bytes."""
    return values if values.dtype == np.uint8 else (values.astype(np.float64) / 257).round().clip(0, 255).astype(np.uint8)


def _through_window(values: np.ndarray, dataset: Any) -> np.ndarray:
    """Stored values → units (slope and intercept, or a table) → the window as shares of white, else the whole range."""
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    units = np.asarray(apply_modality_lut(values, dataset), np.float64)
    center, width = _first(dataset.get('WindowCenter')), _first(dataset.get('WindowWidth'))
    if center is not None and width is not None and width >= 1:
        shares = (units - (center - 0.5)) / max(width - 1, 1e-9) + 0.5  # PS3.3 C.11.2.1.2
    else:
        if 'VOILUTSequence' in dataset:
            units = np.asarray(apply_voi_lut(apply_modality_lut(values, dataset), dataset), np.float64)
        low, high = units.min(), units.max()
        shares = (units - low) / (high - low) if high > low else np.zeros_like(units)
    shares = shares.clip(0, 1)
    if dataset.get('PhotometricInterpretation') == 'MONOCHROME1':  # low values are bright
        shares = 1 - shares
    return (shares * 255).round().astype(np.uint8)


def _first(value: Any) -> float | None:
    """A number that may be one of several (a window for bone, one for lungs, …)."""
    if value is None or value == '':
        return None
    return float(value if isinstance(value, (int, float, str)) else value[0])


def _line(error: BaseException) -> str:
    return str(error).split('\n', 1)[0] or type(error).__name__
