"""Tool calls that must be written: a grammar of exactly the form in which a template writes them.

The form is found by having the template write a call of a function that nobody has, as it would for training: what
stands around the name and the arguments is the form. It is trusted only if the template reads such a call back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from swift.core.errors import SwiftError
from swift.core.types import IGNORE_INDEX, Completion, Conversation, Prompt, Sample, Template
from swift.infer_engine.guided import THINK, THINK_END

NAME, ARGUMENTS = 'probe_function', {'probe_key': 'probe value', 'probe_list': [1, {'a': None}]}
_STYLES = ((', ', ': '), (',', ':'), (', ', ':'), (',', ': '))
"""Separators with which templates write JSON."""
_TRIED = {'text': 'It\'s "one",\n{two}', 'numbers': [1, -2.5, True, None], 'inner': {'ä': []}}


@dataclass(frozen=True)
class CallForm:
    """`head` name `middle` arguments (JSON with the `separators`) `tail`."""

    head: str
    middle: str
    tail: str
    separators: tuple[str, str]

    def written(self, name: str, arguments: dict[str, Any]) -> str:
        """A call in this form."""
        return f'{self.head}{name}{self.middle}{json.dumps(arguments, ensure_ascii=False, separators=self.separators)}{self.tail}'


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
    _check_names(template, form, functions)
    added = template.tokenizer.get_added_vocab()
    rules = ['start: ' + ' | '.join(f'call_{index}' for index in range(len(functions)))]
    for index, function in enumerate(functions):
        before, after = _literal(f'{form.head}{function["name"]}{form.middle}', added), _literal(form.tail, added)
        rules.append(f'call_{index}: {before} arguments_{index} {after}'.rstrip())
        rules.append(f'arguments_{index}: %json {json.dumps(_schema(function, form), ensure_ascii=False)}')
    return '\n'.join(rules)


@lru_cache(maxsize=8)
def call_form(template: Template) -> CallForm | None:
    """How the template writes a call. None: not as a name, and JSON behind it, that it also reads back."""
    written = _probe(template)
    for separators in _STYLES:
        arguments = json.dumps(ARGUMENTS, ensure_ascii=False, separators=separators)
        pattern = f'(.*){re.escape(NAME)}(.*){re.escape(arguments)}(.*)'
        if (match := re.fullmatch(pattern, written, re.DOTALL)) and 'probe' not in ''.join(match.groups()):
            form = CallForm(*match.groups(), separators)
            return form if _reads(template, form, 'get_it') else None
    return None


def _probe(template: Template) -> str:
    """What the assistant says, by the template, when it calls the function; '' where the template has no calls."""
    question = {'role': 'user', 'content': 'x'}
    call = {'id': 'call00000', 'type': 'function', 'function': {'name': NAME, 'arguments': ARGUMENTS}}
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


def _reads(template: Template, form: CallForm, name: str) -> bool:
    """Whether the template takes a call in this form for what it is."""
    message = template.decode(Completion([], form.written(name, _TRIED), 'stop', None, 0))
    calls = [call['function'] for call in message.get('tool_calls') or []]
    return calls == [{'name': name, 'arguments': _TRIED}] and not message.get('content')


def _check_names(template: Template, form: CallForm, functions: Sequence[dict]) -> None:
    for function in functions:
        if not _reads(template, form, function['name']):
            raise SwiftError(f'tool_choice: a call of {function["name"]!r} would not be understood;', 'give the function a plainer name')


def _literal(text: str, added: dict[str, int]) -> str:
    """Text as a sequence of Lark strings, and of tokens by their numbers where it holds any of the tokens `added` to the vocabulary."""
    marks = sorted((token for token in added if token in text), key=len, reverse=True)
    pieces = re.split('(' + '|'.join(map(re.escape, marks)) + ')', text) if marks else [text]
    return ' '.join(f'<[{added[piece]}]>' if piece in added else json.dumps(piece, ensure_ascii=False) for piece in pieces if piece)


def _schema(function: dict, form: CallForm) -> dict[str, Any]:
    """The schema of the arguments, and how they are written. Words of schemas that nobody can keep to are passed over."""
    item, key = form.separators
    options = {'whitespace_flexible': False, 'item_separator': item, 'key_separator': key, 'lenient': True}
    return {**(function.get('parameters') or {}), 'type': 'object', 'x-guidance': options}
