"""Sounds: their length from the header, one channel of float32 samples at the rate that the model hears."""

from __future__ import annotations

import io
from functools import lru_cache
from math import ceil, gcd
from typing import Any

import numpy as np

from swift.core.errors import MissingDependencyError, RowError
from swift.media.budget import Budget
from swift.media.refs import name_of, source

_ZEROS = 48
"""Zero crossings of the resampling filter on each side."""
_CHUNK = 8192
"""Samples that are resampled at a time."""


def audio_size(ref: Any, budget: Budget, rate: int) -> tuple[int]:
    """(samples,) at `rate`, from the header. Raises RowError naming the file."""
    given = _given(ref, rate)
    count, own = (len(given[0]), given[1]) if given is not None else _header(ref)
    return (_limited(count, own, budget, rate),)


def _limited(count: int, own: int, budget: Budget, rate: int) -> int:
    length = -(-count * rate // own)
    if budget.audio_max_seconds:
        length = min(length, int(budget.audio_max_seconds * rate))
    return max(1, length)


def load_audio(ref: Any, budget: Budget, rate: int) -> np.ndarray:
    """[samples] float32, channels averaged. A file that ends before its header says so goes on in silence."""
    given = _given(ref, rate)
    if given is not None:
        values, own, count = given[0], given[1], len(given[0])
    else:
        count, own = _header(ref)
        most = ceil(budget.audio_max_seconds * own) + own if budget.audio_max_seconds else count  # a second more, for the filter
        values, own = _read(ref, min(count, most))
    made = resampled(values, own, rate)
    length = _limited(count, own, budget, rate)
    return made[:length] if len(made) >= length else np.pad(made, (0, length - len(made)))


def _given(ref: Any, rate: int) -> tuple[np.ndarray, int] | None:
    """Samples that are in the row itself: ([samples], samples a second); None: there is a file."""
    if isinstance(ref, dict) and ref.get('array') is not None:
        return mono(ref['array']), int(ref.get('sampling_rate') or rate)
    if hasattr(ref, 'shape'):
        return mono(ref), rate
    if isinstance(ref, str) and ref.endswith('.npy'):
        return mono(np.load(source(ref), allow_pickle=False)), rate
    return None


def mono(array: Any) -> np.ndarray:
    """[samples] float32 from [samples], [samples, channels] or [channels, samples]; whole numbers are shares of their range."""
    values = np.asarray(array)
    values = values.astype(np.float32) / (np.iinfo(values.dtype).max + 1 if values.dtype.kind == 'i' else 1)
    if values.ndim == 2:
        values = values.mean(1 if values.shape[0] > values.shape[1] else 0)
    if values.ndim != 1 or not values.size:
        raise RowError(f'an array of shape {list(values.shape)} is no sound')
    return values.astype(np.float32)


def _header(ref: Any) -> tuple[int, int]:
    """(samples, samples a second)."""
    found = source(ref)
    info = _by_soundfile(lambda library: library.info(_stream(found)))
    if info is not None and info.frames > 0:
        return info.frames, info.samplerate
    with _container(found, ref) as container:
        stream = container.streams.audio[0]
        seconds = float(stream.duration * stream.time_base) if stream.duration else (container.duration or 0) / 1e6
        count = round(seconds * stream.rate) or _counted(container, stream, ref)
        if not count:
            raise RowError(f'{name_of(ref)} holds no sound')
        return count, stream.rate


def _counted(container: Any, stream: Any, ref: Any) -> int:
    """The number of samples of a stream whose header does not say it."""
    import av

    try:
        return sum(frame.samples for frame in container.decode(stream))
    except (av.FFmpegError, OSError, ValueError) as error:
        raise RowError(f'{name_of(ref)} can not be decoded ({_line(error)})') from error


def _read(ref: Any, most: int) -> tuple[np.ndarray, int]:
    """([samples] mono, samples a second) of the first `most` samples of a file."""
    found = source(ref)
    read = _by_soundfile(lambda library: library.read(_stream(found), frames=most, dtype='float32', always_2d=True))
    if read is not None:
        values, own = read
        if len(values) < most / 2 or not len(values):
            raise RowError(f'{name_of(ref)} is cut short: {len(values)} of {most} samples can be decoded')
        return values.mean(1), own
    with _container(found, ref) as container:
        stream = container.streams.audio[0]
        return _decoded(container, stream, ref, most), stream.rate


def _decoded(container: Any, stream: Any, ref: Any, most: int) -> np.ndarray:
    """[samples], the mean of the channels, of about the first `most` samples of a stream."""
    import av

    parts: list[np.ndarray] = []
    length = 0
    to_floats = av.AudioResampler(format='fltp', rate=stream.rate)
    try:
        for frame in container.decode(stream):
            for part in to_floats.resample(frame):
                parts.append(part.to_ndarray().mean(0))
                length += len(parts[-1])
            if length >= most:
                break
    except (av.FFmpegError, OSError, ValueError) as error:
        if not length:
            raise RowError(f'{name_of(ref)} can not be decoded ({_line(error)})') from error
    if length < most / 2 or not length:
        raise RowError(f'{name_of(ref)} is cut short: {length} of {most} samples can be decoded')
    return np.concatenate(parts)


def _line(error: BaseException) -> str:
    return getattr(error, 'strerror', None) or str(error).split('\n', 1)[0] or type(error).__name__


def _stream(found: str | bytes) -> Any:
    return io.BytesIO(found) if isinstance(found, bytes) else found


def _by_soundfile(do: Any) -> Any:
    """`do(soundfile)`; None where it does not know the format (or is not there)."""
    try:
        import soundfile
    except (ImportError, OSError):  # OSError: without its C library
        return None
    try:
        return do(soundfile)
    except (soundfile.LibsndfileError, RuntimeError, TypeError):
        return None


def _container(found: str | bytes, ref: Any) -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError('av', 'a sound of this format') from error
    try:
        container = av.open(_stream(found))
    except (av.FFmpegError, OSError, ValueError) as error:
        raise RowError(f'{name_of(ref)} is not a readable sound ({_line(error)})') from error
    if not container.streams.audio:
        container.close()
        raise RowError(f'{name_of(ref)} has no sound stream')
    return container


# ---- resampling


def resampled(values: np.ndarray, own: int, rate: int) -> np.ndarray:
    """Samples at another rate: a windowed-sinc low-pass (Kaiser), each output sample by its own phase of the filter."""
    if own == rate:
        return np.ascontiguousarray(values, np.float32)
    divisor = gcd(own, rate)
    up, down = rate // divisor, own // divisor
    filters, half = _filters(up, down)
    length = ceil(len(values) * up / down)
    padded = np.pad(values.astype(np.float32), (half, half + down))
    out = np.empty(length, np.float32)
    for start in range(0, length, _CHUNK):
        places = np.arange(start, min(start + _CHUNK, length)) * down
        base, phase = places // up, places % up
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)[base]
        out[start : start + len(places)] = np.einsum('nk,nk->n', windows, filters[phase])
    return out


@lru_cache(maxsize=8)
def _filters(up: int, down: int) -> tuple[np.ndarray, int]:
    """([up, 2·half + 1] taps of every phase, half)."""
    cut = min(1.0, up / down)
    half = ceil(_ZEROS / cut)
    taps = np.arange(-half, half + 1)[None] - (np.arange(up) / up)[:, None]
    window = np.kaiser(2 * half * 64 + 1, 12.0)
    place = np.clip((taps + half) / (2 * half), 0, 1) * (len(window) - 1)
    shape = np.interp(place, np.arange(len(window)), window)
    filters = cut * np.sinc(cut * taps) * shape
    return (filters / filters.sum(1, keepdims=True)).astype(np.float32), half
