"""What a model wrote, back to a message: reasoning, tool calls, content."""

import json

import pytest

from swift.core.types import IGNORE_INDEX, Completion, Conversation
from swift.template import agent_template_map, get_template
from swift.template.calls import FORMATS
from swift.template.decode import Decoder
from tests.template.cases import TOOLS, answer, calls, source, user
from tests.template.tokenizers import byte_level

PARIS = {'city': 'Paris', 'days': 2, 'near': ['Rome', 'Nice']}
CALL = '{"name": "weather", "arguments": ' + json.dumps(PARIS) + '}'
WRITTEN = {
    '<tool_call>': f'Let me see.\n<tool_call>\n{CALL}\n</tool_call>',
    '<function=': 'Let me see.\n<tool_call>\n<function=weather>\n<parameter=city>\nParis\n</parameter>\n<parameter=days>\n2\n</parameter>\n<parameter=near>\n["Rome", "Nice"]\n</parameter>\n</function>\n</tool_call>',
    '<arg_key>': 'Let me see.\n<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n<arg_key>days</arg_key>\n<arg_value>2</arg_value>\n<arg_key>near</arg_key>\n<arg_value>["Rome", "Nice"]</arg_value>\n</tool_call>',
    'invoke name=': 'Let me see.<x:tool_call>\n<invoke name="weather">\n<parameter name="city">Paris</parameter>\n<parameter name="days">2</parameter><parameter name="near">["Rome", "Nice"]</parameter>\n</invoke>\n</x:tool_call>',
    '<tool_calls>': f'Let me see.<tool_calls>[{CALL}]</tool_calls>',
    '<TOOLCALL>': f'Let me see.<TOOLCALL>[{CALL}]</TOOLCALL>',
    '<|tool_call|>': f'Let me see.<|tool_call|>[{CALL}]<|/tool_call|>',
    '<|START_ACTION|>': f'Let me see.<|START_ACTION|>[{{"tool_call_id": "0", "tool_name": "weather", "parameters": {json.dumps(PARIS)}}}]<|END_ACTION|>',
    '<|tools_prefix|>': f'Let me see.<|tools_prefix|>[{{"weather": {json.dumps(PARIS)}}}]<|tools_suffix|>',
    '[TOOL_CALLS]': f'Let me see.[TOOL_CALLS]weather[ARGS]{json.dumps(PARIS)}',
    '<｜tool▁call▁begin｜>': f'Let me see.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{json.dumps(PARIS)}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
    '<|tool_call_begin|>': f'Let me see.<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>{json.dumps(PARIS)}<|tool_call_end|><|tool_calls_section_end|>',
    '<|tool_call_start|>': 'Let me see.<|tool_call_start|>[weather(city="Paris", days=2, near=["Rome", "Nice"])]<|tool_call_end|>',
    '<|tool_call>': 'Let me see.<|tool_call>call:weather{city:<|"|>Paris<|"|>,days:2,near:[<|"|>Rome<|"|>,<|"|>Nice<|"|>]}<tool_call|>',
    'Action Input:': f'Let me see.\nAction: weather\nAction Input: {json.dumps(PARIS)}',
}


def decode(template_source, text, reason='stop', prompt=''):
    return Decoder(None, template_source, prompt=prompt)(Completion([], text, reason))


@pytest.mark.parametrize('mark', WRITTEN)
def test_every_format_of_calls(mark):
    message = decode(mark, WRITTEN[mark])
    assert message['tool_calls'] == [{'type': 'function', 'function': {'name': 'weather', 'arguments': PARIS}}]
    assert message['content'] == 'Let me see.'
    assert 'tool_calls' not in decode(mark, 'nothing of that kind')
    assert set(WRITTEN) <= {m for m, _ in FORMATS}


def test_several_calls_and_other_spellings():
    text = f'[TOOL_CALLS][{CALL}, {CALL}]'
    assert len(decode('[TOOL_CALLS]', text)['tool_calls']) == 2
    two = f'<tool_call>\n{CALL}\n</tool_call>\n<tool_call>\n{CALL}\n</tool_call>'
    message = decode('<tool_call>', two)
    assert len(message['tool_calls']) == 2 and message['content'] == ''
    llama = decode('"parameters"', '{"name": "weather", "parameters": {"city": "Paris"}}')
    assert llama['tool_calls'][0]['function'] == {'name': 'weather', 'arguments': {'city': 'Paris'}}


