import json
import subprocess
import sys

import pytest

from swift.arguments.data import DataArgs
from swift.core.errors import DatasetError, RowError
from swift.dataset import DatasetLoader, DatasetMeta, SubsetDataset, load_dataset, register_dataset
from swift.dataset.registry import known_datasets
from swift.dataset.syntax import parse_spec
from tests.dataset.helpers import rows, write_jsonl


def load(paths, seed=1, **settings):
    return load_dataset(DataArgs(dataset=[str(path) for path in paths], **settings), seed=seed)


def numbers(source):
    return [] if source is None else [int(source[i].messages[0]['content'][1:6]) for i in range(len(source))]


@pytest.fixture
def path(tmp_path):
    return write_jsonl(tmp_path / 'd.jsonl', rows(100))


@pytest.mark.parametrize(('text', 'name', 'subsets', 'count', 'hub'), [
    ('AI-ModelScope/alpaca-gpt4-data-zh#500', 'AI-ModelScope/alpaca-gpt4-data-zh', (), 500, None),
    ('HF::owner/name:a/b#1_000', 'owner/name', ('a', 'b'), 1000, True),
    ('ms::owner/name', 'owner/name', (), None, False),
    ('swift/self-cognition:qwen3#5', 'swift/self-cognition', ('qwen3',), 5, None),
])  # fmt: skip
def test_the_syntax_of_an_entry(text, name, subsets, count, hub):
    spec = parse_spec(text)
    assert (spec.name, spec.subsets, spec.rows, spec.use_hf) == (name, subsets, count, hub)


def test_a_path_may_hold_any_sign(tmp_path):
    (tmp_path / 'a:b#3').mkdir()
    odd = write_jsonl(tmp_path / 'a:b#3' / 'x#1.jsonl', rows(5))
    assert parse_spec(odd).name == odd and parse_spec(odd + '#2').rows == 2
    assert len(load([odd]).train) == 5


@pytest.mark.parametrize('text', ['d#x', 'd#0', ''])
def test_entries_that_make_no_sense(text):
    with pytest.raises(DatasetError):
        parse_spec(text)


def test_a_number_of_rows_is_a_sample_that_the_seed_decides(path):
    three = numbers(load([f'{path}#3']).train)
    assert len(set(three)) == 3 and three == numbers(load([f'{path}#3']).train)
    assert three != numbers(load([f'{path}#3'], seed=2).train) != [0, 1, 2]
    assert numbers(load([f'{path}#3'], dataset_shuffle=False).train) == [0, 1, 2]
    assert numbers(load([f'{path}#3'], data_seed=1, seed=9).train) == three


def test_more_rows_than_there_are_repeats_them(path):
    found = numbers(load([f'{path}#250']).train)
    assert len(found) == 250 and {found.count(n) for n in range(100)} == {2, 3}


def test_shuffling(path):
    found = numbers(load([path]).train)
    assert found != list(range(100)) and sorted(found) == list(range(100))
    assert numbers(load([path], dataset_shuffle=False).train) == list(range(100))


def test_several_are_concatenated(tmp_path, path):
    other = write_jsonl(tmp_path / 'e.jsonl', rows(50, start=1000))
    assert sorted(numbers(load([path, other]).train)) == [*range(100), *range(1000, 1050)]
    assert numbers(load([path, other], dataset_shuffle=False).train) == [*range(100), *range(1000, 1050)]


