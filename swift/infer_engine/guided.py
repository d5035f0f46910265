"""Answers of a given form: a JSON schema, a regular expression, one of some texts, a grammar.

`form_of` reads what a config asks for, `Guides` compiles it for one engine (once for each form), and each answer has a
`Guide` of its own, which knows the tokens that may come next; text that the form leaves no choice about comes in the
tokens that the tokenizer makes of it. llguidance does the matching; it is imported only when a request asks for a form.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from swift.core.errors import MissingDependencyError, SwiftError

FIELDS = ('response_format', 'guided_json', 'guided_regex', 'guided_choice', 'guided_grammar')
"""Fields of a RequestConfig that ask for a form; at most one of them."""
KEPT = 64
"""Compiled forms that an engine keeps, the latest."""
SPACES = r' ?|\r?\n[ \t]{0,40}'
"""What may stand between the parts of JSON: a model that is stuck in blanks would never end."""
THINK, THINK_END = '<think>', '</think>'


@dataclass(frozen=True, slots=True)
class Form:
    """What a request asks for. `kind`: `json` (a schema as text), `regex`, `choice` (a JSON list) or `grammar` (Lark)."""

    field: str
    kind: str
    text: str


def form_of(config: Any) -> Form | None:
    """The form that a RequestConfig asks for. Raises SwiftError that begins with the field at fault."""
    given = [name for name in FIELDS if getattr(config, name) is not None]
    if not given:
        return None
    if len(given) > 1:
        raise SwiftError(f'{given[1]}: not together with {given[0]};', 'ask for one form')
    [name] = given
    value = getattr(config, name)
    if name == 'response_format':
        return _openai(value)
    if name == 'guided_json':
        return Form(name, 'json', _schema(value, name))
    if name == 'guided_choice':
        if not isinstance(value, list | tuple) or not value or not all(isinstance(text, str) and text for text in value):
            raise SwiftError(f'{name}: {value!r:.80} is no list of texts;', 'give some texts, none empty')
        return Form(name, 'choice', json.dumps(list(value), ensure_ascii=False))
    if not isinstance(value, str) or not value:
        raise SwiftError(f'{name}: {value!r:.80} is no text;', f'give the {name.removeprefix("guided_")} as text')
    return Form(name, name.removeprefix('guided_'), value)


def _openai(value: Any) -> Form | None:
    kind = value.get('type') if isinstance(value, dict) else None
    if kind == 'text':
        return None
    if kind == 'json_object':
        return Form('response_format', 'json', '{"type": "object"}')
    if kind != 'json_schema':
        raise SwiftError(f'response_format: {value!r:.80} is of no known type;', 'the types are text, json_object, json_schema')
    inner = value.get('json_schema')
    schema = inner.get('schema') if isinstance(inner, dict) else None
    if schema is None:
        raise SwiftError('response_format: json_schema has no schema;', 'write {"type": "json_schema", "json_schema": {"name": …, "schema": {…}}}')
    return Form('response_format', 'json', _schema(schema, 'response_format'))


def _schema(value: Any, name: str) -> str:
    """A schema as JSON text; a given text is checked to be JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise SwiftError(f'{name}: the schema is no JSON: {error};', 'give a JSON schema') from None
    if not isinstance(value, dict):
        raise SwiftError(f'{name}: a schema is an object, not {value!r:.80};', 'give a JSON schema')
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise SwiftError(f'{name}: the schema can not be written as JSON: {error};', 'give a JSON schema') from None


class Guide:
    """Of one answer: which tokens may come next. A token that ends answers may come exactly when the form is complete.

    `thinks`: the prompt has opened a thought, which is free; the form begins behind its end.
    """

    def __init__(self, matcher: Any, field: str, ends: Iterable[int], stop_ids: Iterable[int], tokenizer: Any, thinks: bool):
        self._matcher, self._field, self._tokenizer = matcher, field, tokenizer
        self._ends, self._stop_ids = list(ends), sorted(stop_ids)
        self._thought: list[int] | None = [] if thinks else None
        self._bits = np.zeros(0, dtype=np.uint8)
        self.complete = False
        """Nothing can follow but the end."""
        self._look()

    def allowed(self, vocab: int) -> np.ndarray:
        """uint8 [ceil(vocab / 8)]: one bit for each token, lowest bit first."""
        size = -(-vocab // 8)
        if self._thought is not None:
            return _with(np.full(size, 255, dtype=np.uint8), self._stop_ids, False)
        bits = np.zeros(size, dtype=np.uint8)
        bits[: len(self._bits)] = self._bits[:size]
        return bits

    def take(self, token: int) -> bool:
        """The answer goes on with this token; True when it is complete. Raises SwiftError where nothing can follow."""
        if self._thought is not None:
            self._thought.append(token)
            if THINK_END in self._tokenizer.decode(self._thought[-16:], skip_special_tokens=False):
                self._thought = None
            return False
        if not self._matcher.consume_token(token):
            raise self._stuck()
        self._look()
        return self.complete

    def _look(self) -> None:
        """Find what may come next."""
        may_end = self._matcher.is_accepting()
        if not self._matcher.is_stopped():
            self._bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8).copy()
        if self._matcher.is_error():
            raise self._stuck()
        self.complete = self._matcher.is_stopped() or not _with(self._bits, self._ends, False).any()
        if self.complete and not may_end:
            raise self._stuck()
        if self._stop_ids:
            missing = self._stop_ids[-1] // 8 + 1 - len(self._bits)
            self._bits = np.pad(self._bits, (0, max(0, missing)))
            _with(self._bits, self._stop_ids, may_end)

    def _stuck(self) -> SwiftError:
        reason = _plain(self._matcher.get_error()) or 'no token of the model can follow'
        return SwiftError(f'{self._field}: the answer could not be kept in its form: {reason};', 'ask for a simpler form')


