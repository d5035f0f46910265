"""The fields of requests, as OpenAI names them and with its ranges; what is not among them is refused by name.

Also the fields that are understood but can't be honoured: they are refused with the reason, unless they ask for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from swift.infer_engine.protocol import RequestConfig
from swift.infer_engine.server.errors import ApiError

Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Unit = Annotated[float, Field(ge=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Id = Annotated[int, Field(ge=0, le=2**31 - 1)]
Word = Annotated[str, Field(min_length=1)]

COLDEST = 1e-5
"""Temperatures below this are greedy: the quotients would leave the range of float32."""


class Strict(BaseModel):
    """A body without surprises: no unknown fields, no text in the place of a number."""

    model_config = ConfigDict(extra='forbid', strict=True, allow_inf_nan=False, protected_namespaces=())


class Called(Strict):
    """What a tool was asked; `arguments` are JSON as text."""

    name: Word
    arguments: str = '{}'


class ToolCall(Strict):
    """A call that the assistant made earlier."""

    id: str | None = None
    type: Literal['function'] = 'function'
    function: Called
    index: int | None = None


class Message(Strict):
    """One turn of a conversation."""

    role: Literal['system', 'developer', 'user', 'assistant', 'tool']
    content: str | list[dict[str, Any]] | None = None
    """A text, or parts: {"type": "text" | "image_url" | "video_url" | "input_audio" | …}."""
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None


class StreamOptions(Strict):
    """`include_usage`: a last piece says how many tokens were read and written."""

    include_usage: bool = False


class Function(Strict):
    """What a tool can be asked."""

    name: Word
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Strict):
    """A function that the model may call."""

    type: Literal['function']
    function: Function


class FunctionName(Strict):
    """The name of a function."""

    name: Word


class NamedTool(Strict):
    """A function that must be called."""

    type: Literal['function']
    function: FunctionName


class Schema(Strict):
    """What the JSON of an answer looks like."""

    name: str | None = None
    description: str | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias='schema')] = None
    strict: bool | None = None


class ResponseFormat(Strict):
    """The form of the answer."""

    type: Literal['text', 'json_object', 'json_schema']
    json_schema: Schema | None = None


class Sampling(Strict):
    """How answers are drawn: OpenAI's fields, and those that other servers add. None: what the server was started with."""

    model: str
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: Word | Annotated[list[Word], Field(max_length=16)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    max_tokens: Count | None = None
    logit_bias: dict[str, float] | None = None
    user: str | None = None
    top_k: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None
    min_p: Unit | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = None
    stop_token_ids: Annotated[list[Id], Field(max_length=1024)] | None = None
    ignore_eos: bool | None = None
    guided_json: dict[str, Any] | str | None = None
    guided_regex: Word | None = None
    guided_choice: Annotated[list[Word], Field(min_length=1, max_length=1024)] | None = None
    guided_grammar: Word | None = None
    length_penalty: Annotated[float, Field(ge=-100, le=100)] | None = None
    num_beams: Annotated[int, Field(ge=1, le=64)] | None = None

    def config(self, usual: RequestConfig, *, logprobs: bool = False, top_logprobs: int | None = None) -> RequestConfig:
        """The request's settings; fields that are None are those of `usual`."""
        names = ('temperature', 'top_p', 'n', 'stop', 'presence_penalty', 'frequency_penalty', 'max_tokens', 'top_k', 'min_p',
                 'repetition_penalty', 'stop_token_ids', 'ignore_eos', 'length_penalty', 'num_beams', 'guided_json', 'guided_regex', 'guided_choice',
                 'guided_grammar')  # fmt: skip
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        if given.get('temperature', 1) < COLDEST:
            given['temperature'] = 0.0
        if self.seed is not None:
            given['seed'] = self.seed % 2**63
        if 'stop' in given:
            own = [given['stop']] if isinstance(given['stop'], str) else given['stop']
            given['stop'] = [*own, *usual.stops]
        config = RequestConfig(**{**vars(usual), **given, 'stream': bool(self.stream)})
        config.logprobs, config.top_logprobs = logprobs, top_logprobs
        self._together(config)
        return config

    @staticmethod
    def _together(config: RequestConfig) -> None:
        if config.num_beams > 1 and config.n > config.num_beams:
            raise ApiError(400, f'n: {config.n} answers need as many num_beams', param='n', code='invalid_value')
        if config.num_beams > 1 and config.logprobs:
            raise ApiError(400, 'logprobs: not with num_beams', param='logprobs', code='invalid_value')
        if config.num_beams > 1 and config.stream:
            raise ApiError(400, 'stream: beams are compared until the end; leave out stream or num_beams', param='stream', code='invalid_value')

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatRequest(Sampling):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0)] | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal['none', 'auto', 'required'] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    images: list[str] | None = None
    videos: list[str | list[str]] | None = None
    audios: list[str] | None = None
    objects: dict[str, Any] | None = None
    store: bool | None = None
    metadata: dict[str, str] | None = None
    service_tier: Literal['auto', 'default'] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    modalities: list[str] | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    prediction: dict[str, Any] | None = None
    audio: dict[str, Any] | None = None
    web_search_options: dict[str, Any] | None = None
    functions: list[dict[str, Any]] | None = None
    function_call: str | dict[str, Any] | None = None


