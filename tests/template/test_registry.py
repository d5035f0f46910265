"""Named templates: the built-in table, TemplateMeta, decorated classes."""

import pytest

from swift.core.errors import SwiftError, TemplateError
from swift.core.types import IGNORE_INDEX, Conversation
from swift.template import TEMPLATE_MAPPING, Template, TemplateMeta, get_template, register_template, templates_map
from swift.template.registry import as_format
from tests.template.cases import SYSTEM, TOOLS, answer, calls, result, source, user
from tests.template.tokenizers import byte_level

TWO = [user(0), answer(0), user(1), answer(1)]
BUILTIN = [
    'chatml', 'llama2', 'llama3', 'qwen', 'qwen2_5', 'qwen3', 'gemma', 'mistral', 'deepseek', 'glm4', 'phi3', 'phi4',
    'internlm2', 'yi', 'vicuna', 'alpaca', 'baichuan', 'chatglm3', 'zephyr', 'default', 'default-generation',
]  # fmt: skip


@pytest.fixture(autouse=True)
def table():
    before = dict(templates_map._entries)
    yield
    templates_map._entries = before


def test_the_table_is_there():
    assert TEMPLATE_MAPPING is templates_map
    assert set(BUILTIN) <= set(templates_map)


@pytest.mark.parametrize('name', sorted(templates_map))
def test_every_template_of_the_table_trains_what_it_asks(name):
    template = get_template(byte_level(), template=name)
    for messages in (TWO, [SYSTEM, *TWO]):
        [sample] = template.encode(Conversation(messages))
        said = template.tokenizer.decode([i for i in sample.labels if i != IGNORE_INDEX])
        assert 'SAY0' in said and 'SAY1' in said and 'ASK' not in said and 'SYS' not in said
        first = next(i for i, label in enumerate(sample.labels) if label != IGNORE_INDEX)
        head = messages[: messages.index(TWO[1])]
        assert template.prompt(Conversation(head)).input_ids == sample.input_ids[:first]
        ids = [i for i in sample.labels if i != IGNORE_INDEX]
        tail = template.tokenizer.decode(ids)
        assert ids[-1] in template.stop_token_ids or any(tail.endswith(s) for s in template.stop)


def test_known_texts():
    ask = [{'role': 'system', 'content': 'S'}, {'role': 'user', 'content': 'Q'}, {'role': 'assistant', 'content': 'A'}]
    expected = {
        'chatml': '<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n',
        'llama2': '<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nQ [/INST]A </s>',
        'vicuna': '<s>S USER: Q ASSISTANT:A</s>',
        'default': 'S\n\n### Human:\nQ\n\n### Assistant:\nA</s>',
    }
    for name, text in expected.items():
        assert get_template(name).apply_chat_template(ask) == text
    assert (
        get_template('qwen').apply_chat_template(ask[1:]).startswith('<|im_start|>system\nYou are a helpful assistant.')
    )
    asked = get_template('qwen').apply_chat_template(ask[:2], add_generation_prompt=True)
    assert asked.endswith('Q<|im_end|>\n<|im_start|>assistant\n')
    with pytest.raises(TemplateError, match='without a tokenizer'):
        get_template('qwen').encode(Conversation(TWO))


def test_a_meta_of_ones_own():
    register_template(
        TemplateMeta(
            'mine', prefix=['<<'], prompt=['Q{{ROUND1}}: {{QUERY}}\nA: '], chat_sep=['\n--\n'], suffix=[['eos_token_id']],
            system_prefix=["<<{{SYSTEM}}'s\\"], default_system='D',
        )
    )  # fmt: skip
    text = get_template(byte_level(), template='mine').apply_chat_template(TWO)
    assert (
        text
        == "<<D's\\Q1: ASK0 what is it? END0\nA: SAY0 it is this. DONE0\n--\nQ2: ASK1 what is it? END1\nA: SAY1 it is this. DONE1</s>"
    )
    with pytest.raises(SwiftError, match='registered already'):
        register_template(TemplateMeta('mine'))
    register_template(TemplateMeta('mine', prompt=['{{QUERY}}?']), exist_ok=True)
    assert get_template('mine', system='').apply_chat_template(TWO[:1]) == 'ASK0 what is it? END0?'


