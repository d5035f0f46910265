import csv
import gzip
import json
import shutil

import pytest

from swift.arguments.data import DataArgs
from swift.core.errors import DatasetError, RowError
from swift.dataset import load_dataset
from swift.dataset.files import open_rows
from tests.dataset.helpers import rows, write_jsonl

ROWS = [
    {'query': 'a, "b"\nc', 'response': '你好', 'system': ''},
    {'query': 'ünïcödé 🎉', 'response': 'tab\there', 'system': 'be kind'},
    {'query': 'plain', 'response': '{"not": "parsed"}', 'system': ''},
]


def write(path, items):
    """The rows in the format of the suffix; txt takes the query and the answer of a row as one line."""
    name = str(path).removesuffix('.gz')
    suffix = name.rsplit('.', 1)[1]
    if suffix == 'jsonl':
        write_jsonl(name, items)
    elif suffix == 'json':
        with open(name, 'w', encoding='utf-8') as file:
            json.dump(items, file, ensure_ascii=False, indent=1)
    elif suffix == 'txt':
        with open(name, 'w', encoding='utf-8') as file:
            file.write(''.join(f'{row["query"]} {row["response"]}\n' for row in items))
    elif suffix in ('csv', 'tsv'):
        with open(name, 'w', encoding='utf-8', newline='') as file:
            writer = csv.DictWriter(file, list(items[0]), delimiter='\t' if suffix == 'tsv' else ',')
            writer.writeheader()
            writer.writerows(items)
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_pylist(items)
        if suffix == 'parquet':
            pq.write_table(table, name, row_group_size=70)
        else:
            with pa.OSFile(name, 'wb') as out, (pa.ipc.new_stream if 'stream' in name else pa.ipc.new_file)(out, table.schema) as writer:
                writer.write_table(table, max_chunksize=2)
    if str(path).endswith('.gz'):
        with open(name, 'rb') as plain, gzip.open(path, 'wb') as packed:
            shutil.copyfileobj(plain, packed)
    return str(path)


@pytest.mark.parametrize('name', [
    'd.jsonl', 'd.json', 'd.csv', 'd.tsv', 'd.parquet', 'd.arrow', 'stream.arrow', 'd.jsonl.gz', 'd.csv.gz', 'd.json.gz',
])  # fmt: skip
def test_the_same_rows_in_every_format(tmp_path, name):
    found = open_rows(write(tmp_path / name, ROWS), tmp_path / 'cache')
    assert [found[i] for i in (2, 0, 1)] == [ROWS[2], ROWS[0], ROWS[1]] and len(found) == 3
    talks = load_dataset(DataArgs(dataset=[str(tmp_path / name)], dataset_shuffle=False)).train
    assert [[m['content'] for m in talks[i].messages] for i in range(3)] == [
        ['a, "b"\nc', '你好'], ['be kind', 'ünïcödé 🎉', 'tab\there'], ['plain', '{"not": "parsed"}'],
    ]  # fmt: skip


def test_txt_is_a_row_a_line(tmp_path):
    (tmp_path / 'd.txt').write_text('one\n\n  \ntwo 你\nthree')
    found = load_dataset(DataArgs(dataset=[str(tmp_path / 'd.txt')], dataset_shuffle=False)).train
    assert [found[i].messages[0]['content'] for i in range(len(found))] == ['one', 'two 你', 'three']
    assert found[1].text and found[1].source.endswith('d.txt:4')


def test_places_are_file_and_line(tmp_path):
    (tmp_path / 'a.json').write_text('[\n {"query": "é"},\n\n {"query":\n "b"}\n]\n', encoding='utf-8')
    found = open_rows(tmp_path / 'a.json', tmp_path)
    assert [found.place(i).rsplit(':')[-1] for i in range(2)] == ['2', '4'] and found[1] == {'query': 'b'}
    (tmp_path / 'c.csv').write_text('query,response\n"a\nb",1\n\nc,2\n')
    found = open_rows(tmp_path / 'c.csv', tmp_path)
    assert [found.place(i).rsplit(':')[-1] for i in range(2)] == ['2', '5'] and found[0]['query'] == 'a\nb'


@pytest.mark.parametrize('content', [
    '{"query": "a"}\n{"query": "b"}\n', '{\n"query": "a"\n}\n{\n"query": "b"}', '\ufeff[{"query": "a"},{"query": "b"}]',
    '  [ {"query":"a"} , {"query":"b"} ]  ', '\ufeff{"query": "a"}\n{"query": "b"}',
])  # fmt: skip
def test_a_json_file_may_be_an_array_or_objects(tmp_path, content):
    (tmp_path / 'x.json').write_text(content, encoding='utf-8')
    found = open_rows(tmp_path / 'x.json', tmp_path)
    assert [found[i] for i in range(len(found))] == [{'query': 'a'}, {'query': 'b'}]


@pytest.mark.parametrize(('content', 'what'), [
    ('[{"a": 1}, {"a": ]', 'on line 1'), ('[{"a": 1}\n{"a": 2}]', ':2: a comma or ] is missing'), ('[{"a": 1}', 'cut off'),
])  # fmt: skip
def test_a_broken_json_file_says_where(tmp_path, content, what):
    (tmp_path / 'x.json').write_text(content)
    with pytest.raises(DatasetError, match=what):
        open_rows(tmp_path / 'x.json', tmp_path)


def test_broken_rows_say_where(tmp_path):
    (tmp_path / 'x.jsonl').write_bytes(b'[1]\n{"a": "\xff"}\n{"a"\n')
    found = open_rows(tmp_path / 'x.jsonl', tmp_path)
    for index, reason in enumerate(['must be a JSON object, this is a list', 'not UTF-8', 'not valid JSON']):
        with pytest.raises(RowError, match=f'x.jsonl:{index + 1}: .*{reason}'):
            found[index]
    (tmp_path / 'x.csv').write_text('a,b\n1,2,3\n')
    with pytest.raises(RowError, match='x.csv:2: 3 cells under a header of 2'):
        open_rows(tmp_path / 'x.csv', tmp_path)[0]


def test_the_fingerprint_is_the_content(tmp_path):
    one, two = write_jsonl(tmp_path / '1.jsonl', rows(5)), write_jsonl(tmp_path / '2.jsonl', rows(5))
    prints = [load_dataset(DataArgs(dataset=[path]), seed=seed).train.fingerprint for path, seed in ((one, 1), (two, 1), (one, 2))]
    assert prints[0] != prints[2]
    plain = [load_dataset(DataArgs(dataset=[path], dataset_shuffle=False)).train.fingerprint for path in (one, two)]
    assert plain[0] == plain[1]
    write_jsonl(one, rows(6))
    assert load_dataset(DataArgs(dataset=[one], dataset_shuffle=False)).train.fingerprint != plain[0]


def test_sources_can_be_pickled_small(tmp_path):
    import pickle

    source = load_dataset(DataArgs(dataset=[write_jsonl(tmp_path / 'x.jsonl', rows(300))])).train
    source[0]
    copy = pickle.loads(pickle.dumps(source))
    assert copy[7].messages == source[7].messages and len(pickle.dumps(source)) < 300 * 40 + 5000