def test_interleaving_respects_the_probabilities(tmp_path):
    paths = [write_jsonl(tmp_path / f'{n}.jsonl', rows(2000, start=n * 10000)) for n in range(3)]
    found = numbers(load(paths, interleave_prob=[0.5, 0.3, 0.2], dataset_shuffle=False).train)
    shares = [sum(n // 10000 == k for n in found) / len(found) for k in range(3)]
    assert shares == pytest.approx([0.5, 0.3, 0.2], abs=0.03)
    assert len(set(found)) == len(found) and sum(n < 10000 for n in found) == 2000  # ends when the first is used up
    every = numbers(load(paths, interleave_prob=[0.5, 0.3, 0.2], stopping_strategy='all_exhausted').train)
    assert len(set(every)) == 6000 and len(every) > 9000
    with pytest.raises(DatasetError, match='2 values for 3 data sets'):
        load(paths, interleave_prob=[0.5, 0.5])


def test_interleaving_in_turn_and_concatenating_from_python(tmp_path, path):
    one = DatasetLoader.load(path)
    two = DatasetLoader.load(write_jsonl(tmp_path / 'e.jsonl', rows(3, start=1000)))
    assert numbers(DatasetLoader.interleave_datasets([one, two])) == [0, 1000, 1, 1001, 2, 1002, 3]
    every = DatasetLoader.interleave_datasets([one, two], stopping_strategy='all_exhausted')
    assert numbers(every)[:8] == [0, 1000, 1, 1001, 2, 1002, 3, 1000] and len(every) == 199
    assert numbers(DatasetLoader.concat_datasets([two, one])) == [1000, 1001, 1002, *range(100)]
    assert DatasetLoader.concat_datasets([]) is None


def test_a_share_is_held_out(path):
    splits = load([path], split_dataset_ratio=0.1)
    train, val = numbers(splits.train), numbers(splits.val)
    assert len(val) == 10 and sorted(train + val) == list(range(100)) and val != list(range(90, 100))
    assert numbers(load([path], split_dataset_ratio=0.1).val) == val
    assert numbers(load([path], split_dataset_ratio=0.1, dataset_shuffle=False).val) == list(range(90, 100))
    assert len(load([path], split_dataset_ratio=0.001).val) == 1
    whole = load([path], split_dataset_ratio=1.0)
    assert whole.train is None and len(whole.val) == 100


def test_repeated_rows_never_leak_into_the_held_out_share(path):
    splits = load([f'{path}#300'], split_dataset_ratio=0.1)
    train, val = numbers(splits.train), numbers(splits.val)
    assert len(val) == 10 and len(train) == 290 and not set(train) & set(val)
    few = load([f'{path}#20'], split_dataset_ratio=0.1)
    assert (len(few.train), len(few.val)) == (18, 2)


def test_validation_data_of_its_own(tmp_path, path):
    other = write_jsonl(tmp_path / 'e.jsonl', rows(5, start=1000))
    assert numbers(load([path], val_dataset=[other]).val) == list(range(1000, 1005))
    mixed = numbers(load([path], val_dataset=[other], val_dataset_shuffle=True).val)
    assert sorted(mixed) == list(range(1000, 1005))
    with pytest.raises(DatasetError, match='--val_dataset and --split_dataset_ratio exclude each other'):
        load([path], val_dataset=[other], split_dataset_ratio=0.1)
    assert load([path]).val is None and load([], val_dataset=[other]).train is None


def test_folders_and_patterns(tmp_path):
    for name in ('a', 'b'):
        (tmp_path / name).mkdir()
        write_jsonl(tmp_path / name / 'x.jsonl', rows(3, start=10 * (name == 'b')))
    (tmp_path / 'a' / 'notes.md').write_text('hello')
    (tmp_path / 'a' / 'dataset_info.json').write_text('{}')
    for entry in (tmp_path, tmp_path / '*' / '*.jsonl', tmp_path / '**' / '*.jsonl'):
        assert sorted(numbers(load([entry]).train)) == [0, 1, 2, 10, 11, 12]
    with pytest.raises(DatasetError, match='no such file'):
        load([tmp_path / '*.csv'])
    (tmp_path / 'empty').mkdir()
    with pytest.raises(DatasetError, match='holds no data files'):
        load([tmp_path / 'empty'])


def test_a_folder_with_splits_gives_its_training_rows(tmp_path):
    write_jsonl(tmp_path / 'train.jsonl', rows(3))
    write_jsonl(tmp_path / 'test.jsonl', rows(2, start=100))
    assert numbers(load([tmp_path], dataset_shuffle=False).train) == [0, 1, 2]
    assert numbers(DatasetLoader.load(str(tmp_path), split='test')) == [100, 101]
    with pytest.raises(DatasetError, match='no split validation; found: test, train'):
        DatasetLoader.load(str(tmp_path), split='validation')


def test_subsets_are_folders_or_what_the_card_says(tmp_path):
    for name in ('en', 'zh'):
        (tmp_path / name).mkdir()
        write_jsonl(tmp_path / name / 'train-00000.jsonl', rows(2, start=100 * (name == 'zh')))
    assert numbers(load([f'{tmp_path}:zh'], dataset_shuffle=False).train) == [100, 101]
    with pytest.raises(DatasetError, match="no subset 'fr'; its folders: en, zh"):
        load([f'{tmp_path}:fr'])
    card = {'configs': [
        {'config_name': 'both', 'data_files': [{'split': 'train', 'path': '*/train-*'}]},
        {'config_name': 'chinese', 'data_files': 'zh/*.jsonl', 'default': True},
    ]}  # fmt: skip
    (tmp_path / 'README.md').write_text(f'---\n{json.dumps(card)}\n---\n# card')
    assert numbers(load([f'{tmp_path}:both'], dataset_shuffle=False).train) == [0, 1, 100, 101]
    assert numbers(load([tmp_path], dataset_shuffle=False).train) == [100, 101]
    with pytest.raises(DatasetError, match="no subset 'fr'; choose one: .*both,chinese"):
        load([f'{tmp_path}:fr'])


def test_an_unknown_name_lists_what_there_is(tmp_path):
    with pytest.raises(ValueError, match="Dataset 'custom_dataset' not found. Available datasets: alpaca-zh, alpaca-en"):
        DatasetLoader.load('custom_dataset')
    with pytest.raises(DatasetError, match="did you mean 'alpaca-zh'"):
        load(['alpaca-zhh'])
    write_jsonl(tmp_path / 'train_data.jsonl', rows(1))
    with pytest.raises(DatasetError, match="no such file in .*; did you mean 'train_data.jsonl'"):
        load([tmp_path / 'train_dta.jsonl'])


def test_rows_of_no_known_shape_stop_at_once(tmp_path):
    path = write_jsonl(tmp_path / 'x.jsonl', [{'foo': 1}] * 5)
    for streaming in (False, True):
        with pytest.raises(DatasetError, match=r"x.jsonl:1: columns \['foo'\] are no known shape; accepted: messages"):
            load([path], streaming=streaming)
    with pytest.raises(DatasetError, match='mapped columns'):
        load([path], columns={'bar': 'query'})


def test_empty_files(tmp_path):
    for name in ('x.jsonl', 'x.json', 'x.csv', 'x.txt'):
        (tmp_path / name).write_text('[]' if name == 'x.json' else '')
        with pytest.raises(DatasetError, match='has no rows'):
            load([tmp_path / name])


IDENTITY = [
    {'instruction': 'who are you?', 'input': '', 'output': 'I am {{name}}, made by {{author}}.'},
    {'instruction': '你是谁', 'input': '', 'output': '我是 {{NAME}}，由 {{ AUTHOR }} 开发。'},
]


@pytest.mark.parametrize('streaming', [False, True])
def test_the_placeholders_of_identity_rows(tmp_path, streaming):
    path = write_jsonl(tmp_path / 'identity.jsonl', IDENTITY)
    with pytest.raises(DatasetError, match='--model_name and --model_author'):
        load([path], streaming=streaming)
    settings = {'dataset_shuffle': False, 'streaming': streaming}
    train = load([path], model_name=['小助', 'Tiny'], model_author=['我们', 'Us'], **settings).train
    assert [talk.messages[-1]['content'] for talk in (train if streaming else [train[0], train[1]])] == [
        'I am Tiny, made by Us.', '我是 小助，由 我们 开发。',
    ]  # fmt: skip
    train = load([path], model_name=['Tiny'], model_author=['Us'], dataset_shuffle=False).train
    assert train[1].messages[-1]['content'] == '我是 Tiny，由 Us 开发。'


def test_rows_that_merely_talk_about_templates_are_left_alone(tmp_path):
    items = [*rows(30), {'query': 'jinja?', 'response': 'write {{name}}'}]
    train = load([write_jsonl(tmp_path / 'x.jsonl', items)], dataset_shuffle=False).train
    assert train[30].messages[-1]['content'] == 'write {{name}}'


def write_info(folder, info):
    (folder / 'dataset_info.json').write_text(json.dumps(info), encoding='utf-8')
    return str(folder)


def contents(source):
    return [[(m['role'], m['content']) for m in source[i].messages] for i in range(len(source))]


def test_dataset_info_alpaca_and_sharegpt(tmp_path):
    write_jsonl(tmp_path / 'a.jsonl', [{'frage': 'q', 'mehr': 'x', 'antwort': 'a', 'sys': 's', 'davor': [['q0', 'a0']]}])
    write_jsonl(tmp_path / 's.jsonl', [{'talk': [
        {'who': 'sys', 'says': 's'}, {'who': 'me', 'says': 'q'}, {'who': 'fn', 'says': '{"name": "f", "arguments": {}}'},
        {'who': 'obs', 'says': 'o'}, {'who': 'you', 'says': 'a'},
    ], 'werkzeug': '[{"name": "f"}]'}])  # fmt: skip
    write_jsonl(tmp_path / 'k.jsonl', [{'conversations': [{'from': 'human', 'value': 'q'}, {'from': 'gpt', 'value': 'a'}], 'good': False}])
    write_jsonl(tmp_path / 'p.jsonl', [{'conversations': [{'from': 'human', 'value': 'q'}], 'win': {'from': 'gpt', 'value': 'a'},
                                        'lose': {'from': 'gpt', 'value': 'b'}}])  # fmt: skip
    write_jsonl(tmp_path / 't.jsonl', [{'body': 'plain text'}])
    folder = write_info(tmp_path, {
        'alpaca': {'file_name': 'a.jsonl', 'columns': {
            'prompt': 'frage', 'query': 'mehr', 'response': 'antwort', 'system': 'sys', 'history': 'davor'}},
        'sharegpt': {'file_name': 's.jsonl', 'formatting': 'sharegpt', 'columns': {'messages': 'talk', 'tools': 'werkzeug'},
                     'tags': {'role_tag': 'who', 'content_tag': 'says', 'user_tag': 'me', 'assistant_tag': 'you',
                              'system_tag': 'sys', 'function_tag': 'fn', 'observation_tag': 'obs'}},
        'kto': {'file_name': 'k.jsonl', 'formatting': 'sharegpt', 'columns': {'messages': 'conversations', 'kto_tag': 'good'}},
        'dpo': {'file_name': 'p.jsonl', 'formatting': 'sharegpt', 'ranking': True,
                'columns': {'messages': 'conversations', 'chosen': 'win', 'rejected': 'lose'}},
        'pt': {'file_name': 't.jsonl', 'columns': {'prompt': 'body'}},
        'gone': {'file_name': 'nowhere.jsonl'},
    })  # fmt: skip
    one = DatasetLoader.load('alpaca', dataset_dir=folder)
    assert contents(one) == [[('system', 's'), ('user', 'q0'), ('assistant', 'a0'), ('user', 'q\nx'), ('assistant', 'a')]]
    talk = DatasetLoader.load('sharegpt', dataset_dir=folder)[0]
    assert [m['role'] for m in talk.messages] == ['system', 'user', 'assistant', 'tool', 'assistant'] and talk.messages[2]['tool_calls']
    assert talk.tools[0]['function']['name'] == 'f'
    assert DatasetLoader.load('kto', dataset_dir=folder)[0].label is False
    pair = DatasetLoader.load('dpo', dataset_dir=folder)[0]
    assert (pair.messages[-1]['content'], pair.rejected[-1]['content']) == ('a', 'b')
    assert DatasetLoader.load('pt', dataset_dir=folder)[0].text
    assert len(load(['alpaca#4', 'kto'], dataset_dir=folder).train) == 5
    with pytest.raises(DatasetError, match='nowhere.jsonl does not exist'):
        load(['gone'], dataset_dir=folder)
    with pytest.raises(DatasetError, match="Dataset 'alpacka' not found. Available datasets: alpaca, .*did you mean 'alpaca'"):
        load(['alpacka'], dataset_dir=folder)
    with pytest.raises(DatasetError, match='has no dataset_info.json'):
        load(['alpaca'], dataset_dir=str(tmp_path / 'nowhere'))


def test_dataset_info_mistakes_are_named(tmp_path):
    for entry, what in (({'file': 'x'}, 'unknown keys'), ({'file_name': 'x', 'formatting': 'csv'}, "unknown formatting 'csv'")):
        with pytest.raises(DatasetError, match=what):
            load(['x'], dataset_dir=write_info(tmp_path, {'x': entry}))
    with pytest.raises(DatasetError, match='must be a JSON object or list'):
        load(['x'], dataset_dir=write_info(tmp_path, 5))


def test_task_templates(tmp_path):
    write_jsonl(tmp_path / 'm.jsonl', [
        {'question': '1+1?', 'answer': '2'},
        {'task': 'summary', 'text': 'long', 'response': 'short'},
        {'task': 'translate', 'text': 'hallo', 'output': 'hello'},
        {'text': 'which of two?', 'output': 'x'},
    ])  # fmt: skip
    folder = write_info(tmp_path, {'multi': {'file_name': 'm.jsonl', 'formatting': 'sharegpt', 'task_templates': {
        'qa': {'system': 'answer', 'prompt_template': 'Q: {question}\nA:'},
        'summary': {'system': 'sum up', 'prompt_template': 'Text: {text}'},
        'translate': {'prompt_template': 'To English: {text}'},
    }}})  # fmt: skip
    found = DatasetLoader.load('multi', dataset_dir=folder)
    assert contents(found.take([0, 1, 2])) == [
        [('system', 'answer'), ('user', 'Q: 1+1?\nA:'), ('assistant', '2')],
        [('system', 'sum up'), ('user', 'Text: long'), ('assistant', 'short')],
        [('user', 'To English: hallo'), ('assistant', 'hello')],
    ]
    assert [found[i].channel for i in range(3)] == ['qa', 'summary', 'translate']
    with pytest.raises(RowError, match='m.jsonl:4: no column task, and 2 of the task templates fit'):
        found[3]


def test_ranked_answers(tmp_path):
    write_jsonl(tmp_path / 'r.jsonl', [{'instruction': 'q', 'input': '', 'output': ['good', 'bad', 'worse']},
                                       {'instruction': 'q', 'chosen': 'good', 'rejected': 'bad'}])  # fmt: skip
    found = DatasetLoader.load('ranked', dataset_dir=write_info(tmp_path, {'ranked': {'file_name': 'r.jsonl', 'ranking': True}}))
    for index, others in ((0, ['worse']), (1, [])):
        assert [found[index].messages[-1]['content'], found[index].rejected[-1]['content']] == ['good', 'bad']
        assert [messages[-1]['content'] for messages in found[index].negatives or []] == others


def test_answers_of_tasks(tmp_path):
    rows = [
        {'task': 'sum', 'text': 'long', 'summary': 'short'},
        {'task': 'sum', 'text': 'long'},
        {'task': 'sum', 'text': 'long', 'resume': 'short'},
        {'task': 'own', 'text': 'long', 'resume': 'short', 'answer': 'no', 'channel': 'x'},
        {'task': 'own', 'text': 'long'},
        {'task': 'sum'},
        {'task': 'sun', 'text': 'long'},
        {'task': 'own', 'messages': [{'role': 'user', 'content': 'q'}, {'role': 'assistant', 'content': 'a'}]},
    ]  # fmt: skip
    write_jsonl(tmp_path / 't.jsonl', rows)
    templates = {'sum': {'prompt_template': 'T: {text}'}, 'own': {'system': 's', 'prompt_template': '{text}', 'answer': 'resume'}}
    folder = write_info(tmp_path, {'t': {'file_name': 't.jsonl', 'task_templates': templates}})
    found = DatasetLoader.load('t', dataset_dir=folder)
    assert contents(found.take([0, 1, 3, 7])) == [
        [('user', 'T: long'), ('assistant', 'short')], [('user', 'T: long')],
        [('system', 's'), ('user', 'long'), ('assistant', 'short')], [('system', 's'), ('user', 'q'), ('assistant', 'a')],
    ]  # fmt: skip
    assert [found[index].channel for index in (0, 3, 7)] == ['sum', 'own', 'own']
    for index, what in (
        (2, r"the task 'sum' finds no answer in the columns \['resume'\]; it is read from response, .*, summary, translation; name the column"),
        (4, r"the task 'own' finds no answer in the columns \[\]; it is read from resume; add it"),
        (5, r"the task 'sum' needs the columns \['text'\], the row has \[\]"),
        (6, "unknown task 'sun'; did you mean 'sum'"),
    ):  # fmt: skip
        with pytest.raises(RowError, match=what) as wrong:
            found[index]
        assert str(wrong.value).startswith(f'{tmp_path}/t.jsonl:{index + 1}: ')
    write_info(tmp_path, {'t': {'file_name': 't.jsonl', 'task_templates': {'sum': {'prompt': '{text}'}}}})
    with pytest.raises(DatasetError, match=r"the template of 'sum' has unknown keys \['prompt'\]; known: system, prompt_template, answer"):
        DatasetLoader.load('t', dataset_dir=folder)


def test_names_of_tasks(tmp_path):
    from swift.dataset.tasks import task_names

    path = write_jsonl(tmp_path / 'c.jsonl', [{'query': 'q', 'response': 'a', **more} for more in ({'channel': 'b'}, {'task': 'a'}, {})])
    assert task_names(load([path]).train) == ('a', 'b')
    assert task_names(load([path], streaming=True).train) == ()
    write_jsonl(tmp_path / 't.jsonl', [{'task': 'z', 'query': 'q', 'response': 'a'}])
    folder = write_info(tmp_path, {'t': {'file_name': 't.jsonl', 'task_templates': {'z': {}, 'a': {}}}})
    for streaming in (False, True):
        assert task_names(load(['t'], dataset_dir=folder, streaming=streaming).train) == ('z', 'a')  # as they are declared
    assert task_names(load(['t', path], dataset_dir=folder).train) == ('a', 'b', 'z')


def test_the_list_dialect(tmp_path):
    write_jsonl(tmp_path / 'c.jsonl', [{'t1': 'q', 't2': 'a'}])
    write_jsonl(tmp_path / 'm.jsonl', [{'msgs': [{'r': 'U', 'c': 'q'}, {'r': 'B', 'c': 'a'}]}])
    (tmp_path / 'mine.json').write_text(json.dumps([
        {'dataset_path': 'c.jsonl', 'dataset_name': 'mine', 'columns': {'t1': 'query', 't2': 'response'}},
        {'dataset_path': 'm.jsonl', 'dataset_name': 'talks', 'columns': {'msgs': 'messages'},
         'messages': {'role_key': 'r', 'content_key': 'c', 'user_role': 'U', 'assistant_role': 'B'}},
        {'ms_dataset_id': 'me/remote', 'subsets': ['a', {'name': 'b', 'subset': 'bb'}], 'tags': ['x']},
    ]))  # fmt: skip
    info = [str(tmp_path / 'mine.json')]
    for name in ('mine', 'talks'):
        assert contents(load([name], custom_dataset_info=info).train) == [[('user', 'q'), ('assistant', 'a')]]
    with pytest.raises(DatasetError, match='me/remote has several subsets; choose: me/remote:{a,b} or me/remote:all'):
        load(['me/remote'], custom_dataset_info=info)
    with pytest.raises(DatasetError, match='me/remote is on ModelScope only; write MS::me/remote'):
        load_dataset(DataArgs(dataset=['me/remote:a'], custom_dataset_info=info), use_hf=True)


def test_registering_from_python(tmp_path, monkeypatch):
    from swift.dataset import registry

    monkeypatch.setattr(registry, '_registered', {})
    path = write_jsonl(tmp_path / 'x.jsonl', [{'n': n} for n in range(6)])

    def odd_only(row):
        return {'query': f'q{row["n"]:05d}', 'response': 'a'} if row['n'] % 2 else None

    register_dataset(DatasetMeta(dataset_path=path, dataset_name='numbers', preprocess_func=odd_only))
    splits = load(['numbers'], dataset_shuffle=False)
    assert splits.train[1].messages[0]['content'] == 'q00001'
    with pytest.raises(RowError, match='left out by its preprocessor'):
        splits.train[0]
    register_dataset(DatasetMeta(dataset_name='made', load_function=lambda: rows(4)))
    assert numbers(load(['made#2'], dataset_shuffle=False).train) == [0, 1]
    register_dataset(DatasetMeta(dataset_path=path, dataset_name='subs', subsets=[
        SubsetDataset('one', 'default', preprocess_func=odd_only), SubsetDataset('two', 'default', columns={'n': 'query'})]))  # fmt: skip
    assert load(['subs:two'], dataset_shuffle=False).train[4].messages == [{'role': 'user', 'content': '4'}]
    assert len(load(['subs:all']).train) == 12
    with pytest.raises(DatasetError, match="'numbers' is registered already"):
        register_dataset(DatasetMeta(dataset_path='other', dataset_name='numbers'))
    register_dataset(DatasetMeta(dataset_path='other', dataset_name='numbers'), exist_ok=True)


def test_a_preprocess_function_gets_messages_and_may_return_any_shape(tmp_path, path):
    def as_text(example):
        example['messages'].insert(0, {'role': 'system', 'content': example['system']} if 'system' in example else {'role': 'system', 'content': '-'})
        return {'text': ' '.join(message['content'] for message in example['messages'])}

    found = DatasetLoader.load(path, preprocess_function=as_text)[1]
    assert found.text and found.messages[0]['content'] == '- q00001xxxxxxx rrrrrrrrrrrrrr'
    chat = write_jsonl(tmp_path / 'c.jsonl', [{'messages': [{'role': 'user', 'content': 'hi'}], 'system': 'be kind'}])
    assert DatasetLoader.load(chat, preprocess_function=as_text)[0].messages[0]['content'] == 'be kind hi'
    assert DatasetLoader.load(path, preprocess_function=lambda row: {'query': row['response'], 'response': 'x'})[0].messages[1]['content'] == 'x'


def test_the_built_in_facts():
    known = known_datasets()
    assert len(known) > 250 and all('/' in name or meta for name, meta in known.items())
    for name in ('alpaca-zh', 'alpaca-en', 'hh-rlhf', 'hh-rlhf-zh', 'math-qa', 'gsm8k', 'math', 'c4', 'code_alpaca', 'leetcode'):
        assert len(known[name].subset_list()) == 1, name
    assert known['alpaca-zh'].hf_dataset_id == 'llm-wizard/alpaca-gpt4-data-zh'
    assert [subset.name for subset in known['swift/self-cognition'].subset_list()] == ['default', 'qwen3', 'empty_think']


def test_reading_a_local_file_imports_nothing_heavy(path):
    code = (
        'import sys; from swift.arguments.data import DataArgs; from swift.dataset import load_dataset, encode_rows, make_loader;'
        f'train = load_dataset(DataArgs(dataset=[{path!r}], split_dataset_ratio=0.1)).train; train[0];'
        'print([name for name in ("torch", "datasets", "pandas", "pyarrow", "transformers", "huggingface_hub") if name in sys.modules])'
    )
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'
