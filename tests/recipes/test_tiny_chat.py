"""The recipe of the built-in model: its data are reproducible, true, and split without leaks; its tokenizer and template hold."""

import json
import re
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / 'recipes' / 'tiny_chat'


@pytest.fixture(scope='module')
def tasks():
    sys.path.insert(0, str(RECIPE))
    try:
        import tasks
    finally:
        sys.path.remove(str(RECIPE))
    return tasks


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folders = [tmp_path_factory.mktemp('tiny') / name for name in ('a', 'b')]
    for folder in folders:
        sizes = ['--documents', '150', '--conversations', '2000', '--last', '300', '--per_task', '30']
        subprocess.run([sys.executable, str(RECIPE / 'generate.py'), '--out', str(folder), *sizes], check=True, capture_output=True)
    return folders


@pytest.fixture(scope='module')
def start(data):
    """The tokenizer trained on the small data."""
    sys.path.insert(0, str(RECIPE))
    try:
        from start import train_tokenizer
    finally:
        sys.path.remove(str(RECIPE))
    return train_tokenizer(data[0])


def read(path):
    return [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]


def test_the_same_seed_gives_the_same_files(data):
    for name in ('pt.jsonl', 'sft.jsonl', 'last.jsonl', 'heldout.jsonl'):
        assert (data[0] / name).read_bytes() == (data[1] / name).read_bytes()


def test_no_held_out_sum_is_in_the_training_files_in_any_wording_or_order(data):
    def sums(text):
        return {tuple(sorted((int(a), int(b)))) + (sign,) for a, sign, b in re.findall(r'(?<!\d)(?<![+*-] )(\d+) ([+*]) (\d+)(?!\d)(?! [+*-])', text)}

    trained = set()
    for row in read(data[0] / 'pt.jsonl'):
        trained |= sums(row['text'])
    for row in read(data[0] / 'sft.jsonl') + read(data[0] / 'last.jsonl'):
        for message in row['messages']:
            text = message['content'].replace(' plus ', ' + ').replace(' times ', ' * ').replace(' 加 ', ' + ').replace(' 乘 ', ' * ')
            text = re.sub(r'(\d)([+*])(\d)', r'\1 \2 \3', text)
            text = re.sub(r'Add (\d+) and (\d+)', r'\1 + \2', re.sub(r'Multiply (\d+) by (\d+)', r'\1 * \2', text))
            trained |= sums(text)
    held_out = [row for row in read(data[0] / 'heldout.jsonl') if row['task'] in ('add', 'mul', 'add_big')]
    asked = set()
    for row in held_out:
        numbers = tuple(sorted(int(n) for n in re.findall(r'\d+', row['messages'][0]['content'])))
        asked.add(numbers + ('*' if row['task'] == 'mul' else '+',))
    assert len(asked) > 40 and len(trained) > 500
    assert not asked & trained


@pytest.mark.parametrize('task, right', [
    ('add', lambda n: n[0] + n[1]), ('add3', sum), ('mul', lambda n: n[0] * n[1]),
    ('add_big', sum), ('sub', lambda n: max(n) - min(n)), ('sub_big', lambda n: max(n) - min(n)), ('parity', lambda n: 'odd' if n[0] % 2 else 'even'),
])  # fmt: skip
def test_answers_are_true(tasks, task, right):
    for i in range(200):
        example = tasks.draw(Random(i), task=task)
        numbers = [int(n) for n in re.findall(r'\d+', example.question)]
        assert example.answer == str(right(numbers)), example.question


def test_row_answers_are_true(tasks):
    for i in range(200):
        for task, change in (('reverse', lambda x: x[::-1]), ('copy', lambda x: x), ('count', lambda x: [str(len(x))])):
            example = tasks.draw(Random(i), task=task)
            items = example.question.split(': ')[1].split()
            assert example.answer == ' '.join(change(items)), example.question


def test_reasoning_ends_at_the_answer(tasks):
    for i in range(300):
        answer = tasks.thinking(Random(i))['messages'][-1]
        assert answer['reasoning_content'].endswith(f' = {answer["content"]}')


