"""Write sounds of half a second, with the question which note it is: training rows, held-out rows, controls.

A note is one of the twelve names in one of two octaves, up to a fifth of a semitone out of tune; loudness, overtones, phases and how
fast it dies away are drawn anew for each, and there is some noise.

What heldout.jsonl lets hear is in no row of train.jsonl. The controls tell whether a model listens:
train_control.jsonl has the training rows with their answers dealt out at random: what learns from it ends at chance.
heldout_control.jsonl has the held-out rows with the samples of each sound in random order, which leaves noise.

    python recipes/tiny_audio/data.py --out output/tones
"""

from __future__ import annotations

import argparse
import json
import wave
from pathlib import Path

import numpy as np

RATE = 16000  # samples a second
SECONDS = 0.5
NAMES = ('C', 'C#', 'D', 'D#', 'E', 'F', 'F#', 'G', 'G#', 'A', 'A#', 'B')
LOWEST = 440 * 2 ** (-9 / 12)  # Hz: the C below the A of 440 Hz
OCTAVES = 2
QUESTION = '<audio>Which note is this?'
HELD_OUT, TRAIN = 360, 1440  # rows


def tones(rng: np.random.Generator, count: int = HELD_OUT + TRAIN) -> tuple[list[np.ndarray], list[str]]:
    """(sounds as float64 [samples], their names)."""
    notes = rng.integers(len(NAMES), size=count)
    return [_tone(rng, note) for note in notes], [NAMES[note] for note in notes]


def _tone(rng: np.random.Generator, note: int) -> np.ndarray:
    """float64 [samples] in (-1, 1): a note, counted in semitones from C."""
    semitones = note + 12 * rng.integers(OCTAVES) + rng.uniform(-0.2, 0.2)
    time = np.arange(int(RATE * SECONDS)) / RATE
    sound = np.zeros_like(time)
    for overtone, loudness in enumerate([1, *rng.uniform(0, 0.5, size=3)], start=1):
        frequency = overtone * LOWEST * 2 ** (semitones / 12)
        sound += loudness * np.sin(2 * np.pi * (frequency * time + rng.uniform()))
    sound *= np.exp(-time * rng.uniform(0, 4)) * np.clip(time / 0.02, 0, 1) * np.clip((SECONDS - time) / 0.05, 0, 1)
    sound *= 10 ** rng.uniform(-1, -0.1) / np.abs(sound).max()
    return np.clip(sound + 0.01 * rng.standard_normal(len(time)), -1, 1)


def save(sound: np.ndarray, path: Path) -> str:
    """Write a wav file of 16 bits; returns the path from the folder of the rows."""
    with wave.open(str(path), 'wb') as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((sound * 32767).astype('<i2').tobytes())
    return f'{path.parent.name}/{path.name}'


def write_rows(path: Path, sounds: list[str], answers: list[str]) -> None:
    """One JSON line for each sound."""
    with path.open('w', encoding='utf-8') as file:
        for sound, answer in zip(sounds, answers, strict=True):
            messages = [{'role': 'user', 'content': QUESTION}, {'role': 'assistant', 'content': answer}]
            file.write(json.dumps({'messages': messages, 'audios': [sound]}) + '\n')


def write(out: Path, seed: int = 42) -> None:
    """Write all files into a folder; the same for the same seed."""
    rng = np.random.default_rng(seed)
    sounds, answers = tones(rng)
    folder = out / 'media'
    folder.mkdir(parents=True, exist_ok=True)
    paths = [save(sound, folder / f'{i:04}.wav') for i, sound in enumerate(sounds)]
    spoiled = [
        save(rng.permutation(sound), folder / f'{i:04}_shuffled.wav') for i, sound in enumerate(sounds[:HELD_OUT])
    ]
    write_rows(out / 'heldout.jsonl', paths[:HELD_OUT], answers[:HELD_OUT])
    write_rows(out / 'heldout_control.jsonl', spoiled, answers[:HELD_OUT])
    write_rows(out / 'train.jsonl', paths[HELD_OUT:], answers[HELD_OUT:])
    write_rows(out / 'train_control.jsonl', paths[HELD_OUT:], rng.permutation(answers[HELD_OUT:]).tolist())
    print(f'{out}: {len(paths) - HELD_OUT:,} rows to train on, {HELD_OUT} held out')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--seed', type=int, default=42)
    options = parser.parse_args()
    write(options.out, options.seed)


if __name__ == '__main__':
    main()
