"""`swift infer`: piped, typed, over files; settings come from the checkpoint."""

import io
import json
import os
import subprocess
import sys

import pytest
import torch

from swift.core.errors import SwiftError
from swift.pipelines.infer import infer_main
from tests.helpers.tiny import build_model, build_tokenizer


@pytest.fixture(scope='module')
def base(tmp_path_factory):
    """The tiny model with larger weights, so that its answers differ."""
    path = tmp_path_factory.mktemp('base') / 'model'
    model, tokenizer = build_model(seed=3), build_tokenizer()
    broken = [i for i in range(640) if not tokenizer.decode([i]).isascii() or not tokenizer.decode([i])]
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2:
                weight.mul_(4 if 'embed' not in name else 1.5)
        model.model.embed_tokens.weight[broken] *= 0.05
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


@pytest.fixture
def checkpoint(base, tmp_path):
    """A run directory with one LoRA checkpoint, its settings, and the rows it kept for validation."""
    from tests.export.conftest import make_adapter

    path = make_adapter(base, tmp_path / 'run' / 'checkpoint-5', 1)
    settings = {'command': 'sft', 'model': base, 'system': 'Be brief.', 'sources': {'model': 'command line', 'system': 'command line'}}
    for folder in (path, os.path.dirname(path)):
        with open(os.path.join(folder, 'args.json'), 'w') as file:
            json.dump(settings, file)
    write_rows(tmp_path / 'run' / 'val_dataset.jsonl', [{'query': 'kept?', 'response': 'yes'}])
    return path


def write_rows(path, rows):
    path.write_text(''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows), encoding='utf-8')
    return str(path)


def read_rows(path):
    with open(path, encoding='utf-8') as file:
        return [json.loads(line) for line in file]


def typed(monkeypatch, text):
    """stdin is a pipe that holds `text`."""
    monkeypatch.setattr(sys, 'stdin', io.StringIO(text))


ROWS = [
    {'messages': [{'role': 'user', 'content': f'question {i} ' * (i % 7 + 1)}, {'role': 'assistant', 'content': f'label {i}'}], 'id': i}
    for i in range(23)
]


def test_one_row_for_each_input_in_order(base, tmp_path):
    data = write_rows(tmp_path / 'rows.jsonl', [*ROWS[:9], {'messages': []}, *ROWS[9:]])
    path = tmp_path / 'out' / 'answers.jsonl'
    flags = ['--model', base, '--val_dataset', data, '--temperature', '0', '--max_new_tokens', '9', '--max_batch_size', '4']
    returned = infer_main([*flags, '--result_path', str(path), '--logprobs', 'true', '--top_logprobs', '2'])
    rows = read_rows(path)
    assert len(rows) == len(returned) == 24
    good = rows[:9] + rows[10:]
    assert [row['id'] for row in good] == list(range(23))
    assert [row['labels'] for row in good] == [f'label {i}' for i in range(23)]
    assert [row['messages'][0] for row in good] == [row['messages'][0] for row in ROWS]
    assert all(row['messages'][-1] == {'role': 'assistant', 'content': row['response']} for row in good)
    assert all(len(row['logprobs']['content']) == row['usage']['completion_tokens'] <= 9 for row in good)
    assert rows[9]['response'] is None
    assert 'rows.jsonl:10' in rows[9]['error']
    with pytest.raises(SwiftError, match='exists already'):
        infer_main([*flags, '--result_path', str(path)])
    assert read_rows(path) == rows
    one = infer_main([*flags, '--val_dataset_sample', '1', '--max_batch_size', '1'])
    assert one[0]['response'] == rows[0]['response']
    assert len(os.listdir(os.path.join(base, 'infer_result'))) == 1  # the default place, a new file each time


def test_sampled_answers_can_be_repeated_and_rows_have_their_own_seeds(base, tmp_path):
    data = write_rows(tmp_path / 'rows.jsonl', [ROWS[0]] * 6)
    flags = ['--model', base, '--val_dataset', data, '--temperature', '1.5', '--max_new_tokens', '12']
    a = infer_main([*flags, '--result_path', str(tmp_path / 'a'), '--max_batch_size', '2'])
    b = infer_main([*flags, '--result_path', str(tmp_path / 'b')])
    c = infer_main([*flags, '--result_path', str(tmp_path / 'c'), '--seed', '7'])
    assert [row['response'] for row in a] == [row['response'] for row in b] != [row['response'] for row in c]
    assert len({row['response'] for row in a}) > 3


def test_metrics(base, tmp_path, capsys):
    first = infer_main(['--model', base, '--val_dataset', write_rows(tmp_path / 'r.jsonl', ROWS[:4]), '--temperature', '0', '--max_new_tokens', '6'])
    rows = [{'query': row['messages'][0]['content'], 'response': row['response']} for row in first]
    rows[0]['response'] = 'something else'
    data = write_rows(tmp_path / 'labelled.jsonl', [row for row in rows if row['response']])
    for metric, text in (('acc', 'acc=75.0000'), ('rouge', 'rouge-l=')):
        infer_main(['--model', base, '--val_dataset', data, '--temperature', '0', '--max_new_tokens', '6', '--metric', metric])
        assert text in capsys.readouterr().out


