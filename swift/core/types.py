"""The few nouns that cross a door between rooms.

Each says who makes it, who reads it, and what None means. torch and numpy appear in annotations only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Row = dict[str, Any]
"""One record as a file or hub data set has it. Made and read by `dataset` only."""

Message = dict[str, Any]
"""`{"role": "system"|"user"|"assistant"|"tool", "content": str | list of parts}` (media are parts, see `core.media`) and optionally
`reasoning_content` (str), `tool_calls` (OpenAI form: list of `{"type": "function", "function": {"name", "arguments": dict}}`),
`name`, `tool_call_id`, and `loss` (bool or float: train on this message; absent = the loss_scale strategy decides)."""

IGNORE_INDEX = -100
"""The label of a token that is not trained."""


@dataclass(slots=True)
class Conversation:
    """One training or evaluation example, whatever shape its row had.

    Made by `dataset`; read by `objectives` (which hand it to the template), `infer_engine`, `rollout`.
    """

    messages: list[Message]
    """All turns, the last one usually the assistant's answer. Plain text for pre-training is one
    assistant message with `Conversation.text` set True."""
    tools: list[dict] | None = None
    """Function schemas in OpenAI form. None: the row has no tools."""
    images: list[Any] = field(default_factory=list)
    """References of the row's own images. In `messages` each of them is a part of the content, in its place."""
    videos: list[Any] = field(default_factory=list)
    audios: list[Any] = field(default_factory=list)
    rejected: list[Message] | None = None
    """Messages of the rejected answer (the whole conversation, like `messages`). None: not a preference row."""
    positives: list[list[Message]] | None = None
    """Texts that belong to this row's anchor (embedding) or answer its query (reranker), as messages each."""
    negatives: list[list[Message]] | None = None
    """Texts that do not; in a preference row, the rejected answers after the first (whole conversations)."""
    label: Any = None
    """Class, score or KTO flag; for token classification one class a word. None: the row has none."""
    channel: str | None = None
    """Name under which this row's loss is logged. None: no channel."""
    text: bool = False
    """True: the row was plain text (`text` column); it is rendered without a chat template."""
    columns: dict[str, Any] = field(default_factory=dict)
    """Every other column of the row, for rewards, metrics and plugins."""
    source: str | None = None
    """`file:line` or `dataset[index]`, for messages. None: made in memory."""

    @property
    def words(self) -> list[str]:
        """The words of a row: its tokens, or the text of its last message cut at blanks."""
        given = self.columns.get('tokens') or self.columns.get('words')
        if given:
            return [str(word) for word in given]
        content = self.messages[-1].get('content') if self.messages else ''
        return content.split() if isinstance(content, str) else []


@dataclass(slots=True)
class Media:
    """What a processor made of the media of one segment: the model's inputs beside the tokens.

    Made by `template.read_media`; joined by `trainers` to what the forward of the model takes.
    """

    aligned: dict[str, Any] = field(default_factory=dict)
    """Name → [L, …] tensor with an entry for every token."""
    listed: dict[str, Any] = field(default_factory=dict)
    """Name → [N, …] tensor with an entry for every image, tile, patch, …; those of several segments follow each other."""
    nested: dict[str, Any] = field(default_factory=dict)
    """Name → [N, …] tensor that the model takes as [S, N, …]: media by row, fewer ones padded with zeros."""

    def map(self, function: Any) -> Media:
        """`function(tensor)` of every tensor."""
        return Media(*({name: function(value) for name, value in part.items()} for part in (self.aligned, self.listed, self.nested)))


@dataclass(slots=True)
class Sample:
    """Tokens that are trained together: one segment, or several that belong together (chosen and rejected).

    Made by `template` / `objectives.encode`; stored by `dataset` (token cache), packed by length, read by `collate`.
    """

    input_ids: Sequence[int]
    labels: Sequence[int]
    """Aligned with input_ids (not shifted): the token itself where it is trained, IGNORE_INDEX elsewhere."""
    weights: Sequence[float] | None = None
    """Loss weight of each token, aligned with input_ids. None: 1 wherever a label is."""
    lengths: Sequence[int] | None = None
    """Segment lengths, summing to len(input_ids). None: one segment."""
    media: list[Any] | None = None
    """For every segment what it shows, or None: `{"text": …, "media": [[kind, reference], …]}` as it is stored (the text holds a
    placeholder for each medium), a `Media` once the template has read it. None: text only."""
    label: Any = None
    channel: str | None = None
    source: str | None = None
    extra: dict[str, Any] | None = None
    """What an objective put there in `encode` for its own `collate` (JSON values). None: nothing."""

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def segment_lengths(self) -> list[int]:
        """Length of every segment."""
        return list(self.lengths) if self.lengths is not None else [len(self.input_ids)]


