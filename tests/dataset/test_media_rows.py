"""Rows with images, videos and sounds: whatever they are called and however they are written, they stand in the messages."""

import csv
import json
import os
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from swift.arguments.data import DataArgs
from swift.core.errors import RowError
from swift.core.media import media_of
from swift.dataset import AutoPreprocessor, DatasetLoader, load_dataset, register_dataset
from swift.dataset.convert import to_row
from swift.dataset.registry import DatasetMeta
from tests.dataset.helpers import write_jsonl

U, A = (lambda content, role=role: {'role': role, 'content': content} for role in ('user', 'assistant'))
T, IMG, V, S = (lambda value, kind=kind: {'type': kind, kind: value} for kind in ('text', 'image', 'video', 'audio'))


def talk(row):
    return AutoPreprocessor()(row, 'rows.jsonl:7')


@pytest.mark.parametrize('row', [
    {'messages': [U('<image>q'), A('a')], 'images': ['x.png']},
    {'messages': [U('<image>q'), A('a')], 'image': 'x.png'},
    {'messages': [U('q'), A('a')], 'images': ['x.png']},
    {'messages': [U([IMG('x.png'), T('q')]), A('a')]},
    {'messages': [U([{'type': 'image_url', 'image_url': {'url': 'x.png', 'detail': None}}, T('q')]), A('a')]},
    {'messages': [U([{'type': 'image', 'text': None}, {'type': 'text', 'text': 'q', 'image': None}]), A('a')], 'images': ['x.png']},
    {'messages': json.dumps([U('<image>q'), A('a')]), 'images': '["x.png"]'},
    {'messages': [U('<image>q'), A('a')], 'images': [{'bytes': None, 'path': 'x.png'}], 'videos': [], 'audios': None},
    {'messages': [U('<image>q'), A('a')], 'images': '[{"bytes": null, "path": "x.png"}]'},
    {'conversations': [{'from': 'human', 'value': '<image>q'}, {'from': 'gpt', 'value': 'a'}], 'image': 'x.png'},
    {'question': 'q', 'answer': 'a', 'image': 'x.png'},
    {'instruction': 'q', 'input': '', 'output': 'a', 'images': ['x.png']},
    {'query': '<image>q', 'response': 'a', 'images': 'x.png'},
])  # fmt: skip
def test_every_spelling_gives_the_same_conversation(row):
    found = talk(row)
    assert found.messages == [U([IMG('x.png'), T('q')]), A('a')]
    assert (found.images, found.videos, found.audios, found.columns) == (['x.png'], [], [], {})


PIXELS = np.zeros((2, 2, 3), np.uint8)


@pytest.mark.parametrize(('value', 'references'), [
    ('https://host/x.png', ['https://host/x.png']), ('data:image/png;base64,iVBO', ['data:image/png;base64,iVBO']), (b'\x89PNG', [b'\x89PNG']),
    ({'bytes': b'\x89PNG', 'path': 'x.png'}, [b'\x89PNG']), ([{'url': 'http://x'}, {'base64': 'iVBO'}], ['http://x', 'iVBO']),
    ('[1] holiday.png', ['[1] holiday.png']), (('a.png', 'b.png'), ['a.png', 'b.png']), ('', []), ([], []), (None, []), ('[]', []),
    ({'bytes': None, 'path': None}, []),
])  # fmt: skip
def test_references_of_every_form(value, references):
    assert talk({'messages': [U('q'), A('a')], 'images': value}).images == references


def test_things_in_memory_pass_as_they_are():
    sound = {'array': [0.0, 0.5], 'sampling_rate': 8000, 'path': 'gone.wav'}
    found = talk({'messages': [U('q'), A('a')], 'images': [PIXELS], 'audio': sound})
    assert found.images[0] is PIXELS and found.audios == [sound]


def test_frames_make_one_video():
    found = talk({'messages': [U('<video>q<video>'), A('a')], 'videos': [['1.png', '2.png'], 'x.mp4']})
    assert found.messages[0]['content'] == [V(['1.png', '2.png']), T('q'), V('x.mp4')]


