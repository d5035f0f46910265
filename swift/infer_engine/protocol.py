"""What a user of an engine writes and reads: requests, their settings, and answers in the shape of OpenAI's chat API.

Plain dataclasses; importing this file costs nothing.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from swift.core.errors import RowError, SwiftError
from swift.core.media import KINDS, bind, media_of, reference
from swift.core.types import Conversation, Message


@dataclass
class InferRequest:
    """One conversation that wants an answer. `messages` end where the assistant is to speak."""

    messages: list[Message]
    images: list[Any] = field(default_factory=list)
    audios: list[Any] = field(default_factory=list)
    videos: list[Any] = field(default_factory=list)
    tools: list[dict] | None = None
    """Function schemas in OpenAI form. None: no tools."""
    objects: dict[str, Any] = field(default_factory=dict)
    """Grounding data (`ref`, `bbox`), as in training rows."""

    def conversation(self) -> Conversation:
        """The request as the template reads it. Raises SwiftError naming the message that is malformed."""
        if not isinstance(self.messages, Sequence) or isinstance(self.messages, str) or not self.messages:
            raise SwiftError('messages must be a non-empty list of {"role", "content"};', 'add a user message')
        for index, message in enumerate(self.messages):
            if not isinstance(message, dict) or not isinstance(message.get('role'), str):
                raise SwiftError(f'messages[{index}] has no role: {message!r:.80};', 'write {"role": "user", "content": "…"}')
            if wrong := _wrong_content(message.get('content')):
                raise SwiftError(f'messages[{index}]: {wrong};', 'content is a text, or a list of {"type": "text" | "image" | …}')
        try:
            messages = bind(self.messages, *(_references(getattr(self, f'{kind}s'), kind) for kind in KINDS))
        except RowError as error:
            raise SwiftError(_placed(self.messages, error.reason), error.hint) from error
        media = media_of(messages)
        return Conversation(
            messages=messages,
            tools=self.tools,
            **{f'{kind}s': [ref for of, ref in media if of == kind] for kind in KINDS},
            columns={'objects': self.objects} if self.objects else {},
        )

    @classmethod
    def of(cls, conversation: Conversation) -> InferRequest:
        """The request that asks for the next words of a conversation: its media stand in the messages already."""
        bound = bool(media_of(conversation.messages))
        given = {} if bound else {f'{kind}s': list(getattr(conversation, f'{kind}s')) for kind in KINDS}
        objects = conversation.columns.get('objects') or {}
        return cls(messages=list(conversation.messages), **given, tools=conversation.tools, objects=objects)


def _wrong_content(content: Any) -> str | None:
    """What is wrong with the content of a message. None: nothing."""
    if content is None or isinstance(content, str):
        return None
    if not isinstance(content, list):
        return f'the content is a {type(content).__name__}'
    for number, part in enumerate(content):
        if not isinstance(part, str | dict):
            return f'part {number} of the content is a {type(part).__name__}'
    return None


def _references(media: Any, kind: str) -> list[Any]:
    media = media if isinstance(media, list | tuple) else [media]
    return [reference(item, kind) if isinstance(item, dict) and 'array' not in item else item for item in media]


def _placed(messages: Sequence[Message], reason: str) -> str:
    """A reason why messages and media don't match, with the messages that show something."""
    tags = [f'<{kind}>' for kind in KINDS]
    shows = [i for i, m in enumerate(messages) if isinstance(m.get('content'), list) or any(t in (m.get('content') or '') for t in tags)]
    where = ', '.join(f'messages[{index}]' for index in shows)
    return f'{where}: {reason}' if where else reason


