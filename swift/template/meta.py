"""A template written as parts (prefix, prompt, separator, suffix) and its translation to Jinja."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from swift.core.errors import TemplateError

Part = str | Sequence[Any]
"""A string, or a list such as `['bos_token_id']` that names a special token of the tokenizer."""

_PLACEHOLDER = re.compile(r'\{\{(SYSTEM|QUERY|RESPONSE|ROUND0|ROUND1)\}\}')
_SPECIAL = {'bos_token_id': 'bos_token', 'eos_token_id': 'eos_token'}


@dataclass
class TemplateMeta:
    """A chat format for models without a chat template of their own.

    TemplateMeta('mine', prefix=['<s>'], prompt=['USER: {{QUERY}}\\nBOT:'], chat_sep=['\\n'], suffix=['</s>'])
    """

    template_type: str
    """Name for `--template`."""
    prefix: Sequence[Part] = ()
    """Printed at the start of a conversation without a system message."""
    prompt: Sequence[Part] = ('{{QUERY}}',)
    """One question with everything around it, up to where the answer goes. `{{QUERY}}`, and `{{ROUND0}}` or `{{ROUND1}}`:
    the number of the round from 0 or 1."""
    chat_sep: Sequence[Part] | None = None
    """Printed between an answer and the next question. None: one round only."""
    suffix: Sequence[Part] = (['eos_token_id'],)
    """Printed after the last answer; what the model stops with."""
    system_prefix: Sequence[Part] | None = None
    """Printed instead of `prefix` where there is a system message; holds `{{SYSTEM}}`. None: system messages go into `prefix`
    if that holds `{{SYSTEM}}`, else they are refused."""
    default_system: str | None = None
    """System message of conversations that have none."""
    response_prefix: str = ''
    """Printed before every answer; part of the inference prompt."""
    auto_add_bos: bool = False
    """Begin with the bos token if the tokenizer has one and adds it to plain texts."""
    stop_words: Sequence[Part] = field(default_factory=list)
    """More strings that end an answer."""
    agent_template: str | None = None
    """Format of tools, as for `--agent_template`. None: tools are refused."""
    chat_template: str | None = None
    """Jinja instead of the parts."""

    def to_jinja(self, *, begins_with_bos: bool = False) -> str:
        """The Jinja source that prints this format; `begins_with_bos`: the tokenizer adds bos to plain texts."""
        if self.chat_template:
            return self.chat_template
        bos = '{{- bos_token }}' if self.auto_add_bos and begins_with_bos else ''
        prompt = _print(
            self.prompt, QUERY='message.content', ROUND0='(count.rounds|string)', ROUND1='((count.rounds + 1)|string)'
        )
        separator = (
            _print(self.chat_sep)
            if self.chat_sep is not None
            else ("{{- raise_exception('this template is for one round only') }}")
        )
        response = _print([self.response_prefix]) if self.response_prefix else ''
        return ''.join(
            [
                self._opening(bos),
                '{%- set count = namespace(rounds=0) %}',
                '{%- for message in messages %}',
                "{%- if message.role == 'user' or message.role == 'tool' %}",
                f'{prompt}{response}',
                "{%- elif message.role == 'assistant' %}",
                '{{- message.content }}{%- set count.rounds = count.rounds + 1 %}',
                f'{{%- if loop.last %}}{_print(self.suffix)}{{%- else %}}{separator}{{%- endif %}}',
                "{%- elif not loop.first %}{{- raise_exception('a system message must be the first message') }}",
                '{%- endif %}{%- endfor %}',
            ]
        )

    def _opening(self, bos: str) -> str:
        holds_system = any('{{SYSTEM}}' in p for p in self.prefix if isinstance(p, str))
        system = self.system_prefix if self.system_prefix is not None else self.prefix if holds_system else None
        if system is None:
            if self.default_system:
                raise TemplateError(
                    f'template {self.template_type!r} has a default_system and no system_prefix to print it'
                )
            with_system = "{{- raise_exception('this template has no place for a system message') }}"
        else:
            with_system = bos + _print(system, SYSTEM='system')
        without = bos + _print([p.replace('{{SYSTEM}}', '') if isinstance(p, str) else p for p in self.prefix])
        default = _quote(self.default_system) if self.default_system else "''"
        return (
            "{%- if messages and messages[0].role == 'system' %}{%- set system = messages[0].content %}"
            f'{{%- else %}}{{%- set system = {default} %}}{{%- endif %}}'
            f'{{%- if system %}}{with_system}{{%- else %}}{without}{{%- endif %}}'
        )

    @property
    def ends(self) -> list[str]:
        """Strings among `suffix` and `stop_words` that end an answer."""
        return [p for p in [*self.suffix, *self.stop_words] if isinstance(p, str) and p.strip()]


@dataclass
class TurnFormat:
    """A template written as three strings, each with its placeholder, as classes decorated by `register_template` have them."""

    template_type: str
    system_prefix: str = ''
    """Holds `{{SYSTEM}}`; '' refuses system messages."""
    user_prefix: str = '{{QUERY}}'
    """Holds `{{QUERY}}`."""
    assistant_prefix: str = '{{RESPONSE}}'
    """Holds `{{RESPONSE}}`: what is before it is the inference prompt, what follows ends the turn."""
    default_system: str | None = None
    agent_template: str | None = None
    stop_words: Sequence[str] = ()

    def to_jinja(self, *, begins_with_bos: bool = False) -> str:
        """The Jinja source that prints this format."""
        for name, hole in (('user_prefix', 'QUERY'), ('assistant_prefix', 'RESPONSE'), ('system_prefix', 'SYSTEM')):
            text = getattr(self, name)
            if text and f'{{{{{hole}}}}}' not in text:
                raise TemplateError(f'template {self.template_type!r}: {name} has no {{{{{hole}}}}} in it: {text!r}')
        opening, closing = self.assistant_prefix.split('{{RESPONSE}}', 1)
        system = (
            _print([self.system_prefix], SYSTEM='system')
            if self.system_prefix
            else "{{- raise_exception('this template has no place for a system message') }}"
        )
        default = _quote(self.default_system) if self.default_system else "''"
        return ''.join(
            [
                "{%- if messages and messages[0].role == 'system' %}{%- set system = messages[0].content %}",
                f'{{%- else %}}{{%- set system = {default} %}}{{%- endif %}}{{%- if system %}}{system}{{%- endif %}}',
                '{%- for message in messages %}',
                "{%- if message.role == 'user' or message.role == 'tool' %}",
                _print([self.user_prefix], QUERY='message.content'),
                "{%- elif message.role == 'assistant' %}",
                _print([opening]),
                '{{- message.content }}',
                _print([closing]),
                '{%- endif %}{%- endfor %}',
                f'{{%- if add_generation_prompt %}}{_print([opening])}{{%- endif %}}',
            ]
        )

    @property
    def ends(self) -> list[str]:
        """Strings that end an answer."""
        return list(self.stop_words)


def _print(parts: Sequence[Part], **values: str) -> str:
    """Jinja that prints the parts; placeholders become the expressions in `values`."""
    out = []
    for part in parts:
        if not isinstance(part, str):
            names = [_SPECIAL.get(p) for p in part]
            if None in names:
                raise TemplateError(f'a template part must be a string, [bos_token_id] or [eos_token_id], not {part!r}')
            out += [f'{{{{- {name} }}}}' for name in names]
            continue
        at = 0
        for match in _PLACEHOLDER.finditer(part):
            out.append(_literal(part[at : match.start()]))
            if match[1] not in values:
                raise TemplateError(f'the placeholder {match[0]} does not belong into {part!r}')
            out.append(f'{{{{- {values[match[1]]} }}}}')
            at = match.end()
        out.append(_literal(part[at:]))
    return ''.join(out)


def _literal(text: str) -> str:
    return f'{{{{- {_quote(text)} }}}}' if text else ''


def _quote(text: str) -> str:
    escaped = (
        text.replace('\\', '\\\\').replace("'", "\\'").replace('\n', '\\n').replace('\r', '\\r').replace('\t', '\\t')
    )
    return f"'{escaped}'"
