"""Videos: the right frames, upright, at the size that was foretold, and no more memory than they need."""

import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from swift.core.errors import RowError
from swift.media import Budget, Video, blank, load, size_of
from swift.media.video import chosen
from tests.media.clips import clip, greys


def same_size(path, budget):
    """The video, after its size was compared with the foretold one and with the blank one."""
    size, video = size_of('video', path, budget), load('video', path, budget)
    empty = blank('video', size)
    assert hash(size) is not None and type(video) is type(empty) is Video
    assert size == (len(video.frames), video.height, video.width, video.fps, video.indices, video.total)
    assert empty.frames.shape == video.frames.shape == (*size[:3], 3) and empty.frames.dtype == video.frames.dtype == np.uint8
    assert (empty.indices, empty.fps, empty.total, empty.duration) == (video.indices, video.fps, video.total, video.duration)
    assert tuple(video.tensor().shape) == (size[0], 3, size[1], size[2])
    return video


@pytest.mark.parametrize(
    ('total', 'fps', 'budget', 'expected'),
    [
        (300, 30.0, Budget(), 20),
        (300, 30.0, Budget(fps=1), 10),
        (300, 30.0, Budget(fps=1, fps_max_frames=6), 6),
        (30, 30.0, Budget(), 4),
        (30, 30.0, Budget(fps_min_frames=12), 12),
        (300, 30.0, Budget(nframes=8, fps=1), 8),
        (5, 30.0, Budget(nframes=8), 4),
        (2, 30.0, Budget(fps=0.01, fps_min_frames=1), 2),
        (3, 30.0, Budget(), 2),
        (1, 30.0, Budget(), 1),
        (60000, 25.0, Budget(), 768),
    ],
)
def test_frames_are_spread_evenly_from_the_first_to_the_last(total, fps, budget, expected):
    indices = chosen(total, fps, budget)
    assert len(indices) == len(set(indices)) == expected
    assert indices[0] == 0 and (indices[-1] == total - 1 or total == 1)
    steps = np.diff(indices)
    assert not len(steps) or steps.max() - steps.min() <= 1


@pytest.mark.parametrize(('name', 'codec'), [('a.mp4', 'libx264'), ('a.mkv', 'libx264'), ('a.avi', 'mpeg4'), ('a.webm', 'libvpx'), ('a.ts', 'libx264'), ('a.h264', 'libx264')])  # fmt: skip
@pytest.mark.parametrize('key', [12, 500])
def test_the_frames_are_those_of_the_indices(tmp_path, name, codec, key):
    path = clip(tmp_path / name, codec=codec, key=key)
    for budget in (Budget(nframes=4), Budget(nframes=60), Budget(fps=9)):
        video = same_size(path, budget)
        assert video.total == 60
        assert np.abs(greys(video.frames) - video.indices).max() < 0.8


def test_frames_at_uneven_times_are_taken_by_their_time(tmp_path):
    """10 frames in the first second, 30 in the next: what stands at a time is what the model is told of that time."""
    import av

    with av.open(str(tmp_path / 'a.mp4'), 'w') as container:
        stream = container.add_stream('libx264', rate=30)
        stream.height, stream.width, stream.pix_fmt, stream.options = 48, 64, 'yuv420p', {'crf': '10'}
        stream.codec_context.time_base = Fraction(1, 600)
        for time in (*range(0, 600, 60), *range(600, 1200, 20)):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), time // 5, np.uint8), format='rgb24')
            frame.pts, frame.time_base = time, Fraction(1, 600)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    video = same_size(str(tmp_path / 'a.mp4'), Budget(nframes=8))
    shown = video.frames[:, 24, 32, 0].astype(float) * 5 / 600
    assert np.abs(shown - np.array(video.indices) / video.fps)[:-1].max() < 0.05  # frames lie 0.1 and 0.033 seconds apart
    assert shown[-1] > 1.95


