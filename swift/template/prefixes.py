"""What answers begin with: a response prefix, an empty think block."""

from __future__ import annotations

from swift.core.errors import TemplateError
from swift.template.probe import Facts
from swift.template.spans import Turn


def prefixed(messages: list[dict], facts: Facts, prefix: str, *, empty_think: bool) -> list[dict]:
    """Answers with the response prefix; the last one with the thought that the inference prompt may open."""
    out = list(messages)
    for i, message in enumerate(messages):
        content = message['content']
        if message['role'] != 'assistant' or not isinstance(content, str):
            continue
        if i == len(messages) - 1 and facts.empty_think and content and '<think' not in content:
            content = _thought(message, facts, empty_think) + content
        if prefix and not content.startswith(prefix):
            content = prefix + content
        if content is not message['content']:
            out[i] = {**message, 'content': content}
    return out


def _thought(message: dict, facts: Facts, empty_think: bool) -> str:
    """The think block of a last answer which the template itself would not print."""
    reasoning = message.get('reasoning_content')
    if not reasoning:
        return facts.empty_think if empty_think else ''
    if facts.keeps_reasoning:
        return ''
    opening = facts.empty_think.split('>', 1)[0] + '>'
    return f'{opening}\n{reasoning.strip()}\n</{opening[1:]}\n\n'


def after_prefix(text: str, found: list[Turn], prefix: str) -> list[Turn]:
    """Turns that begin after the response prefix, which is part of the prompt."""
    if not prefix:
        return found
    out = []
    for turn in found:
        for candidate in (prefix, prefix.strip()):
            if text.startswith(candidate, turn.start):
                turn = turn._replace(start=turn.start + len(candidate))
                break
        else:
            if not text.endswith(prefix, 0, turn.start):  # the template's prompt may have it already
                raise TemplateError(f'the chat template does not print --response_prefix {prefix!r} first in an answer')
        out.append(turn)
    return out
