"""Small media files for the tests, made on the spot."""

from pathlib import Path

import av
import numpy as np


def clip(path: Path, frames: int = 60, *, fps: int = 30, size: tuple[int, int] = (48, 64), key: int = 12, codec: str = 'libx264',
         turned: int | None = None, tone: int | None = None, corner: bool = False) -> str:  # fmt: skip
    """A video whose frame i is of grey 4·i; `corner`: red at the top left. `turned`: degrees that players turn it to the left."""
    with av.open(str(path), 'w') as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = size
        stream.pix_fmt = 'yuv420p'
        stream.codec_context.gop_size = key
        stream.bit_rate = 4_000_000
        stream.options = {'crf': '10', 'bf': '2'} if codec == 'libx264' else {}
        sound = container.add_stream('aac', rate=16_000, layout='mono') if tone else None
        if turned is not None:
            stream.set_display_rotation(turned)
        for i in range(frames):
            picture = np.full((*size, 3), 4 * i % 240, np.uint8)
            if corner:
                picture[: size[0] // 4, : size[1] // 4] = (255, 0, 0)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format='rgb24')))
        container.mux(stream.encode())
        if sound is not None:
            _add_tone(container, sound, tone, frames / fps)
    return str(path)


def _add_tone(container, stream, pitch: int, seconds: float) -> None:
    values = sine(pitch, 16_000, seconds)
    for start in range(0, len(values), 1024):
        part = values[None, start : start + 1024]
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(part), format='fltp', layout='mono')
        frame.sample_rate, frame.pts = 16_000, start
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def greys(frames: np.ndarray) -> np.ndarray:
    """The number of each frame of a `clip`, read off its grey in the middle of the lower right quarter (modulo 60)."""
    return frames[:, frames.shape[1] * 3 // 4, frames.shape[2] * 3 // 4, 0].astype(float) / 4


def sine(pitch: float, rate: int, seconds: float) -> np.ndarray:
    """[samples] float32 of a pure tone at half of full scale."""
    return (0.5 * np.sin(2 * np.pi * pitch * np.arange(int(rate * seconds)) / rate)).astype(np.float32)
