"""Chat templates as transformers renders them: the same Jinja environment, compiled once, sandboxed.

Imports jinja2 only, so that spans can be found (and tested) without transformers.
"""

from __future__ import annotations

import json
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from swift.core.errors import TemplateError


class _GenerationTag(Extension):
    """Accepts `{% generation %}…{% endgeneration %}` and prints what is inside; where a turn is, we find out ourselves."""

    tags = {'generation'}

    def parse(self, parser: jinja2.parser.Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(('name:endgeneration',), drop_needle=True)
        return nodes.CallBlock(self.call_method('_print'), [], [], body).set_lineno(line)

    def _print(self, caller: Any) -> str:
        return caller()


class _SafeNamespace(Namespace):
    """Jinja's namespace() without attributes that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # as jinja2 does it: `self` may be a keyword of the template
        values = dict(*args[1:], **kwargs)
        for name in values:
            _check_attribute(name)
        Namespace.__init__(args[0], values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_attribute(name)
        super().__setitem__(name, value)


class _Dict:
    """`dict` for templates: makes dictionaries, and is not the type itself (the sandbox could be left through it)."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict:
        return dict.fromkeys(*args)


def _check_attribute(name: Any) -> None:
    if isinstance(name, str) and name.startswith('_'):
        raise jinja2.exceptions.SecurityError(f'a chat template may not store the attribute {name!r}')


def _raise_exception(message: Any) -> None:
    raise jinja2.exceptions.TemplateError(str(message))


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols])
    env.filters['tojson'] = _tojson
    env.globals.update(
        raise_exception=_raise_exception,
        strftime_now=_strftime_now,
        namespace=_SafeNamespace,
        dict=_Dict(),
    )
    return env


@lru_cache(maxsize=512)
def compile_template(source: str) -> jinja2.Template:
    """The compiled template; TemplateError with line number if it is not valid Jinja."""
    try:
        return _environment().from_string(source)
    except jinja2.TemplateSyntaxError as e:
        raise TemplateError(
            f'the chat template is not valid Jinja (line {e.lineno}): {e.message};', 'mend chat_template'
        ) from e


class Renderer:
    """One chat template with the values that are the same for every conversation (special tokens, switches)."""

    def __init__(self, source: str, variables: dict[str, Any] | None = None, *, parts: bool = False):
        """`parts`: contents are handed over as lists of parts, for templates that print no plain strings."""
        self.source = source
        self.parts = parts
        self.variables = dict(variables or {})
        self.compiled = compile_template(source)

    def __call__(self, messages: list[dict], tools: list | None = None, *, generation_prompt: bool = False) -> str:
        """The text of a conversation, or TemplateError with the template's own words."""
        if self.parts:
            messages = [_in_parts(m) for m in messages]
        try:
            return self.compiled.render(
                messages=messages,
                tools=tools,
                documents=None,
                add_generation_prompt=generation_prompt,
                **self.variables,
            )
        except Exception as e:  # a template can fail with any exception: its own, TypeError, KeyError, …
            reason = str(e).split('\n', 1)[0] or type(e).__name__
            raise TemplateError(f'the chat template refuses this conversation: {reason}') from e

    def attempt(
        self, messages: list[dict], tools: list | None = None, *, generation_prompt: bool = False
    ) -> str | None:
        """The text, or None where the template refuses."""
        try:
            return self(messages, tools, generation_prompt=generation_prompt)
        except TemplateError:
            return None

    def in_parts(self) -> Renderer:
        """The same template, given contents as lists of parts."""
        return Renderer(self.source, self.variables, parts=True)

    def __reduce__(self):
        return _renderer, (self.source, self.variables, self.parts)


def _renderer(source: str, variables: dict[str, Any], parts: bool) -> Renderer:
    return Renderer(source, variables, parts=parts)


def _in_parts(message: dict) -> dict:
    content = message.get('content')
    return {**message, 'content': [{'type': 'text', 'text': content}]} if isinstance(content, str) else message


@lru_cache(maxsize=512)
def template_variables(source: str) -> frozenset[str]:
    """Names that a template reads from outside."""
    try:
        return frozenset(meta.find_undeclared_variables(_environment().parse(source)))
    except jinja2.TemplateSyntaxError:
        return frozenset()  # compile_template says what is wrong
