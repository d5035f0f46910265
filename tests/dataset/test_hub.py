"""The real clients of both hubs against a hub on 127.0.0.1."""

import json
import os
import subprocess
import sys

import pytest

from swift.core.errors import DatasetError, ModelError
from swift.core.hub import download_dataset, download_model
from swift.dataset.select import select_files
from tests.dataset.fakehub import FakeHub


def lines(count, start=0):
    return ''.join(json.dumps({'query': f'q{i}', 'response': 'a'}) + '\n' for i in range(start, start + count)).encode()


CARD = b"""---
configs:
- config_name: main
  data_files:
  - split: train
    path: main/train-*
  - split: test
    path: main/test-*
- config_name: other
  data_files: other/*.jsonl
---
# A data set
"""
REPOSITORIES = {
    ('datasets', 'me/plain'): {'README.md': b'# x', 'train.jsonl': lines(20), 'test.jsonl': lines(2, 100), '.gitattributes': b''},
    ('datasets', 'me/card'): {
        'README.md': CARD, 'main/train-0.jsonl': lines(3), 'main/train-1.jsonl': lines(3, 3), 'main/test-0.jsonl': lines(2, 50),
        'other/x.jsonl': lines(4, 70),
    },
    ('datasets', 'me/pictures'): {
        'train/metadata.jsonl': b'{"file_name": "1.png", "query": "q0", "response": "a"}\n', 'train/1.png': b'png', 'test/2.png': b'png',
        'test/metadata.jsonl': b'{"file_name": "2.png", "query": "q9", "response": "a"}\n',
    },
    ('models', 'me/model'): {'config.json': b'{}', 'model.safetensors': b'123', 'model.gguf': b'12', 'onnx/model.onnx': b'1'},
}  # fmt: skip

SCRIPT = """
import json, sys
from swift.arguments.data import DataArgs
from swift.core.errors import SwiftError
from swift.core.hub import download_model
from swift.dataset import load_dataset
out = []
for job in json.loads(sys.argv[1]):
    try:
        if job['kind'] == 'model':
            import os
            out.append(sorted(os.listdir(download_model(job['id'], use_hf=job['hf']))))
        else:
            settings = dict(dataset=[job['id']], dataset_shuffle=False, streaming=job.get('streaming', False),
                            download_mode=job.get('mode', 'reuse_dataset_if_exists'))
            train = load_dataset(DataArgs(**settings), use_hf=job['hf']).train
            talks = list(train) if settings['streaming'] else [train[i] for i in range(len(train))]
            out.append([talk.messages[0]['content'] for talk in talks])
    except SwiftError as error:
        out.append(f'{type(error).__name__}: {error}')
print(json.dumps(out))
"""