@dataclass(slots=True)
class Batch:
    """One micro-batch. Made by `objectives.collate`, moved by `trainers`, read by the forward and `loss`.

    Flat (`attention_mask is None`): one row of S segments, shape [1, T]; position_ids restart at every segment.
    Padded (`attention_mask` given): one row a segment, shape [S, L], right-padded; only for models that can't run flat.
    """

    input_ids: Tensor
    labels: Tensor
    """Same shape as input_ids, not shifted; the first token of every segment is IGNORE_INDEX."""
    position_ids: Tensor
    """Same shape ([3, 1, T] for M-RoPE)."""
    lengths: Tensor
    """[S] int64 segment lengths, on CPU."""
    weights: Tensor | None = None
    """Same shape as input_ids, float32. None: 1 wherever a label is."""
    attention_mask: Tensor | None = None
    """[S, L] of 0/1 for a padded batch. None: flat."""
    inputs: dict[str, Any] | None = None
    """Further inputs of the model with an entry for every token, shaped like input_ids. None: there are none."""
    media: list[Media | None] | None = None
    """What every segment shows; None for a segment of text. None: text only."""
    sample_lengths: list[int] | None = None
    """Number of segments of every sample, summing to S. None: one each."""
    channels: list[str | None] | None = None
    """Channel of every segment. None: no channels."""
    sources: list[str | None] | None = None
    """Where every sample came from, for messages."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Tensors and values that an objective's `collate` puts there for its own `loss`."""

    @property
    def flat(self) -> bool:
        """Whether segments lie in one row without padding."""
        return self.attention_mask is None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """A copy with every tensor (but `lengths`, which stays on CPU) on `device`."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in values.items():
            if name != 'lengths':
                values[name] = _move(value, device, non_blocking)
        return Batch(**values)


def _move(value: Any, device: Any, non_blocking: bool) -> Any:
    if isinstance(value, Batch) or (hasattr(value, 'to') and hasattr(value, 'dtype')):
        return value.to(device, non_blocking=non_blocking)
    if isinstance(value, Media):
        return value.map(lambda tensor: _move(tensor, device, non_blocking))
    if isinstance(value, dict):
        return {key: _move(item, device, non_blocking) for key, item in value.items()}
    if isinstance(value, list) and any(isinstance(item, Media) or hasattr(item, 'dtype') for item in value):
        return [_move(item, device, non_blocking) for item in value]
    return value


@dataclass(slots=True)
class Loss:
    """What an objective returns: a SUM (the trainer divides once by the global weight) and metrics."""

    sum: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)
    """Name → 1-D tensor with one value per item; the trainer logs the mean over all items of all micro-batches and ranks."""
    outputs: dict[str, Tensor] = field(default_factory=dict)
    """Name → [items, …] tensor of results. An evaluation gathers them over all batches for `Objective.measure`."""

    def __post_init__(self):
        self.metrics = {name: value.detach().float().reshape(-1) for name, value in self.metrics.items()}
        self.outputs = {name: value.detach() for name, value in self.outputs.items()}


@dataclass(slots=True)
class AnswerTokens:
    """Facts about the N labelled tokens of a batch, in flat order. Made by an Actor, read by `loss`."""

    logps: Tensor
    """[N] float32: log-probability of the label given what precedes it."""
    segment: Tensor
    """[N] int64: which segment of the batch (0 … S-1) the token belongs to."""
    index: Tensor
    """[N] int64: position of the label in the flattened `input_ids`."""
    correct: Tensor
    """[N] bool: the label is the most likely token."""
    logsumexp: Tensor | None = None
    """[N] float32: log of the partition function. None unless asked for (z-loss)."""
    mean_logps: Tensor | None = None
    """[N] float32: mean log-probability over the vocabulary. None unless asked for (label smoothing)."""
    entropy: Tensor | None = None
    """[N] float32. None unless asked for."""
    hidden: Tensor | None = None
    """[N, H] the last hidden state that predicts the token. None unless asked for."""
    collision: Tensor | None = None
    """[N] float32: log of the sum of squared probabilities, without gradient. None unless asked for (WPO)."""


@runtime_checkable
class Actor(Protocol):
    """A model as an objective sees it. Implementations: `trainers/forward.py`."""

    def answer_logps(self, batch: Batch, want: Sequence[str] = ()) -> AnswerTokens:
        """Log-probabilities at labelled positions only; `want` names optional fields of AnswerTokens to fill."""
        ...

    def logits(self, batch: Batch, index: Tensor | None = None) -> Tensor:
        """[N, V] logits at the flat positions `index` (None: every labelled position's predictor)."""
        ...

    def hidden(self, batch: Batch) -> Tensor:
        """Last hidden states, [1, T, H] flat or [S, L, H] padded."""
        ...

    def scores(self, batch: Batch) -> Tensor:
        """[S, C] outputs of a sequence-classification head, one row a segment."""
        ...


@dataclass(slots=True)
class Actors:
    """The models an objective forwards. None: the objective's `roles` does not ask for it."""

    policy: Actor
    reference: Actor | None = None
    teacher: Actor | None = None
    value: Actor | None = None


@dataclass(slots=True)
class Prompt:
    """What a backend continues. Made by `template.prompt`; read by an engine's `generate`."""

    input_ids: list[int]
    text: str = ''
    """The text that was tokenised."""
    stop_token_ids: list[int] = field(default_factory=list)
    """Token ids that end an answer of this template (besides the request's own)."""
    stop: list[str] = field(default_factory=list)
    """Strings that end an answer of this template (used where no single token does)."""
    media: dict[str, Any] | None = None
    """What it shows, as in a stored `Sample`: `template.media_inputs` makes the model's inputs of it. None: text only."""


@dataclass(slots=True)
class Completion:
    """What a backend produced for one Prompt. Read by `template.decode`, engines and `rollout`."""

    token_ids: list[int]
    text: str
    finish_reason: str
    """`stop`, `length`, or `abort`."""
    logprobs: list[dict] | None = None
    """One dict a token: `{"token_id", "token", "logprob", "top": [(token_id, token, logprob), …]}`. None: not asked for."""
    prompt_tokens: int = 0


@dataclass(slots=True)
class Rollout:
    """One piece of experience of an online method. Made by `rollout`, read by the objective."""

    conversation: Conversation
    completion: Completion
    reward: float
    group: int


@runtime_checkable
class Template(Protocol):
    """Conversation ↔ tokens for one tokenizer. Implementation: `template/encode.py`. Built complete, then only called."""

    tokenizer: Any
    max_length: int | None

    def encode(self, conversation: Conversation) -> list[Sample]:
        """Training samples of one conversation: one, several (truncation_strategy split), or RowError."""
        ...

    def encode_batch(self, conversations: Sequence[Conversation]) -> list[list[Sample] | RowError]:  # noqa: F821
        """The same for many at once, faster; a bad row becomes its RowError instead of raising."""
        ...

    def prompt(self, conversation: Conversation) -> Prompt:
        """The inference prompt: everything up to where the assistant's next words go."""
        ...

    def shown(
        self, text: str, conversation: Conversation, limit: int | None = None, before: Sequence[int] = ()
    ) -> Prompt | None:
        """A rendered text as tokens with the media of its conversation in it; None where that shows nothing."""
        ...

    def words(self, texts: Sequence[Sequence[str]]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """For texts given as words: their ids without special tokens, and the token range of every word."""
        ...

    def decode(self, completion: Completion) -> Message:
        """The assistant message of a completion: content, reasoning_content, tool_calls."""
        ...

    def read_media(self, sample: Sample) -> Sample:
        """A stored sample with what it shows made into `Media`. Raises RowError naming a file that can't be read."""
        ...


@runtime_checkable
class Samples(Protocol):
    """Encoded rows that can be asked by index: what `dataset` hands to the loader. Memory-mapped, never a Python list."""

    lengths: Sequence[int]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


@runtime_checkable
class BatchLoader(Protocol):
    """Micro-batches in training order, with a position that can be saved. Made by `dataset/loader.py`, read by `trainers`.

    Iterating yields the micro-batches of this rank, from the current position to the end of the epoch;
    after the last one the position is the start of the next epoch.
    """

    epoch: int

    def __iter__(self) -> Iterator[Batch]: ...

    def __len__(self) -> int:
        """Micro-batches of one epoch on this rank (TypeError when streaming: unknown)."""
        ...

    def set_epoch(self, epoch: int) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        """JSON-able position *after the last micro-batch that the trainer consumed*: epoch, cursor, packer buffer, source cursors."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...
