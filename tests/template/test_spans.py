"""Exactly the assistant's output is marked, for every kind of chat template; what can't be proved is refused."""

import subprocess
import sys

import pytest

from swift.core.errors import RowError, SwiftError, TemplateError
from swift.template import assistant_spans
from swift.template.jinja import Renderer
from swift.template.spans import SpanFinder
from tests.template.cases import BOS, CONVERSATIONS, EOS, NAMES, SYSTEM, answer, source, tools_of, user, words

TWO = [user(0), answer(0), user(1), answer(1)]
EXPECTED = {  # what is trained of TWO
    'chatml': ['SAY0 it is this. DONE0<|im_end|>', 'SAY1 it is this. DONE1<|im_end|>'],
    'headers': ['SAY0 it is this. DONE0<|eot|>', 'SAY1 it is this. DONE1<|eot|>'],
    'brackets': [' SAY0 it is this. DONE0</s>', ' SAY1 it is this. DONE1</s>'],
    'alternate': ['SAY0 it is this. DONE0<end>', 'SAY1 it is this. DONE1<end>'],
    'thinking': ['SAY0 it is this. DONE0<|im_end|>', '<think>\n\n</think>\n\nSAY1 it is this. DONE1<|im_end|>'],
    'opened': ['SAY0 it is this. DONE0</s>', 'SAY1 it is this. DONE1</s>'],
    'roles': ['SAY0 it is this. DONE0', 'SAY1 it is this. DONE1'],
    'words': [' SAY0 it is this. DONE0</s>', ' SAY1 it is this. DONE1</s>'],
    'question': ['SAY0 it is this. DONE0<|end|>', 'SAY1 it is this. DONE1<|end|>'],
    'channels': [
        '<|channel|>final<|message|>SAY0 it is this. DONE0<|end|>',
        '<|channel|>final<|message|>SAY1 it is this. DONE1<|return|>',
    ],
    'always': ['<|say|>SAY0 it is this. DONE0<|/say|><|/turn|>', '<|say|>SAY1 it is this. DONE1<|/say|><|/turn|>'],
    'late': ['SAY0 it is this. DONE0<|end|>', 'SAY1 it is this. DONE1<|end|>'],
}


def said(name, messages, tools=None, which='all'):
    text, spans = assistant_spans(source(name), messages, tools, bos_token=BOS, eos_token=EOS, which=which)
    return text, [text[a:b] for a, b in spans]


@pytest.mark.parametrize('name', NAMES)
def test_exact_spans(name):
    text, found = said(name, TWO)
    assert found == EXPECTED[name]
    assert text == Renderer(source(name), {'bos_token': BOS, 'eos_token': EOS})(TWO)
    assert said(name, TWO, which='last')[1] == EXPECTED[name][-1:]


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('conversation', CONVERSATIONS)
def test_all_of_the_assistant_and_nobody_else(name, conversation):
    """Every word of the assistant that was printed is in a span, none of anybody else is; else the row is refused."""
    messages, tools = CONVERSATIONS[conversation], tools_of(conversation)
    try:
        text, found = said(name, messages, tools)
    except SwiftError as e:
        assert name in REFUSES.get(conversation, ()), e
        return
    assert name not in REFUSES.get(conversation, ())
    trained = ' '.join(found)
    for word in words(messages, True):
        assert word.strip(',"') not in text or word.strip(',"') in trained, word
    others = set(words(messages, False)) | {'DEFINED'}
    assert not [w for w in others if w in trained]
    end = 0
    for piece in found:  # in order, each once
        end = text.index(piece, end) + len(piece)


REFUSES = {
    'system': ['alternate'],
    'tools': ['alternate', 'chatml', 'headers', 'opened', 'words', 'always', 'question'],
    'parallel': ['alternate', 'chatml', 'headers', 'opened', 'words', 'always', 'question'],
    'calling': ['alternate', 'late'],
}
"""The template raises, does not print tool calls, or prints an answer's words after the tool's result."""


@pytest.mark.parametrize('name', ['thinking', 'channels'])
def test_reasoning_is_trained(name):
    why = 'WHY0\nbecause WHYSTOP0'
    _, [found] = said(name, [user(0), answer(0, reasoning_content=why, thinking=why)])
    assert why in found and found.index(why) < found.index('SAY0')
    assert found.startswith('<think>\n' if name == 'thinking' else '<|channel|>analysis<|message|>')


def test_a_thought_that_the_prompt_opens_is_not_trained_twice():
    _, [found] = said('opened', CONVERSATIONS['inline'])
    assert found == 'WHY0\nbecause WHYSTOP0\n</think>\n\nSAY0 it DONE0</s>'


