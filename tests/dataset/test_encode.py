import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from swift.arguments.data import DataArgs
from swift.core.errors import DatasetError, RowError
from swift.core.types import Sample
from swift.dataset import BadRows, LazySamples, encode_rows, load_dataset, make_loader
from swift.dataset.store import JoinedSamples, TokenStore, to_chunk, write_store
from tests.dataset.helpers import collate, encode, rows, seen, write_jsonl


def source(tmp_path, items, **settings):
    path = write_jsonl(tmp_path / 'data.jsonl', items)
    return load_dataset(DataArgs(dataset=[path], dataset_shuffle=False, **settings), seed=1).train


class Counting:
    """Counts the rows it encodes in a file, so that worker processes count too."""

    def __init__(self, path):
        self.path = str(path)

    def __call__(self, talks):
        with open(self.path, 'a') as file:
            file.write('x' * len(talks))
        return encode(talks)

    @property
    def count(self):
        return os.path.getsize(self.path) if os.path.exists(self.path) else 0


def same(one, other):
    return len(one) == len(other) and all(
        one[i].input_ids.tolist() == other[i].input_ids.tolist() and one[i].labels.tolist() == other[i].labels.tolist()
        and one[i].source == other[i].source for i in range(len(one))
    )  # fmt: skip


def test_samples_come_back_as_they_were(tmp_path):
    data = source(tmp_path, rows(200))
    store = encode_rows(data, encode, cache_key='k')
    assert len(store) == 200
    for index, (expected,) in enumerate(encode([data[i] for i in range(200)])):
        found = store[index]
        assert found.input_ids.tolist() == expected.input_ids and found.labels.tolist() == expected.labels
        assert found.weights is None and found.source == f'{tmp_path}/data.jsonl:{index + 1}'
    assert store.lengths.tolist() == [len(store[i].input_ids) for i in range(200)]
    assert store.labelled == sum((store[i].labels != -100).sum() for i in range(200))


def test_every_kind_of_sample_survives_the_store(tmp_path):
    samples = [
        Sample([5, 6, 7, 8], [-100, 6, -100, 8], weights=[1, 0.5, 1, 2]),
        Sample([1], [-100]),
        Sample([4, 5, 6], [9, -100, 6], lengths=[1, 2], label={'a': [1]}, channel='c', source='s', extra={'pairs': 2}),
        Sample([7, 8], [7, 8]),
        Sample([9, 9], [-100, 9], label=0.1, extra={'margin': 1 / 3, 'reference_logps': [-0.1, -12.345678901234567] * 400}),
        Sample(np.array([3, 4]), np.array([3, -100])),
    ]
    store = write_store(tmp_path / 's', [to_chunk(samples[:2]), to_chunk([]), to_chunk(samples[2:5]), to_chunk(samples[5:])])
    assert store.meta['labelled'] == 2 + 0 + 2 + 2 + 1 + 1 and store.meta['tokens'] == 14
    for expected, found in zip(samples, [store[i] for i in range(6)], strict=True):
        assert found.input_ids.tolist() == list(expected.input_ids) and found.labels.tolist() == list(expected.labels)
        assert (None if found.weights is None else found.weights.tolist()) == expected.weights
        names = ('lengths', 'label', 'channel', 'source', 'extra')
        assert [getattr(found, name) for name in names] == [getattr(expected, name) for name in names]
    joined = JoinedSamples([store, store])
    assert len(joined) == 12 and joined[8].channel == 'c' and joined.lengths.tolist() == [4, 1, 3, 2, 2, 2] * 2


@pytest.mark.parametrize('workers', [2, 3])
def test_parallel_encoding_keeps_the_order(tmp_path, workers):
    data = source(tmp_path, rows(700))
    alone = encode_rows(data, encode, cache_key='alone')
    assert same(alone, encode_rows(data, encode, cache_key='parallel', num_proc=workers))


