import json

import pytest

from swift.core.errors import RowError
from swift.core.types import Conversation
from swift.dataset import (
    AlpacaPreprocessor,
    AutoPreprocessor,
    MessagesPreprocessor,
    ResponsePreprocessor,
    RowPreprocessor,
)
from swift.dataset.bad_rows import SkipRow
from swift.dataset.convert import to_row

U, A, S = (lambda text, role=role: {'role': role, 'content': text} for role in ('user', 'assistant', 'system'))
QA = [U('q'), A('a')]


def talk(row, **settings) -> Conversation:
    return AutoPreprocessor(**settings)(row, 'file:1')


@pytest.mark.parametrize('row', [
    {'messages': QA},
    {'messages': json.dumps(QA)},
    {'conversations': [{'from': 'human', 'value': 'q'}, {'from': 'gpt', 'value': 'a'}]},
    {'conversations': [{'from': 'user', 'value': 'q'}, {'from': 'assistant', 'value': 'a'}]},
    {'conversation': [{'role': 'USER', 'content': 'q'}, {'role': 'Assistant', 'content': 'a'}]},
    {'conversations': [{'human': 'q', 'assistant': 'a'}]},
    {'instruction': 'q', 'input': '', 'output': 'a'},
    {'instruction': 'q', 'input': None, 'output': 'a'},
    {'instruction': '', 'input': 'q', 'output': 'a'},
    {'instruction': 'q', 'output': 'a'},
    {'instruction': 'q', 'response': 'a'},
    {'query': 'q', 'response': 'a'},
    {'query': 'q', 'response': ['a', 'b']},
    {'prompt': 'q', 'completion': 'a'},
    {'prompt': [U('q')], 'completion': [A('a')]},
    {'prompt': [U('q')], 'completion': A('a')},
    {'question': 'q', 'answer': 'a'},
    {'problem': 'q', 'answer': 'a'},
    {'input': 'q', 'target': 'a'},
    {'question': 'q', 'response': 'a', 'system': ''},
])  # fmt: skip
def test_shapes_that_need_no_telling(row):
    found = talk(row)
    assert found.messages == QA and found.source == 'file:1' and not found.text
    assert found.tools is None and found.rejected is None and found.label is None and found.columns == {}


def test_alpaca_joins_instruction_and_input_by_a_line_break():
    assert talk({'instruction': 'i', 'input': 'x', 'output': 'a'}).messages == [U('i\nx'), A('a')]


@pytest.mark.parametrize('history', [[['q0', 'a0']], '[["q0", "a0"]]', [U('q0'), A('a0')]])
@pytest.mark.parametrize('row', [{'query': 'q', 'response': 'a'}, {'instruction': 'q', 'input': '', 'output': 'a'}])
def test_history_comes_first(row, history):
    assert talk({**row, 'history': history}).messages == [U('q0'), A('a0'), *QA]
    assert talk({**row, 'history': []}).messages == QA


@pytest.mark.parametrize('row', [
    {'system': 'be kind', 'query': 'q', 'response': 'a'}, {'system_prompt': 'be kind', 'question': 'q', 'answer': 'a'},
    {'system': 'be kind', 'messages': QA}, {'messages': [S('be kind'), *QA], 'system': 'be kind'},
    {'system': 'be kind', 'instruction': 'q', 'input': '', 'output': 'a'},
    {'conversations': [{'from': 'system', 'value': 'be kind'}, {'from': 'human', 'value': 'q'}, {'from': 'gpt', 'value': 'a'}]},
    {'messages': [{'role': 'developer', 'content': 'be kind'}, *QA]},
])  # fmt: skip
def test_the_system_prompt_is_the_first_message(row):
    assert talk(row).messages == [S('be kind'), *QA]


def test_two_different_system_prompts_are_refused():
    with pytest.raises(RowError, match='system column and another system message'):
        talk({'system': 'one', 'messages': [S('two'), *QA]})


def test_plain_text():
    found = talk({'text': 'once upon', 'meta': 3})
    assert found.text and found.messages == [A('once upon')] and found.columns == {'meta': 3}
    with pytest.raises(RowError, match='text must be a string that is not empty'):
        talk({'text': ''})


def test_a_row_without_an_answer_is_a_prompt():
    assert talk({'query': 'q', 'response': None}).messages == [U('q')] == talk({'query': 'q', 'response': ''}).messages
    found = talk({'problem': 'q', 'solution': 's'})
    assert found.messages == [U('q'), A('s')] and found.columns == {'solution': 's'}  # rewards want it too
    found = talk({'messages': [U('q')], 'solution': 's'})
    assert found.messages == [U('q')] and found.columns == {'solution': 's'}


def call(name, **arguments):
    return {'type': 'function', 'function': {'name': name, 'arguments': arguments}}


