import pytest

from swift.core.errors import DatasetError, RowError
from swift.dataset import (
    AddLengthPreprocessor,
    DatasetLoader,
    EncodePreprocessor,
    IterablePackingDataset,
    LazyLLMDataset,
    PackingDataset,
)
from tests.dataset.helpers import encode, rows, write_jsonl


class Bytes:
    """A template as far as these classes need one; counts what it encodes."""

    max_length = 128
    fingerprint = 'bytes'

    def __init__(self):
        self.count = 0

    def encode(self, talk):
        self.count += 1
        (result,) = encode([talk])
        if isinstance(result, RowError):
            raise result
        return result


def texts(samples):
    return [bytes(map(int, sample.input_ids)).decode() for sample in samples]


def expected(items):
    return [row['query'] + row['response'] for row in items]


@pytest.mark.parametrize('kind', ['rows', 'source'])
def test_encoding_rows_one_by_one_lazily_and_all_at_once(tmp_path, kind):
    items = rows(30)
    data = items if kind == 'rows' else DatasetLoader.load(write_jsonl(tmp_path / 'x.jsonl', items))
    assert texts(EncodePreprocessor(Bytes()).preprocess(data[3])) == expected(items[3:4])
    assert texts(EncodePreprocessor(Bytes())(data)[i] for i in range(30)) == expected(items)
    template = Bytes()
    lazy = LazyLLMDataset(data, template)
    assert template.count == 0 and len(lazy) == 30 and texts([lazy[4]]) == expected(items[4:5]) and template.count == 1


def test_a_row_that_cannot_be_encoded_is_replaced_or_raised():
    items = rows(20)
    items[2]['response'] = 'boom'
    one, two = (LazyLLMDataset(items, Bytes(), random_state=7)[2] for _ in range(2))
    assert one.input_ids == two.input_ids and texts([one])[0] in expected(items)
    with pytest.raises(RowError, match='boom'):
        LazyLLMDataset(items, Bytes(), strict=True)[2]
    with pytest.raises(DatasetError, match='10 rows in a row'):
        LazyLLMDataset([{**row, 'response': 'boom'} for row in items] + [], Bytes(), n_try_fetch=10)[0]


@pytest.mark.parametrize('strategy', ['binpack', 'sequential'])
def test_packing_loses_and_cuts_nothing(strategy):
    items = rows(60)
    packs = PackingDataset(Bytes(), items, packing_strategy=strategy)
    found = [sample for index in range(len(packs)) for sample in packs[index]]
    assert sorted(texts(found)) == sorted(expected(items)) and max(packs.packed_length) <= 128
    assert packs.packed_length == [sum(len(sample) for sample in packs[i]) for i in range(len(packs))]
    assert strategy == 'binpack' or texts(found) == expected(items)
    assert len(PackingDataset(Bytes(), items, packing_length=4096)) == 1


def test_packing_a_stream():
    items = rows(500)
    packs = list(IterablePackingDataset(Bytes(), (row for row in items), packing_length=512))
    assert sorted(texts(sample for unit in packs for sample in unit)) == sorted(expected(items))
    sizes = [sum(len(sample) for sample in unit) for unit in packs]
    assert max(sizes) <= 512 and sum(sizes) / len(sizes) / 512 > 0.97
    assert texts(EncodePreprocessor(Bytes())(row for row in items[:3])) == expected(items[:3])


def test_lengths_are_added():
    items = rows(20)
    items[5]['response'] = 'boom'
    found = AddLengthPreprocessor(Bytes())(items)
    assert [row['query'] for row in found] == [row['query'] for index, row in enumerate(items) if index != 5]
    assert all(row['lengths'] == [len(row['query']) + len(row['response'])] for row in found)
    with pytest.raises(RowError, match='row 5: boom'):
        AddLengthPreprocessor(Bytes())(items, strict=True)
