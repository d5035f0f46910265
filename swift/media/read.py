"""One door for all kinds: sizes from headers, media from files, blank ones of a size."""

from __future__ import annotations

from typing import Any

from swift.media.budget import Budget


def size_of(kind: str, ref: Any, budget: Budget = Budget(), rate: int = 16_000) -> tuple:
    """The size of what `load` gives, from headers: image (height, width); video see `video.Size`; audio (samples,).

    Hashable. Raises RowError naming a file that is missing or broken.
    """
    if kind == 'image':
        from swift.media.image import image_size

        return image_size(ref, budget)
    if kind == 'video':
        from swift.media.video import video_size

        return video_size(ref, budget)
    from swift.media.audio import audio_size

    return audio_size(ref, budget, rate)


def load(kind: str, ref: Any, budget: Budget = Budget(), rate: int = 16_000) -> Any:
    """image: a PIL picture, RGB; video: a `Video`; audio: [samples] float32, one channel at `rate`. Raises RowError naming the file."""
    if kind == 'image':
        from swift.media.image import load_image

        return load_image(ref, budget)
    if kind == 'video':
        from swift.media.video import load_video

        return load_video(ref, budget)
    from swift.media.audio import load_audio

    return load_audio(ref, budget, rate)


def blank(kind: str, size: tuple, rate: int = 16_000) -> Any:
    """What `load` gives for a medium of this size, black or silent."""
    import numpy as np

    if kind == 'image':
        from PIL import Image

        return Image.new('RGB', (size[1], size[0]))
    if kind == 'video':
        from swift.media.video import Video

        frames, height, width, fps, indices, total = size
        return Video(np.zeros((frames, height, width, 3), np.uint8), indices, fps, total)
    return np.zeros(size[0], np.float32)
