"""Calls that must be written: in the form of the template, read back by it, of a tool that there is."""

import json

import pytest

from swift.core.errors import SwiftError
from swift.infer_engine import InferRequest, RequestConfig, TransformersEngine
from swift.infer_engine.forced import ARGUMENTS, CallForm, call_form, call_grammar
from swift.template import get_template
from tests.template.cases import source
from tests.template.tokenizers import byte_level

pytest.importorskip('llguidance')

PLAIN, XML = (', ', ': '), 'qwen3_coder'
FORMS = {
    'hermes': CallForm('<tool_call>\n{"name": "', '", "arguments": ', '}\n</tool_call>', PLAIN),
    'llama3': CallForm('{"name": "', '", "parameters": ', '}', PLAIN),
    'react_en': CallForm('Action: ', '\nAction Input: ', '', PLAIN),
    'react_zh': CallForm('Action: ', '\nAction Input: ', '', PLAIN),
    XML: None,
}
SOURCES = {
    'brackets': CallForm('[TOOL_CALLS][{"name": "', '", "arguments": ', '}]', PLAIN),
    'channels': CallForm('<|channel|>commentary to=functions.', ' <|constrain|>json<|message|>', '', PLAIN),
    'thinking': CallForm('<think>\n\n</think>\n\n<tool_call>\n{"name": "', '", "arguments": ', '}\n</tool_call>', PLAIN),
    'roles': None, 'late': None, 'chatml': None,
}  # fmt: skip
COUNT = {'type': 'integer', 'minimum': 1, 'maximum': 9}
TOOLS = [
    {'type': 'function', 'function': {'name': 'get_weather', 'parameters': {
        'type': 'object', 'properties': {'city': {'enum': ['Lima', 'Ōsaka']}, 'days': COUNT}, 'required': ['city', 'days'], 'additionalProperties': False}}},
    {'type': 'function', 'function': {'name': 'roll', 'parameters': {
        'type': 'object', 'properties': {'dice': {'type': 'array', 'items': COUNT, 'maxItems': 3, 'uniqueItems': False}}, 'required': ['dice'],
        'additionalProperties': False}}},
]  # fmt: skip


@pytest.fixture(scope='module')
def tiny():
    return TransformersEngine('tiny', max_batch_size=8)


@pytest.mark.parametrize('agent', FORMS)
def test_the_form_of_an_agent_template(tiny, agent):
    assert call_form(get_template(tiny.tokenizer, agent_template=agent)) == FORMS[agent]


@pytest.mark.parametrize('name', SOURCES)
def test_the_form_of_a_chat_template(name):
    template = get_template(byte_level(source(name)))
    assert call_form(template) == SOURCES[name]
    if SOURCES[name] is None:
        with pytest.raises(SwiftError, match='can not be forced'):
            call_grammar(template, TOOLS)


def test_what_is_written_is_what_a_training_row_has(tiny):
    call = {'type': 'function', 'function': {'name': 'roll', 'arguments': ARGUMENTS}}
    row = InferRequest([{'role': 'user', 'content': 'x'}, {'role': 'assistant', 'content': '', 'tool_calls': [call]}], tools=TOOLS)
    [sample] = tiny.template.encode(row.conversation())
    assert call_form(tiny.template).written('roll', ARGUMENTS) in tiny.tokenizer.decode(sample.input_ids)


@pytest.mark.parametrize('agent', [None, *(name for name, form in FORMS.items() if form)])
@pytest.mark.parametrize('name', [None, 'roll'])
def test_calls_are_written_and_read(tiny, agent, name):
    engine = TransformersEngine(tiny.model, template=get_template(tiny.tokenizer, agent_template=agent)) if agent else tiny
    config = RequestConfig(temperature=1.5, top_k=0, top_p=1.0, n=12, seed=1, max_tokens=100, guided_grammar=call_grammar(engine.template, TOOLS, name))
    called = set()
    for choice in engine.infer([InferRequest([{'role': 'user', 'content': 'Say hello.'}], tools=TOOLS)], config)[0].choices:
        (call,) = choice.message.tool_calls
        given = json.loads(call['function']['arguments'])
        called.add(call['function']['name'])
        assert choice.finish_reason == 'tool_calls' and not choice.message.content
        if call['function']['name'] == 'roll':
            assert list(given) == ['dice'] and len(given['dice']) <= 3 and all(1 <= die <= 9 for die in given['dice'])
        else:
            assert list(given) == ['city', 'days'] and given['city'] in ('Lima', 'Ōsaka') and 1 <= given['days'] <= 9
    assert called <= {'roll', 'get_weather'} and (name is None or called == {name})


def test_a_tool_that_is_not_there(tiny):
    with pytest.raises(SwiftError, match="no tool 'look'"):
        call_grammar(tiny.template, TOOLS, 'look')
