"""Which template a run takes."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest

from swift.arguments.model import ModelArgs
from swift.arguments.template import TemplateArgs
from swift.core.errors import TemplateError
from swift.pipelines.templates import template_for
from tests.helpers.tiny import build_tokenizer


@dataclass
class ModelAndTemplate(ModelArgs, TemplateArgs):
    """What a command with a model and rows has."""


TALK = [{'role': 'user', 'content': 'hi'}]


def info(template):
    return SimpleNamespace(template=template, model_type='some_family')


def test_the_tokenizers_own_comes_first(tokenizer):
    assert template_for(tokenizer, TemplateArgs(), info('llama3_2')).apply_chat_template(TALK).startswith('<|im_start|>user')


def test_a_base_model_takes_the_template_of_its_family():
    base = build_tokenizer()
    base.chat_template = None
    assert '<|start_header_id|>user' in template_for(base, TemplateArgs(), info('llama3_2')).apply_chat_template(TALK)
    assert '<|im_start|>user' in template_for(base, TemplateArgs(template='chatml'), info('llama3_2')).apply_chat_template(TALK)
    with pytest.raises(TemplateError, match='--template chatml'):
        template_for(base, TemplateArgs(), info(None))


def test_a_task_that_reads_texts_needs_no_template_but_then_has_no_place_for_a_system_prompt():
    base = build_tokenizer()
    base.chat_template = None
    args = ModelAndTemplate(task_type='seq_cls')
    assert not template_for(base, args, info(None)).use_chat_template
    with pytest.raises(TemplateError, match='--system has no effect: the tokenizer has no chat template'):
        template_for(base, replace(args, system='be brief'), info(None))
