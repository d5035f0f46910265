import gzip
import json

import pytest

from swift.arguments.data import DataArgs
from swift.core.errors import CheckpointError, DatasetError
from swift.dataset import StreamSamples, load_dataset, make_loader
from tests.dataset.helpers import collate, encode, rows, seen, write_jsonl

MODES = {
    'rows': {'batch_size': 4},
    'packed': {'packing_length': 128, 'batch_size': 2},
    'sequential': {'packing_length': 128, 'packing_strategy': 'sequential'},
    'budget': {'max_batch_tokens': 150},
}


def build(paths, mode='rows', workers=0, num_proc=1, data=None, **settings):
    args = DataArgs(dataset=paths, streaming=True, **{'shuffle_buffer_size': 64, **(data or {})})
    samples = StreamSamples(load_dataset(args, seed=5).train, encode, num_proc=num_proc)
    return make_loader(samples, collate, num_workers=workers, **MODES[mode], **settings)


@pytest.fixture
def paths(tmp_path):
    plain = write_jsonl(tmp_path / 'a.jsonl', rows(150))
    with gzip.open(tmp_path / 'b.jsonl.gz', 'wt') as file:
        file.write(''.join(json.dumps(row) + '\n' for row in rows(120, start=150)))
    return [plain, str(tmp_path / 'b.jsonl.gz')]


def names(loader, epochs=1):
    return [tuple(batch.sources) for _ in range(epochs) for batch in loader]


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('workers', [0, 2])
def test_an_epoch_is_every_row_once_in_an_order_of_its_own(paths, mode, workers):
    loader = build(paths, mode, workers)
    first = [number for batch in loader for number in seen(batch)]
    second = [number for batch in loader for number in seen(batch)]
    assert sorted(first) == sorted(second) == list(range(270)) and first != second and loader.epoch == 2
    assert first[:50] != sorted(first[:50])
    with pytest.raises(TypeError, match='max_steps'):
        len(loader)


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('consumed', [1, 9, 'epoch', 'epoch+5'])
@pytest.mark.parametrize('workers', [0, 2])
def test_resume_continues_exactly(paths, mode, consumed, workers):
    loader = build(paths, mode)
    epochs = [names(loader) for _ in range(3)]
    whole = [batch for epoch in epochs for batch in epoch]
    count = len(epochs[0])
    steps = {'epoch': count, 'epoch+5': count + 5}.get(consumed, consumed)
    loader, done = build(paths, mode, workers), []
    while len(done) < steps:
        for batch in loader:
            done.append(tuple(batch.sources))
            if len(done) == steps:
                break
    state = json.loads(json.dumps(loader.state_dict()))
    resumed = build(paths, mode, workers)
    resumed.load_state_dict(state)
    assert resumed.epoch == (1 if steps >= count else 0)
    assert done + names(resumed, 3 - resumed.epoch) == whole


def test_an_iteration_left_early_goes_on_where_it_stopped(paths):
    whole = names(build(paths, 'packed'))
    loader = build(paths, 'packed', workers=2)
    iterator = iter(loader)
    first = [tuple(next(iterator).sources) for _ in range(3)]
    assert first + names(loader) == whole


