"""How much of a medium is read."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True)
class Budget:
    """Bounds on what is read of images, videos and sounds. None: no bound of ours; the model's processor may have its own."""

    max_pixels: int | None = None
    """Height × width of an image; a larger one is scaled down."""
    min_pixels: int | None = None
    """Height × width of an image; a smaller one is scaled up."""
    video_max_pixels: int | None = None
    """Height × width of a frame."""
    video_min_pixels: int | None = None
    video_total_pixels: int | None = None
    """Height × width × frames of a video."""
    fps: float | None = None
    """Frames that are taken of a second of video; None: 2."""
    fps_max_frames: int | None = None
    """Most frames of a video; None: 768."""
    fps_min_frames: int | None = None
    """Fewest frames of a video that has as many; None: 4."""
    nframes: int | None = None
    """Frames of every video, however long it is. None: by `fps`."""
    sampling_rate: int | None = None
    """Samples of a second of sound. None: the model's own."""
    audio_max_seconds: float | None = None
    """Longest sound; what is behind it is not read."""


def scaled(height: int, width: int, low: int | None, high: int | None) -> tuple[int, int]:
    """(height, width) of the same proportions within `low` and `high` pixels, as near to what it was as can be."""
    area = height * width
    if high and area > high:
        factor = (high / area) ** 0.5
        height, width = max(1, int(height * factor)), max(1, int(width * factor))
        return (height, min(width, max(1, high // height))) if height * width > high else (height, width)
    if low and area < low:
        factor = (low / area) ** 0.5
        up = ceil(height * factor), ceil(width * factor)
        return scaled(*up, None, high)
    return height, width
