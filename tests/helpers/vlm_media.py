"""Pictures, videos and sounds of noise: in memory, and as files."""

from __future__ import annotations

from typing import Any

FRAMES = 8


def medium(kind: str, seed: int, rate: int = 16000) -> Any:
    """A PIL picture, a video (uint8 [8, height, width, 3]) or half a second of sound; three shapes by `seed % 3`."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(seed)
    height, width, seconds = ((40, 52, 0.5), (52, 40, 0.4), (30, 90, 0.7))[seed % 3]
    if kind == 'image':
        return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
    if kind == 'video':
        return random.integers(0, 256, (FRAMES, height, width, 3), dtype=np.uint8)
    return random.standard_normal(int(seconds * rate)).astype(np.float32)


def metadata() -> dict[str, Any]:
    """What a processor wants to know of the videos of `medium`: all frames of two seconds."""
    numbers = list(range(FRAMES))
    return dict(total_num_frames=FRAMES, fps=4.0, duration=FRAMES / 4, frames_indices=numbers, height=40, width=52)


def save_medium(stem: str, kind: str, seed: int) -> str:
    """Write `medium(kind, seed)` beside `stem` as PNG, MP4 (4 frames a second) or WAV (16 kHz); the path."""
    made = medium(kind, seed)
    if kind == 'image':
        made.save(f'{stem}.png')
        return f'{stem}.png'
    if kind == 'video':
        return _write_video(f'{stem}.mp4', made)
    import soundfile

    soundfile.write(f'{stem}.wav', made * 0.1, 16000)
    return f'{stem}.wav'


def _write_video(path: str, frames: Any) -> str:
    import av

    with av.open(path, 'w') as container:
        stream = container.add_stream('mpeg4', rate=4)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], 'yuv420p'
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        container.mux(stream.encode())
    return path