def test_a_broken_call_stays_text():
    text = '<tool_call>\n{"name": "weather", "argu\n</tool_call>'
    assert decode('<tool_call>', text) == {'role': 'assistant', 'content': text}
    assert decode('no tools in this template', WRITTEN['<tool_call>'])['content'] == WRITTEN['<tool_call>']


@pytest.mark.parametrize(
    'template, text',
    [
        ('', '<think>\nwhy\n</think>\n\nanswer'),
        ('', 'why\n</think>\n\nanswer'),  # the prompt had the opening tag
        ('</seed:think>', '<seed:think>why</seed:think>answer'),
        ('[/THINK]', '[THINK]why[/THINK]answer'),
        ('<|END_THINKING|>', '<|START_THINKING|>why<|END_THINKING|>answer'),
        ('<|channel|>', '<|channel|>analysis<|message|>why<|end|><|start|>assistant<|channel|>final<|message|>answer'),
    ],
)
def test_reasoning(template, text):
    assert decode(template, text) == {'role': 'assistant', 'content': 'answer', 'reasoning_content': 'why'}


def test_unfinished_and_empty_thoughts():
    assert decode('', '<think>\nwhy', 'length') == {'role': 'assistant', 'content': '', 'reasoning_content': 'why'}
    assert decode('', 'why', 'length', prompt='<|a|>\n<think>\n')['reasoning_content'] == 'why'
    assert decode('', 'answer', 'stop', prompt='<|a|>\n<think>\n')['content'] == 'answer'
    assert decode('', '<think>\n\n</think>\n\nanswer') == {'role': 'assistant', 'content': 'answer'}
    assert decode('', 'I say <think> is a tag') == {'role': 'assistant', 'content': 'I say <think> is a tag'}


def test_channel_calls():
    text = '<|channel|>analysis<|message|>why<|end|><|start|>assistant<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{"city": "Paris"}<|call|>'
    message = decode(source('channels'), text)
    assert message['tool_calls'][0]['function'] == {'name': 'weather', 'arguments': {'city': 'Paris'}}
    assert message['reasoning_content'] == 'why' and message['content'] == ''


@pytest.mark.parametrize('name', ['thinking', 'brackets', 'roles', 'channels'])
def test_what_was_trained_decodes_to_the_message(name):
    """The labelled tokens of an answer, as a completion, give the answer back."""
    template = get_template(byte_level(source(name)))
    rows = [([user(0), answer(0)], None), ([user(0), calls('CITY0')], TOOLS)]
    if name in ('thinking', 'channels'):
        rows.append(([user(0), answer(0, reasoning_content='why so')], None))
    for messages, tools in rows:
        [sample] = template.encode(Conversation(messages, tools=tools))
        ids = [i for i in sample.labels if i != IGNORE_INDEX]
        said = template.decode(Completion(ids, template.tokenizer.decode(ids), 'stop'))
        assert said['content'].strip() == messages[-1]['content']
        assert said.get('reasoning_content') == messages[-1].get('reasoning_content')
        got = [c['function'] for c in said.get('tool_calls', [])]
        assert got == [c['function'] for c in messages[-1].get('tool_calls', [])]


@pytest.mark.parametrize('name', sorted(agent_template_map))
def test_agent_formats_read_what_they_write(name):
    template = get_template(byte_level(source('chatml')), agent_template=name)
    messages = [user(0), calls('CITY0')]
    [sample] = template.encode(Conversation(messages, tools=TOOLS))
    ids = [i for i in sample.labels if i != IGNORE_INDEX]
    said = template.decode(Completion(ids, '', 'stop'))
    assert [c['function'] for c in said['tool_calls']] == [c['function'] for c in messages[-1]['tool_calls']]
    assert 'DEFINED' in template.tokenizer.decode(sample.input_ids)


def test_special_tokens_are_not_content():
    template = get_template(byte_level(source('chatml')))
    tokenizer = template.tokenizer
    ids = tokenizer('it is<|im_end|>', add_special_tokens=False)['input_ids']
    assert template.decode(Completion(ids, '', 'stop'))['content'] == 'it is'
    assert template.decode(Completion(ids[:-1], '', 'length'))['content'] == 'it is'
    assert template.decode(Completion([], 'it is', 'stop'))['content'] == 'it is'
