"""Named templates: a table of facts for base models, and what users register.

register_template(TemplateMeta('mine', prompt=['Q: {{QUERY}}\\nA: '], chat_sep=['\\n'], suffix=['\\n\\n']))

@register_template('mine')
class Mine(Template):
    system_prefix = '<s>[SYSTEM]\\n{{SYSTEM}}[/SYSTEM]\\n'
    user_prefix = '[USER]\\n{{QUERY}}[/USER]\\n'
    assistant_prefix = '[ASSISTANT]\\n{{RESPONSE}}[/ASSISTANT]\\n'
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from swift.core.errors import TemplateError
from swift.core.registry import Registry
from swift.template.meta import TemplateMeta, TurnFormat


def _builtin() -> dict[str, TemplateMeta]:
    facts = json.loads(Path(__file__).with_name('templates.json').read_text(encoding='utf-8'))
    return {name: TemplateMeta(name, **fields) for name, fields in facts.items() if not name.startswith('_')}


_BUILTIN = _builtin()
templates_map: Registry = Registry('template', _BUILTIN)
"""Name → TemplateMeta, or the class that was decorated."""
TEMPLATE_MAPPING = templates_map


def register_template(template: TemplateMeta | str, *, exist_ok: bool = False) -> Any:
    """Register a TemplateMeta, or (with a name) decorate a class that has system_prefix, user_prefix, assistant_prefix.

    A name of the built-in table may be taken over; a name that was registered by somebody else is an error
    unless `exist_ok`.
    """
    if isinstance(template, str):
        return _decorator(template, exist_ok)
    _add(template.template_type, template, exist_ok)
    return template


def _decorator(name: str, exist_ok: bool) -> Callable[[type], type]:
    def add(cls: type) -> type:
        as_format(name, cls).to_jinja()  # a mistake shows where it is made
        _add(name, cls, exist_ok)
        return cls

    return add


def _add(name: str, value: Any, exist_ok: bool) -> None:
    if exist_ok or templates_map.get(name) is _BUILTIN.get(name) is not None:
        templates_map.replace(name, value)
    else:
        templates_map[name] = value


def as_format(name: str, entry: Any) -> TemplateMeta | TurnFormat:
    """What a registered entry prints."""
    if isinstance(entry, TemplateMeta | TurnFormat):
        return entry
    fields = ('system_prefix', 'user_prefix', 'assistant_prefix', 'default_system', 'agent_template', 'stop_words')
    given = {f: getattr(entry, f) for f in fields if isinstance(getattr(entry, f, None), str | list | tuple)}
    if 'user_prefix' not in given or 'assistant_prefix' not in given:
        raise TemplateError(f'template {name!r}: the class needs user_prefix and assistant_prefix')
    return TurnFormat(name, **given)
