"""The image transforms of torchvision that transformers' processors use, on torch alone.

Same names, arguments and numbers as `torchvision.transforms.v2.functional` of release 0.28 (`resize_v1`: as the older
`torchvision.transforms.functional`). Images are tensors [..., C, H, W] with any number of leading dimensions, uint8 or float;
`resize` takes PIL images too. `swift.core.stand_in` offers these where torchvision is missing.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from enum import Enum
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor


class InterpolationMode(Enum):
    """How pixels between pixels are found; the value is torch's name, where torch has the mode."""

    NEAREST = 'nearest'
    NEAREST_EXACT = 'nearest-exact'
    BILINEAR = 'bilinear'
    BICUBIC = 'bicubic'
    BOX = 'box'
    HAMMING = 'hamming'
    LANCZOS = 'lanczos'


_M = InterpolationMode
_OF_PILLOW = {0: _M.NEAREST, 1: _M.LANCZOS, 2: _M.BILINEAR, 3: _M.BICUBIC, 4: _M.BOX, 5: _M.HAMMING}
_TO_PILLOW = {**{mode: number for number, mode in _OF_PILLOW.items()}, _M.NEAREST_EXACT: 0}
_SMOOTH = (_M.BILINEAR, _M.BICUBIC, _M.LANCZOS)
_ONLY_PILLOW = (_M.BOX, _M.HAMMING)


def resize(
    inpt: Any,
    size: int | Sequence[int] | None,
    interpolation: InterpolationMode | str | int = InterpolationMode.BILINEAR,
    max_size: int | None = None,
    antialias: bool | None = True,
) -> Any:
    """The image at another size: (height, width), or the length of the shorter edge (`max_size`: limit of the longer)."""
    mode = _mode(interpolation)
    if isinstance(inpt, Image.Image):
        height, width = _new_size((inpt.height, inpt.width), size, max_size)
        same = (height, width) == (inpt.height, inpt.width)
        return inpt if same else inpt.resize((width, height), resample=_TO_PILLOW[mode])
    return _resize(inpt, _new_size(tuple(inpt.shape[-2:]), size, max_size), mode, bool(antialias), _native_uint8(inpt, mode))


def resize_v1(
    img: Any,
    size: int | Sequence[int],
    interpolation: InterpolationMode | int = InterpolationMode.BILINEAR,
    max_size: int | None = None,
    antialias: bool | None = True,
) -> Any:
    """As `resize`, but whole numbers are always interpolated as float32 and rounded."""
    if isinstance(img, Image.Image):
        return resize(img, size, interpolation, max_size)
    image = img[None] if img.ndim == 2 else img
    out = _resize(image, _new_size(tuple(img.shape[-2:]), size, max_size), _mode(interpolation), bool(antialias), False)
    return out[0] if img.ndim == 2 else out


def _mode(interpolation: InterpolationMode | str | int) -> InterpolationMode:
    if isinstance(interpolation, int):
        return _OF_PILLOW[int(interpolation)]
    return InterpolationMode(interpolation)


def _new_size(old: tuple[int, int], size: int | Sequence[int] | None, max_size: int | None) -> tuple[int, int]:
    """(height, width) that `size` and `max_size` ask for."""
    wanted = [] if size is None else [size] if isinstance(size, int) else list(size)
    if len(wanted) == 2:
        if max_size is not None:
            raise ValueError('max_size goes with the length of the shorter edge only, not with a height and a width')
        return int(wanted[0]), int(wanted[1])
    if len(wanted) > 2 or (not wanted and max_size is None):
        raise ValueError(f'size must be one or two numbers, or None with max_size; got {size}')
    short, long = sorted(old)
    new_short, new_long = (wanted[0], int(wanted[0] * long / short)) if wanted else (short, long)
    if max_size is not None:
        if wanted and max_size <= wanted[0]:
            raise ValueError(f'max_size {max_size} must be greater than size {wanted[0]}')
        if new_long > max_size or not wanted:
            new_short, new_long = int(max_size * new_short / new_long), max_size
    return (new_long, new_short) if old[1] <= old[0] else (new_short, new_long)


def _native_uint8(image: Tensor, mode: InterpolationMode) -> bool:
    """Whether torch's own uint8 kernel resizes this image: on CPUs where that is the faster way, as torchvision decides."""
    if mode in (_M.NEAREST, _M.NEAREST_EXACT):
        return True
    if image.device.type != 'cpu':
        return False
    if mode is _M.BILINEAR and not torch.compiler.is_compiling():
        return torch.backends.cpu.get_cpu_capability() in ('AVX2', 'AVX512') or platform.machine() in ('aarch64', 'arm64')
    return mode in _SMOOTH