def test_one_round_only_and_no_system():
    register_template(TemplateMeta('once', prompt=['{{QUERY}} -> ']))
    template = get_template(byte_level(), template='once')
    assert len(template.encode(Conversation(TWO[:2]))) == 1
    with pytest.raises(SwiftError, match='one round only'):
        template.encode(Conversation(TWO))


def test_mistakes_of_metas_are_named():
    for meta, says in (
        (TemplateMeta('x', prompt=['{{SYSTEM}}']), '{{SYSTEM}} does not belong'),
        (TemplateMeta('x', prefix=[['pad']]), 'bos_token_id'),
        (TemplateMeta('x', default_system='s'), 'no system_prefix'),
    ):
        with pytest.raises(TemplateError, match=says):
            meta.to_jinja()


def test_a_decorated_class():
    @register_template('my_model')
    class MyModelTemplate(Template):
        system_prefix = '<s>[SYSTEM]\n{{SYSTEM}}[/SYSTEM]\n'
        user_prefix = '[USER]\n{{QUERY}}[/USER]\n'
        assistant_prefix = '[ASSISTANT]\n{{RESPONSE}}[/ASSISTANT]\n'

    assert templates_map['my_model'] is MyModelTemplate
    template = get_template(byte_level(), template='my_model')
    assert isinstance(template, MyModelTemplate)
    messages = [SYSTEM, *TWO]
    [sample] = template.encode(Conversation(messages))
    assert template.tokenizer.decode(sample.input_ids).startswith(
        '<s>[SYSTEM]\nSYS be brief SYSEND[/SYSTEM]\n[USER]\nASK0'
    )
    said = template.tokenizer.decode([i for i in sample.labels if i != IGNORE_INDEX])
    assert said == 'SAY0 it is this. DONE0[/ASSISTANT]SAY1 it is this. DONE1[/ASSISTANT]'
    assert template.prompt(Conversation(messages[:2])).text.endswith('[/USER]\n[ASSISTANT]\n')
    assert template.stop == ['[/ASSISTANT]']


def test_a_class_may_take_over_a_built_in_name_but_not_someone_elses():
    @register_template('qwen')
    class QwenTemplate(Template):
        system_prefix = '<|im_start|>system\n{{SYSTEM}}<|im_end|>\n'
        user_prefix = '<|im_start|>user\n{{QUERY}}<|im_end|>\n'
        assistant_prefix = '<|im_start|>assistant\n{{RESPONSE}}<|im_end|>\n'

    assert templates_map['qwen'] is QwenTemplate
    with pytest.raises(SwiftError, match='registered already'):

        @register_template('qwen')
        class Another(Template):
            user_prefix = 'a{{QUERY}}'
            assistant_prefix = 'b{{RESPONSE}}'

    with pytest.raises(TemplateError, match='user_prefix'):
        register_template('broken')(type('Broken', (), {'user_prefix': 'no hole', 'assistant_prefix': '{{RESPONSE}}'}))
    with pytest.raises(TemplateError, match='needs user_prefix'):
        as_format('x', object())


def test_templates_of_the_table_write_tools_as_text():
    template = get_template(byte_level(), template='chatml')
    [sample] = template.encode(Conversation([user(0), calls('CITY0'), result(0), answer(1)], tools=TOOLS))
    said = template.tokenizer.decode([i for i in sample.labels if i != IGNORE_INDEX])
    assert said.startswith('<tool_call>') and 'CITY0' in said and 'GOT0' not in said
    assert get_template(byte_level(source('thinking')), template='vicuna').name == 'vicuna'