class CompletionRequest(Sampling):
    """POST /v1/completions: a text is continued, without a chat template."""

    prompt: str | Annotated[list[Id], Field(min_length=1)] | Annotated[list[str] | list[list[Id]], Field(min_length=1, max_length=2048)]
    echo: bool | None = None
    suffix: str | None = None
    logprobs: Annotated[int, Field(ge=0)] | None = None
    best_of: Annotated[int, Field(ge=1)] | None = None


class EmbeddingRequest(Strict):
    """POST /v1/embeddings."""

    model: str
    input: str | Annotated[list[Id], Field(min_length=1)] | Annotated[list[str] | list[list[Id]], Field(min_length=1, max_length=2048)]
    encoding_format: Literal['float', 'base64'] | None = None
    dimensions: Count | None = None
    user: str | None = None


class ScoreRequest(Strict):
    """POST /v1/score. Texts are judged alone; pairs (`text_1` with each `text_2`), or conversations, by models that judge those."""

    model: str
    text_1: str | Annotated[list[str], Field(min_length=1, max_length=2048)] | None = None
    text_2: str | Annotated[list[str], Field(min_length=1, max_length=2048)] | None = None
    messages: Annotated[list[Message], Field(min_length=1)] | None = None
    """For a reward model: a conversation that ends with the answer that is judged."""
    user: str | None = None


class RerankRequest(Strict):
    """POST /v1/rerank: documents in the order in which they answer a query."""

    model: str
    query: str
    documents: Annotated[list[str], Field(min_length=1, max_length=2048)]
    top_n: Count | None = None
    return_documents: bool | None = None
    user: str | None = None


_Refusal = tuple[Callable[[Any], bool], str]

REFUSED: dict[str, _Refusal] = {
    'logit_bias': (bool, 'is not supported; leave it out'),
    'suffix': (bool, 'is not supported: text is continued, not filled in'),
    'functions': (bool, 'is the old form of tools; send tools'),
    'function_call': (lambda v: v != 'none', 'is the old form of tool_choice; send tool_choice'),
    'modalities': (lambda v: v != ['text'], 'other than ["text"] are not supported: answers are texts'),
    'audio': (bool, 'is not supported: answers are texts'),
    'prediction': (bool, 'is not supported; leave it out'),
    'web_search_options': (lambda v: True, 'is not supported: nothing is searched'),
    'reasoning_effort': (lambda v: v != 'auto', 'is not supported: whether the model thinks is set when the server is started (--enable_thinking)'),
    'verbosity': (lambda v: v != 'medium', 'is not supported; ask for it in words'),
    'store': (bool, 'is not supported: nothing is kept for the client; leave it out'),
}
"""Field → (whether a value asks for something, why it can't be had)."""


def refuse(request: Strict) -> None:
    """Raises ApiError for a field that asks for what this server can't do."""
    for name, (asks, reason) in REFUSED.items():
        value = getattr(request, name, None)
        if value is not None and asks(value):
            raise ApiError(400, f'{name} {reason}', param=name, code='unsupported_value')