def test_kinds_are_mixed_and_taken_in_order_in_any_turn():
    row = {'messages': [U('<image>one <audio>'), A('<image>two'), U('<video>'), A('end')], 'images': ['1', '2'], 'videos': ['v'], 'audios': ['s']}
    found = talk(row)
    assert [message['content'] for message in found.messages] == [[IMG('1'), T('one '), S('s')], [IMG('2'), T('two')], [V('v')], 'end']
    assert (found.images, found.videos, found.audios) == (['1', '2'], ['v'], ['s'])


def test_a_tag_of_a_kind_the_row_does_not_have_is_text():
    assert talk({'messages': [U('what is <image>?'), A('a tag')]}).messages == [U('what is <image>?'), A('a tag')]
    found = talk({'messages': [U('<image> or <video>?'), A('a')], 'images': ['x']})
    assert found.messages[0]['content'] == [IMG('x'), T(' or <video>?')]


@pytest.mark.parametrize(('row', 'message'), [
    ({'messages': [U('<image><image>q'), A('a')], 'images': ['x']}, 'the messages have 2 <image> tags, but images holds 1'),
    ({'messages': [U('<audio>q'), A('a')], 'audios': ['x', 'y', 'z']}, 'the messages have 1 <audio> tag, but audios holds 3'),
    ({'messages': [U('q'), A('a')], 'images': ['x', None]}, r'images\[1\] is empty'),
    ({'messages': [A('a')], 'images': ['x']}, 'no <image> tag and no user message'),
    ({'prompt': '<image>q', 'chosen': 'a', 'rejected': '<image>b', 'images': ['x']},
     'rejected: the messages have 2 <image> tags, but images holds 1'),
    ({'anchor': 'q', 'positive': 'p', 'negative_images': ['x']}, 'the row has negative_images, but no negative text'),
    ({'anchor': 'q', 'positive': ['p', 'r'], 'positive_images': ['x', 'y', 'z']},
     'the 2 texts have 0 <image> tags, but positive_images holds 3'),
    ({'anchor': 'q', 'positive': ['p', 'r'], 'positive_images': [['x']]}, 'positive_images holds 1 lists for 2 texts'),
])  # fmt: skip
def test_what_does_not_match_is_named_with_both_numbers_and_the_row(row, message):
    with pytest.raises(RowError, match=message) as caught:
        talk(row)
    assert str(caught.value).startswith('rows.jsonl:7: ')


def test_a_rejected_answer_is_about_the_same_images():
    found = talk({'prompt': '<image>q', 'chosen': 'a', 'rejected': ['b', 'c'], 'images': ['x']})
    prompt = U([IMG('x'), T('q')])
    assert found.messages == [prompt, A('a')] and found.rejected == [prompt, A('b')] and found.negatives == [[prompt, A('c')]]
    given = {'messages': [U('<image>q')], 'chosen': A('a'), 'rejected': A('b'), 'images': ['x']}
    assert talk(given).rejected == [prompt, A('b')]
    assert found.images == ['x']


def test_a_rejected_answer_may_have_images_of_its_own():
    row = {'query': '<image>q', 'response': 'a', 'images': ['x'], 'rejected_images': ['y']}
    for extra, answer in (({}, 'a'), ({'rejected_response': 'a'}, 'a'), ({'rejected_response': 'b'}, 'b')):
        found = talk({**row, **extra})
        assert found.messages == [U([IMG('x'), T('q')]), A('a')] and found.rejected == [U([IMG('y'), T('q')]), A(answer)]
        assert found.columns == {} and found.images == ['x']
    found = talk({**row, 'rejected_response': ['b', 'c'], 'rejected_images': [['y'], ['z']]})
    assert media_of(found.rejected) == [('image', 'y')] and media_of(found.negatives[0]) == [('image', 'z')]