def test_digits_are_single_tokens_and_any_text_survives(start):
    ids = start('12 + 345 = 357')['input_ids']
    assert [start.decode(i).strip() for i in ids if start.decode(i).strip().isdigit()] == list('12345357')
    for text in ('héllo 😀\n\n\n  x', 'tab\there', '你好,世界!', '<think>\nno\n</think>'):
        assert start.decode(start(text)['input_ids']) == text
    assert len(start('<|im_start|><think></think><tool_call><|im_end|>')['input_ids']) == 5
    assert start.eos_token == '<|im_end|>' and start.pad_token == '<|endoftext|>'


def render(tokenizer, messages, **kwargs):
    return tokenizer.apply_chat_template(messages, tokenize=False, **kwargs)


def test_template_thinking(start):
    ask = [{'role': 'user', 'content': 'Q'}]
    head = '<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n'
    assert render(start, ask, add_generation_prompt=True) == head
    assert render(start, ask, add_generation_prompt=True, enable_thinking=True) == head + '<think>\n'
    assert render(start, ask, add_generation_prompt=True, enable_thinking=False) == head + '<think>\n\n</think>\n\n'
    thought = ask + [{'role': 'assistant', 'reasoning_content': 'R', 'content': 'A'}]
    block = '<think>\nR\n</think>\n\nA<|im_end|>\n'
    assert render(start, thought) == head + block
    assert render(start, ask + [{'role': 'assistant', 'content': '<think>\nR\n</think>\n\nA'}]) == head + block
    # thoughts of earlier rounds are dropped; an answer without thoughts gets the empty block only when thinking is off
    assert '<think>' not in render(start, thought + ask + [{'role': 'assistant', 'content': 'B'}])
    plain = ask + [{'role': 'assistant', 'content': 'A'}]
    assert render(start, plain) == head + 'A<|im_end|>\n'
    assert render(start, plain, enable_thinking=False) == head + '<think>\n\n</think>\n\nA<|im_end|>\n'


def test_template_tools(start, tasks):
    call = {'type': 'function', 'function': {'name': 'get_time', 'arguments': {'city': 'Rome'}}}
    messages = [
        {'role': 'system', 'content': 'S'},
        {'role': 'user', 'content': 'Q'},
        {'role': 'assistant', 'content': '', 'tool_calls': [call, call]},
        {'role': 'tool', 'content': '1'},
        {'role': 'tool', 'content': '2'},
        {'role': 'assistant', 'content': 'A'},
    ]
    text = render(start, messages, tools=[tasks.TIME])
    one = '<tool_call>\n{"name": "get_time", "arguments": {"city": "Rome"}}\n</tool_call>'
    answers = '<|im_start|>user\n<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response><|im_end|>\n'
    assert text.startswith('<|im_start|>system\nS\n\nFunctions you can call:\n<tools>\n{"type": "function"')
    assert f'<|im_start|>assistant\n{one}\n{one}<|im_end|>\n{answers}<|im_start|>assistant\nA<|im_end|>\n' in text
    with pytest.raises(Exception, match='critic'):
        render(start, [{'role': 'critic', 'content': 'x'}])


def test_shipped_data_are_what_the_scripts_write(tmp_path):
    """examples/data holds exactly what its scripts make, and its held-out sums are held out."""
    pytest.importorskip('sklearn')
    source = ROOT / 'examples' / 'data'
    copy = tmp_path / 'examples' / 'data'
    copy.mkdir(parents=True)
    for script in source.glob('*.py'):
        (copy / script.name).write_text(script.read_text(encoding='utf-8'), encoding='utf-8')
    (tmp_path / 'recipes').symlink_to(ROOT / 'recipes')
    for script in copy.glob('make_*.py'):
        subprocess.run([sys.executable, str(script)], check=True)

    def names(folder):
        media = (path for path in (folder / 'media').rglob('*') if path.is_file())
        return sorted(str(path.relative_to(folder)) for path in [*folder.glob('*.jsonl'), *media])

    written = names(copy)
    assert written == names(source)
    for name in written:
        assert (copy / name).read_bytes() == (source / name).read_bytes(), name
