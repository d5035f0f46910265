"""Tool calls in the text of an answer, in the formats that chat templates teach.

Each format is a function `text -> (rest of the text, calls) | None`; None: no call of this format in it.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any

Call = dict[str, Any]
Found = tuple[str, list[Call]]


def _call(name: Any, arguments: Any) -> Call:
    if isinstance(arguments, str):
        loaded = _loads(arguments)
        arguments = arguments if loaded is _BAD else loaded
    return {
        'type': 'function',
        'function': {'name': str(name).strip(), 'arguments': {} if arguments is None else arguments},
    }


_BAD = object()


def _loads(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return _BAD


def _objects(text: str) -> list[Any]:
    """The JSON values that `text` consists of: a list's items, or values with separators between; [] if it is not JSON."""
    text = text.strip()
    whole = _loads(text)
    if whole is not _BAD:
        return whole if isinstance(whole, list) else [whole]
    decoder, values, at = json.JSONDecoder(), [], 0
    while at < len(text):
        if text[at] in ' \n\r\t,;':
            at += 1
            continue
        try:
            value, at = decoder.raw_decode(text, at)
        except ValueError:
            return []
        values.append(value)
    return values


def _from_json(value: Any) -> Call | None:
    """`{"name", "arguments"}` under the names that are in use, or `{name: arguments}`."""
    if not isinstance(value, dict):
        return None
    inner = value.get('function')
    if isinstance(inner, dict):
        value = inner
    for name in ('name', 'tool_name'):
        if isinstance(value.get(name), str):
            return _call(value[name], next((value[k] for k in ('arguments', 'parameters', 'args') if k in value), {}))
    if len(value) == 1:
        [(name, arguments)] = value.items()
        if isinstance(arguments, dict):
            return _call(name, arguments)
    return None


def _json_calls(text: str) -> list[Call]:
    values = _objects(text)
    calls = [_from_json(value) for value in values]
    return calls if calls and all(calls) else []  # type: ignore[return-value]


def _parameter(text: str) -> Any:
    """The value of a parameter written as bare text: JSON for numbers, lists and the like, else the text."""
    text = re.sub(r'^\n|\n$', '', text)
    value = _loads(text)
    return text if value is _BAD or isinstance(value, str) else value


def _cut(text: str, matches: list[re.Match]) -> str:
    """`text` without the matches."""
    out, at = [], 0
    for match in matches:
        out.append(text[at : match.start()])
        at = match.end()
    return ''.join([*out, text[at:]]).strip()


def _between(text: str, opening: str, closing: str) -> Found | None:
    """JSON between two marks (the closing one may be missing at the end of the text)."""
    pattern = rf'{re.escape(opening)}(.*?)(?:{re.escape(closing)}|\Z)'
    matches = list(re.finditer(pattern, text, re.DOTALL))
    inside = [_json_calls(m[1]) for m in matches]
    if not matches or not all(inside):
        return None
    return _cut(text, matches), [call for calls in inside for call in calls]


def _tagged(opening: str, closing: str) -> Callable[[str], Found | None]:
    return partial(_between, opening=opening, closing=closing)


_XML_FUNCTION = re.compile(r'<function=([^>\n]+)>(.*?)</function>', re.DOTALL)
_CALL_FRAME = re.compile(r'</?(?:\w+:)?tool_call>')
_XML_PARAMETER = re.compile(r'<parameter=([^>\n]+)>(.*?)</parameter>', re.DOTALL)


def xml_function(text: str) -> Found | None:
    """`<function=name><parameter=key>value</parameter></function>`, or JSON inside."""
    matches = list(_XML_FUNCTION.finditer(text))
    if not matches:
        return None
    calls = []
    for match in matches:
        given = _loads(match[2].strip())
        if not isinstance(given, dict):
            given = {key: _parameter(value) for key, value in _XML_PARAMETER.findall(match[2])}
        calls.append(_call(match[1], given))
    return _CALL_FRAME.sub('', _cut(text, matches)).strip(), calls


_INVOKE = re.compile(r'<(\W?DSML\W)?invoke name="([^"]+)">(.*?)</(?:\W?DSML\W)?invoke>', re.DOTALL)
_INVOKE_PARAMETER = re.compile(
    r'<(?:\W?DSML\W)?parameter name="([^"]+)"( string="true")?[^>]*>(.*?)</(?:\W?DSML\W)?parameter>', re.DOTALL
)
_INVOKE_FRAME = re.compile(r'</?(?:[\w]+:tool_call|\W?DSML\W(?:function|tool)_calls)>')


def invoke(text: str) -> Found | None:
    """`<invoke name="…"><parameter name="…">value</parameter></invoke>`."""
    matches = list(_INVOKE.finditer(text))
    if not matches:
        return None
    calls = [
        _call(m[2], {k: v if literal else _parameter(v) for k, literal, v in _INVOKE_PARAMETER.findall(m[3])})
        for m in matches
    ]
    return _INVOKE_FRAME.sub('', _cut(text, matches)).strip(), calls


