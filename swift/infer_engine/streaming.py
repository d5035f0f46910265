"""Text as it comes → news of the message: content, reasoning and tool calls kept apart while they are written.

The template's `decode` is asked about the answer so far, and what it says is shown where more text cannot change it:
nothing is shown from the first mark on that may open a tool call, nor while a thought has not ended and `decode`
does not know it for one. At the end the whole answer settles everything, so a stream put together again is the
message that the same request gets without streaming.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from swift.core.types import Completion, Message, Prompt, Template
from swift.infer_engine.protocol import ChatCompletionResponseStreamChoice, ChatMessage, DeltaMessage
from swift.infer_engine.row import Chunk
from swift.infer_engine.text import BROKEN, decode, held

THINK, THINK_END = '<think>', '</think>'
CALLS = ('<tool_call', '<function', '<|tool', '<|python_tag|>', '[TOOL_CALLS]', '<｜tool', '✿FUNCTION✿', 'Action:')
_CALL = re.compile('|'.join(map(re.escape, CALLS)))


def as_said(completion: Completion, tokenizer: Any) -> Completion:
    """The completion as a template should read it: without the ids where a stop text cut the answer short."""
    ids, text = completion.token_ids, completion.text
    if completion.finish_reason != 'stop' or not ids or text == decode(tokenizer, ids):
        return completion
    if text != decode(tokenizer, ids[:-1]):
        return replace(completion, token_ids=[])
    last_is_word = ids[-1] not in tokenizer.all_special_ids  # a stop text that is one token; stop tokens the template knows itself
    return replace(completion, token_ids=ids[:-1]) if last_is_word else completion


class DeltaParser:
    """For one choice: chunks of text in, deltas of the message out. `to_message` shapes what the template decodes."""

    def __init__(
        self, template: Template, prompt: Prompt, stops: Sequence[str], to_message: Callable[[Message], ChatMessage]
    ):
        self._template, self._prompt, self._to_message = template, prompt, to_message
        self._marks = (THINK, THINK_END, *CALLS, *stops)
        self._opened = prompt.text.rstrip().endswith(THINK)
        self._specials = frozenset(template.tokenizer.all_special_ids)
        self._text, self._ids, self._special = '', [], False
        self._shown = {'reasoning_content': '', 'content': ''}
        self._begun = False

    def feed(self, chunk: Chunk) -> list[ChatCompletionResponseStreamChoice]:
        """News of the message; empty when nothing is certain enough yet."""
        deltas = [] if self._begun else [DeltaMessage(role='assistant', content='')]
        self._begun = True
        reason = None
        if chunk.completion is not None:
            said = as_said(chunk.completion, self._template.tokenizer)
            message = self._to_message(self._template.decode(said))
            reason = 'tool_calls' if message.tool_calls and said.finish_reason == 'stop' else said.finish_reason
            deltas.append(self._news(message) or DeltaMessage())
            deltas[-1].tool_calls = message.tool_calls
        else:
            self._text += chunk.text
            self._ids += chunk.token_ids
            self._special |= not self._specials.isdisjoint(chunk.token_ids)
            if (message := self._so_far()) and (news := self._news(message)):
                deltas.append(news)
        choices = [ChatCompletionResponseStreamChoice(chunk.choice, delta) for delta in deltas]
        if reason:
            choices[-1].finish_reason = reason
        return choices

    def _so_far(self) -> ChatMessage | None:
        """The message that is certain by now."""
        text = self._text
        if self._special:  # marks that are special tokens show in the ids only
            text = self._template.tokenizer.decode(self._ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
            text = text.rstrip(BROKEN)
        call = _CALL.search(text)
        text = text[: call.start()] if call else text
        text = text[: len(text) - held(text, self._marks)]
        if not text:
            return None
        message = self._to_message(self._template.decode(Completion([], text, 'length', None, len(self._prompt.input_ids))))
        thinking = (self._opened or text.lstrip().startswith(THINK)) and THINK_END not in text
        return None if thinking and message.content else message

    def _news(self, message: ChatMessage) -> DeltaMessage | None:
        news: dict[str, str] = {}
        for name, shown in self._shown.items():
            now = getattr(message, name) or ''
            if len(now) > len(shown) and now.startswith(shown):
                news[name], self._shown[name] = now[len(shown) :], now
        return DeltaMessage(**news) if news else None
