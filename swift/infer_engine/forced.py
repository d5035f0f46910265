"""Tool calls that must be written: a grammar of exactly the form in which a template writes them.

The form is found by having the template write a call of a function that nobody has, as it would for training: what
stands around the name and the arguments is the form. It is trusted only if the template reads such a call back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from swift.core.errors import SwiftError
from swift.core.types import IGNORE_INDEX, Completion, Conversation, Prompt, Sample, Template
from swift.infer_engine.call_forms import JsonForm, ListForm
from swift.infer_engine.guided import THINK, THINK_END

NAME, ARGUMENTS = 'probe_function', {'probe_key': 'probe value', 'probe_list': [1, {'a': None}]}
_STYLES = ((', ', ': '), (',', ':'), (', ', ':'), (',', ': '))
"""Separators with which templates write JSON."""
_TRIED = {'text': 'It\'s "one",\n{two}', 'numbers': [1, -2.5, True, None], 'inner': {'ä': []}}


def call_grammar(template: Template, tools: Sequence[dict], name: str | None = None) -> str:
    """The Lark grammar (`RequestConfig.guided_grammar`) of one call of one of the tools, or of the one that is named.

    Raises SwiftError: there is no such tool, or the template's form of calls is none that can be forced.
    """
    functions = [tool.get('function', tool) for tool in tools]
    if name is not None:
        functions = [function for function in functions if function['name'] == name]
        if not functions:
            raise SwiftError(f'tool_choice: there is no tool {name!r};', 'name one of the tools')
    form = call_form(template)
    if form is None:
        raise SwiftError('tool_choice: the form in which this template writes calls can not be forced;', 'use "auto", or another --agent_template')
    added = template.tokenizer.get_added_vocab()
    rules = ['start: ' + ' | '.join(f'call_{index}' for index in range(len(functions)))]
    for index, function in enumerate(functions):
        _check_names(template, form, function)
        rules += form.rules(function, f'call_{index}', added)
    return '\n'.join(rules)


@lru_cache(maxsize=8)
def call_form(template: Template) -> JsonForm | ListForm | None:
    """How the template writes a call. None: in none of the two forms, or so that it does not read it back."""
    written = _probe(template, ARGUMENTS)
    [(key, text), (other, value)] = ARGUMENTS.items()
    for separators in _STYLES:
        words = [json.dumps(item, ensure_ascii=False, separators=separators) for item in (ARGUMENTS, value)]
        form = None
        if parts := _around(written, NAME, words[0]):
            form = JsonForm(*parts, separators)
        elif parts := _around(written, NAME, key, text, other, words[1]):
            bare = _around(_probe(template, {}), NAME)
            form = ListForm(*parts[:3], parts[4], parts[3], parts[5], bare[1] if bare and bare[0] == parts[0] else None, separators)
            form = form if form.mark else None
        if form and _reads(template, form, 'get_it', _TRIED):
            return form
    return None


def _around(text: str, *words: str) -> tuple[str, ...] | None:
    """What stands before, between and behind the words. None: they are not there, each once, in this order."""
    found = re.fullmatch('(.*)' + '(.*)'.join(map(re.escape, words)) + '(.*)', text, re.DOTALL)
    return found.groups() if found and 'probe' not in ''.join(found.groups()) else None


def _probe(template: Template, arguments: dict) -> str:
    """What the assistant says, by the template, when it calls the function; '' where the template has no calls."""
    question = {'role': 'user', 'content': 'x'}
    call = {'id': 'call00000', 'type': 'function', 'function': {'name': NAME, 'arguments': arguments}}
    tool = {'type': 'function', 'function': {'name': NAME, 'description': '', 'parameters': {'type': 'object', 'properties': {}}}}
    asked = Conversation(messages=[question], tools=[tool])
    said = Conversation(messages=[question, {'role': 'assistant', 'content': '', 'tool_calls': [call]}], tools=[tool])
    try:
        prompt = template.prompt(asked)
        [sample] = template.encode(said)
    except (SwiftError, ValueError):
        return ''
    text = _behind(template.tokenizer, prompt, sample)
    if prompt.text.rstrip().endswith(THINK):
        text = text.partition(THINK_END)[2] or text
    for end in [*(template.tokenizer.decode([i], skip_special_tokens=False) for i in prompt.stop_token_ids), *prompt.stop]:
        place = text.find(end, text.rfind('probe'))
        text = text[:place] if place >= 0 else text
    return text


def _behind(tokenizer: Any, prompt: Prompt, sample: Sample) -> str:
    """What a training row has where the prompt ends; where the prompt is no beginning of it, what is learned."""
    size = len(prompt.input_ids)
    if list(sample.input_ids[:size]) == list(prompt.input_ids):
        ids = sample.input_ids[size:]
    else:
        ids = [label for label in sample.labels if label != IGNORE_INDEX]
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def _reads(template: Template, form: JsonForm | ListForm, name: str, arguments: dict) -> bool:
    """Whether the template takes a call in this form for what it is."""
    message = template.decode(Completion([], form.written(name, arguments), 'stop', None, 0))
    calls = [call['function'] for call in message.get('tool_calls') or []]
    return calls == [{'name': name, 'arguments': arguments}] and not message.get('content')


def _check_names(template: Template, form: JsonForm | ListForm, function: dict) -> None:
    keys = (function.get('parameters') or {}).get('properties') or {}
    if not _reads(template, form, function['name'], dict.fromkeys(keys, 'a text') or {'a': 'a text'}):
        raise SwiftError(f'tool_choice: a call of {function["name"]!r} would not be understood;', 'give it and its arguments plainer names')
