"""Evaluation by generation with an engine made of a dictionary."""

import json

import pytest

from swift.core.errors import DatasetError
from swift.core.types import Conversation
from swift.trainers.generation import GenerationEval, split_answer


def row(question, answer):
    return Conversation([{'role': 'user', 'content': question}, {'role': 'assistant', 'content': answer}])


def test_answers_are_compared_and_kept_in_row_order(tmp_path):
    said = {'1+1': '2', '2+2': '5', '你好': '你好吗'}

    def generate(conversations):
        assert all(talk.messages[-1]['role'] == 'user' for talk in conversations)  # the reference is not shown
        return [said[talk.messages[-1]['content']] for talk in conversations]

    evaluation = GenerationEval(generate, [row('1+1', '2'), row('2+2', '4'), row('你好', '你好')], str(tmp_path))
    scores = evaluation(step=5)
    assert scores['exact_match'] == pytest.approx(100 / 3)
    assert scores['rouge-l'] == pytest.approx(100 * (1 + 0 + 2 * 2 / (3 + 2)) / 3)
    lines = [json.loads(line) for line in open(tmp_path / 'predict.jsonl')]
    assert [(line['step'], line['response'], line['labels']) for line in lines] == [(5, '2', '2'), (5, '5', '4'), (5, '你好吗', '你好')]


def test_own_metric_and_rows_without_reference(tmp_path):
    rows = [row('a', 'b'), Conversation([{'role': 'user', 'content': 'x'}])]
    evaluation = GenerationEval(lambda talks: ['b'] * len(talks), rows, str(tmp_path), lambda mine, other: {'n': len(mine)})
    assert evaluation()['n'] == 1
    with pytest.raises(DatasetError, match='no validation row ends with an assistant message'):
        GenerationEval(lambda talks: [], rows[1:], str(tmp_path))
    parts = Conversation([{'role': 'assistant', 'content': [{'type': 'text', 'text': 'hi'}]}])
    assert split_answer(parts)[1] == 'hi'
