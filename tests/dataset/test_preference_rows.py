"""Rows with better and worse answers, and rows marked as wanted or not, in every form."""

import json

import pytest

from swift.core.errors import RowError
from swift.dataset import AutoPreprocessor
from swift.dataset.convert import to_row

U, A, S = (lambda text, role=role: {'role': role, 'content': text} for role in ('user', 'assistant', 'system'))
GPT = {'from': 'gpt', 'value': 'bad'}


def talk(row, **settings):
    return AutoPreprocessor(**settings)(row, 'pairs.jsonl:1')


@pytest.mark.parametrize('row', [
    {'question': 'q', 'chosen': 'a', 'rejected': 'bad'},
    {'instruction': 'q', 'input': '', 'chosen': 'a', 'rejected': 'bad'},
    {'instruction': 'q', 'output': 'a', 'rejected': 'bad'},
    {'query': 'q', 'response': 'a', 'rejected': 'bad'},
    {'prompt': 'q', 'completion': 'a', 'rejected_response': ['bad']},
    {'prompt': 'q', 'chosen': ['a'], 'rejected': ['bad']},
    {'prompt': 'q', 'chosen': [[A('a')]], 'rejected': [[A('bad')]]},
    {'prompt': 'q', 'chosen': A('a'), 'rejected': 'bad'},
    {'prompt': 'q', 'chosen': 'a', 'rejected': GPT},
    {'prompt': 'q', 'chosen': json.dumps([A('a')]), 'rejected': json.dumps([U('q'), A('bad')])},
    {'conversations': [{'from': 'human', 'value': 'q'}], 'chosen': 'a', 'rejected': [GPT]},
    {'conversations': [{'from': 'human', 'value': 'q'}, {'from': 'gpt', 'value': 'a'}], 'rejected_response': GPT},
    {'messages': [U('q'), A('another')], 'chosen': 'a', 'rejected': 'bad'},
    {'messages': [U('q'), A('a')], 'rejected': [U('q'), A('bad')]},
    {'messages': [U('q'), A('a')], 'rejected_messages': json.dumps([U('q'), A('bad')])},
    {'messages': [U('q')], 'chosen': 'a', 'rejected_messages': [U('q'), A('bad')]},
    {'messages': [U('q')], 'chosen': [U('q'), A('a')], 'rejected': {'role': 'assistant', 'content': 'bad'}},
    {'chosen': [U('q'), A('a')], 'rejected': [[U('q'), A('bad')]]},
    {'chosen': json.dumps([U('q'), A('a')]), 'rejected': json.dumps([U('q'), A('bad')])},
    {'chosen': [{'from': 'human', 'value': 'q'}, {'from': 'gpt', 'value': 'a'}], 'rejected_messages': [U('q'), A('bad')]},
    {'prompt': 'q', 'chosen': 'a', 'rejected': 'bad', 'rejected_response': None, 'label': None},
])  # fmt: skip
def test_one_pair_in_every_form(row):
    found = talk(row)
    assert found.messages == [U('q'), A('a')] and found.rejected == [U('q'), A('bad')]
    assert found.negatives is None and found.positives is None and found.columns == {}


SEVERAL = ['bad', 'worse', 'worst']


@pytest.mark.parametrize('row', [
    {'query': 'q', 'response': 'a', 'rejected_response': SEVERAL},
    {'messages': [U('q'), A('a')], 'rejected_response': SEVERAL},
    {'prompt': 'q', 'chosen': 'a', 'rejected': SEVERAL},
    {'prompt': 'q', 'chosen': 'a', 'rejected': [[A(text)] for text in SEVERAL]},
    {'messages': [U('q'), A('a')], 'rejected_messages': [[U('q'), A(text)] for text in SEVERAL]},
    {'chosen': [U('q'), A('a')], 'rejected': [[U('q'), A(text)] for text in SEVERAL]},
])  # fmt: skip
def test_several_rejected_answers(row):
    found = talk({**row, 'system': 'be kind'})
    assert found.messages == [S('be kind'), U('q'), A('a')] and found.rejected == [S('be kind'), U('q'), A('bad')]
    assert found.negatives == [[S('be kind'), U('q'), A(text)] for text in SEVERAL[1:]]


def test_tools_history_and_turns_stand_before_both_answers():
    call = {'type': 'function', 'function': {'name': 'clock', 'arguments': {}}}
    found = talk({
        'tools': [{'name': 'clock'}], 'messages': [U('hi'), A('hello'), U('time?')],
        'chosen': {'role': 'assistant', 'content': '', 'tool_calls': [call]}, 'rejected': 'No idea.',
    })  # fmt: skip
    assert found.messages[:3] == found.rejected[:3] == [U('hi'), A('hello'), U('time?')]
    assert found.messages[3] == {**A(''), 'tool_calls': [call]} and found.rejected[3] == A('No idea.')
    assert found.tools == [{'type': 'function', 'function': {'name': 'clock'}}]
    found = talk({'history': [['hi', 'hello']], 'query': 'q', 'response': 'a', 'rejected_response': 'bad'})
    assert found.rejected == [U('hi'), A('hello'), U('q'), A('bad')]
    turns = [A('let me see'), {'role': 'tool', 'content': '12:00'}, A('noon')]
    assert talk({'prompt': 'time?', 'chosen': turns, 'rejected': 'no'}).messages == [U('time?'), *turns]


@pytest.mark.parametrize(('value', 'number'), [(2, 2.0), (0.5, 0.5), ('1.5', 1.5), (None, None)])
def test_a_margin_is_a_number(value, number):
    assert talk({'prompt': 'q', 'chosen': 'a', 'rejected': 'b', 'margin': value}).columns.get('margin') == number