@pytest.mark.parametrize(('positive', 'images', 'shown'), [
    ('p', ['1'], [[IMG('1'), T('p')]]), ('<image>p', '1', [[IMG('1'), T('p')]]), ('<image>', [['1']], [[IMG('1')]]),
    (['<image>', '<image>, <image>'], ['1', '2', '3'], [[IMG('1')], [IMG('2'), T(', '), IMG('3')]]),
    (['<image>', '<image>, <image>'], [['1'], ['2', '3']], [[IMG('1')], [IMG('2'), T(', '), IMG('3')]]),
    (['p', 'r'], ['1', '2'], [[IMG('1'), T('p')], [IMG('2'), T('r')]]), (['p', '<image>'], ['1'], ['p', [IMG('1')]]),
    (['p', '<image>'], [[], [{'image': '1'}]], ['p', [IMG('1')]]),
])  # fmt: skip
def test_texts_that_belong_together_show_their_own_images(positive, images, shown):
    found = talk({'anchor': 'q', 'positive': positive, 'positive_images': images, 'negative': '<image>n', 'negative_images': 'n.png'})
    assert [text[0]['content'] for text in found.positives] == shown
    assert found.negatives == [[U([IMG('n.png'), T('n')])]] and found.messages == [U('q')] and found.images == []


def test_the_same_text_about_two_images_is_two_texts():
    row = {'messages': [U('which?')], 'positive_messages': [[U('<image>')]], 'negative_messages': [[U('<image>')]]}
    found = talk({**row, 'positive_images': [['x']], 'negative_images': [['y']]})
    assert media_of(found.positives[0]) == [('image', 'x')] and media_of(found.negatives[0]) == [('image', 'y')]


def test_plain_text_with_images():
    found = talk({'text': '<image>is a puppy, <image>a kitten', 'images': ['x', 'y']})
    assert found.text and found.messages == [A([IMG('x'), T('is a puppy, '), IMG('y'), T('a kitten')])]
    assert talk({'text': 'a puppy', 'image': 'x'}).messages == [A([IMG('x'), T('a puppy')])]


def test_an_image_to_classify_needs_no_text():
    found = talk({'image': 'x.png', 'label': 3})
    assert found.messages == [U([IMG('x.png')])] and found.label == 3


@pytest.mark.parametrize('row', [
    {'messages': [U('<image>one <audio>'), A('<image>two <video>')], 'images': ['1', '2'], 'audios': ['s']},
    {'messages': [U([T('literal <image> '), IMG('x')]), A('a')]},
    {'messages': [U('<video>q'), A('a')], 'videos': [['1.png', '2.png']], 'objects': {'ref': ['a'], 'bbox': [[1, 2]]}},
    {'query': '<image>q', 'response': 'a', 'images': ['x'], 'rejected_response': ['b', 'c'], 'rejected_images': ['y']},
    {'anchor': '<image>', 'images': 'x', 'positive': '<image>p', 'positive_images': 'y', 'negative': ['n', 'm']},
    {'text': '<image>is a puppy, <audio>', 'images': ['x']}, {'images': ['data:image/png;base64,iVBO'], 'query': 'q', 'response': 'a'},
])  # fmt: skip
def test_rows_read_back_as_the_same(row):
    found = talk(row)
    made = json.loads(json.dumps(to_row(found)))
    assert AutoPreprocessor()(made, 'rows.jsonl:7') == found


def test_what_lies_in_memory_becomes_a_file_in_a_row(tmp_path, monkeypatch):
    monkeypatch.setenv('SWIFT_CACHE', str(tmp_path))
    found = talk({'messages': [U('<image>q'), A('a')], 'images': [b'12345']})
    made = to_row(found)
    image, text = made['messages'][0]['content']
    assert Path(image['image']).read_bytes() == b'12345' and text == T('q') and to_row(talk(made)) == made
    assert found.images == [b'12345']


# ---- files


ROWS = [{'messages': [U('<image>q'), A('a')], 'images': ['img/x.png']}, {'messages': [U('no picture'), A('a')]},
        {'messages': [U('<image>q'), A('a')], 'images': ['https://host/x.png']}]  # fmt: skip


def first(path, **settings):
    return DatasetLoader.load(str(path), **settings)[0].images


