"""Which whole runs are made of every training method, and the table that says so in the support matrix."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from tests.helpers.methods import CASES

PAGE = Path(__file__).resolve().parents[2] / 'docs' / 'en' / 'support-matrix.md'
START, END = '<!-- methods: start (tests/helpers/matrix.py) -->', '<!-- methods: end -->'


@dataclass(frozen=True)
class Shape:
    """How the weights are trained and how the rows come."""

    tuner: str
    packing: bool
    streaming: bool

    def __str__(self) -> str:
        words = [self.tuner, 'packed' if self.packing else '', 'streamed' if self.streaming else '']
        return '-'.join(word for word in words if word)

    @property
    def settings(self) -> dict[str, Any]:
        """Flags of a run."""
        tuner = {'tuner_type': self.tuner} | ({'lora_rank': 4} if self.tuner == 'lora' else {})
        rows = {'packing': True, 'packing_length': 160, 'per_device_train_batch_size': 1, 'gradient_accumulation_steps': 2}
        return {
            **tuner,
            **(rows if self.packing else {'per_device_train_batch_size': 2, 'gradient_accumulation_steps': 2}),
            **({'streaming': True, 'shuffle_buffer_size': 4} if self.streaming else {}),
        }


SHAPES = [Shape(tuner, packing, streaming) for tuner in ('lora', 'full') for packing in (False, True) for streaming in (False, True)]


@dataclass(frozen=True)
class Subject:
    """A method on a kind of model."""

    method: str
    encoder: bool

    def __str__(self) -> str:
        return self.method + ('-encoder' if self.encoder else '')


SUBJECTS = [Subject(name, encoder) for name, case in CASES.items() for encoder in (False, True) if case.encoders or not encoder]


def in_default_run(subject: Subject, shape: Shape) -> bool:
    """The plainest run of every method, and one more of every second subject in turn; all others are run with `-m slow`."""
    if not subject.encoder and str(shape) == 'lora':
        return True
    turn, second = divmod(SUBJECTS.index(subject), 2)
    return bool(second) and SHAPES.index(shape) == 1 + turn % (len(SHAPES) - 1)


def stored(checkpoint: str) -> dict[str, Any]:
    """Every tensor of the weight files of a checkpoint, by file and name."""
    found = {}
    for path in sorted(Path(checkpoint).glob('*.safetensors')):
        found.update({f'{path.name}:{name}': value for name, value in load_file(path).items()})
    assert found, checkpoint
    return found


def table() -> str:
    """The table of the support matrix: every run of it is made by a test."""
    heads = [str(shape).replace('-', ' ') for shape in SHAPES] + ['padded = packed = alone', '2 processes']
    lines = ['| method | ' + ' | '.join(heads) + ' |', '|---' * (len(heads) + 1) + '|']
    for subject in SUBJECTS:
        name = subject.method + (' (BERT)' if subject.encoder else '')
        lines.append('| ' + ' | '.join([name] + ['yes'] * len(heads)) + ' |')
    return '\n'.join(lines)


def documented() -> str:
    """What stands in the support matrix between the marks."""
    return PAGE.read_text(encoding='utf-8').split(START)[1].split(END)[0].strip()
