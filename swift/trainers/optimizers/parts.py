"""Learning rates of the parts of a multimodal model: `--vit_lr`, `--aligner_lr`."""

from __future__ import annotations

from typing import Any

from swift.core.errors import SwiftError

LABELS = ('', 'vit', 'aligner')
"""Groups in order; the first is everything that learns at `--learning_rate`, so that the logged rate is that one."""


class PartRates:
    """Which learning rate a parameter has. `args` are the training arguments, which may lack `vit_lr` and `aligner_lr`."""

    def __init__(self, args: Any, model: Any):
        own = {'vit': getattr(args, 'vit_lr', None), 'aligner': getattr(args, 'aligner_lr', None)}
        self._rates = {'': args.learning_rate, **{label: rate for label, rate in own.items() if rate is not None}}
        self.separate = len(self._rates) > 1
        """Whether some part has a rate of its own."""
        if self.separate:
            from swift.tuners.parts import parts_of

            self._parts = parts_of(model)
            learning = {self._parts.of(name) for name, value in model.named_parameters() if value.requires_grad}
            for label in self._rates:
                if label and label not in learning:
                    raise SwiftError(f'--{label}_lr has no effect: nothing of that part learns;', f'give --freeze_{label} false, or drop it')

    def label(self, name: str) -> str:
        """The group of a parameter, by its name in the model."""
        part = self._parts.of(name) if self.separate else ''
        return part if part in self._rates else ''

    def rate(self, label: str) -> float:
        """The learning rate of a group."""
        return self._rates[label]

    def group(self, label: str) -> dict[str, Any]:
        """What a parameter group of this label carries: its rate, and its label as `part`. Nothing where all learn alike."""
        return {'lr': self._rates[label], 'part': label} if self.separate else {}

    @staticmethod
    def order(label: str) -> int:
        """Place of a group among the others."""
        return LABELS.index(label)