_ARG_CALL = re.compile(r'<tool_call>\s*([^<\s{]+)\s*((?:<arg_key>.*?</arg_value>\s*)*)</tool_call>', re.DOTALL)
_ARG = re.compile(r'<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>', re.DOTALL)


def arg_pairs(text: str) -> Found | None:
    """`<tool_call>name<arg_key>key</arg_key><arg_value>value</arg_value></tool_call>`."""
    matches = list(_ARG_CALL.finditer(text))
    if not matches:
        return None
    return _cut(text, matches), [
        _call(m[1], {k.strip(): _parameter(v) for k, v in _ARG.findall(m[2])}) for m in matches
    ]


def bracket_calls(text: str) -> Found | None:
    """`[TOOL_CALLS]` followed by JSON, or by `name[ARGS]{…}` once or more."""
    if '[TOOL_CALLS]' not in text:
        return None
    content, *parts = text.split('[TOOL_CALLS]')
    calls: list[Call] = []
    for part in parts:
        listed = _json_calls(part)
        if listed:
            calls += listed
            continue
        match = re.match(r'\s*([\w.\-]+)\s*(?:\[CALL_ID\][^\[]*)?(?:\[ARGS\])?\s*(\{.*)', part, re.DOTALL)
        if not match:
            return None
        values = _objects(match[2])
        if len(values) != 1:
            return None
        calls.append(_call(match[1], values[0]))
    return content.strip(), calls


_FENCED = re.compile(r'^(?:function)?<｜tool▁sep｜>([^\n]+)\n```json\n(.*?)\n```', re.DOTALL)
_DEEPSEEK = re.compile(r'<｜tool▁call▁begin｜>(.*?)<｜tool▁call▁end｜>', re.DOTALL)


def deepseek(text: str) -> Found | None:
    """`<｜tool▁call▁begin｜>…<｜tool▁sep｜>…<｜tool▁call▁end｜>`."""
    matches = list(_DEEPSEEK.finditer(text))
    calls = []
    for match in matches:
        fenced = _FENCED.match(match[1])
        name, _, arguments = match[1].partition('<｜tool▁sep｜>')
        calls.append(_call(*fenced.groups()) if fenced else _call(name, arguments))
    if not calls:
        return None
    return re.sub(r'<｜tool▁calls▁(?:begin|end)｜>', '', _cut(text, matches)).strip(), calls


_KIMI = re.compile(
    r'<\|tool_call_begin\|>\s*(\S+?)\s*<\|tool_call_argument_begin\|>(.*?)<\|tool_call_end\|>', re.DOTALL
)


def kimi(text: str) -> Found | None:
    """`<|tool_call_begin|>functions.name:0<|tool_call_argument_begin|>{…}<|tool_call_end|>`."""
    matches = list(_KIMI.finditer(text))
    if not matches:
        return None
    calls = [_call(re.sub(r'^functions\.|:\d+$', '', m[1]), m[2]) for m in matches]
    return re.sub(r'<\|tool_calls_section_(?:begin|end)\|>', '', _cut(text, matches)).strip(), calls


_PYTHONIC = re.compile(
    r'(?:<\|tool_call_start\|>|<\|python_start\|>)\s*(\[.*?\])\s*(?:<\|tool_call_end\|>|<\|python_end\|>)', re.DOTALL
)


def pythonic(text: str) -> Found | None:
    """`<|tool_call_start|>[name(key="value")]<|tool_call_end|>`."""
    matches = list(_PYTHONIC.finditer(text))
    calls: list[Call] = []
    for match in matches:
        listed = _json_calls(match[1]) or _expressions(match[1])
        if not listed:
            return None
        calls += listed
    return (_cut(text, matches), calls) if calls else None


def _expressions(text: str) -> list[Call]:
    try:
        tree = ast.parse(text.strip(), mode='eval').body
        items = tree.elts if isinstance(tree, ast.List) else [tree]
        return [
            _call(ast.unparse(item.func), {k.arg: ast.literal_eval(k.value) for k in item.keywords})  # type: ignore[attr-defined]
            for item in items
        ]
    except (SyntaxError, ValueError, AttributeError):
        return []


_QUOTE = '<|"|>'
_GEMMA = re.compile(r'<\|tool_call>call:([^{\s]+)\{(.*?)\}<tool_call\|>', re.DOTALL)


def quoted_calls(text: str) -> Found | None:
    """`<|tool_call>call:name{key:<|"|>value<|"|>}<tool_call|>`."""
    matches = list(_GEMMA.finditer(text))
    if not matches:
        return None
    calls = []
    for match in matches:
        strings: list[str] = []

        def keep(found: re.Match, strings: list[str] = strings) -> str:
            strings.append(found[1])
            return f'"\x00{len(strings) - 1}"'

        body = re.sub(rf'{re.escape(_QUOTE)}(.*?){re.escape(_QUOTE)}', keep, match[2], flags=re.DOTALL)
        value = _loads('{' + re.sub(r'([{,]|^)\s*([\w.\-]+)\s*:', r'\1"\2":', body).replace('\x00', '\\u0000') + '}')
        calls.append(_call(match[1], _restore(value, strings) if value is not _BAD else match[2]))
    return _cut(text, matches), calls