def test_spawned_workers_work_too(tmp_path, monkeypatch):
    monkeypatch.setenv('SWIFT_START_METHOD', 'spawn')
    data = source(tmp_path, rows(130))
    assert same(encode_rows(data, encode, cache_key='a'), encode_rows(data, encode, cache_key='b', num_proc=2))


def test_a_second_start_encodes_nothing_unless_something_changed(tmp_path):
    encoder = Counting(tmp_path / 'count')
    data = source(tmp_path, rows(100))
    first = encode_rows(data, encoder, cache_key='k')
    assert same(first, encode_rows(source(tmp_path, rows(100)), encoder, cache_key='k')) and encoder.count == 100
    encode_rows(data, encoder, cache_key='other template')
    assert encoder.count == 200
    encode_rows(source(tmp_path, rows(101)), encoder, cache_key='k')  # the content of the file changed
    assert encoder.count == 301
    encode_rows(source(tmp_path, rows(101), columns={'response': 'query', 'query': 'response'}), encoder, cache_key='k')
    assert encoder.count == 402


def test_without_the_cache_everything_is_encoded_anew(tmp_path):
    encoder = Counting(tmp_path / 'count')
    data = source(tmp_path, rows(100))
    for times in (1, 2):
        encode_rows(data, encoder, cache_key='k', load_from_cache_file=False)
        assert encoder.count == 100 * times


