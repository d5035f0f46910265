"""Calls that must be written: in the form of the template, read back by it, of a tool that there is."""

import json

import pytest

from swift.core.errors import SwiftError
from swift.infer_engine import InferRequest, RequestConfig, TransformersEngine
from swift.infer_engine.call_forms import JsonForm, ListForm
from swift.infer_engine.forced import ARGUMENTS, call_form, call_grammar
from swift.infer_engine.guided import Form, Guides
from swift.template import get_template
from tests.template.cases import source
from tests.template.tokenizers import byte_level

pytest.importorskip('llguidance')

PLAIN = (', ', ': ')
FORMS = {
    'hermes': JsonForm('<tool_call>\n{"name": "', '", "arguments": ', '}\n</tool_call>', PLAIN),
    'llama3': JsonForm('{"name": "', '", "parameters": ', '}', PLAIN),
    'react_en': JsonForm('Action: ', '\nAction Input: ', '', PLAIN),
    'react_zh': JsonForm('Action: ', '\nAction Input: ', '', PLAIN),
    'qwen3_coder': ListForm('<tool_call>\n<function=', '>\n<parameter=', '>\n', '>\n', '\n</parameter>\n<parameter=',
                            '\n</parameter>\n</function>\n</tool_call>', '>\n</function>\n</tool_call>', PLAIN),
}
SOURCES = {
    'brackets': JsonForm('[TOOL_CALLS][{"name": "', '", "arguments": ', '}]', PLAIN),
    'channels': JsonForm('<|channel|>commentary to=functions.', ' <|constrain|>json<|message|>', '', PLAIN),
    'thinking': JsonForm('<think>\n\n</think>\n\n<tool_call>\n{"name": "', '", "arguments": ', '}\n</tool_call>', PLAIN),
    'roles': ListForm('\n<tool_call>', '\n<arg_key>', '</arg_key>\n<arg_value>', '</arg_key>\n<arg_value>', '</arg_value>\n<arg_key>',
                      '</arg_value>\n</tool_call>', '\n</tool_call>', PLAIN),
    'late': None, 'chatml': None,
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


GIVEN = [('get_weather', {'city': 'Ōsaka', 'days': 3}), ('roll', {'dice': [1, 2]}), ('say', {'text': 'a <b> "c"\n</d>'}), ('say', {'text': 'x', 'loud': True}), ('wait', {})]
SAY = {'type': 'function', 'function': {'name': 'say', 'parameters': {
    'type': 'object', 'properties': {'text': {'type': 'string'}, 'loud': {'anyOf': [{'type': 'boolean'}, {'type': 'null'}]}}, 'required': ['text']}}}
WAIT = {'type': 'function', 'function': {'name': 'wait'}}


@pytest.mark.parametrize('name', [name for name, form in SOURCES.items() if form])
@pytest.mark.parametrize('added', [[], ['<arg_key>', '</arg_key>', '<arg_value>', '</arg_value>', '<tool_call>', '</tool_call>']], ids=['text', 'tokens'])
def test_the_grammar_takes_what_the_template_writes(name, added):
    tokenizer = byte_level(source(name))
    tokenizer.add_tokens(added)
    template = get_template(tokenizer)
    form = call_form(template)
    guides, grammar = Guides(tokenizer), Form('guided_grammar', 'grammar', call_grammar(template, [*TOOLS, SAY, WAIT]))
    for function, arguments in GIVEN:
        ids = tokenizer.encode(form.written(function, arguments), add_special_tokens=False)
        guide = guides.guide(grammar, [])
        done = [guide.take(i) for i in ids]
        assert not any(done[:-1]) and guide.complete, (function, arguments)
    for wrong in (form.written('look', {}), form.written('roll', {'dice': ['a']}), form.written('roll', {})):
        guide = guides.guide(grammar, [])
        with pytest.raises(SwiftError):
            for i in tokenizer.encode(wrong, add_special_tokens=False):
                guide.take(i)


@pytest.mark.parametrize('agent', [None, *FORMS])
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