def test_a_clip_held_upright_is_turned(tmp_path):
    path = clip(tmp_path / 'a.mp4', turned=90, corner=True, size=(48, 64))
    video = same_size(path, Budget(nframes=2))
    assert video.frames.shape == (2, 64, 48, 3)
    red = video.frames[0, :, :, 0].astype(int) - video.frames[0, :, :, 1] > 100
    assert red[56:, :8].all() and not red[:40].any()  # turned to the left, the top left corner is at the bottom left


def test_pixels_of_a_frame_and_of_all_frames_are_bounded(tmp_path):
    path = clip(tmp_path / 'a.mp4', size=(96, 128))
    assert same_size(path, Budget(video_max_pixels=3000, nframes=4)).frames.shape[1:3] == (47, 63)
    assert same_size(path, Budget(video_min_pixels=50_000, nframes=4)).frames.shape[1:3] == (194, 259)
    video = same_size(path, Budget(video_total_pixels=20_000, nframes=8))
    assert video.frames[..., 0].size <= 20_000 and video.frames.shape[1:3] == (43, 57)


def test_frames_may_be_given_one_by_one(tmp_path):
    paths = []
    for i in range(6):
        Image.new('RGB', (30, 20), (i * 40,) * 3).save(tmp_path / f'{i}.png')
        paths.append(str(tmp_path / f'{i}.png'))
    video = same_size(paths, Budget())
    assert video.fps == 2.0 and video.total == 6 and video.indices == (0, 1, 2, 3, 4, 5) and video.duration == 3.0
    assert video.frames[:, 0, 0, 0].tolist() == [0, 40, 80, 120, 160, 200]
    assert same_size(paths, Budget(nframes=2, fps=1.0)).indices == (0, 5)
    array = np.stack([np.asarray(Image.open(path)) for path in paths])
    assert (same_size(array, Budget()).frames == video.frames).all()
    assert (same_size([Image.open(path) for path in paths], Budget(video_max_pixels=200)).frames.shape)[1:3] == (11, 17)


def test_what_is_wrong_with_a_file_is_said(tmp_path):
    (tmp_path / 'words.mp4').write_text('words')
    (tmp_path / 'none.mp4').touch()
    Image.new('RGB', (8, 8)).save(tmp_path / 'still.png')
    whole = clip(tmp_path / 'a.mkv', frames=200, key=5, corner=True)
    data = open(whole, 'rb').read()
    (tmp_path / 'short.mkv').write_bytes(data[: len(data) // 4])
    for name, words in {
        'absent.mp4': 'absent.mp4 does not exist',
        'words.mp4': 'words.mp4 is not a readable video',
        'none.mp4': 'none.mp4 is not a readable video',
        '': 'is a folder',
        'short.mkv': 'short.mkv is cut short',
    }.items():
        with pytest.raises(RowError, match=words):
            load('video', str(tmp_path / name), Budget())
    with pytest.raises(RowError, match='no frames'):
        size_of('video', [], Budget())


def test_a_sound_is_no_video(tmp_path):
    import soundfile

    soundfile.write(tmp_path / 'a.wav', np.zeros(100), 8000)
    with pytest.raises(RowError, match='a.wav has no video stream'):
        size_of('video', str(tmp_path / 'a.wav'), Budget())


def test_a_long_clip_takes_the_memory_of_its_chosen_frames(tmp_path):
    path = clip(tmp_path / 'a.mp4', frames=400, size=(120, 160), key=50)
    tracemalloc.start()
    video = load('video', path, Budget(nframes=8))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert video.frames.nbytes == 8 * 120 * 160 * 3
    assert peak < 2 * video.frames.nbytes + 300_000  # all frames would be 23 MB


def test_bytes_and_files_of_a_video_are_the_same(tmp_path):
    path = clip(tmp_path / 'a.mp4')
    with open(path, 'rb') as file:
        data = file.read()
    assert size_of('video', data, Budget()) == size_of('video', path, Budget())
    assert (load('video', {'bytes': data}, Budget()).frames == load('video', path, Budget()).frames).all()