def test_tool_calls_become_part_of_the_assistants_message():
    rows = [
        {'from': 'human', 'value': 'weather?'},
        {'from': 'gpt', 'value': 'I look.'},
        {'from': 'function_call', 'value': '{"name": "weather", "arguments": {"city": "Rome"}}'},
        {'from': 'observation', 'value': '{"sky": "blue"}'},
        {'from': 'function_call', 'value': '[{"name": "a", "arguments": "{\\"x\\": 1}"}, {"name": "b"}]'},
        {'from': 'observation', 'value': 'one'},
        {'from': 'gpt', 'value': 'Blue.'},
    ]
    tools = '[{"name": "weather", "parameters": {"type": "object"}}]'
    found = talk({'conversations': rows, 'tools': tools})
    assert found.messages == [
        U('weather?'),
        {**A('I look.'), 'tool_calls': [call('weather', city='Rome')]},
        {'role': 'tool', 'content': '{"sky": "blue"}'},
        {**A(''), 'tool_calls': [call('a', x=1), call('b')]},
        {'role': 'tool', 'content': 'one'},
        A('Blue.'),
    ]
    assert found.tools == [{'type': 'function', 'function': {'name': 'weather', 'parameters': {'type': 'object'}}}]


def test_openai_tool_calls_are_kept():
    message = {'role': 'assistant', 'content': None, 'reasoning_content': 'hm',
               'tool_calls': [{'id': 'c1', 'type': 'function', 'function': {'name': 'f', 'arguments': '{"x": 1}'}}]}  # fmt: skip
    answer = {'role': 'tool', 'tool_call_id': 'c1', 'name': 'f', 'content': {'deep': 1}}
    found = talk({'messages': [U('q'), message, answer]})
    assert found.messages[1] == {
        'role': 'assistant', 'content': '', 'reasoning_content': 'hm', 'tool_calls': [{**call('f', x=1), 'id': 'c1'}],
    }  # fmt: skip
    assert found.messages[2] == {'role': 'tool', 'tool_call_id': 'c1', 'name': 'f', 'content': '{"deep": 1}'}


@pytest.mark.parametrize('tools', [None, '', '  ', '[]', []])
def test_no_tools(tools):
    assert talk({'messages': QA, 'tools': tools}).tools is None


def test_loss_of_a_message_channel_label_and_other_columns():
    found = talk({'messages': [U('q'), {**A('a'), 'loss': False}, U('q'), {**A('b'), 'loss_scale': 2}], 'channel': 'chat',
                  'label': True, 'solution': '42'})  # fmt: skip
    assert [message.get('loss') for message in found.messages] == [None, False, None, 2.0]
    assert (found.channel, found.label, found.columns) == ('chat', True, {'solution': '42'})


@pytest.mark.parametrize(('row', 'images'), [
    ({'image': 'a.png'}, ['a.png']), ({'images': ['a.png', {'bytes': b'x', 'path': 'b.png'}]}, ['a.png', b'x']), ({'images': []}, []),
    ({'images': None}, []), ({'images': '["a.png", "b.png"]'}, ['a.png', 'b.png']),
])  # fmt: skip
def test_media_are_carried_as_lists(row, images):
    found = talk({'messages': QA, **row, 'video': 'v.mp4'})
    assert found.images == images and found.videos == ['v.mp4'] and found.audios == []


@pytest.mark.parametrize('row', [
    {'prompt': 'q', 'chosen': 'a', 'rejected': 'bad'},
    {'messages': [U('q')], 'chosen': A('a'), 'rejected': A('bad')},
    {'messages': [U('q')], 'chosen': [A('a')], 'rejected': [A('bad')]},
    {'conversations': [{'from': 'human', 'value': 'q'}], 'chosen': {'from': 'gpt', 'value': 'a'}, 'rejected': {'from': 'gpt', 'value': 'bad'}},
    {'prompt': [U('q')], 'chosen': [A('a')], 'rejected': [A('bad')]},
    {'chosen': [U('q'), A('a')], 'rejected': [U('q'), A('bad')]},
    {'prompt': 'q', 'chosen': [U('q'), A('a')], 'rejected': [U('q'), A('bad')]},
    {'chosen': '\n\nHuman: q\n\nAssistant: a', 'rejected': '\n\nHuman: q\n\nAssistant: bad'},
    {'query': 'q', 'response': 'a', 'rejected_response': 'bad'},
    {'messages': QA, 'rejected_response': 'bad'},
    {'messages': QA, 'rejected_response': [A('bad')]},
    {'messages': QA, 'rejected_messages': [U('q'), A('bad')]},
])  # fmt: skip
def test_preference_rows_in_every_spelling(row):
    found = talk({**row, 'system': 'be kind'})
    assert found.messages == [S('be kind'), *QA]
    assert found.rejected == [S('be kind'), U('q'), A('bad')] and found.columns == {}