def test_two_processes_encode_once(tmp_path):
    encoder = Counting(tmp_path / 'count')
    data = source(tmp_path, rows(2000))
    context = multiprocessing.get_context('fork')
    ranks = [context.Process(target=encode_rows, args=(data, encoder), kwargs={'cache_key': 'k'}) for _ in range(3)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert [rank.exitcode for rank in ranks] == [0, 0, 0] and encoder.count == 2000


SLOW = """
import sys, time
from swift.arguments.data import DataArgs
from swift.dataset import encode_rows, load_dataset
from tests.dataset.helpers import encode
def slow(talks):
    print('working', flush=True)
    time.sleep(0.2)
    return encode(talks)
encode_rows(load_dataset(DataArgs(dataset=[sys.argv[1]])).train, slow, cache_key='k', num_proc=int(sys.argv[2]))
"""


def test_a_killed_run_leaves_nothing_that_looks_complete(tmp_path):
    path = write_jsonl(tmp_path / 'd.jsonl', rows(3000))
    run = subprocess.Popen([sys.executable, '-c', SLOW, path, '1'], stdout=subprocess.PIPE, env=os.environ | {'PYTHONPATH': os.getcwd()})
    run.stdout.readline()
    time.sleep(0.3)
    run.kill()
    run.wait()
    data = load_dataset(DataArgs(dataset=[path])).train
    encoder = Counting(tmp_path / 'count')
    assert len(encode_rows(data, encoder, cache_key='k')) == 3000 and encoder.count == 3000


def kill_self_once(talks):
    if any('q00300' in talk.messages[0]['content'] for talk in talks):
        os.kill(os.getpid(), signal.SIGKILL)
    return encode(talks)


def test_a_killed_worker_is_a_readable_error(tmp_path):
    data = source(tmp_path, rows(600))
    with pytest.raises(DatasetError, match='worker that encodes rows was killed'):
        encode_rows(data, kill_self_once, cache_key='k', num_proc=2)
    assert len(encode_rows(data, encode, cache_key='k', num_proc=2)) == 600


def test_bad_rows_are_counted_shown_and_skipped(tmp_path, capsys):
    items = rows(100)
    for index in (3, 50):
        items[index]['response'] = 'boom'
    items[60] = {'nothing': 5}
    bad = BadRows()
    store = encode_rows(source(tmp_path, items), encode, cache_key='k', bad_rows=bad)
    assert len(store) == 97 and (bad.bad_count, bad.good_count) == (3, 97)
    assert bad.first[0] == f'{tmp_path}/data.jsonl:4: boom' and bad.first[2].startswith(f'{tmp_path}/data.jsonl:61: ')
    again = BadRows()
    capsys.readouterr()
    encode_rows(source(tmp_path, items), encode, cache_key='k', bad_rows=again)
    assert (again.bad_count, again.first) == (3, bad.first)  # the cache remembers them
    assert capsys.readouterr().err.count('3 of 100 rows are bad and were skipped; the first: ' + bad.first[0]) == 1


def test_more_than_a_tenth_bad_stops(tmp_path):
    items = rows(100)
    for index in range(10):
        items[index * 7]['response'] = 'boom'
    assert len(encode_rows(source(tmp_path, items), encode, cache_key='k')) == 90
    items[99]['response'] = 'boom'
    with pytest.raises(DatasetError, match=r'11 of 100 rows are bad, more than 10%; the first: .*jsonl:1: boom') as stopped:
        encode_rows(source(tmp_path, items), encode, cache_key='k')
    assert str(stopped.value).count('boom') == 3 and '\n' not in str(stopped.value)


@pytest.mark.parametrize('workers', [1, 2])
def test_strict_stops_at_the_first(tmp_path, workers):
    items = rows(300)
    items[200]['response'] = items[270]['response'] = 'boom'
    with pytest.raises(RowError, match='jsonl:201: boom'):
        encode_rows(source(tmp_path, items), encode, cache_key='k', bad_rows=BadRows(strict=True), num_proc=workers)
    encode_rows(source(tmp_path, items), encode, cache_key='k')
    with pytest.raises(RowError, match='jsonl:201: boom'):  # also when a tolerant run has stored the others
        encode_rows(source(tmp_path, items), encode, cache_key='k', bad_rows=BadRows(strict=True))


def test_a_line_that_is_no_json_names_its_line(tmp_path):
    path = tmp_path / 'broken.jsonl'
    path.write_text('\n'.join([json.dumps(row) for row in rows(30)] + ['', '{"query": "x", ', json.dumps(rows(1)[0])]) + '\n')
    bad = BadRows()
    store = encode_rows(load_dataset(DataArgs(dataset=[str(path)])).train, encode, cache_key='k', bad_rows=bad)
    assert len(store) == 31 and bad.first[0].startswith(f'{path}:32: not valid JSON')


def test_lazy_encoding_happens_on_access_only(tmp_path):
    encoder = Counting(tmp_path / 'count')
    items = rows(40)
    items[7]['response'] = 'boom'
    lazy = LazySamples(source(tmp_path, items), encoder, BadRows())
    assert encoder.count == 0
    assert lazy.fetch(3)[0].source.endswith(':4') and encoder.count == 1
    found = sorted(number for batch in make_loader(lazy, collate, batch_size=4) for number in seen(batch))
    assert found == [i for i in range(40) if i != 7] and lazy.bad_rows.bad_count == 1
    with pytest.raises(DatasetError, match='lengths are not known with --lazy_tokenize'):
        make_loader(lazy, collate, packing_length=100)


def test_a_row_may_give_several_samples(tmp_path):
    def halves(talks):
        return [[Sample([1, 2], [1, 2]), Sample([3], [3])] for _ in talks]

    data = source(tmp_path, rows(10))
    store = encode_rows(data, halves, cache_key='k')
    assert store.lengths.tolist() == [2, 1] * 10 and store[3].source.endswith(':2')
    assert sum(len(batch.lengths) for batch in make_loader(LazySamples(data, halves), collate, batch_size=3)) == 20


def test_a_cache_that_cant_be_written_is_a_readable_error(tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('')
    with pytest.raises(DatasetError, match='set SWIFT_CACHE'):
        encode_rows(source(tmp_path, rows(3)), encode, cache_key='k', cache_dir=tmp_path / 'file')


def test_a_store_that_is_not_complete_is_refused(tmp_path):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(DatasetError, match='not a complete token cache'):
        TokenStore(tmp_path / 'empty')
