"""How much of an image, a video or a sound the model sees, and where their files are."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal


@dataclass
class MediaArgs:
    """Budgets of media. None: what the model's own processor says. Bounds of pixels and of tokens may be given together; both hold."""

    max_pixels: int | None = None
    """Most pixels (height x width) of an image; larger ones are scaled down. None: the processor's own."""
    min_pixels: int | None = None
    """Fewest pixels of an image; smaller ones are scaled up. None: the processor's own."""
    image_max_token_num: int | None = None
    """Most tokens that an image becomes, where the model lets its size vary; None: the processor's own."""
    image_min_token_num: int | None = None
    """Fewest tokens that an image becomes; None: the processor's own."""
    video_max_pixels: int | None = None
    """Most pixels of a video frame; None: the processor's own."""
    video_min_pixels: int | None = None
    """Fewest pixels of a video frame; None: the processor's own."""
    video_total_pixels: int | None = None
    """Most pixels of all frames of a video together; None: the processor's own."""
    video_max_token_num: int | None = None
    """Most tokens that a video frame becomes; None: the processor's own."""
    video_min_token_num: int | None = None
    """Fewest tokens that a video frame becomes; None: the processor's own."""
    fps: float | None = None
    """Frames taken from each second of a video; None: 2, or the processor's own."""
    fps_max_frames: int | None = None
    """Most frames taken from a video; None: the processor's own."""
    fps_min_frames: int | None = None
    """Fewest frames taken from a video; None: the processor's own."""
    nframes: int | None = None
    """Frames taken from every video, instead of fps."""
    audio_max_token_num: int | None = None
    """Most tokens that a sound becomes; longer ones are cut. None: what the feature extractor takes."""
    sampling_rate: int | None = None
    """Samples per second that sounds are read with; None: the feature extractor's own."""
    root_image_dir: str | None = None
    """Folder that relative paths of images, videos and sounds start from; None: the folder of the data file."""
    norm_bbox: Literal['norm1000', 'none'] | None = None
    """Coordinates of boxes in the text: norm1000: thousandths of width and height; none: pixels of the image as the model sees it; None: as the model was trained."""


MEDIA = tuple(field.name for field in fields(MediaArgs))
"""Flags that are also environment variables (in capitals) and keys of `--model_kwargs` (in any case)."""

BOUNDS = (
    ('min_pixels', 'max_pixels'),
    ('image_min_token_num', 'image_max_token_num'),
    ('video_min_pixels', 'video_max_pixels'),
    ('video_min_token_num', 'video_max_token_num'),
    ('fps_min_frames', 'fps_max_frames'),
)
"""Pairs of flags of which the first must not be above the second."""


def split_media(model_kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what from_pretrained gets, what is meant for flags of this group: key as written → value)."""
    media = {key: value for key, value in model_kwargs.items() if str(key).lower() in MEDIA}
    return {key: value for key, value in model_kwargs.items() if key not in media}, media
