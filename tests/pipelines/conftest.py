"""Small data and runs for the pipelines."""

import json

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Tokens are cached in a folder of the test session, not in the user's."""
    monkeypatch.setenv('SWIFT_CACHE', str(tmp_path_factory.getbasetemp() / 'cache'))


def write_rows(path, rows) -> str:
    path.write_text(''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows), encoding='utf-8')
    return str(path)


@pytest.fixture
def chat_file(tmp_path) -> str:
    """24 rows of two shapes."""
    rows = [{'query': f'What is {i} plus one?', 'response': f'The answer is {i + 1}.'} for i in range(20)]
    rows += [{'messages': [{'role': 'user', 'content': f'hello {i}'}, {'role': 'assistant', 'content': 'I am fine'}]} for i in range(4)]
    return write_rows(tmp_path / 'chat.jsonl', rows)


@pytest.fixture
def text_file(tmp_path) -> str:
    """12 rows of plain text."""
    return write_rows(tmp_path / 'text.jsonl', [{'text': f'once upon a time {i} things went on and on until the end ' * 3} for i in range(12)])


@pytest.fixture
def quick(tiny_dir, chat_file, tmp_path) -> dict:
    """Settings of a run that takes a second."""
    return dict(model=tiny_dir, dataset=chat_file, output_dir=str(tmp_path / 'out'), max_steps=4, per_device_train_batch_size=4,
                learning_rate=1e-2, report_to='none', logging_steps=1)  # fmt: skip