@dataclass
class RequestConfig:
    """How the answers of a request are generated. None: what the model's generation_config.json says."""

    max_tokens: int | None = None
    """Longest answer in tokens. None: what the context leaves; never more than that."""
    temperature: float | None = None
    """0 is greedy."""
    top_k: int | None = None
    """Sample from the k likeliest tokens; 0 or -1: from all."""
    top_p: float | None = None
    """Sample from the likeliest tokens that together have this probability; 1: from all."""
    min_p: float | None = None
    """Leave out tokens less likely than this share of the likeliest one."""
    repetition_penalty: float | None = None
    """Divides the positive and multiplies the negative logits of tokens in prompt or answer (arXiv:1909.05858); 1: off."""
    presence_penalty: float = 0.0
    """Subtracted from the logits of tokens that are in the answer already."""
    frequency_penalty: float = 0.0
    """Subtracted once for every time a token is in the answer already."""
    num_beams: int = 1
    length_penalty: float = 1.0
    """Beam search: above 1 prefers long answers."""
    stop: list[str] | str | None = None
    """Texts that end the answer, besides the template's own; they are not part of it."""
    stop_token_ids: list[int] | None = None
    """Token ids that end the answer, besides the template's own."""
    ignore_eos: bool = False
    """Generate on to max_tokens, whatever ends an answer otherwise (for measurements)."""
    seed: int | None = None
    """Same seed, same answer, whatever else is answered at the same time. None: another one each time."""
    stream: bool = False
    logprobs: bool = False
    """Return the log-probability of every token under the model, before temperature and penalties."""
    top_logprobs: int | None = None
    """With logprobs: so many of the likeliest alternatives for every token."""
    n: int = 1
    """Answers for each request."""
    return_details: bool = False
    """Put the token ids of prompt and answer into the response."""
    response_format: dict[str, Any] | None = None
    """OpenAI's: `{"type": "text" | "json_object"}`, or `{"type": "json_schema", "json_schema": {"name", "schema": {…}}}`."""
    guided_json: dict[str, Any] | str | None = None
    """A JSON schema, or its text: the answer is JSON that it describes."""
    guided_regex: str | None = None
    """The whole answer matches it."""
    guided_choice: list[str] | None = None
    """The answer is one of these texts."""
    guided_grammar: str | None = None
    """A Lark grammar, as llguidance reads it. Of these five fields at most one asks for a form."""

    def check(self) -> RequestConfig:
        """This config, or SwiftError naming every field whose value cannot be."""
        wrong = [f'{name}={value!r} ({need})' for name, value, ok, need in self._rules() if not ok]
        if wrong:
            raise SwiftError(f'request config: {"; ".join(wrong)};', 'change these values')
        self.form()
        return self

    def form(self) -> Any:
        """The form that the answer must have, as `guided.Form`; None: any. Raises SwiftError that begins with the field at fault."""
        if all(value is None for value in self._forms):
            return None
        from swift.infer_engine.guided import form_of

        return form_of(self)

    @property
    def _forms(self) -> tuple[Any, ...]:
        return self.response_format, self.guided_json, self.guided_regex, self.guided_choice, self.guided_grammar

    def _rules(self) -> list[tuple[str, Any, bool, str]]:
        def whole(value: Any, low: int) -> bool:
            return isinstance(value, int) and not isinstance(value, bool) and value >= low

        def real(value: Any, low: float, high: float = float('inf')) -> bool:
            return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high

        stops = self.stops
        return [
            ('max_tokens', self.max_tokens, self.max_tokens is None or whole(self.max_tokens, 1), 'at least 1'),
            ('temperature', self.temperature, self.temperature is None or real(self.temperature, 0), 'at least 0'),
            ('top_k', self.top_k, self.top_k is None or whole(self.top_k, -1), 'a count, or -1 for all'),
            ('top_p', self.top_p, self.top_p is None or (real(self.top_p, 0, 1) and self.top_p > 0), 'above 0, up to 1'),
            ('min_p', self.min_p, self.min_p is None or real(self.min_p, 0, 1), '0 to 1'),
            (
                'repetition_penalty',
                self.repetition_penalty,
                self.repetition_penalty is None or (real(self.repetition_penalty, 0) and self.repetition_penalty > 0),
                'above 0',
            ),
            ('presence_penalty', self.presence_penalty, real(self.presence_penalty, -2, 2), '-2 to 2'),
            ('frequency_penalty', self.frequency_penalty, real(self.frequency_penalty, -2, 2), '-2 to 2'),
            ('num_beams', self.num_beams, whole(self.num_beams, 1), 'at least 1'),
            ('n', self.n, whole(self.n, 1), 'at least 1'),
            ('n', self.n, self.num_beams == 1 or self.n <= self.num_beams, 'at most num_beams'),
            ('seed', self.seed, self.seed is None or whole(self.seed, 0), 'a whole number'),
            ('stop', self.stop, all(isinstance(text, str) and text for text in stops), 'texts, none empty'),
            ('top_logprobs', self.top_logprobs, self.top_logprobs is None or whole(self.top_logprobs, 0), 'at least 0'),
            ('top_logprobs', self.top_logprobs, not self.top_logprobs or self.logprobs, 'needs logprobs=True'),
            ('logprobs', self.logprobs, not (self.logprobs and self.num_beams > 1), 'not with num_beams'),
            ('num_beams', self.num_beams, self.num_beams == 1 or all(v is None for v in self._forms), 'not with guided output'),
        ]

    @property
    def stops(self) -> list[str]:
        """`stop` as a list."""
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else list(self.stop)