def _restore(value: Any, strings: list[str]) -> Any:
    if isinstance(value, str):
        return strings[int(value[1:])] if value.startswith('\x00') else value
    if isinstance(value, dict):
        return {_restore(k, strings): _restore(v, strings) for k, v in value.items()}
    return [_restore(v, strings) for v in value] if isinstance(value, list) else value


_CHANNEL_CALL = re.compile(
    r'(?:<\|start\|>assistant)?(?:<\|channel\|>commentary)? ?to=functions\.([\w.\-]+)(?:<\|channel\|>commentary)?'
    r'\s*(?:<\|constrain\|>)?(?:json)?<\|message\|>(.*?)(?:<\|call\|>|\Z)',
    re.DOTALL,
)


def channel_calls(text: str) -> Found | None:
    """`<|channel|>commentary to=functions.name <|constrain|>json<|message|>{…}<|call|>`."""
    matches = list(_CHANNEL_CALL.finditer(text))
    return (_cut(text, matches), [_call(m[1], m[2]) for m in matches]) if matches else None


def bare_json(text: str) -> Found | None:
    """The whole answer (after `<|python_tag|>`) is `{"name": …, "parameters": …}`."""
    body = text.strip().removeprefix('<|python_tag|>').strip()
    if not body.startswith('{') or not re.search(r'"(?:parameters|arguments)"\s*:', body):
        return None
    calls = _json_calls(body)
    return ('', calls) if calls else None


_RECIPIENT = re.compile(
    r'(?:<\|from\|>assistant\n<\|recipient\|>)?(\w+)\n<\|content\|>(.*?)(?=\s*<\|from\|>|\Z)', re.DOTALL
)


def recipients(text: str) -> Found | None:
    """`name\\n<|content|>{…}`; what goes to `all` is content."""
    return _addressed(_RECIPIENT.findall(text))


def headed(text: str) -> Found | None:
    """`name\\n{…}>>>name\\n{…}`; what goes to `all` is content."""
    return _addressed([part.partition('\n')[::2] for part in text.removeprefix('>>>').split('>>>')])


def _addressed(parts: list[tuple[str, str]]) -> Found | None:
    if not parts or not all(re.fullmatch(r'[\w.\-]+', name) for name, _ in parts):
        return None
    content = ''.join(body for name, body in parts if name == 'all')
    return content.strip(), [_call(name, body) for name, body in parts if name != 'all']


_REACT = re.compile(
    r'^Action:\s*(\S.*?)\s*\nAction Input:\s*(.*?)(?=\nObservation:|\nAction:|\nThought:|\Z)', re.DOTALL | re.MULTILINE
)


def react(text: str) -> Found | None:
    """`Action: name`, `Action Input: {…}`."""
    matches = list(_REACT.finditer(text))
    return (_cut(text, matches), [_call(m[1], m[2].strip()) for m in matches]) if matches else None


FORMATS: list[tuple[str, Callable[[str], Found | None]]] = [
    ('<function=', xml_function),
    ('<arg_key>', arg_pairs),
    ('invoke name=', invoke),
    ('<tool_call>', _tagged('<tool_call>', '</tool_call>')),
    ('<tool_calls>', _tagged('<tool_calls>', '</tool_calls>')),
    ('<TOOLCALL>', _tagged('<TOOLCALL>', '</TOOLCALL>')),
    ('<functioncall>', _tagged('<functioncall>', '</functioncall>')),
    ('<|tool_call|>', _tagged('<|tool_call|>', '<|/tool_call|>')),
    ('<|START_ACTION|>', _tagged('<|START_ACTION|>', '<|END_ACTION|>')),
    ('<|tools_prefix|>', _tagged('<|tools_prefix|>', '<|tools_suffix|>')),
    ('[TOOL_CALLS]', bracket_calls),
    ('<｜tool▁call▁begin｜>', deepseek),
    ('<|tool_call_begin|>', kimi),
    ('<|tool_call_start|>', pythonic),
    ('<|python_start|>', pythonic),
    ('<|tool_call>', quoted_calls),
    ('<|channel|>', channel_calls),
    ('<|function_call|>', _tagged('<|function_call|>', '<|message_sep|>')),
    ('function call<|role_sep|>', _tagged('function call<|role_sep|>', '<|message_sep|>')),
    ('<|recipient|>', recipients),
    ('>>>all', headed),
    ('"parameters"', bare_json),
    ('<|python_tag|>', bare_json),
    ('Action Input:', react),
]
"""(what the template's source must hold, parser), tried in this order."""

AGENT_FORMATS: dict[str, Callable[[str], Found | None]] = {
    'hermes': _tagged('<tool_call>', '</tool_call>'),
    'qwen3_coder': xml_function,
    'llama3': bare_json,
    'react_en': react,
    'react_zh': react,
}
"""Parser of every format of `--agent_template`."""