def _resize(image: Tensor, size: tuple[int, int], mode: InterpolationMode, antialias: bool, native: bool) -> Tensor:
    lead, (channels, *old) = image.shape[:-3], image.shape[-3:]
    if tuple(old) == size:
        return image
    if image.numel() == 0:
        return image.reshape(*lead, channels, *size)
    if mode is _M.LANCZOS and not antialias:
        raise ValueError('lanczos needs antialias=True')
    flat = image.reshape(-1, channels, *old)
    if mode in _ONLY_PILLOW or (mode is _M.LANCZOS and not _torch_has_lanczos()):
        return _through_pillow(flat, size, mode).reshape(*lead, channels, *size)
    kept = flat.dtype in (torch.float32, torch.float64) or (flat.dtype == torch.uint8 and native)
    smooth = mode in _SMOOTH
    out = F.interpolate(
        flat if kept else flat.float(),
        size=list(size),
        mode=mode.value,
        align_corners=False if smooth else None,
        antialias=antialias and smooth,
    )
    return (out if kept else _back_to(out, image.dtype)).reshape(*lead, channels, *size)


def _back_to(image: Tensor, dtype: torch.dtype) -> Tensor:
    """float32 pixels in the type of the image, rounded and, for uint8, within its range."""
    if dtype == torch.uint8:
        image = image.clamp(0, 255)
    return image.to(dtype) if dtype.is_floating_point else image.round().to(dtype)


def _torch_has_lanczos() -> bool:
    """Whether this torch interpolates with lanczos (2.12 and newer)."""
    return tuple(int(part) for part in torch.__version__.split('+')[0].split('.')[:2]) >= (2, 12)


def _through_pillow(images: Tensor, size: tuple[int, int], mode: InterpolationMode) -> Tensor:
    """[N, C, h, w] → [N, C, *size] with Pillow's filter, one channel at a time (uint8 as it is, others as float32)."""
    planes = images.flatten(0, 1).cpu()
    planes = (planes if images.dtype == torch.uint8 else planes.float()).numpy()
    out = [np.asarray(Image.fromarray(plane).resize(size[::-1], resample=_TO_PILLOW[mode])) for plane in planes]
    done = torch.from_numpy(np.stack(out)).reshape(*images.shape[:2], *size).to(images.device)
    return done if images.dtype == torch.uint8 else _back_to(done, images.dtype)


def pad(
    inpt: Tensor,
    padding: int | Sequence[int],
    fill: float | Sequence[float] | None = None,
    padding_mode: str = 'constant',
) -> Tensor:
    """The image with a border: [all], [left and right, top and bottom] or [left, top, right, bottom] pixels.

    `padding_mode`: constant (with `fill`, one value or one a channel), edge, reflect or symmetric. Negative numbers crop.
    """
    left, top, right, bottom = _borders(padding)
    if padding_mode not in ('constant', 'edge', 'reflect', 'symmetric'):
        raise ValueError(f'padding_mode must be constant, edge, reflect or symmetric, not {padding_mode}')
    values = [0.0 if fill is None else fill] if fill is None or isinstance(fill, (int, float)) else list(fill)
    if padding_mode == 'constant':
        if len(values) == 1:
            return F.pad(inpt, (left, right, top, bottom), value=float(values[0]))
        return _padded_by_channel(inpt, (left, top, right, bottom), values)
    if len(values) > 1:
        raise ValueError(f'padding_mode {padding_mode} takes no fill of several values')
    height, width = inpt.shape[-2:]
    rows, columns = _mirror(height, top, bottom, padding_mode), _mirror(width, left, right, padding_mode)
    return inpt[..., rows.to(inpt.device), :][..., columns.to(inpt.device)]


