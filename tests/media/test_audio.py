"""Sounds: lengths that are foretold, one channel, and tones that stay tones at another rate."""

import numpy as np
import pytest
import soundfile

from swift.core.errors import RowError
from swift.media import Budget, blank, load, size_of
from swift.media.audio import resampled
from tests.media.clips import clip, sine


def same_size(ref, budget=Budget(), rate=16_000):
    size, sound = size_of('audio', ref, budget, rate), load('audio', ref, budget, rate)
    empty = blank('audio', size, rate)
    assert size == sound.shape == empty.shape and sound.dtype == empty.dtype == np.float32
    return sound


@pytest.mark.parametrize('own', [8000, 11025, 22050, 24000, 44100, 48000, 44101])
def test_a_tone_at_another_rate_is_the_same_tone(own):
    for pitch in (100, 1000, 3300):
        made, expected = resampled(sine(pitch, own, 1), own, 16_000), sine(pitch, 16_000, 1)
        assert len(made) == 16_000
        assert np.abs(made - expected)[400:-400].max() < 1e-5


def test_what_the_lower_rate_can_not_hold_is_gone():
    assert np.abs(resampled(sine(9000, 48_000, 1), 48_000, 16_000)[400:-400]).max() < 1e-5


@pytest.mark.parametrize('suffix', ['wav', 'flac', 'ogg', 'mp3'])
@pytest.mark.parametrize('own', [16_000, 44_100])
def test_files_of_all_kinds_have_the_length_of_their_header(tmp_path, suffix, own):
    path = str(tmp_path / f'a.{suffix}')
    left = sine(440, own, 1.5)
    soundfile.write(path, np.stack([left, 0 * left], 1), own)
    sound = same_size(path)
    assert abs(len(sound) - 24_000) < 1600
    assert np.abs(sound[4000:12_000]).max() == pytest.approx(0.25, abs=0.02)  # the mean of a tone and silence


def test_the_sound_track_of_a_video(tmp_path):
    sound = same_size(clip(tmp_path / 'a.mp4', tone=1000))
    assert len(sound) == pytest.approx(32_000, abs=1100)
    power = np.abs(np.fft.rfft(sound[4000:20_000]))
    assert power.argmax() == 1000
    assert np.abs(sound[4000:20_000]).max() == pytest.approx(0.5, abs=0.03)


def test_channels_are_averaged_where_soundfile_does_not_read(tmp_path):
    import av

    path = str(tmp_path / 'a.m4a')
    with av.open(path, 'w') as container:
        stream = container.add_stream('aac', rate=44_100, layout='stereo')
        values = np.stack([sine(500, 44_100, 1)] * 2)
        for start in range(0, 44_100, 1024):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(values[:, start : start + 1024]), format='fltp', layout='stereo')
            frame.sample_rate, frame.pts = 44_100, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert np.abs(same_size(path)[4000:12_000]).max() == pytest.approx(0.5, abs=0.03)


def test_a_sound_is_cut_at_the_budget_without_reading_the_rest(tmp_path, monkeypatch):
    soundfile.write(tmp_path / 'a.wav', sine(440, 48_000, 20), 48_000)
    asked = []
    read = soundfile.read
    monkeypatch.setattr(soundfile, 'read', lambda *args, **kwargs: asked.append(kwargs['frames']) or read(*args, **kwargs))
    sound = same_size(str(tmp_path / 'a.wav'), Budget(audio_max_seconds=2))
    assert len(sound) == 32_000 and asked == [3 * 48_000]
    assert np.abs(sound - sine(440, 16_000, 2))[400:].max() < 1e-4


def test_arrays_and_dicts_and_bytes(tmp_path):
    tone = sine(440, 8000, 1)
    assert len(same_size({'array': tone, 'sampling_rate': 8000})) == 16_000
    assert (same_size(tone, rate=8000) == tone).all()
    whole = (tone * 32_768).round().astype(np.int16)
    assert np.abs(same_size({'array': whole, 'sampling_rate': 16_000}) - tone).max() < 1e-4
    soundfile.write(tmp_path / 'a.flac', tone, 8000)
    data = (tmp_path / 'a.flac').read_bytes()
    assert (same_size(data) == same_size(str(tmp_path / 'a.flac'))).all()


def test_what_is_wrong_with_a_file_is_said(tmp_path):
    (tmp_path / 'words.wav').write_text('words')
    path = clip(tmp_path / 'silent.mp4')
    for name, words in {'absent.wav': 'does not exist', 'words.wav': 'words.wav is not a readable sound', path: 'has no sound stream'}.items():
        with pytest.raises(RowError, match=words):
            size_of('audio', str(tmp_path / name), Budget())
    with pytest.raises(RowError, match='is no sound'):
        load('audio', np.zeros((2, 3, 4)), Budget())
