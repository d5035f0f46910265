"""`torchvision.io` as far as transformers' processors use it: encoded bytes or a path → a uint8 tensor [C, H, W].

`swift.core.stand_in` offers this where torchvision is missing.
"""

from __future__ import annotations

import io
import os
from enum import Enum

from PIL import Image, ImageOps
from torch import Tensor

from swift.media.vision_ops import pil_to_tensor


class ImageReadMode(Enum):
    """The channels that a decoded image should have; UNCHANGED: those of the file."""

    UNCHANGED = 0
    GRAY = 1
    GRAY_ALPHA = 2
    RGB = 3
    RGB_ALPHA = 4


_PILLOW = {'GRAY': 'L', 'GRAY_ALPHA': 'LA', 'RGB': 'RGB', 'RGB_ALPHA': 'RGBA'}


def decode_image(
    input: Tensor | str | os.PathLike,
    mode: ImageReadMode | str = ImageReadMode.UNCHANGED,
    apply_exif_orientation: bool = False,
) -> Tensor:
    """The image in a file, or in a one-dimensional uint8 tensor of its bytes. Raises RuntimeError for what is no image."""
    source = io.BytesIO(input.numpy().tobytes()) if isinstance(input, Tensor) else input
    name = mode.name if isinstance(mode, ImageReadMode) else mode.upper()
    try:
        with Image.open(source) as image:
            if apply_exif_orientation:
                image = ImageOps.exif_transpose(image)
            wanted = _PILLOW.get(name, 'RGB' if image.mode == 'P' else image.mode)
            return pil_to_tensor(image.convert(wanted)).contiguous()
    except OSError as error:
        raise RuntimeError(f'not a readable image: {error}') from error