def test_whitespace_of_an_answer_is_trained_and_that_of_the_template_is_not():
    _, found = said('chatml', CONVERSATIONS['spaces'])
    assert found[0] == '  SAY0 it DONE0\n\n<|im_end|>'
    _, found = said('headers', CONVERSATIONS['spaces'])
    assert found[0] == 'SAY0 it DONE0<|eot|>'


def test_an_empty_answer_is_its_end_of_turn():
    _, found = said('chatml', CONVERSATIONS['empty'])
    assert found == ['<|im_end|>', 'SAY1 it is this. DONE1<|im_end|>']


def test_tool_calls_are_trained_to_the_last_bracket():
    _, found = said('brackets', CONVERSATIONS['parallel'], tools_of('parallel'))
    call = '{"name": "weather", "arguments": {"city": "%s"}}'
    assert found[0] == f'[TOOL_CALLS][{call % "CITY0"}, {call % "CITY1"}]</s>'
    _, found = said('roles', CONVERSATIONS['tools'], tools_of('tools'))
    assert found[0].endswith('CITY0</arg_value>\n</tool_call>')  # no end of turn, but the call is closed


def test_an_answer_printed_after_the_tool_result_is_refused():
    with pytest.raises(RowError, match='mixes the words of message 1'):
        said('late', CONVERSATIONS['calling'], tools_of('calling'))


def test_a_call_that_is_not_printed_is_refused():
    with pytest.raises(RowError, match='does not print message 2'):
        said('chatml', CONVERSATIONS['tools'], tools_of('tools'))


def test_a_template_that_hides_who_speaks_is_refused():
    hides = "{% for m in messages %}{{ '<' + m.role + '>' + (m.content | urlencode) + '<end>' }}{% endfor %}"
    with pytest.raises(RowError, match='hides who said what'):
        assistant_spans(hides, TWO)


def test_the_template_speaks_when_it_refuses():
    with pytest.raises(TemplateError, match='there is no system role here'):
        said('alternate', [SYSTEM, user(0), answer(0)])
    with pytest.raises(TemplateError, match=r'not valid Jinja \(line 1\)'):
        assistant_spans('{% for m in %}', TWO)
    with pytest.raises(ValueError, match='which'):
        said('chatml', TWO, which='first')


def test_the_sandbox_holds():
    for attack in ("{{ ''.__class__.__mro__ }}", '{{ messages.append(1) }}', '{{ cycler.__init__.__globals__ }}'):
        with pytest.raises(TemplateError):
            assistant_spans(attack, TWO)


def test_data_with_the_characters_that_serve_as_marks():
    odd = [user(0, 'x \U000f0000 y'), answer(0, '\U000f0001 z \U000f0000')]
    text, found = said('chatml', odd)
    assert found == [odd[1]['content'] + '<|im_end|>'] and odd[0]['content'] in text
    both = [user(0, '\U000f0000 \U00100000'), {'role': 'assistant', 'content': '<b>no mark is left</b>'}]
    with pytest.raises(RowError):
        said('chatml', both)


def test_a_known_outline_gives_the_same_spans_as_a_traced_rendering():
    render = Renderer(source('thinking'), {'bos_token': BOS, 'eos_token': EOS})
    warm = SpanFinder(render, EOS)
    warm(TWO)
    rows = [c for c in CONVERSATIONS.values() if not any(m.get('tool_calls') for m in c)]
    rows += [
        [user(0, '<b>'), answer(0, '</b>')],
        [user(5), {'role': 'assistant', 'content': '<think>\nx\n</think>\n\ny'}],
    ]
    for messages in rows * 2:
        assert warm(messages) == SpanFinder(render, EOS)(messages)


def test_importing_spans_needs_neither_transformers_nor_torch():
    code = (
        'import sys, swift.template.spans; print([m for m in ("transformers", "torch", "numpy") if m in sys.modules])'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'


def test_the_name_of_a_call_repeated_with_its_result_is_not_trained():
    jinja = source('late').replace(
        "'<result>' + m.content", "'<result>' + messages[loop.index0 - 1].tool_calls[0].function.name + m.content"
    )
    text, spans = assistant_spans(jinja, CONVERSATIONS['tools'][1:], tools_of('tools'))
    assert '<result>weatherGOT0' in text
    assert text[slice(*spans[0])] == '<call>weather{"city": "CITY0"}</call>'


def test_contents_are_given_in_parts_where_a_template_prints_nothing_else():
    jinja = "{% for m in messages %}{{ m.role + ':' }}{% for p in m.content %}{{ p.text }}{% endfor %}{{ '<end>' }}{% endfor %}"
    text, spans = assistant_spans(jinja, TWO)
    assert [text[a:b] for a, b in spans] == ['SAY0 it is this. DONE0<end>', 'SAY1 it is this. DONE1<end>']
    assert spans == assistant_spans(jinja, [{**m, 'content': [{'type': 'text', 'text': m['content']}]} for m in TWO])[1]