@dataclass(frozen=True)
class AdapterRequest:
    """Answer with this adapter: its name in the engine and the directory it is read from when it is first used."""

    name: str
    path: str


@dataclass
class UsageInfo:
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


@dataclass
class ChatMessage:
    """What the assistant said."""

    role: str = 'assistant'
    content: str | None = None
    tool_calls: list[dict] | None = None
    """OpenAI form: `{"id", "type": "function", "function": {"name", "arguments": JSON text}}`. None: no call."""
    reasoning_content: str | None = None
    """What a thinking model thought. None: nothing."""


@dataclass
class DeltaMessage(ChatMessage):
    """What came since the last piece of a stream; fields without news are None."""

    role: str | None = None  # type: ignore[assignment]


@dataclass
class ChatCompletionResponseChoice:
    """One answer. `finish_reason` is `stop`, `length`, `tool_calls` or `abort`."""

    index: int
    message: ChatMessage
    finish_reason: str
    logprobs: dict[str, list[dict]] | None = None
    """`{"content": [{"token", "token_id", "logprob", "bytes", "top_logprobs": […]}, …]}`. None: not asked for."""
    token_ids: list[int] | None = None
    """Ids as generated, the one that ended the answer included. None: not asked for (`return_details`)."""


@dataclass
class ChatCompletionResponse:
    """The answer to one request: one choice for each of `n`."""

    model: str
    choices: list[ChatCompletionResponseChoice]
    usage: UsageInfo
    id: str = field(default_factory=lambda: f'chatcmpl-{uuid.uuid4().hex}')
    object: str = 'chat.completion'
    created: int = field(default_factory=lambda: int(time.time()))
    prompt_token_ids: list[int] | None = None
    """Ids of the prompt. None: not asked for (`return_details`)."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values, fields that are None left out."""
        return _without_none(asdict(self))


@dataclass
class ChatCompletionResponseStreamChoice:
    """News of one answer; `finish_reason` is None until its last piece."""

    index: int
    delta: DeltaMessage
    finish_reason: str | None = None
    logprobs: dict[str, list[dict]] | None = None


@dataclass
class ChatCompletionStreamResponse:
    """One piece of a streamed answer. The last piece of a request carries `usage`."""

    model: str
    choices: list[ChatCompletionResponseStreamChoice]
    usage: UsageInfo | None = None
    id: str = field(default_factory=lambda: f'chatcmpl-{uuid.uuid4().hex}')
    object: str = 'chat.completion.chunk'
    created: int = field(default_factory=lambda: int(time.time()))

    def to_dict(self) -> dict[str, Any]:
        """JSON values, fields that are None left out."""
        return _without_none(asdict(self))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    return value