def ask(hub, tmp_path, jobs, **env):
    address = f'http://127.0.0.1:{hub.port}'
    env = {
        **os.environ, 'HF_ENDPOINT': address, 'HF_HOME': str(tmp_path / 'hf'), 'HF_HUB_OFFLINE': '0', 'HF_HUB_DISABLE_XET': '1',
        'MODELSCOPE_ENDPOINT': address, 'MODELSCOPE_DOMAIN': f'127.0.0.1:{hub.port}', 'MODELSCOPE_CACHE': str(tmp_path / 'ms'),
        'HF_HUB_DISABLE_TELEMETRY': '1', 'PYTHONPATH': os.getcwd(), 'no_proxy': '127.0.0.1', 'NO_PROXY': '127.0.0.1', **env,
    }  # fmt: skip
    done = subprocess.run([sys.executable, '-c', SCRIPT, json.dumps(jobs)], capture_output=True, text=True, env=env, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture
def hub():
    hub = FakeHub(REPOSITORIES)
    yield hub
    hub.close()


def q(*numbers):
    return [f'q{n}' for n in numbers]


@pytest.mark.parametrize('hf', [True, False])
def test_ids_are_fetched_by_the_real_client(hub, tmp_path, hf):
    if not hf:
        pytest.importorskip('modelscope_hub')
    prefix = 'MS::' if hf else 'HF::'
    jobs = [
        {'kind': 'data', 'id': 'me/plain#5', 'hf': hf},
        {'kind': 'data', 'id': 'me/card:main', 'hf': hf},
        {'kind': 'data', 'id': 'me/card:other#6', 'hf': hf, 'streaming': True},
        {'kind': 'data', 'id': f'{"HF" if hf else "MS"}::me/card:main#1', 'hf': not hf},
        {'kind': 'data', 'id': 'me/card', 'hf': hf},
        {'kind': 'model', 'id': 'me/model', 'hf': hf},
        {'kind': 'data', 'id': 'me/nothing', 'hf': hf},
        {'kind': 'model', 'id': 'me/nothing', 'hf': hf},
        {'kind': 'data', 'id': f'{prefix[:-2]}::', 'hf': hf},
    ]
    found = ask(hub, tmp_path, jobs)
    assert found[:4] == [q(0, 1, 2, 3, 4), q(0, 1, 2, 3, 4, 5), q(70, 71, 72, 73, 70, 71), q(0)]
    assert found[4] == "DatasetError: me/card has no subset 'default'; choose one: me/card:{main,other}"
    assert found[5] == ['config.json', 'model.safetensors']
    name = 'Hugging Face' if hf else 'ModelScope'
    for kind, text in (('dataset', found[6]), ('model', found[7])):
        assert f"{kind} 'me/nothing' can't be fetched from {name} (not found); check the id" in text and '\n' not in text
    assert 'has no name' in found[8]
    assert 'test.jsonl' not in hub.downloads() and 'main/test-0.jsonl' not in hub.downloads()


@pytest.mark.parametrize('hf', [True, False])
def test_a_second_run_reads_its_copy_unless_told_to_fetch_again(hub, tmp_path, hf):
    if not hf:
        pytest.importorskip('modelscope_hub')
    job = {'kind': 'data', 'id': 'me/plain#2', 'hf': hf}

    def fetched():
        return len([path for method, path in hub.log if method == 'GET' and 'train.jsonl' in path])

    assert ask(hub, tmp_path, [job, job]) == [q(0, 1)] * 2 and fetched() == 1
    assert ask(hub, tmp_path, [job, {**job, 'mode': 'force_redownload'}]) == [q(0, 1)] * 2 and fetched() == 2


def test_offline_an_earlier_copy_is_used_and_a_missing_one_is_one_line(hub, tmp_path):
    job = {'kind': 'data', 'id': 'me/card:main', 'hf': True}
    ask(hub, tmp_path, [job])
    found = ask(hub, tmp_path, [job, {**job, 'id': 'me/plain'}], HF_HUB_OFFLINE='1')
    assert found[0] == q(0, 1, 2, 3, 4, 5)
    assert "dataset 'me/plain' can't be fetched from Hugging Face (offline and not in the local cache);" in found[1]


@pytest.mark.parametrize('hf', [True, False])
def test_pictures_beside_a_metadata_file_are_fetched_with_it(hub, tmp_path, hf):
    if not hf:
        pytest.importorskip('modelscope_hub')
    (parts,) = ask(hub, tmp_path, [{'kind': 'data', 'id': 'me/pictures', 'hf': hf}])[0]
    image, text = parts
    assert text == {'type': 'text', 'text': 'q0'} and open(image['image'], 'rb').read() == b'png'
    assert not any('2.png' in path for _, path in hub.log)


def test_a_directory_is_returned_as_it_is(tmp_path):
    assert download_model(tmp_path) == str(tmp_path) == download_dataset(str(tmp_path))
    for function, error in ((download_model, ModelError), (download_dataset, DatasetError)):
        with pytest.raises(error, match='neither a directory here nor an id'):
            function(str(tmp_path / 'nowhere'))


FILES = ['a/train-0.parquet', 'a/train-1.parquet', 'a/validation-0.parquet', 'b/train-0.parquet', 'b.json', 'README.md']


@pytest.mark.parametrize(('subset', 'splits', 'expected'), [
    ('default', ['train'], ['a/train-0.parquet', 'a/train-1.parquet', 'b/train-0.parquet']),
    ('a', ['train'], FILES[:2]), ('a', ['dev'], FILES[2:3]), ('a', ['train', 'val'], FILES[:3]),
])  # fmt: skip
def test_files_of_a_subset_and_split(subset, splits, expected):
    assert select_files(FILES, subset, splits, 'x') == expected


def test_where_names_say_no_split_all_files_are_meant():
    assert select_files(['x.jsonl', 'y.jsonl'], 'default', ['train'], 'x') == ['x.jsonl', 'y.jsonl']
