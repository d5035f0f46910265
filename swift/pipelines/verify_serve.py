"""`swift verify --serve`: what reaches the model through the server is what training showed it, and its adapter is whole.

The engine is loaded as `swift deploy` loads it and put behind the real server, but answers nothing: it notes the ids that it is asked
with. Rows of the data set and one conversation of every shape are sent over HTTP.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

from swift.core.errors import RowError, SwiftError
from swift.core.types import Completion, Conversation, Prompt
from swift.infer_engine.base import InferEngine
from swift.infer_engine.client_messages import asked
from swift.infer_engine.remote import Remote

NAME = 'asked'
"""The name that the model is served under."""

_TOOL = {
    'type': 'function',
    'function': {
        'name': 'add', 'description': 'Add two numbers.',
        'parameters': {'type': 'object', 'properties': {'a': {'type': 'number'}, 'b': {'type': 'number'}}, 'required': ['a', 'b']},
    },
}  # fmt: skip
_CALL = {'id': 'call_1', 'type': 'function', 'function': {'name': 'add', 'arguments': '{"a": 1, "b": 2}'}}


def _user(text: Any) -> dict[str, Any]:
    return {'role': 'user', 'content': text}


def _says(text: str, **more: Any) -> dict[str, Any]:
    return {'role': 'assistant', 'content': text, **more}


SHAPES: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]] | None]] = {
    'a question': ([_user('What is 1 + 2?'), _says('3')], None),
    'a system prompt': ([{'role': 'system', 'content': 'Be short.'}, _user('Hi'), _says('Hello')], None),
    'several turns': ([_user('Hi'), _says('Hello'), _user('And 1 + 2?'), _says('3')], None),
    'a text in parts': ([_user([{'type': 'text', 'text': 'Hi '}, {'type': 'text', 'text': 'there'}]), _says('Hello')], None),
    'blanks and marks': ([_user('  <b>你好</b>\n\n🙂 \t'), _says('Hello')], None),
    'an earlier thought': ([_user('Hi'), _says('Hello', reasoning_content='A greeting.'), _user('Bye'), _says('Bye')], None),
    'tools': ([_user('What is 1 + 2?'), _says('3')], [_TOOL]),
    'a call and its result': (
        [_user('What is 1 + 2?'), _says('', tool_calls=[_CALL]), {'role': 'tool', 'content': '3', 'tool_call_id': 'call_1'}, _says('3')],
        [_TOOL],
    ),
}
"""Shape → (messages that end with an answer, tools)."""


class Listener(InferEngine):
    """Notes the ids that it is asked with, and answers with nothing."""

    def __init__(self, engine: InferEngine):
        super().__init__(engine.template, NAME, engine.max_model_len)
        self.heard: list[list[int]] = []

    def generate(
        self, prompts: Sequence[Prompt], configs: Sequence[Any], adapters: Sequence[Any], on_done: Callable[[int], None] | None = None
    ) -> list[list[Completion] | SwiftError]:
        """Empty completions."""
        self.heard += [list(prompt.input_ids) for prompt in prompts]
        return [[Completion([], '', 'stop', None, len(prompt.input_ids))] * config.n for prompt, config in zip(prompts, configs, strict=True)]


def serving_engine(args: Any) -> Any:
    """The engine that `swift deploy` would answer with. None: the model gives numbers, not text."""
    from swift.arguments import parse_args
    from swift.pipelines.deploy import flags_of_deploy
    from swift.pipelines.infer import build_engine, build_scorer

    deploy = parse_args('deploy', flags_of_deploy(args), quiet=True)
    return None if build_scorer(deploy) is not None else build_engine(deploy)


def compare_served(rows: Sequence[Conversation], template: Any, engine: InferEngine) -> tuple[bool | None, str]:
    """(whether the served ids are those that `template` trains on, what was compared) for rows and for every shape of conversation."""
    from swift.infer_engine.server import Served, ServedModel, running

    talks = [(name, Conversation(messages, tools=tools)) for name, (messages, tools) in SHAPES.items()]
    talks += [(str(row.source), row) for row in rows if not row.text and len(row.messages) > 1 and row.messages[-1].get('role') == 'assistant']
    listener = Listener(engine)
    compared = refused = 0
    with running(Served([ServedModel(NAME)], engine=listener, media_root=os.sep)) as server:
        remote = Remote(server.url, max_retries=0)
        for name, talk in talks:
            trained = _trained(template, talk)
            served = _served(remote, listener, talk)
            if trained is None or isinstance(served, SwiftError):
                if trained is not None:
                    return False, f'{name}: trained on, but the server refuses it: {served}'
                refused += 1
                continue
            if served != trained[: len(served)]:
                at = next((i for i, (a, b) in enumerate(zip(served, trained, strict=False)) if a != b), len(trained))
                return False, f'{name}: the ids that the server makes differ from position {at} on'
            compared += 1
    return True, f'{compared} conversations sent to the server, {len(SHAPES)} shapes among them, {refused} refused by the template'


def _trained(template: Any, talk: Conversation) -> list[int] | None:
    """The ids of a conversation in training, its answer included; None: the template refuses it."""
    try:
        return list(template.encode(dataclasses.replace(talk, rejected=None, negatives=None))[0].input_ids)
    except (RowError, SwiftError):
        return None


def _served(remote: Remote, listener: Listener, talk: Conversation) -> list[int] | SwiftError:
    """The ids that the engine gets when the conversation, without its answer, is sent to the server."""
    messages = talk.messages[:-1]
    body = asked(dataclasses.replace(talk, messages=messages, rejected=None, negatives=None))
    for sent, message in zip(body['messages'], messages, strict=True):
        if thought := message.get('reasoning_content'):
            sent['reasoning_content'] = thought
    if objects := talk.columns.get('objects'):
        body['objects'] = objects
    listener.heard.clear()
    try:
        remote.post('/chat/completions', {'model': NAME, 'max_tokens': 1, **body})
    except SwiftError as error:
        return error
    return listener.heard[-1]


def compare_adapters(paths: Sequence[str], engine: Any) -> tuple[bool | None, str]:
    """(whether every tensor of the adapters' files is in the engine's model, with the same values; what was compared)."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import load_file

    from swift.tuners import is_adapter

    if not paths or not is_adapter(engine.model):
        return None, 'no adapter was named'
    count = 0
    for path, name in zip(paths, engine.model.peft_config, strict=False):
        file = os.path.join(path, 'adapter_model.safetensors')
        if not os.path.isfile(file):
            return None, f'{file} does not exist'
        stored, there = load_file(file), get_peft_model_state_dict(engine.model, adapter_name=name)
        for key, value in stored.items():
            found = there.get(key)
            if found is None or found.shape != value.shape or not found.cpu().to(value.dtype).equal(value):
                return False, f'{path}: {key} is {"not in" if found is None else "another one in"} the served model'
        count += len(stored)
    return True, f'{count} tensors of {len(paths)} adapter{"s" * (len(paths) > 1)} are in the served model'
