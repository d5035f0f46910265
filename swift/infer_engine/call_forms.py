"""The forms in which templates write a tool call, as texts around name and arguments, and as rules of a Lark grammar."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from swift.core.errors import SwiftError

_MARK = re.compile(r'<[^<>]+>')


@dataclass(frozen=True)
class JsonForm:
    """`head` name `middle` arguments (JSON with the `separators`) `tail`."""

    head: str
    middle: str
    tail: str
    separators: tuple[str, str]

    def written(self, name: str, arguments: dict[str, Any]) -> str:
        """A call in this form."""
        return f'{self.head}{name}{self.middle}{_json(arguments, self.separators)}{self.tail}'

    def rules(self, function: dict, rule: str, added: dict[str, int]) -> list[str]:
        """The rule of calls of a function, and those it needs. `added`: tokens added to the vocabulary → ids."""
        before, after = literal(f'{self.head}{function["name"]}{self.middle}', added), literal(self.tail, added)
        schema = {**(function.get('parameters') or {}), 'type': 'object'}
        return [f'{rule}: {before} {rule}_arguments {after}'.rstrip(), f'{rule}_arguments: {_json_rule(schema, self.separators)}']


@dataclass(frozen=True)
class ListForm:
    """`head` name `first` key `to_text` text (or `to_json` JSON) `between` key … `tail`; without arguments: `head` name `bare`."""

    head: str
    first: str
    to_text: str
    to_json: str
    between: str
    tail: str
    bare: str | None
    separators: tuple[str, str]

    @property
    def mark(self) -> str | None:
        """What ends a value; no text holds it. None: the form has no such mark."""
        found = _MARK.search(self.between)
        return found[0] if found and self.tail.startswith(self.between[: found.end()]) else None

    def written(self, name: str, arguments: dict[str, Any]) -> str:
        """A call in this form."""
        if not arguments:
            return f'{self.head}{name}{self.bare}'
        parts = [
            f'{key}{self.to_text}{value}' if isinstance(value, str) else f'{key}{self.to_json}{_json(value, self.separators)}'
            for key, value in arguments.items()
        ]
        return f'{self.head}{name}{self.first}{self.between.join(parts)}{self.tail}'

    def rules(self, function: dict, rule: str, added: dict[str, int]) -> list[str]:
        """As of JsonForm. Keys come in the order of the schema, those that are not required may be left out.

        `_first_i` is all from key i on where no key has come yet, `_later_i` where one has. Raises SwiftError for a function
        whose arguments can't be listed.
        """
        parameters = function.get('parameters') or {}
        properties, required = parameters.get('properties') or {}, set(parameters.get('required') or ())
        if self.bare is None and not required:
            raise SwiftError(f'tool_choice: how this template calls {function["name"]!r} without arguments is not known;', 'require one')
        if unknown := sorted(required - set(properties)):
            raise SwiftError(f'tool_choice: {function["name"]!r} requires {unknown[0]!r}, which is none of its properties;', 'describe it there')
        rules = [f'{rule}: {literal(self.head + function["name"], added)} {rule}_first_0']
        for index, (key, schema) in enumerate(properties.items()):
            value, more = self._value(schema, parameters, f'{rule}_value_{index}', added)
            openings = [('later', self.between[self._cut :])] if index else []
            if not required.intersection(list(properties)[:index]):  # otherwise some key has come
                openings.append(('first', self.first))
            for state, opening in openings:
                taken = f'{literal(opening + key, added)} {value} {rule}_later_{index + 1}'
                left_out = '' if key in required else f' | {rule}_{state}_{index + 1}'
                rules.append(f'{rule}_{state}_{index}: {taken}{left_out}')
            rules += more
        count, end = len(properties), literal(self.tail[self._cut :], added)
        if self.bare is not None and not required:
            rules.append(f'{rule}_first_{count}: {literal(self.bare, added)}')
        return [*rules, *([f'{rule}_later_{count}: {end}'] if properties else [])]

    @property
    def _cut(self) -> int:
        """How much of `between` and of `tail` is the end of a value."""
        return self.between.index(self.mark) + len(self.mark)

    def _value(self, schema: Any, parameters: dict, rule: str, added: dict[str, int]) -> tuple[str, list[str]]:
        """How a value follows its key, up to its mark, and the rules that this needs."""
        schema = _resolved(schema, parameters)
        closing = self.between[: self._cut]
        if not _may_be_text(schema, parameters):
            defined = {name: parameters[name] for name in ('$defs', 'definitions') if name in parameters}
            rules = [f'{rule}: {_json_rule({**defined, **schema}, self.separators)}']
            return f'{literal(self.to_json, added)} {rule} {literal(closing, added)}', rules
        ends = f'<[{added[self.mark]}]>' if self.mark in added else ''
        closing = closing.removesuffix(self.mark) if ends else closing
        options = [value if isinstance(value, str) else _json(value, self.separators) for value in schema.get('enum') or [v for v in (schema.get('const'),) if v]]
        if options:
            text = '(' + ' | '.join(json.dumps(option, ensure_ascii=False) for option in options) + ')'
        else:
            most = schema.get('maxLength', '')
            text = f'(/(?s:.){{{0 if closing else 1},{most}}}/ & ~/(?s:.*){_slashed(self.mark)}(?s:.*)/)'
        terminal = rule.upper()
        word = f'{terminal}: {text} {json.dumps(closing, ensure_ascii=False) if closing else ""}'.rstrip()
        return f'{literal(self.to_text, added)} {terminal} {ends}'.rstrip(), [word]


def literal(text: str, added: dict[str, int]) -> str:
    """Text as a sequence of Lark strings, and of tokens by their ids where it holds any of those `added` to the vocabulary."""
    marks = sorted((token for token in added if token in text), key=len, reverse=True)
    pieces = re.split('(' + '|'.join(map(re.escape, marks)) + ')', text) if marks else [text]
    return ' '.join(f'<[{added[piece]}]>' if piece in added else json.dumps(piece, ensure_ascii=False) for piece in pieces if piece)


def _json(value: Any, separators: tuple[str, str]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=separators)


def _json_rule(schema: dict, separators: tuple[str, str]) -> str:
    """JSON that a schema describes, written as the template does. Words of schemas that nobody can keep to are passed over."""
    options = {'whitespace_flexible': False, 'item_separator': separators[0], 'key_separator': separators[1], 'lenient': True}
    return f'%json {json.dumps({**schema, "x-guidance": options}, ensure_ascii=False)}'


def _slashed(text: str) -> str:
    """Text within a regular expression between slashes."""
    return re.sub(r'([\\.+*?()|\[\]{}^$/&~-])', r'\\\1', text)


def _resolved(schema: Any, parameters: dict) -> dict:
    """A schema, or what it refers to."""
    schema = schema if isinstance(schema, dict) else {}
    parts = schema.get('$ref', '').split('/')
    return parameters.get(parts[1], {}).get(parts[2], schema) if len(parts) == 3 and parts[0] == '#' else schema


def _may_be_text(schema: dict, parameters: dict) -> bool:
    """Whether a value may be a text, which is written as it is."""
    if 'const' in schema or 'enum' in schema:
        return any(isinstance(value, str) for value in [*schema.get('enum', ()), schema.get('const')])
    for word in ('anyOf', 'oneOf'):
        if word in schema:
            return any(_may_be_text(_resolved(one, parameters), parameters) for one in schema[word])
    kinds = schema.get('type', 'string')
    return 'string' in ([kinds] if isinstance(kinds, str) else kinds)