def test_an_unknown_shape_says_what_it_has_and_what_is_accepted():
    with pytest.raises(RowError) as wrong:
        talk({'foo': 1, 'bar': 2})
    text = str(wrong.value)
    assert text.startswith("file:1: columns ['bar', 'foo'] are no known shape; accepted: messages")
    assert 'query' in text and 'instruction' in text and '--columns' in text and '\n' not in text


@pytest.mark.parametrize(('row', 'what'), [
    ({'messages': []}, 'at least one message'),
    ({'messages': 'hello'}, 'messages is a string that is not JSON'),
    ({'messages': [{'role': 'asistant', 'content': 'x'}]}, "message 0: unknown role 'asistant'; did you mean 'assistant'"),
    ({'messages': [U('q'), {'content': 'x'}]}, "message 1: no role among its keys \\['content'\\]"),
    ({'messages': [U('q'), {'role': 'assistant'}]}, 'message 1: no content'),
    ({'messages': [U(None)]}, 'message 0: the content of the user is null'),
    ({'messages': [U({'a': 1})]}, 'must be a string or a list of parts, got dict'),
    ({'messages': ['x']}, 'message 0: expected an object'),
    ({'messages': [U('q'), {'from': 'function_call', 'value': 'weather(Rome)'}]}, 'message 1: a tool call is a string that is not JSON'),
    ({'messages': [U('q'), {'from': 'function_call', 'value': '{"arguments": {}}'}]}, 'a tool call needs a name'),
    ({'messages': QA, 'tools': '{'}, 'tools is a string that is not JSON'),
    ({'messages': QA, 'tools': [{'description': 'x'}]}, "a tool needs a name, it has \\['description'\\]"),
    ({'messages': [{**A('x'), 'loss': 'maybe'}]}, 'loss must be true, false or a number'),
    ({'query': 'q', 'response': 'a', 'history': [['a', 'b', 'c']]}, r'history\[0\] must be a pair'),
    ({'instruction': '', 'input': '', 'output': 'x'}, 'instruction and input are both empty'),
    ({'query': 'q', 'response': 'a', 'system': 5}, 'system must be a string, got int'),
])  # fmt: skip
def test_what_is_wrong_with_a_row_is_said_in_one_line(row, what):
    with pytest.raises(RowError, match=what) as wrong:
        talk(row)
    assert str(wrong.value).startswith('file:1: ') and '\n' not in str(wrong.value)


def test_columns_are_renamed():
    found = talk({'text1': 'q', 'text2': 'a', 'query': 'old', 'k': 1}, columns={'text1': 'query', 'text2': 'response'})
    assert found.messages == QA and found.columns == {'k': 1}
    with pytest.raises(RowError, match=r"none of the mapped columns \['query'\] is among \['text1'\]; columns reads"):
        talk({'text1': 'q'}, columns={'query': 'text1'})


def test_without_auto_mapping_only_the_standard_names_count():
    assert talk({'query': 'q', 'response': 'a'}, auto=False).messages == QA
    with pytest.raises(RowError, match='no known shape'):
        talk({'question': 'q', 'answer': 'a'}, auto=False)


def test_the_named_preprocessors_can_be_called_and_subclassed():
    assert MessagesPreprocessor()({'conversations': QA}).messages == QA
    assert AlpacaPreprocessor()({'instruction': 'q', 'input': '', 'output': 'a'}).messages == QA
    assert ResponsePreprocessor()({'query': 'q', 'response': 'a'}).messages == QA

    class Mine(ResponsePreprocessor):
        def preprocess(self, row):
            if row['score'] < 3:
                return None
            return super().preprocess({'query': row['q'].lower(), 'response': row['a'], 'label': row['score']})

    assert Mine()({'q': 'Q', 'a': 'a', 'score': 5}).messages == QA and Mine()({'q': 'Q', 'a': 'a', 'score': 5}).label == 5
    with pytest.raises(SkipRow):
        Mine()({'q': 'Q', 'a': 'a', 'score': 1})

    class Direct(RowPreprocessor):
        def preprocess(self, row):
            return {'messages': [U(row['a']), A(row['b'])], 'rejected_response': 'no'}

    assert Direct()({'a': 'q', 'b': 'a'}).rejected == [U('q'), A('no')]


@pytest.mark.parametrize('row', [
    {'messages': [S('s'), *QA], 'images': ['x.png'], 'label': 0, 'channel': 'c', 'extra': [1]},
    {'text': 'plain'},
    {'prompt': 'q', 'chosen': 'a', 'rejected': 'b', 'tools': [{'name': 't'}]},
    {'conversations': [{'from': 'human', 'value': 'q'}, {'from': 'function_call', 'value': '{"name": "f", "arguments": {}}'}]},
])  # fmt: skip
def test_a_standard_row_reads_back_as_the_same_conversation(row):
    first = talk(row)
    assert talk(json.loads(json.dumps(to_row(first)))) == first
