"""Completions back to messages: reasoning, tool calls and content, in the formats of the template in use."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from swift.core.types import Completion, Message
from swift.template.calls import AGENT_FORMATS, FORMATS, Found

_TAG = re.compile(r'</([\w:]*think[\w:]*)>')
_BLOCKS = (
    ('[THINK]', '[/THINK]'),
    ('<|START_THINKING|>', '<|END_THINKING|>'),
    ('<|channel>thought\n', '<channel|>'),
    ('Here are my reasoning steps:\n', '[BEGIN FINAL RESPONSE]'),
)
_CHANNEL = re.compile(
    r'(?:<\|start\|>assistant)?<\|channel\|>(\w+)<\|message\|>(.*?)(?:<\|end\|>|<\|return\|>|\Z)', re.DOTALL
)


class Decoder:
    """Parses what one model with one chat template writes."""

    def __init__(
        self,
        tokenizer: Any,
        chat_template: str,
        *,
        stop_ids: Iterable[int] = (),
        agent: str | None = None,
        prompt: str = '',
    ):
        """`prompt` is what the template's generation prompt adds: it may open the reasoning already."""
        self._tokenizer = tokenizer
        self._stop_ids = frozenset(stop_ids)
        self._specials = sorted(_special_strings(tokenizer), key=len, reverse=True)
        self._channels = '<|channel|>' in chat_template
        tags = dict.fromkeys(['think', *_TAG.findall(chat_template)])
        self._blocks = [(f'<{t}>', f'</{t}>') for t in tags] + [b for b in _BLOCKS if b[1] in chat_template]
        self._opened = next((b for b in self._blocks if prompt.rstrip().endswith(b[0].strip())), None)
        self._parsers: list[Callable[[str], Found | None]] = [AGENT_FORMATS[agent]] if agent in AGENT_FORMATS else []
        self._parsers += [parse for mark, parse in FORMATS if mark in chat_template]

    def __call__(self, completion: Completion) -> Message:
        """`{'role', 'content'}` with `reasoning_content` and `tool_calls` where there are any."""
        text = self._text(completion)
        message: Message = {'role': 'assistant'}
        calls: list[dict] = []
        reasoning = ''
        if self._channels and '<|message|>' in text:
            text, reasoning, calls = self._by_channel(text)
        else:
            reasoning, text = self._reasoning(text, completion.finish_reason == 'length')
            for parse in self._parsers:
                found = parse(text)
                if found:
                    text, calls = found
                    break
        reasoning, text = self._clean(reasoning), self._clean(text)
        message['content'] = text if not (reasoning or calls) else text.strip()
        if reasoning.strip():
            message['reasoning_content'] = reasoning.strip()
        if calls:
            message['tool_calls'] = calls
        return message

    def _text(self, completion: Completion) -> str:
        ids = list(completion.token_ids)
        if not ids or self._tokenizer is None:
            return completion.text
        while ids and ids[-1] in self._stop_ids:
            ids.pop()
        return self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def _reasoning(self, text: str, cut_off: bool) -> tuple[str, str]:
        """(reasoning, the rest). Where the prompt opened the block, the text may begin inside of it."""
        for opening, closing in self._blocks:
            before, found, inner = text.partition(opening)
            if found and not before.strip():
                reasoning, closed, rest = inner.partition(closing)
                return (reasoning, rest) if closed else (inner, '')
            reasoning, closed, rest = text.partition(closing)
            if closed and not found:
                return reasoning, rest
        if cut_off and self._opened:
            return text, ''  # while it was still thinking
        return '', text

    def _by_channel(self, text: str) -> tuple[str, str, list[dict]]:
        calls: list[dict] = []
        for parse in self._parsers:
            found = parse(text)
            if found:
                text, calls = found
                break
        said: dict[str, list[str]] = {}
        if not calls and not _CHANNEL.search(text):
            return text, '', []
        for match in _CHANNEL.finditer(text):
            said.setdefault(match[1], []).append(match[2])
        reasoning = '\n'.join(said.pop('analysis', []))
        return '\n'.join(part for parts in said.values() for part in parts), reasoning, calls

    def _clean(self, text: str) -> str:
        for special in self._specials:
            if special in text:
                text = text.replace(special, '')
        return text


def _special_strings(tokenizer: Any) -> list[str]:
    if tokenizer is None:
        return []
    added = getattr(tokenizer, 'added_tokens_decoder', None) or {}
    return list({*tokenizer.all_special_tokens, *(t.content for t in added.values() if t.special)})