def _borders(padding: int | Sequence[int]) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of any spelling."""
    given = [padding] if isinstance(padding, int) else list(padding)
    if len(given) not in (1, 2, 4):
        raise ValueError(f'padding must be 1, 2 or 4 numbers, not {len(given)}')
    left, top, right, bottom = given * (4 // len(given))
    return left, top, right, bottom


def _padded_by_channel(image: Tensor, borders: tuple[int, int, int, int], values: list[float]) -> Tensor:
    left, top, right, bottom = borders
    color = torch.tensor(values, device=image.device).to(image.dtype)
    height, width = image.shape[-2] + top + bottom, image.shape[-1] + left + right
    out = color.view(-1, 1, 1).expand(*image.shape[:-2], height, width).clone()
    inner = image[..., max(-top, 0) : image.shape[-2] + min(bottom, 0), max(-left, 0) : image.shape[-1] + min(right, 0)]
    y, x = max(top, 0), max(left, 0)
    out[..., y : y + inner.shape[-2], x : x + inner.shape[-1]] = inner
    return out


def _mirror(length: int, before: int, after: int, mode: str) -> Tensor:
    """Which pixel of a line of `length` stands at each place of the padded line."""
    at = torch.arange(-before, length + after)
    if mode == 'edge':
        return at.clamp(0, length - 1)
    if mode == 'reflect' and max(before, after) >= length:
        raise ValueError(f'a reflected border must be narrower than the image: {before} and {after} pixels on {length}')
    period = 2 * length if mode == 'symmetric' else max(2 * (length - 1), 1)
    at = at % period
    last = period - 1 if mode == 'symmetric' else period
    return torch.where(at < length, at, last - at)


def crop(inpt: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    """The window of height x width pixels at (top, left); what lies outside the image is zero."""
    old_height, old_width = inpt.shape[-2:]
    bottom, right = top + height, left + width
    inner = inpt[..., max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if top >= 0 and left >= 0 and bottom <= old_height and right <= old_width:
        return inner
    before_x, before_y = max(min(right, 0) - left, 0), max(min(bottom, 0) - top, 0)
    after_x, after_y = max(right - max(old_width, left), 0), max(bottom - max(old_height, top), 0)
    return F.pad(inner, (before_x, after_x, before_y, after_y))


def center_crop(inpt: Tensor, output_size: int | Sequence[int]) -> Tensor:
    """The middle of the image at (height, width), with zeros around it where the image is smaller."""
    wanted = [output_size] if isinstance(output_size, int) else list(output_size)
    height, width = wanted * (2 // len(wanted))
    missing = [max(width - inpt.shape[-1], 0), max(height - inpt.shape[-2], 0)]
    if any(missing):
        x, y = missing
        inpt = F.pad(inpt, (x // 2, (x + 1) // 2, y // 2, (y + 1) // 2))
    top, left = round((inpt.shape[-2] - height) / 2), round((inpt.shape[-1] - width) / 2)
    return inpt[..., top : top + height, left : left + width]


def normalize(inpt: Tensor, mean: Any, std: Any, inplace: bool = False) -> Tensor:
    """(image - mean) / std for each channel of a float image [..., C, H, W]."""
    if not inpt.is_floating_point():
        raise TypeError(f'normalize needs a float image, not {inpt.dtype}')
    if inpt.ndim < 3:
        raise ValueError(f'normalize needs an image [..., C, H, W], not {tuple(inpt.shape)}')
    mean, std = (torch.as_tensor(value, dtype=inpt.dtype, device=inpt.device) for value in (mean, std))
    if not bool((std != 0).all()):
        raise ValueError('std has a zero: the image would be divided by it')
    mean, std = (value.view(-1, 1, 1) if value.ndim == 1 else value for value in (mean, std))
    return (inpt.sub_(mean) if inplace else inpt.sub(mean)).div_(std)


def to_dtype(inpt: Tensor, dtype: torch.dtype = torch.float32, scale: bool = False) -> Tensor:
    """The image in another type; with `scale` its range too: 0…255 of uint8 becomes 0…1 of float."""
    if inpt.dtype == dtype or not scale:
        return inpt.to(dtype)
    if inpt.is_floating_point():
        if dtype.is_floating_point:
            return inpt.to(dtype)
        if dtype == torch.int64 or (dtype == torch.int32 and inpt.dtype == torch.float32):
            raise RuntimeError(f'{inpt.dtype} holds fewer digits than {dtype}: the conversion would not be exact')
        return inpt.mul(_largest(dtype) + 1.0 - 1e-3).to(dtype)  # each whole number gets an equal share of 0…1
    if dtype.is_floating_point:
        return inpt.to(dtype).mul_(1.0 / _largest(inpt.dtype))
    shift = _bits(dtype) - _bits(inpt.dtype)
    return inpt.to(dtype).bitwise_left_shift(shift) if shift >= 0 else inpt.bitwise_right_shift(-shift).to(dtype)


to_dtype_image = to_dtype


def _largest(dtype: torch.dtype) -> int:
    return torch.iinfo(dtype).max


def _bits(dtype: torch.dtype) -> int:
    return _largest(dtype).bit_length()


def pil_to_tensor(pic: Image.Image) -> Tensor:
    """A PIL image as a tensor [C, H, W] of its own type."""
    if not isinstance(pic, Image.Image):
        raise TypeError(f'a PIL image is needed, not {type(pic).__name__}')
    pixels = torch.from_numpy(np.array(pic))
    return pixels.view(pic.height, pic.width, -1).permute(2, 0, 1)


def to_image(inpt: Any) -> Tensor:
    """A PIL image or an array [H, W(, C)] as a tensor [C, H, W]; tensors are returned as they are."""
    if isinstance(inpt, np.ndarray):
        return torch.from_numpy(np.atleast_3d(inpt)).permute(2, 0, 1).contiguous()
    return inpt if isinstance(inpt, Tensor) else pil_to_tensor(inpt)


def to_tensor(inpt: Any) -> Tensor:
    """A PIL image or an array [H, W(, C)] as a tensor [C, H, W], uint8 as float32 in 0…1."""
    image = to_image(inpt).contiguous()
    return image.float().div(255) if image.dtype == torch.uint8 else image


def to_pil_image(pic: Any, mode: str | None = None) -> Image.Image:
    """A tensor [(C,) H, W] or an array [H, W(, C)] as a PIL image; floats are read as 0…1."""
    if isinstance(pic, Tensor):
        pic = (pic.permute(1, 2, 0) if pic.ndim == 3 else pic).numpy(force=True)
    if not isinstance(pic, np.ndarray) or pic.ndim not in (2, 3) or (pic.ndim == 3 and pic.shape[-1] > 4):
        raise ValueError('a tensor or an array of one image with up to 4 channels is needed')
    if np.issubdtype(pic.dtype, np.floating) and mode != 'F':
        pic = (pic * 255).astype(np.uint8)
    if pic.ndim == 3 and pic.shape[-1] == 1:
        pic = pic[..., 0]
    image = Image.fromarray(np.ascontiguousarray(pic))
    if mode is not None and mode != image.mode:
        if len(mode) != len(image.mode) or len(image.getbands()) == 1:
            raise ValueError(f'mode {mode} does not fit pixels of mode {image.mode}')
        return Image.frombytes(mode, image.size, image.tobytes())
    return image


def rgb_to_grayscale(inpt: Tensor, num_output_channels: int = 1) -> Tensor:
    """The brightness of each pixel (ITU-R 601), as one channel or three equal ones."""
    if num_output_channels not in (1, 3):
        raise ValueError(f'num_output_channels must be 1 or 3, not {num_output_channels}')
    if inpt.shape[-3] == 1:
        return inpt.clone() if num_output_channels == 1 else inpt.repeat_interleave(3, dim=-3)
    red, green, blue = inpt.unbind(-3)
    gray = red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114).to(inpt.dtype).unsqueeze(-3)
    return gray if num_output_channels == 1 else gray.expand(inpt.shape)


def grayscale_to_rgb(inpt: Tensor) -> Tensor:
    """One channel as three equal ones; images with three channels or more are returned as they are."""
    return inpt if inpt.shape[-3] >= 3 else rgb_to_grayscale(inpt, 3)


def gaussian_blur(inpt: Tensor, kernel_size: int | Sequence[int], sigma: float | Sequence[float] | None = None) -> Tensor:
    """The image blurred with an odd kernel (width, height) and sigmas (x, y); the border is reflected."""
    sizes = [kernel_size] * 2 if isinstance(kernel_size, int) else list(kernel_size)
    if len(sizes) != 2 or any(size % 2 == 0 or size < 0 for size in sizes):
        raise ValueError(f'kernel_size must be one or two odd numbers, not {kernel_size}')
    sigmas = [0.15 * size + 0.35 for size in sizes] if sigma is None else sigma
    sigmas = [float(sigmas)] * 2 if isinstance(sigmas, (int, float)) else list(sigmas) * (2 // len(sigmas))
    if any(value <= 0 for value in sigmas):
        raise ValueError(f'sigma must be positive, not {sigma}')
    if inpt.numel() == 0:
        return inpt
    image = inpt if inpt.is_floating_point() else inpt.float()
    columns, rows = (_bell(size, value, image) for size, value in zip(sizes, sigmas, strict=True))
    channels = inpt.shape[-3]
    flat = image.reshape(-1, *inpt.shape[-3:])
    border = [sizes[0] // 2, sizes[0] // 2, sizes[1] // 2, sizes[1] // 2]
    kernel = (rows[:, None] * columns).expand(channels, 1, sizes[1], sizes[0])
    out = F.conv2d(F.pad(flat, border, mode='reflect'), kernel, groups=channels).reshape(inpt.shape)
    return out if inpt.is_floating_point() else out.round().to(inpt.dtype)


def _bell(size: int, sigma: float, like: Tensor) -> Tensor:
    """A Gaussian of `size` taps that sum to 1."""
    edge = (size - 1) / (2 * math.sqrt(2))
    return torch.linspace(-edge, edge, size, dtype=like.dtype, device=like.device).div(sigma).square().neg().softmax(0)
