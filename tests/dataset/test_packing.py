import time

import numpy as np
import pytest

from swift.core.errors import DatasetError
from swift.dataset.packing import fill, pack, pack_in_order


def lengths_like_chat(count, capacity, seed=0):
    rng = np.random.default_rng(seed)
    return np.clip(rng.lognormal(5.0, 0.9, count), 8, capacity).astype(int)


def test_worked_by_hand():
    # 6 opens a bin of 10 (4 left), 5 opens another (5 left), the first 4 goes to the tighter bin, 3 to the bin of 5, 2 fills it
    assert pack([4, 6, 5, 2, 3], 10) == [[1, 0], [2, 4, 3]]


@pytest.mark.parametrize('capacity', [512, 4096])
def test_every_sample_once_none_over_capacity_and_full(capacity):
    lengths = lengths_like_chat(20000, capacity)
    bins = pack(lengths, capacity)
    assert sorted(index for indices in bins for index in indices) == list(range(20000))
    assert max(lengths[indices].sum() for indices in bins) <= capacity
    assert fill(bins, lengths, capacity) >= 0.995


def test_200k_samples_take_less_than_a_second_of_processor():
    lengths = lengths_like_chat(200_000, 4096)
    begun = time.process_time()
    bins = pack(lengths, 4096)
    assert time.process_time() - begun < 1.0
    assert fill(bins, lengths, 4096) >= 0.995


def test_the_order_breaks_ties_only_so_the_number_of_bins_stays():
    lengths = lengths_like_chat(3000, 1024)
    plain = pack(lengths, 1024)
    mixed = pack(lengths, 1024, np.random.default_rng(1).permutation(3000))
    assert len(plain) == len(mixed) and sorted(map(sorted, plain)) != sorted(map(sorted, mixed))


def test_sequential_keeps_the_order():
    assert pack_in_order([4, 6, 5, 2, 3], 10) == [[0, 1], [2, 3, 4]]
    assert pack_in_order([4, 6, 5, 2, 3], 10, [4, 3, 2, 1, 0]) == [[4, 3, 2], [1, 0]]


@pytest.mark.parametrize('function', [pack, pack_in_order])
def test_a_sample_that_never_fits_is_an_error_not_cut(function):
    with pytest.raises(DatasetError, match='11 tokens does not fit a packed row of 10'):
        function([3, 11], 10)


def test_nothing_to_pack():
    assert pack([], 10) == []