def test_paths_start_at_the_data_file_or_at_the_given_folder(tmp_path, monkeypatch):
    (tmp_path / 'deep').mkdir()
    path = write_jsonl(tmp_path / 'deep' / 'rows.jsonl', ROWS)
    data = DatasetLoader.load(path)
    assert data[0].images == [str(tmp_path / 'deep/img/x.png')] == [ref for _, ref in media_of(data[0].messages)]
    assert data[1].messages == ROWS[1]['messages'] and data[2].images == ['https://host/x.png']
    assert first(path, root_image_dir='/pictures') == ['/pictures/img/x.png']
    splits = load_dataset(DataArgs(dataset=[path], dataset_shuffle=False), root_image_dir='/pictures')
    assert splits.train[0].images == ['/pictures/img/x.png']
    monkeypatch.setenv('ROOT_IMAGE_DIR', '/environment')
    assert first(path) == ['/environment/img/x.png']
    monkeypatch.chdir(tmp_path / 'deep')
    monkeypatch.delenv('ROOT_IMAGE_DIR')
    assert first('rows.jsonl') == [str(tmp_path / 'deep/img/x.png')]


def test_streams_find_them_too(tmp_path):
    path = write_jsonl(tmp_path / 'rows.jsonl', ROWS)
    stream = load_dataset(DataArgs(dataset=[path], streaming=True, dataset_shuffle=False)).train
    assert [row.images for row in stream] == [[str(tmp_path / 'img/x.png')], [], ['https://host/x.png']]


def test_csv_cells(tmp_path):
    with open(tmp_path / 'rows.csv', 'w', newline='') as file:
        writer = csv.writer(file)
        writer.writerows([['query', 'response', 'images', 'objects'], ['<image><image>q', 'a', '["x.png", "y.png"]', ''],
                          ['<image>q', 'a', 'x.png', '{"ref": []}'], ['q', 'a', '', '']])  # fmt: skip
    data = DatasetLoader.load(str(tmp_path / 'rows.csv'))
    assert [[os.path.basename(ref) for ref in data[i].images] for i in range(3)] == [['x.png', 'y.png'], ['x.png'], []]


@pytest.mark.parametrize('columns', [{'images': 'pics', 'messages': 'talk'}, {'images': 'pics', 'messages': 'talk', 'videos': 'clips'}])
def test_dataset_info_names_the_columns(tmp_path, columns):
    rows = [{'talk': [U('<image>q'), A('a')], 'pics': ['x.png']}]
    (tmp_path / 'mine.json').write_text(json.dumps(rows))
    info = {'mine': {'file_name': 'mine.json', 'formatting': 'sharegpt', 'columns': columns}}
    (tmp_path / 'dataset_info.json').write_text(json.dumps(info))
    assert first('mine', dataset_dir=str(tmp_path)) == [str(tmp_path / 'x.png')]


def test_alpaca_entries_of_dataset_info(tmp_path):
    write_jsonl(tmp_path / 'mine.jsonl', [{'q': 'q', 'a': 'a', 'sound': 's.wav', 'pic': 'x.png'}])
    columns = {'prompt': 'q', 'response': 'a', 'audios': 'sound', 'images': 'pic'}
    (tmp_path / 'dataset_info.json').write_text(json.dumps({'mine': {'file_name': 'mine.jsonl', 'columns': columns}}))
    found = DatasetLoader.load('mine', dataset_dir=str(tmp_path))[0]
    assert (found.images, found.audios) == ([str(tmp_path / 'x.png')], [str(tmp_path / 's.wav')])


def test_a_folder_of_images_with_metadata(tmp_path):
    (tmp_path / 'train').mkdir()
    for name in ('1.png', '2.png', 'caption.txt'):
        (tmp_path / 'train' / name).write_bytes(b'')
    rows = [{'file_name': '1.png', 'question': 'what?', 'answer': 'one'}, {'file_name': '2.png', 'text': 'two'}, {'file_name': '1.png', 'label': 1}]
    write_jsonl(tmp_path / 'train' / 'metadata.jsonl', rows)
    data = DatasetLoader.load(str(tmp_path))
    assert [row.images for row in data] == [[str(tmp_path / 'train' / name)] for name in ('1.png', '2.png', '1.png')]
    assert data[0].messages[0] == U([IMG(data[0].images[0]), T('what?')]) and data[1].text and data[2].label == 1
    kept = write_jsonl(tmp_path / 'other.jsonl', [{'file_name': 'x.py', 'query': 'q', 'response': 'a'}])
    assert DatasetLoader.load(kept)[0].columns == {'file_name': 'x.py'}