def _with(bits: np.ndarray, ids: Iterable[int], on: bool) -> np.ndarray:
    """`bits` with those of some tokens set or cleared, in place; ids beyond the end are left out."""
    for i in ids:
        if i < 8 * len(bits):
            bit = np.uint8(1 << i % 8)
            bits[i // 8] = bits[i // 8] | bit if on else bits[i // 8] & ~bit
    return bits


class Guides:
    """Compiles forms for one tokenizer. May be asked from any thread."""

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._words: Any = None
        self._known: OrderedDict[Form, Any] = OrderedDict()
        self._lock = threading.Lock()

    def guide(self, form: Form, stop_ids: Iterable[int], prompt: str = '') -> Guide:
        """The guide of one answer behind `prompt`. Raises SwiftError saying what is wrong with the form."""
        with self._lock:
            matcher = self._compiled(form).deep_copy()
        thinks = prompt.rstrip().endswith(THINK)
        return Guide(matcher, form.field, self._words.eos_tokens, stop_ids, self._tokenizer, thinks)

    def _compiled(self, form: Form) -> Any:
        if form in self._known:
            self._known.move_to_end(form)
            return self._known[form]
        try:
            from llguidance import LLMatcher
        except ImportError as error:
            raise MissingDependencyError('llguidance', f'guided output ({form.field})', 'guided') from error
        if self._words is None:
            self._words = _words(self._tokenizer)
        try:
            matcher = LLMatcher(self._words, _grammar(LLMatcher, form), log_level=0)
        except UnicodeEncodeError as error:
            raise SwiftError(f'{form.field}: it holds half a character ({error.reason});', 'leave it out') from None
        if matcher.is_error():
            raise SwiftError(f'{form.field}: {_plain(matcher.get_error())};', 'give one that can be matched')
        if matcher.is_accepting() and not _with(_bits(matcher), self._words.eos_tokens, False).any():
            raise SwiftError(f'{form.field}: only the empty text has this form;', 'give another one')
        self._known[form] = matcher
        while len(self._known) > KEPT:
            self._known.popitem(last=False)
        return matcher


def _bits(matcher: Any) -> np.ndarray:
    return np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8).copy()


def _words(tokenizer: Any) -> Any:
    """The tokens as bytes, as the matcher wants them."""
    from llguidance.hf import from_tokenizer

    try:
        return from_tokenizer(tokenizer)
    except (ValueError, AttributeError) as error:
        name = type(tokenizer).__name__
        raise SwiftError(f'guided output does not know the tokens of {name} ({error});', 'it needs a tokenizer with a tokenizer.json') from error


def _grammar(matcher: Any, form: Form) -> str:
    """The form as llguidance reads it."""
    if form.kind == 'json':
        try:
            return matcher.grammar_from_json_schema(form.text, defaults={'whitespace_pattern': SPACES})
        except ValueError as error:
            raise SwiftError(f'{form.field}: {_plain(str(error))};', 'give a JSON schema') from None
    if form.kind == 'regex':
        return matcher.grammar_from_regex(form.text)
    if form.kind == 'choice':
        return matcher.grammar_from_lark('start: ' + ' | '.join(json.dumps(text, ensure_ascii=False) for text in json.loads(form.text)))
    return matcher.grammar_from_lark(form.text)


def _plain(error: str) -> str:
    """The line of a parser's message that says what is wrong."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    said = next((line.removeprefix('error: ') for line in lines if line.startswith('error: ')), lines[0] if lines else '')
    return re.sub(r'^at \d+\(\d+\): (?:invalid regex ".*" \(in \w+\): )?', '', said).rstrip('.;')
