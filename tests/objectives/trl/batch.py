"""The fixed batch and the tiny model of all golden numbers. The same on every machine: nothing is drawn by torch.

`batch.json`: eight pairs of token ids, `{"prompt", "chosen", "rejected", "margin", "label"}`; an answer follows its prompt and all its
tokens are trained. `label` is for methods that learn from single answers: true → the chosen, false → the rejected one.
"""

from __future__ import annotations

import json
import os
import zlib

import numpy as np
import torch

from swift.core.types import IGNORE_INDEX, Sample
from tests.helpers.tiny import build_model

FOLDER = os.path.dirname(os.path.abspath(__file__))


def pairs() -> list[dict]:
    """The eight pairs."""
    with open(os.path.join(FOLDER, 'batch.json'), encoding='utf-8') as file:
        return json.load(file)


def golden(name: str) -> dict:
    """The golden numbers in `name`.json: label → {settings, loss, grad_norm, metrics}."""
    with open(os.path.join(FOLDER, f'{name}.json'), encoding='utf-8') as file:
        return json.load(file)


def answered(prompt: list[int], answer: list[int]) -> Sample:
    """One conversation, the answer trained."""
    return Sample(prompt + answer, [IGNORE_INDEX] * len(prompt) + answer)


def pair_samples(rows: list[dict] | None = None) -> list[Sample]:
    """Samples of two segments: chosen, rejected."""
    samples = []
    for number, row in enumerate(pairs() if rows is None else rows):
        chosen, rejected = answered(row['prompt'], row['chosen']), answered(row['prompt'], row['rejected'])
        samples.append(
            Sample(
                chosen.input_ids + rejected.input_ids, chosen.labels + rejected.labels,
                lengths=[len(chosen), len(rejected)], source=f'batch.json:{number}', extra={'margin': row['margin']},
            )  # fmt: skip
        )
    return samples


def tiny_model(reference: bool = False, **config):
    """A Qwen3 in float32 whose weights depend on their names only; `reference`: a little beside the policy. No dropout."""
    return fill(build_model(**config), reference).eval()


def fill(model: torch.nn.Module, reference: bool = False) -> torch.nn.Module:
    """Overwrite all parameters of `model` by what their names and shapes say."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = _draw(name, parameter.shape)
            if reference:
                values = values + 0.2 * _draw(f'reference {name}', parameter.shape)
            if parameter.dim() == 1:
                values = 1 + 0.1 * values
            else:
                values = values * (0.3 if 'embed' in name else parameter.shape[-1] ** -0.5)
            parameter.copy_(torch.from_numpy(values.astype(np.float32)))
    return model


def _draw(name: str, shape: torch.Size) -> np.ndarray:
    """Standard normal numbers; RandomState's streams never change between versions of numpy."""
    return np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(shape))
