import json

import numpy as np
import pytest

from swift.core.errors import CheckpointError, DatasetError
from swift.dataset.loader import make_loader
from tests.dataset.helpers import ListSamples, collate, seen

LENGTHS = [6 + (i * 37) % 50 for i in range(101)]
MODES = {
    'rows': {'batch_size': 4},
    'packed': {'batch_size': 2, 'packing_length': 128},
    'sequential': {'packing_length': 128, 'packing_strategy': 'sequential'},
    'budget': {'max_batch_tokens': 150},
    'grouped': {'batch_size': 4, 'group_by_length': True},
}


def batches(loader, epochs=1):
    return [tuple(batch.sources) for _ in range(epochs) for batch in loader]


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('workers', [0, 3])
def test_an_epoch_is_every_sample_once_and_len_is_exact(mode, workers):
    loader = make_loader(ListSamples(LENGTHS), collate, seed=1, num_workers=workers, **MODES[mode])
    count = len(loader)
    first, second = batches(loader), batches(loader)
    for epoch in (first, second):
        assert sorted(int(name) for batch in epoch for name in batch) == list(range(101))
        assert len(epoch) == count
    assert first != second and loader.epoch == 2


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('consumed', [1, 5, 'epoch', 'epoch+3'])
@pytest.mark.parametrize('workers', [0, 3])
def test_resume_continues_exactly(mode, consumed, workers):
    def build():
        return make_loader(ListSamples(LENGTHS), collate, seed=3, num_workers=workers, **MODES[mode])

    whole = batches(build(), 3)
    loader = build()
    count = len(loader)
    steps = {'epoch': count, 'epoch+3': count + 3}.get(consumed, consumed)
    done = []
    while len(done) < steps:
        for batch in loader:
            done.append(tuple(batch.sources))
            if len(done) == steps:
                break
    state = json.loads(json.dumps(loader.state_dict()))
    resumed = build()
    resumed.load_state_dict(state)
    assert resumed.epoch == steps // count
    rest = batches(resumed, 3 - resumed.epoch)
    assert done + rest == whole


def test_saving_at_the_very_end_of_an_epoch_is_the_start_of_the_next():
    loader = make_loader(ListSamples(LENGTHS), collate, batch_size=4)
    for number, _ in enumerate(loader, 1):
        if number == len(loader):
            assert (loader.state_dict()['epoch'], loader.state_dict()['cursor']) == (1, 0)


def test_set_epoch_keeps_the_position_of_the_present_epoch():
    loader = make_loader(ListSamples(LENGTHS), collate, batch_size=4)
    iterator = iter(loader)
    first = [tuple(next(iterator).sources) for _ in range(3)]
    loader.set_epoch(0)
    rest = batches(loader)
    loader.set_epoch(0)
    assert first + rest == batches(loader)


@pytest.mark.parametrize('mode', ['rows', 'packed', 'grouped'])
@pytest.mark.parametrize('samples', [101, 97, 96, 5])
def test_two_ranks_see_the_global_batches_of_one(mode, samples):
    source = ListSamples(LENGTHS[:samples])
    settings = dict(MODES[mode])
    size = settings.pop('batch_size')
    alone = list(make_loader(source, collate, batch_size=2 * size, **settings))
    ranks = [list(make_loader(source, collate, batch_size=size, rank=r, world_size=2, **settings)) for r in range(2)]
    assert len(ranks[0]) == len(ranks[1]) == len(alone)
    for whole, *parts in zip(alone, *ranks, strict=True):
        assert seen(whole) == [number for part in parts for number in seen(part)]
        sizes = [len(part.sources) for part in parts]
        assert mode == 'packed' or abs(sizes[0] - sizes[1]) <= 1


def test_a_rank_without_a_share_gets_nothing_labelled():
    loaders = [make_loader(ListSamples([9] * 9), collate, batch_size=1, rank=r, world_size=4, shuffle=False) for r in range(4)]
    last = [list(loader)[-1] for loader in loaders]
    assert [seen(batch) for batch in last] == [[8], [], [], []]
    assert [batch.extra.get('filler', False) for batch in last] == [False, True, True, True]


def test_drop_last_leaves_out_the_incomplete_global_batch():
    loader = make_loader(ListSamples(LENGTHS), collate, batch_size=8, drop_last=True)
    assert [len(batch.sources) for batch in loader] == [8] * 12 and len(loader) == 12
    with pytest.raises(DatasetError, match="don't fill one global batch of 200"):
        len(make_loader(ListSamples(LENGTHS), collate, batch_size=200, drop_last=True))


def test_without_shuffle_the_order_is_that_of_the_data():
    loader = make_loader(ListSamples(LENGTHS), collate, batch_size=10, shuffle=False)
    assert [int(name) for batch in loader for name in batch.sources] == list(range(101))


def test_packs_stay_under_their_length_and_budget_batches_under_their_budget():
    source = ListSamples(LENGTHS)
    assert max(sum(b.lengths) for b in make_loader(source, collate, packing_length=128)) <= 128
    budget = [sum(b.lengths) for b in make_loader(source, collate, max_batch_tokens=150)]
    assert max(budget) <= 150 and np.mean(budget) > 110
    assert [len(b.lengths) for b in make_loader(source, collate, max_batch_tokens=1)] == [1] * 101


def test_grouping_puts_like_lengths_together_and_the_longest_first():
    grouped = [b.lengths for b in make_loader(ListSamples(LENGTHS), collate, batch_size=4, group_by_length=True)]
    plain = [b.lengths for b in make_loader(ListSamples(LENGTHS), collate, batch_size=4)]
    spread = [np.mean([max(lengths) - min(lengths) for lengths in batches]) for batches in (grouped, plain)]
    assert spread[0] < 0.2 * spread[1] and max(grouped[0]) == max(LENGTHS)


def test_a_position_of_another_plan_is_refused():
    state = make_loader(ListSamples(LENGTHS), collate, batch_size=4).state_dict()
    for other in ({'batch_size': 8}, {'batch_size': 4, 'seed': 5}, {'batch_size': 4, 'packing_length': 128}):
        with pytest.raises(CheckpointError, match='another plan'):
            make_loader(ListSamples(LENGTHS), collate, **other).load_state_dict(state)
    make_loader(ListSamples(LENGTHS), collate, batch_size=2, rank=1, world_size=2).load_state_dict(state)


@pytest.mark.parametrize('settings', [
    {'packing_length': 64, 'max_batch_tokens': 64}, {'packing_length': 64, 'group_by_length': True},
    {'max_batch_tokens': 64, 'group_by_length': True},
])  # fmt: skip
def test_settings_that_exclude_each_other(settings):
    with pytest.raises(DatasetError, match='--'):
        make_loader(ListSamples(LENGTHS), collate, **settings)


def test_an_error_while_collating_reaches_the_trainer():
    def broken(samples):
        raise RuntimeError('no collate')

    with pytest.raises(RuntimeError, match='no collate'):
        next(iter(make_loader(ListSamples(LENGTHS), broken, num_workers=2)))
