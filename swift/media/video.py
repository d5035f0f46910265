"""Videos: which frames are taken follows from the header; only those are kept in memory."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from swift.core.errors import MissingDependencyError, RowError
from swift.media.budget import Budget, scaled
from swift.media.image import image_size, load_image
from swift.media.refs import frames_of, name_of, source

FPS, MOST, FEWEST = 2.0, 768, 4
_UNKNOWN_FPS = 25.0
"""For files that don't say it."""
_NEAR = 8
"""Frames that are decoded rather than jumped over."""
_MOST_BROKEN = 1000
"""Packets that may fail to decode before a file is given up."""

Size = tuple[int, int, int, float, tuple[int, ...], int]
"""(frames, height, width, frames a second of the source, their numbers in the source, number of frames of the source)."""


@dataclass
class Video:
    """Frames of a video, and where they come from."""

    frames: np.ndarray
    """[T, H, W, 3] uint8."""
    indices: tuple[int, ...]
    """Their numbers in the source."""
    fps: float
    """Frames a second of the source."""
    total: int
    """Frames of the source."""

    @property
    def height(self) -> int:
        """Of a frame, in pixels."""
        return self.frames.shape[1]

    @property
    def width(self) -> int:
        """Of a frame, in pixels."""
        return self.frames.shape[2]

    @property
    def duration(self) -> float:
        """Seconds of the source."""
        return self.total / self.fps

    def tensor(self) -> Any:
        """[T, 3, H, W] uint8 torch tensor."""
        import torch

        return torch.from_numpy(self.frames).permute(0, 3, 1, 2)


def video_size(ref: Any, budget: Budget) -> Size:
    """What `load_video` gives, from headers. Raises RowError naming the file."""
    pictures = frames_of(ref)
    if pictures is not None:
        return _size_of_frames(list(pictures), ref, budget)
    total, fps, height, width, _ = _facts(ref)
    indices = chosen(total, fps, budget)
    return len(indices), *_frame_size(height, width, len(indices), budget), fps, indices, total


def _size_of_frames(pictures: list[Any], ref: Any, budget: Budget) -> Size:
    if not pictures:
        raise RowError('a video of this row has no frames')
    fps, total = budget.fps or FPS, len(pictures)
    indices = _spread(total, min(total, budget.nframes or budget.fps_max_frames or total))
    height, width = _frame_size(*image_size(pictures[0], Budget()), len(indices), budget)
    return len(indices), height, width, fps, indices, total


def chosen(total: int, fps: float, budget: Budget) -> tuple[int, ...]:
    """The numbers of the frames that are taken of `total`: evenly spread, an even number of them wherever there are two."""
    if budget.nframes:
        count = budget.nframes
    else:
        count = round(total / fps * (budget.fps or FPS))
        count = min(max(count, budget.fps_min_frames or FEWEST, 2), budget.fps_max_frames or MOST)
    count = min(count, total)
    return _spread(total, count - count % 2 if count > 1 else 1)


def _spread(total: int, count: int) -> tuple[int, ...]:
    return tuple(int(place) for place in np.linspace(0, total - 1, count).round())


def _frame_size(height: int, width: int, frames: int, budget: Budget) -> tuple[int, int]:
    share = budget.video_total_pixels // frames if budget.video_total_pixels else None
    high = min((bound for bound in (budget.video_max_pixels, share) if bound), default=None)
    return scaled(height, width, min(budget.video_min_pixels, high or budget.video_min_pixels) if budget.video_min_pixels else None, high)


def load_video(ref: Any, budget: Budget) -> Video:
    """The chosen frames. A file that ends a little before its header says so has its last frame repeated.

    Raises RowError naming the file, also for one of which more than half is missing.
    """
    pictures = frames_of(ref)
    if pictures is None:
        total, fps, *stored, quarters = _facts(ref)
        indices = chosen(total, fps, budget)
        frames = _decoded(ref, indices, fps, _frame_size(*stored, len(indices), budget), quarters)
        return Video(frames, indices, fps, total)
    pictures = list(pictures)
    count, height, width, fps, indices, total = _size_of_frames(pictures, ref, budget)
    frames = np.empty((count, height, width, 3), np.uint8)
    for place, index in enumerate(indices):
        image = load_image(pictures[index], Budget())
        frames[place] = np.asarray(image if image.size == (width, height) else image.resize((width, height)))
    return Video(frames, indices, fps, total)


@contextmanager
def _opened(ref: Any) -> Iterator[tuple[Any, Any]]:
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError('av', 'a video') from error
    found = source(ref)
    try:
        container = av.open(io.BytesIO(found) if isinstance(found, bytes) else found)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise RowError(f'{name_of(ref)} is not a readable video ({_line(error)})') from error
    with container:
        if not container.streams.video:
            raise RowError(f'{name_of(ref)} has no video stream')
        yield container, container.streams.video[0]


def _line(error: BaseException) -> str:
    return getattr(error, 'strerror', None) or str(error).split('\n', 1)[0] or type(error).__name__


