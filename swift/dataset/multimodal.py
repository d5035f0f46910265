"""`MultiModalDataset`: rows of a file for a program with a processor and a training loop of its own.

A subclass reads its rows with `load_data`, makes what the model takes of one row in `__getitem__`, and joins several in
`collate_fn`, which a trainer takes as its `data_collator`. The commands need none of it: they read rows by themselves.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from swift.core.errors import DatasetError
from swift.core.types import IGNORE_INDEX, Row
from swift.dataset.encode import cache_root
from swift.dataset.files import open_rows

_PADS = {'labels': IGNORE_INDEX, 'input_ids': None}
"""Name → what fills up a shorter text (None: the pad token). Anything else of a text's length: 0."""
_RANKS = {
    'image_grid_thw': 1, 'video_grid_thw': 1, 'image_sizes': 1, 'feature_attention_mask': 1, 'input_values': 1,
    'input_features': 2, 'pixel_values_videos': 4,
}  # fmt: skip
"""Name → dimensions of one medium of its kind. Anything else (pixels [channels, height, width]): 3."""


class MultiModalDataset:
    """Rows in memory, as dicts. `data` are the rows (or a path to read them from); a subclass may set it later."""

    def __init__(self, data: Sequence[Row] | str | None = None, processor: Any = None):
        self.data: Sequence[Any] = self.load_data(data) if isinstance(data, str | os.PathLike) else data or []
        self.processor = processor

    def load_data(self, path: str | os.PathLike) -> list[Row]:
        """The rows of a json, jsonl, csv, tsv, parquet or arrow file. Raises DatasetError, RowError for a row that is broken."""
        path = os.path.expanduser(path)
        if not os.path.isfile(path):
            raise DatasetError(f'{path}: no such file;', f'relative paths start at {os.getcwd()}')
        rows = open_rows(path, cache_root())
        return [rows[index] for index in range(len(rows))]

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        """Row `index`; a subclass gives what the model takes of it."""
        return self.data[index]

    def collate_fn(self, batch: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Items as one batch: texts padded on the right, media one after the other, numbers as a tensor, anything else as a list.

        Without `labels` every token of a text is trained. Raises DatasetError for media of different shapes.
        """
        names = [name for name in batch[0] if all(name in item for item in batch)]
        made = {name: self._joined(name, batch) for name in names}
        if 'input_ids' in made and 'labels' not in made:
            made['labels'] = _padded([_tensor(item['input_ids']) for item in batch], IGNORE_INDEX)
        if 'input_ids' in made and 'attention_mask' not in made:
            made['attention_mask'] = _padded([_tensor(item['input_ids']).new_ones(len(item['input_ids'])) for item in batch], 0)
        return made

    def _joined(self, name: str, batch: Sequence[Mapping[str, Any]]) -> Any:
        values = [item[name] for item in batch]
        if not all(_is_numeric(value) for value in values):
            return values
        tensors = [_tensor(value) for value in values]
        if 'input_ids' in batch[0] and all(_belongs_to_text(t, item) for t, item in zip(tensors, batch, strict=True)):
            pad = _PADS.get(name, 0)
            return _padded(tensors, self._pad_token() if pad is None else pad)
        return _concatenated(name, tensors)

    def _pad_token(self) -> int:
        tokenizer = getattr(self.processor, 'tokenizer', self.processor)
        return getattr(tokenizer, 'pad_token_id', None) or 0


def _is_numeric(value: Any) -> bool:
    if isinstance(value, bool | int | float) or hasattr(value, 'dtype'):
        return True
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(item, int | float) for item in value)


def _tensor(value: Any) -> Any:
    import torch

    return torch.as_tensor(value)


def _belongs_to_text(tensor: Any, item: Mapping[str, Any]) -> bool:
    return tensor.ndim == 1 and len(tensor) == len(item['input_ids'])


def _padded(tensors: Sequence[Any], value: int) -> Any:
    import torch

    return torch.nn.utils.rnn.pad_sequence(list(tensors), batch_first=True, padding_value=value)


def _concatenated(name: str, tensors: Sequence[Any]) -> Any:
    """Media of all items, one after the other along the first dimension; single ones get that dimension first."""
    import torch

    rank = _RANKS.get(name, 3)
    tensors = [t[None] if t.ndim in (0, rank) else t for t in tensors]
    shapes = [tuple(t.shape[1:]) for t in tensors]
    if len(set(shapes)) > 1:
        raise DatasetError(f'{name} of one batch has the shapes {", ".join(map(str, dict.fromkeys(shapes)))};',
                           'bring them to one size, or write a collate_fn of your own')  # fmt: skip
    return torch.cat(tensors)
