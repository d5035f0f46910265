"""Text as it comes → news of the message: content, reasoning and tool calls kept apart while they are written.

The template's `decode` is asked about the text so far, and what it says is shown where more text cannot change it:
nothing is shown from the first mark on that may open a tool call, nor while a thought has not ended and `decode`
does not know it for one. At the end the whole text settles everything, so a stream put together again is the
message that the same request gets without streaming.
"""

from __future__ import annotations

import re
from typing import Any

from swift.core.types import Completion, Prompt, Template
from swift.infer_engine.protocol import ChatCompletionResponseStreamChoice, ChatMessage, DeltaMessage
from swift.infer_engine.row import Chunk
from swift.infer_engine.text import held

THINK, THINK_END = '<think>', '</think>'
CALLS = ('<tool_call', '<function', '<|tool', '<|python_tag|>', '[TOOL_CALLS]', '<｜tool', '✿FUNCTION✿', 'Action:')
_CALL = re.compile('|'.join(map(re.escape, CALLS)))


class DeltaParser:
    """For one choice: chunks of text in, deltas of the message out. `to_message` shapes what the template decodes."""

    def __init__(self, template: Template, prompt: Prompt, to_message: Any):
        self._template, self._prompt, self._to_message = template, prompt, to_message
        self._marks = (THINK, THINK_END, *CALLS)
        self._opened = prompt.text.rstrip().endswith(THINK)
        self._text = ''
        self._shown = {'reasoning_content': '', 'content': ''}
        self._choice: int | None = None

    def feed(self, chunk: Chunk) -> list[ChatCompletionResponseStreamChoice]:
        """News of the message; empty when nothing is certain enough yet."""
        deltas = []
        if self._choice is None:
            self._choice = chunk.choice
            deltas.append(DeltaMessage(role='assistant', content=''))
        if chunk.completion is not None:
            message = self._to_message(self._template.decode(chunk.completion))
            reason = chunk.completion.finish_reason
            if message.tool_calls and reason == 'stop':
                reason = 'tool_calls'
            last = self._news(message) or DeltaMessage()
            last.tool_calls = message.tool_calls
            choices = [ChatCompletionResponseStreamChoice(chunk.choice, delta) for delta in deltas]
            return [*choices, ChatCompletionResponseStreamChoice(chunk.choice, last, reason)]
        self._text += chunk.text
        safe = self._safe()
        if safe and (message := self._decode(safe)) and (news := self._news(message)):
            deltas.append(news)
        return [ChatCompletionResponseStreamChoice(chunk.choice, delta) for delta in deltas]

    def _safe(self) -> str:
        """The text without what may be, or become, a mark."""
        call = _CALL.search(self._text)
        text = self._text[: call.start()] if call else self._text
        return text[: len(text) - held(text, self._marks)]

    def _decode(self, text: str) -> ChatMessage | None:
        message = self._to_message(self._template.decode(Completion([], text, 'length', None, len(self._prompt.input_ids))))
        thinking = (self._opened or text.lstrip().startswith(THINK)) and THINK_END not in text
        if thinking and message.content:
            return None  # an unfinished thought that the template does not tell from content
        return message

    def _news(self, message: ChatMessage) -> DeltaMessage | None:
        news: dict[str, str] = {}
        for name, shown in self._shown.items():
            now = getattr(message, name) or ''
            if len(now) > len(shown) and now.startswith(shown):
                news[name], self._shown[name] = now[len(shown) :], now
        return DeltaMessage(**news) if news else None