def embedded(path, count, size=1000):
    rows = [{'query': f'<image>{i}', 'response': 'a', 'image': {'bytes': bytes([i % 256]) * size, 'path': f'{i}.png'}} for i in range(count)]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=count)
    return str(path)


@pytest.mark.parametrize('streaming', [False, True])
def test_images_inside_parquet_are_read_a_few_at_a_time(tmp_path, streaming):
    path = embedded(tmp_path / 'rows.parquet', 300, 20_000)
    rows = load_dataset(DataArgs(dataset=[path], streaming=streaming, dataset_shuffle=False)).train
    found = list(rows) if streaming else [rows[i] for i in range(len(rows))]
    assert len(found) == 300 and all(row.images == [bytes([i % 256]) * 20_000] for i, row in enumerate(found))
    from swift.dataset.cursor import ParquetCursor

    cursor = ParquetCursor(path)
    for _ in range(70):
        cursor.read()
    assert cursor._batch.num_rows == 64 and cursor.position() == {'group': 0, 'row': 70}
    again = ParquetCursor(path, cursor.position())
    assert again.read()[0]['query'] == '<image>70' and again.read()[1] == f'{path}[71]'


# ---- identity


def test_identity_follows_what_the_paths_mean(tmp_path):
    rows, text = ROWS[:1], [{'query': 'q', 'response': 'a'}]
    for folder in ('one', 'two'):
        (tmp_path / folder).mkdir()
        write_jsonl(tmp_path / folder / 'rows.jsonl', rows)
        write_jsonl(tmp_path / folder / 'text.jsonl', text)
        write_jsonl(tmp_path / folder / 'renamed.jsonl', [{'query': 'q', 'response': 'a', 'pic': 'x.png'}])

    def key(name, **settings):
        return DatasetLoader.load(str(tmp_path / name), **settings).fingerprint

    assert key('one/rows.jsonl') == key('one/rows.jsonl') != key('two/rows.jsonl')
    assert key('one/rows.jsonl') != key('one/rows.jsonl', root_image_dir='/pictures')
    assert key('one/text.jsonl') == key('two/text.jsonl')
    renamed = {'columns': {'pic': 'images'}}
    assert key('one/renamed.jsonl') == key('two/renamed.jsonl') and key('one/renamed.jsonl', **renamed) != key('two/renamed.jsonl', **renamed)
    before = key('one/rows.jsonl')
    write_jsonl(tmp_path / 'one' / 'rows.jsonl', [{**rows[0], 'images': ['img/y.png']}])
    assert key('one/rows.jsonl') != before


def test_rows_in_memory_are_told_apart_by_their_pixels():
    pillow = pytest.importorskip('PIL.Image')

    def key(colour):
        image = pillow.new('RGB', (4, 4), colour)
        rows = [{'query': 'q', 'response': 'a', 'image': image, 'audio': {'array': np.full(3, len(colour)), 'sampling_rate': 4}}]
        register_dataset(DatasetMeta(dataset_name='pixels', load_function=lambda: rows), exist_ok=True)
        return DatasetLoader.load('pixels').fingerprint

    assert key('red') == key('red') != key('green')


@pytest.mark.parametrize('language', ['en', 'zh'])
def test_the_rows_of_the_page_are_read(language):
    from swift.template.grounding import convention_of, ground

    page = (Path(__file__).resolve().parents[2] / 'docs' / language / 'datasets.md').read_text(encoding='utf-8')
    lines = [line for block in re.findall(r'```json\n(.*?)```', page, re.S) for line in block.splitlines()]
    rows = [json.loads(line) for line in lines if re.match(r'\{.*(image|video|audio)', line) and line.endswith('}')]
    assert len(rows) == 12
    for row in rows:
        found = talk(row)
        assert media_of(found.messages) or found.positives
        objects = found.columns.get('objects')
        made = ground(found.messages, objects, [((2000, 2000), (280, 280))], convention_of('qwen3_vl'))
        assert bool(objects) == (made != found.messages) and 'bbox' not in str(made)
