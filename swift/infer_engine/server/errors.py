"""What goes wrong with a request, in OpenAI's form: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from swift.core.errors import SwiftError, did_you_mean

KINDS = {
    400: 'invalid_request_error', 401: 'authentication_error', 403: 'permission_error', 404: 'not_found_error',
    405: 'invalid_request_error', 408: 'timeout_error', 413: 'invalid_request_error', 415: 'invalid_request_error',
    429: 'rate_limit_error', 500: 'server_error', 503: 'server_error',
}  # fmt: skip
"""Status → the `type` of its errors."""

_PLACE = re.compile(r'(messages\[\d+\]|tools\[\d+\])')
_FORM = re.compile(r'(?:request config: )?(response_format|guided_\w+|num_beams)\b')
_NUMBER = re.compile(r'^request \d+: ')


class ApiError(Exception):
    """An answer that says what is wrong. `param` is the field at fault, `code` a word for programs."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None, headers: Mapping[str, str] | None = None
    ):
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.headers = status, message, param, code, dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The JSON of the answer."""
        kind = KINDS.get(self.status, 'invalid_request_error' if self.status < 500 else 'server_error')
        return {'error': {'message': self.message, 'type': kind, 'param': self.param, 'code': self.code}}

    @property
    def event(self) -> bytes:
        """The error as the last event of a stream that has begun."""
        return b'data: ' + json.dumps(self.body, ensure_ascii=False).encode() + b'\n\n'


def from_swift(error: SwiftError, param: str | None = None) -> ApiError:
    """A mistake that the engine or the template found."""
    message = _NUMBER.sub('', str(error))
    place, form = _PLACE.search(message), _FORM.match(message)
    param = form[1] if form else param or (place[1] if place else None)
    code = 'context_length_exceeded' if '(max_model_len)' in message else None
    return ApiError(400, message, param=param, code=code)


def from_validation(errors: Sequence[Mapping[str, Any]], fields: Sequence[str] = ()) -> ApiError:
    """The first thing wrong with a body, as pydantic found it. `fields`: what a request of this kind can have."""
    error = min(errors, key=lambda one: len(one.get('loc', ())))  # of a union, the outermost says most
    kind, where = error.get('type', ''), [part for part in error.get('loc', ()) if part != 'body']
    if kind in ('model_attributes_type', 'dict_type', 'missing') and not where:
        return ApiError(400, 'the body must be a JSON object, sent with Content-Type: application/json', code='invalid_json')
    if kind == 'json_invalid':
        return ApiError(400, f'the body is no JSON: {error.get("ctx", {}).get("error", error.get("msg"))}', code='invalid_json')
    param = _named(where)
    if kind == 'extra_forbidden':
        near = did_you_mean(str(where[-1]), fields) if len(where) == 1 else ''
        return ApiError(400, f'{param}: unknown field; {near or "leave it out"}', param=param, code='unknown_field')
    if kind == 'missing':
        return ApiError(400, f'{param}: this field is required', param=param, code='missing_field')
    return ApiError(400, f'{param}: {_plainly(error)}', param=param, code='invalid_value')


def _plainly(error: Mapping[str, Any]) -> str:
    """What is wrong with a value, in words."""
    message = str(error.get('msg', 'invalid')).removeprefix('Value error, ')
    message = message[:1].lower() + message[1:]
    given = error.get('input')
    shown = repr(given)
    return message if isinstance(given, dict | list) or len(shown) > 60 else f'{message}, got {shown}'


def _named(where: Sequence[Any]) -> str | None:
    """`messages[0].role` from ('messages', 0, 'role'); names of union members, which only pydantic knows, are left out."""
    name = ''
    for part in where:
        if isinstance(part, int):
            name += f'[{part}]'
        elif re.fullmatch(r'\w+', part) and part not in _MEMBERS:
            name += f'.{part}' if name else part
    return name or None


_MEMBERS = {'str', 'int', 'float', 'bool', 'dict', 'list', 'Message', 'none', 'StreamOptions', 'Tool', 'NamedTool', 'ResponseFormat'}
