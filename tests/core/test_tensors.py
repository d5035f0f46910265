"""Rows of different shapes put together."""

import torch

from swift.core.tensors import concatenated, stacked


def test_concatenated_fills_further_dimensions():
    one = torch.ones(1, 2)
    assert concatenated([one]) is one
    made = concatenated([torch.ones(2, 3), torch.full((1, 5), 2.0)])
    assert made.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [2, 2, 2, 2, 2]]


def test_stacked_fills_behind_or_in_front():
    rows = [torch.tensor([[1], [2]]), torch.tensor([[3, 4]])]
    assert stacked(rows, 3).tolist() == [[[1, 0], [2, 0], [0, 0]], [[3, 4], [0, 0], [0, 0]]]
    left = stacked(rows, 2, left=True)
    assert left.tolist() == [[[1, 0], [2, 0]], [[0, 0], [3, 4]]] and left.dtype == torch.int64
    assert stacked([torch.ones(0, 2), torch.ones(1, 2)], 1).tolist() == [[[0, 0]], [[1, 1]]]
