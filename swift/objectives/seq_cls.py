"""Classification of whole texts: one class, several at once, or values.

    single_label_classification   cross entropy of the class
    multi_label_classification    binary cross entropy of every class, mean over the classes
    regression                    squared error, mean over the values

A row weighs 1 whatever its length. A conversation is read as inference would show it to the model, up to where the answer goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from swift.core.errors import RowError, SwiftError
from swift.core.types import IGNORE_INDEX, Actors, Batch, Conversation, Loss, Sample, Template
from swift.objectives import loss_names
from swift.objectives.base import Objective, units
from swift.objectives.classes import Classes
from swift.objectives.custom import Outputs, build, mean_of
from swift.objectives.preference import missing
from swift.objectives.scores import class_figures, regression_figures, set_figures
from swift.objectives.texts import Specials, Text, cut, fit_shown

SINGLE, MULTI, REGRESSION = 'single_label_classification', 'multi_label_classification', 'regression'


class SequenceClassification(Objective):
    """`args`: num_labels, class_names, problem_type (ModelArgs)."""

    columns = ('label',)

    def __init__(self, args: Any):
        super().__init__(args)
        self.classes = Classes.of(args)
        self.problem = args.problem_type or (REGRESSION if self.classes.count == 1 else SINGLE)
        if self.problem == SINGLE and self.classes.count < 2:
            raise SwiftError('a classification needs at least two classes;', 'for a single value: --problem_type regression')
        if loss_names(args):
            self.own = build(loss_names(args)[0], dict(args.loss_kwargs or {}), args)

    own: Any = None
    """A loss of the user's own, called as `own(outputs, labels)`; None: the one of the problem."""

    # ---- rows

    @property
    def fingerprint(self) -> str:
        """Which number a row's class becomes."""
        return repr((self.classes, self.problem))

    def encode_batch(self, conversations: Sequence[Conversation], template: Template) -> list[list[Sample] | RowError]:
        """One sample a row, with the number of its class, of its classes, or its values."""
        results: list[list[Sample] | RowError] = []
        for talk, sample in zip(conversations, self.read_batch(conversations, template), strict=True):
            try:
                if isinstance(sample, RowError):
                    raise sample
                if talk.label is None:
                    raise missing(talk, 'label', 'label')
                sample.label = self._target(talk.label)
                results.append([sample])
            except RowError as error:
                results.append(error.at(talk.source))
        return results

    def read_batch(self, conversations: Sequence[Conversation], template: Template) -> list[Sample | RowError]:
        """The texts alone, whatever their labels: what is asked at inference."""
        specials = Specials.of(template.tokenizer)
        results: list[Sample | RowError] = []
        for talk in conversations:
            try:
                results.append(_read(talk, template, specials))
            except SwiftError as error:
                results.append(error.at(talk.source) if isinstance(error, RowError) else RowError(error.message, talk.source, error.hint))
        return results

    def _target(self, label: Any) -> int | float | list[int] | list[float]:
        if self.problem == SINGLE:
            return self.classes.number(label)
        values = list(label) if isinstance(label, (list, tuple)) else [label]
        if self.problem == REGRESSION:
            return self._values(values)
        if len(values) == self.classes.count and all(isinstance(value, float) and value in (0.0, 1.0) for value in values):
            return [number for number, value in enumerate(values) if value]
        return sorted({self.classes.number(value) for value in values})

    def _values(self, values: list[Any]) -> list[float]:
        try:
            numbers = [float(value) for value in values]
        except (TypeError, ValueError):
            raise RowError(f'label {values[0]!r} is no number, as regression needs it;', hint='for classes: --problem_type') from None
        if len(numbers) != self.classes.count:
            raise RowError(f'the label has {len(numbers)} values, the model has {self.classes.count};', hint='see --num_labels')
        if not all(number - number == 0 for number in numbers):
            raise RowError(f'label {values} is not finite')
        return numbers

    def collate(self, samples: Sequence[Sample], padded: bool = False) -> Batch:
        """`extra['targets']`: [S] class numbers, or [S, C] floats; not there for samples without labels."""
        batch = super().collate(samples, padded)
        if all(sample.label is not None for sample in samples):
            batch.extra['targets'] = self._targets([sample.label for sample in samples])
        return batch

    def _targets(self, labels: list[Any]) -> Tensor:
        if self.problem == SINGLE:
            return torch.tensor(labels, dtype=torch.int64)
        if self.problem == REGRESSION:
            return torch.tensor(labels, dtype=torch.float32)
        rows = torch.zeros(len(labels), self.classes.count)
        for row, numbers in zip(rows, labels, strict=True):
            row[numbers] = 1.0
        return rows

    def weight(self, batch: Batch) -> float:
        """Rows."""
        return units(batch)

    # ---- the loss

    def loss(self, batch: Batch, actors: Actors) -> Loss:
        scores, targets = actors.policy.scores(batch).float(), batch.extra['targets']
        if self.own is not None:
            total = mean_of(loss_names(self.args)[0], self.own(Outputs(logits=scores), targets)) * len(targets)
        else:
            total = self._each(scores, targets).sum()
        outputs = {} if torch.is_grad_enabled() else {'scores': scores, 'targets': targets}
        return Loss(total, self._metrics(scores.detach(), targets), outputs)

    def _each(self, scores: Tensor, targets: Tensor) -> Tensor:
        """[S] loss of every row."""
        if self.problem == SINGLE:
            return F.cross_entropy(scores, targets, reduction='none')
        function = F.mse_loss if self.problem == REGRESSION else F.binary_cross_entropy_with_logits
        return function(scores, targets, reduction='none').mean(-1)

    def _metrics(self, scores: Tensor, targets: Tensor) -> dict[str, Tensor]:
        if self.problem == SINGLE:
            return {'accuracy': scores.argmax(-1) == targets}
        if self.problem == MULTI:  # every class right
            return {'accuracy': ((scores > 0) == (targets > 0)).all(-1)}
        return {'mse': (scores - targets).square().mean(-1), 'mae': (scores - targets).abs().mean(-1)}

    def measure(self, outputs: dict[str, Tensor]) -> dict[str, float]:
        """F1, precision and recall; root mean squared error and correlations of a regression."""
        scores, targets = outputs['scores'], outputs['targets']
        if self.problem == REGRESSION:
            return regression_figures(scores, targets)
        if self.problem == MULTI:
            return set_figures(scores > 0, targets > 0)
        return class_figures(scores.argmax(-1), targets, self.classes.count)


def _read(talk: Conversation, template: Template, specials: Specials) -> Sample:
    """What the model reads of a row. Text without a chat template stands between the tokenizer's own special tokens."""
    prompt = template.prompt(talk)
    if not talk.text and template.use_chat_template:
        specials = Specials((), ())
    text = _text(prompt.input_ids, specials, template) if prompt.media is None else fit_shown(prompt.text, talk, specials, template)
    media = None if text.shown is None else [text.shown]
    return Sample(text.ids, [IGNORE_INDEX] * len(text.ids), media=media, channel=talk.channel, source=talk.source)


def _text(ids: list[int], specials: Specials, template: Template) -> Text:
    """A text that shows nothing. Raises RowError."""
    ids = ids[len(specials.before) :] if tuple(ids[: len(specials.before)]) == specials.before else ids
    if not ids:
        raise RowError('the text of this row is empty')
    kept = cut(ids, specials.before, specials.after, template)
    if isinstance(kept, RowError):
        raise kept
    return Text(kept)