def _facts(ref: Any) -> tuple[int, float, int, int, int]:
    """(frames, frames a second, height, width, quarter turns to the left) of a file, upright.

    From the header and the first frame, which alone knows how the camera was held.
    """
    with _opened(ref) as (container, stream):
        rate = stream.average_rate or stream.guessed_rate or stream.base_rate
        fps = float(rate) if rate else _UNKNOWN_FPS
        total = stream.frames
        if not total and stream.duration:
            total = round(float(stream.duration * stream.time_base) * fps)
        if not total and container.duration:
            total = round(container.duration / 1e6 * fps)
        stream.codec_context.thread_count = 1  # the first frame comes soonest without threads
        frame = _Walk(container, stream, fps).to(0)
        if frame is None:
            raise RowError(f'{name_of(ref)} has no frame that can be decoded')
        quarters = round(getattr(frame, 'rotation', 0) / 90) % 4
        height, width = (frame.width, frame.height) if quarters % 2 else (frame.height, frame.width)
    return int(total) or _counted(ref), fps, height, width, quarters


def _counted(ref: Any) -> int:
    """The number of frames of a file whose header does not say it: its packets are counted, not decoded."""
    with _opened(ref) as (container, stream):
        return max(1, sum(1 for packet in container.demux(stream) if packet.size))


def _decoded(ref: Any, indices: tuple[int, ...], fps: float, size: tuple[int, int], quarters: int) -> np.ndarray:
    """[T, H, W, 3] of the chosen frames, upright, of size (height, width)."""
    from av.video.reformatter import VideoReformatter

    height, width = size
    stored = {'height': width, 'width': height} if quarters % 2 else {'height': height, 'width': width}
    out = np.empty((len(indices), height, width, 3), np.uint8)
    scaler = VideoReformatter()
    with _opened(ref) as (container, stream):
        stream.thread_type = 'AUTO'
        stream.codec_context.thread_count = 2
        walk = _Walk(container, stream, fps)
        for place, index in enumerate(indices):
            frame = walk.to(index)
            if frame is None or walk.number < index / 2:
                raise RowError(f'{name_of(ref)} is cut short: {walk.number + 1} of {indices[-1] + 1} frames can be decoded')
            made = scaler.reformat(frame, **stored, format='rgb24', interpolation='BICUBIC')
            out[place] = np.rot90(made.to_ndarray(), quarters)
    return out


class _Walk:
    """Goes forward through a stream to frames by number, jumping where a key frame lies on the way.

    A frame's number is its time x fps, so that times are right where frames come at uneven intervals.
    """

    def __init__(self, container: Any, stream: Any, fps: float):
        self.number = -1  # of the frame where it stands
        self._container, self._stream, self._fps = container, stream, fps
        self._frames = container.decode(stream)
        self._frame, self._start, self._broken = None, None, 0
        self._keys: list[int] | None = None

    def to(self, index: int) -> Any:
        """The first frame that is not before number `index`, else the last one; None where there is no frame at all."""
        if self.number >= 0 and index - self.number > _NEAR:
            self._jump(index)
        while self.number < index:
            frame = self._next()
            if frame is None:
                break
            self._frame, self.number = frame, self._number_of(frame)
        return self._frame

    def _next(self) -> Any:
        """The next frame; parts that can't be decoded are passed over."""
        import av

        while True:
            try:
                return next(self._frames, None)
            except (av.FFmpegError, ValueError):
                self._broken += 1
                if self._broken > _MOST_BROKEN:
                    return None
                self._frames = self._container.decode(self._stream)

    def _number_of(self, frame: Any) -> int:
        if self._start is None and frame.pts is not None:
            self._start = frame.pts
        if frame.pts is None:  # a bare stream, without times
            self._keys = []
            return self.number + 1
        return max(self.number, round(float((frame.pts - self._start) * self._stream.time_base) * self._fps))

    def _jump(self, index: int) -> None:
        import av

        if self._keys is None:
            self._keys = self._key_frames()
        before = bisect_right(self._keys, index)
        if not before or self._keys[before - 1] <= self.number + _NEAR:
            return
        try:
            self._container.seek(self._start + int(index / self._fps / self._stream.time_base), stream=self._stream)
            self._frames = self._container.decode(self._stream)
            self.number, frame = 0, self._next()
            if frame is not None and self._number_of(frame) <= index:
                self._frame, self.number = frame, self._number_of(frame)
                return
        except av.FFmpegError:
            pass
        self._keys = []  # a file whose index is wrong: from the beginning, and no more jumps
        self._container.seek(0)
        self._frames, self.number = self._container.decode(self._stream), -1

    def _key_frames(self) -> list[int]:
        """Numbers of the key frames, by the index of the file; [] where it has none."""
        entries = list(getattr(self._stream, 'index_entries', ()))
        if len(entries) < 2:  # some formats read their index at the first jump
            self._container.seek(0)
            self._frames, self.number = self._container.decode(self._stream), -1
            entries = list(getattr(self._stream, 'index_entries', ()))
        first = min((entry.timestamp for entry in entries), default=0)
        times = [entry.timestamp - first for entry in entries if entry.is_keyframe]
        return sorted(round(float(time * self._stream.time_base) * self._fps) for time in times)
