"""A byte-level encoder and collate that need no torch, and rows to feed them."""

import json
from pathlib import Path

import numpy as np

from swift.core.errors import RowError
from swift.core.types import IGNORE_INDEX, Batch, Sample


def encode(talks):
    """Bytes are tokens; the last message is trained; `boom` in it is a bad row."""
    made = []
    for talk in talks:
        prompt = b''.join(message['content'].encode() for message in talk.messages[:-1])
        answer = talk.messages[-1]['content'].encode()
        if b'boom' in answer:
            made.append(RowError('boom'))
            continue
        made.append([Sample([*prompt, *answer], [IGNORE_INDEX] * len(prompt) + list(answer), channel=talk.channel)])
    return made


def collate(samples):
    """A flat Batch of numpy arrays."""
    ids = np.concatenate([np.asarray(sample.input_ids) for sample in samples])
    labels = np.concatenate([np.asarray(sample.labels) for sample in samples])
    lengths = [len(sample.input_ids) for sample in samples]
    return Batch(ids, labels, None, lengths, sources=[sample.source for sample in samples])


def write_jsonl(path, rows):
    Path(path).write_text(''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows), encoding='utf-8')
    return str(path)


def rows(count, longest=60, start=0):
    """Rows of different lengths; the query tells the number."""
    return [{'query': f'q{i:05d}' + 'x' * (i * 7 % longest), 'response': 'r' * (i * 13 % longest + 1)} for i in range(start, start + count)]


def seen(batch):
    """The numbers of the rows in a batch that have labels."""
    found, offset = [], 0
    for length in batch.lengths:
        ids, labels = batch.input_ids[offset : offset + length], batch.labels[offset : offset + length]
        if (np.asarray(labels) != IGNORE_INDEX).any():
            found.append(int(bytes(int(i) for i in ids[1:6])))
        offset += length
    return found


class ListSamples:
    """Samples held in a list."""

    def __init__(self, lengths):
        self.lengths = list(lengths)

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, index):
        ids = [113, *f'{index:05d}'.encode(), *[120] * (self.lengths[index] - 6)]
        return Sample(ids, [IGNORE_INDEX, *ids[1:]], source=str(index))
