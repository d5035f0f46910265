"""Tools for chat templates that have no place for them: definitions into the system prompt, calls and results as text."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from swift.core.errors import SwiftError
from swift.core.registry import Registry
from swift.template.messages import content_text


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _function(tool: dict) -> dict:
    inner = tool.get('function')
    return inner if isinstance(inner, dict) else tool


def _call_of(call: dict) -> tuple[str, Any]:
    function = _function(call)
    return function['name'], function.get('arguments', {})


@dataclass(frozen=True)
class AgentFormat:
    """One way to write tools as text. The pieces are functions of the OpenAI objects."""

    name: str
    system: Callable[[list[dict]], str]
    """Tool definitions → text for the system prompt."""
    calls: Callable[[str, Sequence[dict]], str]
    """Content and tool calls of an assistant message → its text."""
    result: Callable[[str], str]
    """Content of a tool message → its text."""
    result_role: str = 'user'
    """Role under which results are given."""

    def apply(self, messages: list[dict], tools: list[dict] | None) -> list[dict]:
        """The same conversation without tool definitions, tool calls and tool messages."""
        out: list[dict] = []
        if tools:
            system = messages[0] if messages and messages[0]['role'] == 'system' else None
            text = self.system(tools)
            if system is not None and content_text(system).strip():
                text = f'{content_text(system)}\n\n{text}'
            out.append({**(system or {}), 'role': 'system', 'content': text})
            messages = messages[1:] if system is not None else messages
        for message in messages:
            if message.get('tool_calls'):
                text = self.calls(content_text(message), message['tool_calls'])
                out.append({k: v for k, v in message.items() if k != 'tool_calls'} | {'content': text})
            elif message['role'] == 'tool':
                self._add_result(out, self.result(content_text(message)))
            else:
                out.append(message)
        return out

    def _add_result(self, out: list[dict], text: str) -> None:
        """Results of parallel calls share one message: many templates want user and assistant in turn."""
        if out and out[-1].get('from_tool'):
            out[-1] = {**out[-1], 'content': f'{out[-1]["content"]}\n{text}'}
        else:
            out.append({'role': self.result_role, 'content': text, 'from_tool': True})


def _hermes_system(tools: list[dict]) -> str:
    listed = '\n'.join(_json(t) for t in tools)
    return (
        '# Tools\n\nYou may call one or more of these functions. Their signatures are within <tools></tools>:\n'
        f'<tools>\n{listed}\n</tools>\n\nTo call a function, write a JSON object with its name and arguments within '
        '<tool_call></tool_call>:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
    )


def _hermes_calls(content: str, calls: Sequence[dict]) -> str:
    written = [
        f'<tool_call>\n{{"name": {_json(name)}, "arguments": {args if isinstance(args, str) else _json(args)}}}\n</tool_call>'
        for name, args in map(_call_of, calls)
    ]
    return '\n'.join([*([content] if content else []), *written])


def _xml_system(tools: list[dict]) -> str:
    listed = '\n'.join(_json(t) for t in tools)
    return (
        f'# Tools\n\nYou have these functions:\n<tools>\n{listed}\n</tools>\n\nTo call one, write exactly:\n<tool_call>\n'
        '<function=name>\n<parameter=first>\nvalue\n</parameter>\n</function>\n</tool_call>'
    )


def _xml_calls(content: str, calls: Sequence[dict]) -> str:
    written = []
    for name, args in map(_call_of, calls):
        given = args if isinstance(args, dict) else json.loads(args)
        lines = [
            f'<parameter={key}>\n{value if isinstance(value, str) else _json(value)}\n</parameter>'
            for key, value in given.items()
        ]
        written.append('\n'.join(['<tool_call>', f'<function={name}>', *lines, '</function>', '</tool_call>']))
    return '\n'.join([*([content] if content else []), *written])


def _llama3_system(tools: list[dict]) -> str:
    listed = '\n\n'.join(json.dumps(t, ensure_ascii=False, indent=4) for t in tools)
    return (
        'You have access to the functions below. To call one, answer with JSON only, in the form '
        '{"name": function name, "parameters": object of argument names and values}. Use no variables.\n\n' + listed
    )


def _llama3_calls(content: str, calls: Sequence[dict]) -> str:
    written = [
        f'{{"name": {_json(name)}, "parameters": {args if isinstance(args, str) else _json(args)}}}'
        for name, args in map(_call_of, calls)
    ]
    return '\n'.join([*([content] if content else []), '; '.join(written)])


_REACT = {
    'en': (
        'Answer the questions as well as you can. You have these tools:\n\n{tools}\n\nUse this form:\n\n'
        'Question: the question\nThought: what to do\nAction: one of [{names}]\nAction Input: its input as JSON\n'
        'Observation: the result\n... (Thought/Action/Action Input/Observation can repeat)\n'
        'Thought: I know the answer\nFinal Answer: the answer'
    ),
    'zh': (
        '请尽力回答问题。你可以使用以下工具：\n\n{tools}\n\n请按以下格式回答：\n\n'
        'Question: 问题\nThought: 思考要做什么\nAction: 工具名，必须是[{names}]之一\nAction Input: JSON 格式的输入\n'
        'Observation: 结果\n...（Thought/Action/Action Input/Observation 可以重复）\nThought: 我知道答案了\nFinal Answer: 答案'
    ),
}


def _react_system(tools: list[dict], language: str) -> str:
    functions = [_function(t) for t in tools]
    listed = '\n\n'.join(
        f'{f["name"]}: {f.get("description", "")} Parameters: {_json(f.get("parameters", {}))}' for f in functions
    )
    return _REACT[language].format(tools=listed, names=', '.join(f['name'] for f in functions))


def _react_calls(content: str, calls: Sequence[dict]) -> str:
    written = [
        f'Action: {name}\nAction Input: {args if isinstance(args, str) else _json(args)}'
        for name, args in map(_call_of, calls)
    ]
    return '\n'.join([*([content] if content else []), *written])


def _observation(content: str) -> str:
    return f'Observation: {content}'


def _tagged_result(content: str) -> str:
    return f'<tool_response>\n{content}\n</tool_response>'


agent_template_map: Registry = Registry(
    'agent template',
    {
        'hermes': AgentFormat('hermes', _hermes_system, _hermes_calls, _tagged_result),
        'qwen3_coder': AgentFormat('qwen3_coder', _xml_system, _xml_calls, _tagged_result),
        'llama3': AgentFormat('llama3', _llama3_system, _llama3_calls, str),
        'react_en': AgentFormat('react_en', partial(_react_system, language='en'), _react_calls, _observation),
        'react_zh': AgentFormat('react_zh', partial(_react_system, language='zh'), _react_calls, _observation),
    },
)
"""Name of `--agent_template` → AgentFormat."""


def agent_format(name: str) -> AgentFormat:
    """The format of a name, or an error with the nearest names."""
    found = agent_template_map[name]
    if not isinstance(found, AgentFormat):
        raise SwiftError(f'agent template {name!r} is no AgentFormat')
    return found