def test_streamed_rows_are_the_same_answers(base, tmp_path, capsys):
    data = write_rows(tmp_path / 'rows.jsonl', ROWS[:3])
    flags = ['--model', base, '--val_dataset', data, '--temperature', '0', '--max_new_tokens', '6']
    plain = infer_main([*flags, '--result_path', str(tmp_path / 'a')])
    capsys.readouterr()
    streamed = infer_main([*flags, '--result_path', str(tmp_path / 'b'), '--stream', 'true'])
    assert [row['response'] for row in streamed] == [row['response'] for row in plain]
    out = capsys.readouterr().out
    assert all(row['response'] in out for row in plain)


def test_settings_come_from_the_checkpoint(base, checkpoint, tmp_path):
    """Model and system prompt from args.json, the last checkpoint of a run, merged or not, adapter given either way."""
    data = write_rows(tmp_path / 'rows.jsonl', ROWS[:5])
    flags = ['--val_dataset', data, '--temperature', '0', '--max_new_tokens', '8', '--result_path']
    run = os.path.dirname(checkpoint)
    answers = [
        [row['response'] for row in infer_main([*model, *flags, str(tmp_path / f'{i}.jsonl'), *more])]
        for i, (model, more) in enumerate(
            [
                (['--adapters', checkpoint], []),
                (['--adapters', run], []),
                (['--model', run], []),
                (['--model', base, '--adapters', checkpoint], ['--system', 'Be brief.']),
                (['--adapters', checkpoint], ['--merge_lora', 'true']),
                (['--model', checkpoint + '-merged'], []),
                (['--adapters', checkpoint], ['--merge_lora', 'true']),  # merged already: used as it is
                (['--adapters', checkpoint], ['--system', 'Be long.']),
                (['--model', base], ['--system', 'Be brief.']),
            ]
        )
    ]
    assert all(answer == answers[0] for answer in answers[:7])
    assert answers[7] != answers[0]
    assert answers[8] != answers[0]


def test_rows_that_the_training_kept(checkpoint):
    rows = infer_main(['--adapters', checkpoint, '--load_data_args', 'true', '--temperature', '0', '--max_new_tokens', '4'])
    assert [(row['labels'], row['messages'][-2]['content']) for row in rows] == [('yes', 'kept?')]
    assert os.listdir(os.path.join(checkpoint, 'infer_result'))


def test_a_pipe_is_answered_and_ends(base, monkeypatch, capsys):
    typed(monkeypatch, 'hello\nand now?\nclear\nhello\n')
    rows = infer_main(['--model', base, '--temperature', '0', '--max_new_tokens', '6'])
    assert [len(row['messages']) for row in rows] == [2, 4, 2]
    assert rows[1]['messages'][:2] == rows[0]['messages']
    assert rows[2]['response'] == rows[0]['response']
    assert capsys.readouterr().out == ''.join(row['response'] + '\n' for row in rows)


def test_commands_of_a_conversation(base, monkeypatch, tmp_path):
    typed(monkeypatch, 'multi-line\nfirst\nsecond #\nsingle-line\nreset-system\nSpeak Latin.\n\nhello\nexit\nnever asked\n')
    path = tmp_path / 'kept.jsonl'
    rows = infer_main(['--model', base, '--temperature', '0', '--max_new_tokens', '3', '--result_path', str(path), '--stream', 'false'])
    assert [row['messages'][0] for row in rows] == [
        {'role': 'user', 'content': 'first\nsecond'},
        {'role': 'system', 'content': 'Speak Latin.'},
    ]
    assert len(rows) == 2
    assert [row['response'] for row in read_rows(path)] == [row['response'] for row in rows]


def test_ctrl_c_stops_the_answer_only(base, monkeypatch, capsys):
    from swift.infer_engine import TransformersEngine

    typed(monkeypatch, 'hello\nagain\n')
    plain, calls = TransformersEngine.stream, []

    def interrupted(self, *args):
        pieces = plain(self, *args)
        calls.append(1)
        yield next(pieces)
        if len(calls) == 1:
            pieces.close()
            raise KeyboardInterrupt
        yield from pieces

    monkeypatch.setattr(TransformersEngine, 'stream', interrupted)
    rows = infer_main(['--model', base, '--temperature', '1.0', '--max_new_tokens', '30'])
    assert [row['finish_reason'] == 'abort' for row in rows] == [True, False]
    assert '[stopped]' in capsys.readouterr().out
    assert rows[1]['messages'][1]['content'] == rows[0]['response']


def test_the_command_itself(base):
    """A fresh process: the answer alone on stdout, exit code 0."""
    command = [sys.executable, '-m', 'swift.cli.main', 'infer', '--model', base, '--max_new_tokens', '5', '--temperature', '0']
    done = subprocess.run(command, input='hello\n', capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith('\n')
    assert 'Traceback' not in done.stderr


def test_other_backends_are_refused_in_one_line(base):
    for backend in ('vllm', 'sglang', 'lmdeploy'):
        with pytest.raises(SwiftError, match=backend) as error:
            infer_main(['--model', base, '--infer_backend', backend])
        assert '\n' not in str(error.value)
    with pytest.raises(SwiftError, match='no rows to answer|--val_dataset'):
        infer_main(['--model', base, '--load_data_args', 'true'])