@pytest.mark.parametrize('mode', ['rows', 'packed'])
def test_two_ranks_see_the_global_batches_of_one(paths, mode):
    size = MODES[mode]['batch_size']
    alone = list(build(paths, mode))
    half = {**MODES[mode], 'batch_size': size // 2}
    args = DataArgs(dataset=paths, streaming=True, shuffle_buffer_size=64)
    ranks = [
        list(make_loader(StreamSamples(load_dataset(args, seed=5).train, encode), collate, rank=rank, world_size=2, **half))
        for rank in range(2)
    ]
    assert len(ranks[0]) == len(ranks[1]) == len(alone)
    for whole, *parts in zip(alone, *ranks, strict=True):
        assert seen(whole) == [number for part in parts for number in seen(part)]


def test_parallel_encoding_gives_the_same(paths):
    assert names(build(paths, 'packed', num_proc=2)) == names(build(paths, 'packed'))


def test_packs_of_a_stream_are_98_percent_full(tmp_path):
    path = write_jsonl(tmp_path / 'long.jsonl', rows(12000, longest=173))
    samples = StreamSamples(load_dataset(DataArgs(dataset=[path], streaming=True), seed=5).train, encode)
    sizes = [sum(batch.lengths) for batch in make_loader(samples, collate, packing_length=1024)]
    assert max(sizes) <= 1024 and sum(sizes) / len(sizes) / 1024 >= 0.98


def test_drop_last_and_the_end_of_the_epoch(tmp_path):
    path = write_jsonl(tmp_path / 'x.jsonl', rows(10))
    loader = build([path], data={'dataset_shuffle': False}, drop_last=True)
    steps = []
    for batch in loader:
        steps.append((seen(batch), loader.state_dict()['epoch']))
    assert steps == [([0, 1, 2, 3], 0), ([4, 5, 6, 7], 1)]


@pytest.mark.parametrize('suffix', ['jsonl', 'json', 'csv', 'tsv', 'parquet', 'txt', 'jsonl.gz', 'csv.gz', 'json.gz'])
def test_every_format_resumes_in_the_middle_of_a_file(tmp_path, suffix):
    from tests.dataset.test_files import write

    path = write(tmp_path / f'd.{suffix}', rows(200))
    data = {'dataset_shuffle': suffix != 'csv'}
    whole = names(build([path], data=data))
    loader = build([path], data=data)
    iterator = iter(loader)
    first = [tuple(next(iterator).sources) for _ in range(23)]
    resumed = build([path], data=data)
    resumed.load_state_dict(json.loads(json.dumps(loader.state_dict())))
    assert first + names(resumed) == whole and len(whole) == 50


def test_a_number_of_rows_and_interleaving(tmp_path):
    one, two = write_jsonl(tmp_path / '1.jsonl', rows(400)), write_jsonl(tmp_path / '2.jsonl', rows(400, start=1000))
    few = [n for batch in build([f'{one}#37', f'{two}#5']) for n in seen(batch)]
    assert len(few) == 42 and len({n for n in few if n >= 1000}) == 5
    many = [n for batch in build([write_jsonl(tmp_path / '3.jsonl', rows(10)) + '#25']) for n in seen(batch)]
    assert len(many) == 25 and {many.count(n) for n in range(10)} <= {2, 3}
    mixed = [n for b in build([one, two], data={'interleave_prob': [0.8, 0.2]}) for n in seen(b)]
    share = sum(n >= 1000 for n in mixed) / len(mixed)
    assert 0.14 < share < 0.26 and 400 <= len(mixed) < 600
    both = {'interleave_prob': [0.8, 0.2], 'stopping_strategy': 'all_exhausted'}
    assert len({n for b in build([one, two], data=both) for n in seen(b)}) == 800


def test_bad_rows_of_a_stream_are_skipped_and_counted(tmp_path):
    items = rows(100)
    items[5]['response'], items[30] = 'boom', {'nothing': 1}
    path = write_jsonl(tmp_path / 'x.jsonl', items)
    splits = load_dataset(DataArgs(dataset=[path], streaming=True), seed=1)
    loader = make_loader(StreamSamples(splits.train, encode), collate, batch_size=5)
    assert sorted(n for batch in loader for n in seen(batch)) == [n for n in range(100) if n not in (5, 30)]
    assert splits.bad_rows.bad_count == 2


def test_what_streaming_cannot_do(tmp_path, paths):
    with pytest.raises(DatasetError, match='--streaming.*--val_dataset'):
        load_dataset(DataArgs(dataset=paths, streaming=True, split_dataset_ratio=0.1))
    with pytest.raises(DatasetError, match='group_by_length'):
        build(paths, group_by_length=True)
    with pytest.raises(CheckpointError, match='another plan'):
        build(paths, 'packed').load_state_dict(build(paths).state_dict())


def test_a_stream_with_too_many_bad_rows_stops_at_its_end(tmp_path):
    items = [{**row, 'response': 'boom'} if number % 2 else row for number, row in enumerate(rows(60))]
    with pytest.raises(DatasetError, match='30 of 60 rows are bad, more than 10%'):
        names(build([write_jsonl(tmp_path / 'x.jsonl', items)]))