def test_scores_of_both_answers_stay_columns():
    found = talk({'prompt': 'q', 'chosen': 'a', 'rejected': 'b', 'score_chosen': 9.0, 'score_rejected': 2.0})
    assert found.columns == {'score_chosen': 9.0, 'score_rejected': 2.0}


@pytest.mark.parametrize('row', [
    {'messages': [U('q'), A('a')]}, {'prompt': 'q', 'completion': 'a'}, {'query': 'q', 'response': 'a'},
    {'conversations': [{'from': 'human', 'value': 'q'}, {'from': 'gpt', 'value': 'a'}]},
])  # fmt: skip
@pytest.mark.parametrize('label', [True, False, 1, 0, 'true', 'false'])
def test_rows_marked_as_wanted_or_not(row, label):
    for name in ('label', 'kto_tag'):
        found = talk({**row, name: label})
        assert found.messages == [U('q'), A('a')] and found.label == label and found.rejected is None and found.columns == {}


@pytest.mark.parametrize(('row', 'columns'), [
    ({'frage': 'q', 'gut': 'a', 'schlecht': 'bad'}, {'frage': 'query', 'gut': 'chosen', 'schlecht': 'rejected'}),
    ({'frage': 'q', 'gut': 'a', 'schlecht': 'bad'}, {'frage': 'query', 'gut': 'response', 'schlecht': 'rejected_response'}),
    ({'gut': [U('q'), A('a')], 'schlecht': [U('q'), A('bad')]}, {'gut': 'messages', 'schlecht': 'rejected_messages'}),
    ({'prompt': 'q', 'a': 'a', 'b': 'bad', 'chosen': 0}, {'a': 'chosen', 'b': 'rejected'}),
])  # fmt: skip
def test_columns_of_other_names(row, columns):
    found = talk(row, columns=columns)
    assert found.messages == [U('q'), A('a')] and found.rejected == [U('q'), A('bad')]
    assert talk({'q': 'q', 'good': 'a', 'tag': 0}, columns={'q': 'query', 'good': 'response', 'tag': 'label'}).label == 0
    assert talk({**row, 'gap': '3'}, columns={**columns, 'gap': 'margin'}).columns['margin'] == 3.0


@pytest.mark.parametrize(('row', 'what'), [
    ({'prompt': 'q', 'chosen': 'a'}, r"the columns \['chosen', 'messages'\] hold chosen, but no rejected answer; it is read from rejected, "),
    ({'prompt': 'q', 'chosen': 'a', 'rejected': None}, 'hold chosen, but no rejected answer'),
    ({'prompt': 'q', 'chosen': 'a', 'rejected': ''}, 'hold chosen, but no rejected answer'),
    ({'prompt': 'q', 'chosen': 'a', 'rejected': []}, 'hold chosen, but no rejected answer'),
    ({'chosen': [U('q'), A('a')]}, 'hold chosen, but no rejected answer'),
    ({'prompt': 'q', 'rejected': 'a'}, 'hold rejected, but no chosen answer; it is read from chosen, response'),
    ({'messages': [U('q')], 'rejected_response': ['b']}, 'hold rejected_response, but no chosen answer'),
    ({'rejected': [U('q'), A('a')]}, 'hold rejected, but no chosen answer'),
    ({'prompt': 'q', 'chosen': 'a', 'rejected': 'a'}, 'rejected is the same as the chosen answer'),
    ({'query': 'q', 'response': 'a', 'rejected_response': ['b', 'a']}, r'rejected_response\[1\] is the same as the chosen answer'),
    ({'prompt': 'q', 'chosen': ['a', 'b'], 'rejected': 'c'}, 'chosen must be one answer, got 2'),
    ({'prompt': 'q', 'chosen': 'a', 'rejected': ['b', '']}, 'rejected holds an empty answer'),
    ({'prompt': 'q', 'chosen': 'a', 'rejected': True}, 'rejected must be a string or messages, got bool'),
    ({'prompt': 'q', 'chosen': 3, 'rejected': 'b'}, 'chosen must be a string or messages, got int'),
    ({'prompt': 'q', 'chosen': 'a', 'rejected': {'role': 'gtp', 'content': 'b'}}, "rejected: message 0: unknown role 'gtp'; did you mean 'gpt'"),
    ({'prompt': 'q', 'chosen': 'a', 'rejected': U('b')}, 'rejected must end with an answer of the assistant, it ends with the user'),
    ({'chosen': 'a', 'rejected': 'b'}, 'are no known shape'),
    ({'prompt': 'q', 'chosen': 'a', 'rejected': 'b', 'margin': 'much'}, "margin must be a number, got 'much'"),
    ({'prompt': 'q', 'chosen': 'a', 'rejected': 'b', 'margin': float('nan')}, 'margin must be a number, got nan'),
])  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(row, what):
    with pytest.raises(RowError, match=what) as wrong:
        talk(row)
    assert str(wrong.value).startswith('pairs.jsonl:1: ') and '\n' not in str(wrong.value)


@pytest.mark.parametrize('row', [
    {'prompt': 'q', 'chosen': 'a', 'rejected': 'b', 'margin': 2, 'channel': 'c'},
    {'prompt': 'q', 'chosen': 'a', 'rejected': SEVERAL, 'system': 'kind', 'more': [1, 'x']},
    {'messages': [U('q'), A('a')], 'kto_tag': False},
])  # fmt: skip
def test_a_stored_row_reads_back_as_the_same_pair(row):
    first = talk(row)
    assert talk(json.loads(json.dumps(to_row(first)))) == first
