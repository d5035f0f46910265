"""`get_template`: from a tokenizer and settings to a Template that is complete."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from swift.arguments.template import TemplateArgs
from swift.core.errors import TemplateError, did_you_mean
from swift.core.log import warn_once
from swift.template.budgets import media_reader
from swift.template.encode import Template
from swift.template.jinja import template_variables
from swift.template.registry import as_format, templates_map
from swift.template.stops import own_specials

_FIELDS = {f.name for f in fields(TemplateArgs)}


def get_template(
    processor: Any, args: TemplateArgs | None = None, *, stop_token_ids: Iterable[int] = (), **settings: Any
) -> Template:
    """The Template of a tokenizer, of a processor (its tokenizer), or of a name of the table (text only).

    `settings` are fields of TemplateArgs and win over `args`: `get_template(tokenizer, system='…', max_length=2048)`.
    `stop_token_ids`: ids that also end an answer, such as the model's generation_config.eos_token_id.
    """
    settings = _resolved(args, settings)
    if isinstance(processor, str):
        return _named(processor, settings, None, None, stop_token_ids)
    tokenizer = getattr(processor, 'tokenizer', None) or processor
    if settings.template and not settings.template.endswith(('.jinja', '.jinja2', '.j2')):
        return _named(settings.template, settings, tokenizer, processor, stop_token_ids)
    source = _file(settings.template) if settings.template else _own_source(processor, tokenizer)
    variables = {**_special_tokens(tokenizer), **_switches(settings, source)}
    if not source and settings.use_chat_template:
        raise TemplateError(
            'the tokenizer has no chat template;',
            'choose one (--template chatml, or another name of the table) or train plain text (--use_chat_template false)',
        )
    reader = media_reader(processor, settings) if processor is not tokenizer else None
    return Template(
        tokenizer, source, settings, variables=variables, stop_token_ids=stop_token_ids, processor=processor, reader=reader
    )


def _resolved(args: TemplateArgs | None, settings: dict[str, Any]) -> TemplateArgs:
    unknown = [name for name in settings if name not in _FIELDS]
    if unknown:
        hint = did_you_mean(unknown[0], _FIELDS) or f'known: {", ".join(sorted(_FIELDS))}'
        raise TemplateError(f'get_template has no setting {unknown[0]!r};', hint)
    values = {} if args is None else {name: getattr(args, name) for name in _FIELDS if hasattr(args, name)}
    merged = replace(TemplateArgs(**values), **settings)
    return replace(merged, system=_system_text(merged.system))


def _system_text(system: str | None) -> str | None:
    """The system prompt itself, or the text of the .txt file it names."""
    if not system or not system.endswith('.txt') or '\n' in system:
        return system
    path = Path(system).expanduser()
    if not path.is_file():
        raise TemplateError(f'--system {system}: there is no such file')
    return path.read_text(encoding='utf-8').strip()


def _file(name: str) -> str:
    path = Path(name).expanduser()
    if not path.is_file():
        raise TemplateError(f'--template {name}: there is no such file')
    return path.read_text(encoding='utf-8')


def _own_source(processor: Any, tokenizer: Any) -> str | dict[str, str] | None:
    for owner in (processor, tokenizer):
        source = getattr(owner, 'chat_template', None)
        if source:
            return dict(source) if isinstance(source, dict) else source
    return None


def _special_tokens(tokenizer: Any) -> dict[str, str]:
    """bos_token, eos_token and so on, as transformers hands them to chat templates."""
    return {k: str(v) for k, v in tokenizer.special_tokens_map.items() if not isinstance(v, list | tuple | dict)}


_SWITCHES = {
    'enable_thinking': (('enable_thinking', lambda v: v), ('thinking', lambda v: v)),
    'preserve_thinking': (('preserve_thinking', lambda v: v), ('clear_thinking', lambda v: not v)),
}
"""Setting → the variables by which chat templates know it."""


def _switches(settings: TemplateArgs, source: str | dict[str, str] | None) -> dict[str, Any]:
    """Thinking switches that were set, under the names that the template reads."""
    out: dict[str, Any] = {}
    sources = list(source.values()) if isinstance(source, dict) else [source] if source else []
    names = set().union(*map(template_variables, sources)) if sources else set()
    for setting, variables in _SWITCHES.items():
        value = getattr(settings, setting)
        if value is None or not sources:
            continue
        read = [(name, convert(value)) for name, convert in variables if name in names]
        if not read:
            warn_once('--%s has no effect: the chat template does not read it.', setting)
        out.update(read)
    return out


def _named(
    name: str, settings: TemplateArgs, tokenizer: Any, processor: Any, stop_token_ids: Iterable[int]
) -> Template:
    """A template of the table. Without a tokenizer the special tokens have their usual names."""
    entry = templates_map[name]
    layout = as_format(name, entry)
    begins_with_bos = tokenizer is not None and tokenizer.bos_token_id in own_specials(tokenizer)[0]
    source = layout.to_jinja(begins_with_bos=begins_with_bos)
    tokens = _special_tokens(tokenizer) if tokenizer is not None else {'bos_token': '<s>', 'eos_token': '</s>'}
    if layout.agent_template and settings.agent_template is None:
        settings = replace(settings, agent_template=layout.agent_template)
    cls = entry if isinstance(entry, type) and issubclass(entry, Template) else Template
    return cls(
        tokenizer,
        source,
        settings,
        name=name,
        variables={**tokens, **_switches(settings, source)},
        stop_token_ids=stop_token_ids,
        processor=processor,
        reader=media_reader(processor, settings) if processor is not tokenizer and processor is not None else None,
        stop_strings=layout.ends,
    )
