"""`Template`: conversations to training samples and inference prompts, completions back to messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any

from swift.arguments.template import TemplateArgs
from swift.core.errors import RowError, SwiftError, TemplateError
from swift.core.log import warn_once
from swift.core.media import media_of
from swift.core.types import IGNORE_INDEX, Completion, Conversation, Message, Prompt, Sample
from swift.template.decode import Decoder
from swift.template.identity import fingerprint
from swift.template.jinja import Renderer
from swift.template.limits import tell_limits
from swift.template.media import MediaReader
from swift.template.messages import content_text, system_into_user, tidy_messages, tidy_tools, with_system
from swift.template.prefixes import after_prefix, prefixed
from swift.template.rendered import Rendered
from swift.template.showing import Showing
from swift.template.spans import SpanFinder, Turn
from swift.template.stops import Stops, find_stops, own_specials
from swift.template.tokens import Encoded, Tokens
from swift.template.tools import agent_format
from swift.template.truncate import fit
from swift.template.weights import Weighted, parse_loss_scale


class Template:
    """Conversation ↔ tokens for one tokenizer and one chat template. Built complete by `get_template`.

    `tokenizer` None: text only (`apply_chat_template`); everything that needs tokens then raises TemplateError.
    """

    def __init__(
        self,
        tokenizer: Any,
        chat_template: str | dict[str, str] | None,
        args: TemplateArgs,
        *,
        name: str | None = None,
        variables: dict[str, Any] | None = None,
        stop_token_ids: Iterable[int] = (),
        stop_strings: Iterable[str] = (),
        processor: Any = None,
        reader: MediaReader | None = None,
    ):
        self.tokenizer = tokenizer
        self.processor = processor
        self.name = name
        self._args = args
        self.max_length = args.max_length
        self.truncation_strategy = args.truncation_strategy
        self.use_chat_template = args.use_chat_template and bool(chat_template)
        self.system = args.system
        self.response_prefix = args.response_prefix or ''
        self.add_non_thinking_prefix = args.add_non_thinking_prefix
        self.loss_scale = parse_loss_scale(args.loss_scale)
        self.agent = agent_format(args.agent_template) if args.agent_template else None
        sources = chat_template if isinstance(chat_template, dict) else {'default': chat_template}
        self._finders = {
            key: SpanFinder(Renderer(source, variables or {}), (variables or {}).get('eos_token'))
            for key, source in sources.items()
            if source
        }
        self._tokens = Tokens(tokenizer, self._frequent_specials()) if tokenizer is not None else None
        self.showing = Showing(reader, self._tokens, args.norm_bbox)
        self._before, self._after = own_specials(tokenizer)
        facts = self._finder(None).facts if self._finders else None
        self._stops: Stops = find_stops(tokenizer, self._tokens, facts, stop_token_ids, stop_strings)
        self._decoder = Decoder(
            tokenizer,
            '\n'.join(finder.render.source for finder in self._finders.values()),
            stop_ids=self._stops.ids,
            agent=args.agent_template,
            prompt=facts.generation_prompt + self.response_prefix if facts else '',
        )

    # ------------------------------------------------------------------ facts
    @property
    def chat_template(self) -> str | None:
        """The Jinja source in use: what a checkpoint should carry. None: plain text only."""
        return self._finder(None).render.source if self._finders else None

    @property
    def stop_token_ids(self) -> list[int]:
        """Ids that end an answer: what the template ends turns with, the tokenizer's and the model's eos."""
        return list(self._stops.ids)

    @property
    def stop(self) -> list[str]:
        """Strings that end an answer where the template's end-of-turn is no single token."""
        return list(self._stops.strings)

    def _frequent_specials(self) -> list[str]:
        """Added tokens that the chat template prints."""
        sources = [finder.render.source for finder in self._finders.values()]
        added = [t.content for t in getattr(self.tokenizer, 'added_tokens_decoder', {}).values()]
        always = [t for t in (self.tokenizer.bos_token, self.tokenizer.eos_token) if t]
        return [t for t in added if t in always or any(t in source for source in sources)]

    @cached_property
    def fingerprint(self) -> str:
        """A hash of everything that decides which tokens and labels a conversation becomes."""
        sources = {key: finder.render.source for key, finder in self._finders.items()}
        variables = [finder.render.variables for finder in self._finders.values()]
        return fingerprint(self.tokenizer, sources, [*variables, repr(self.loss_scale), self.showing.identity], self._args, self._stops)

    def _finder(self, tools: list | None) -> SpanFinder:
        """The template for rows with or without tools (some tokenizers have two)."""
        if not self._finders:
            raise TemplateError('the tokenizer has no chat template;', 'choose one: --template NAME, such as chatml')
        name = 'tool_use' if tools and 'tool_use' in self._finders else 'default'
        return self._finders.get(name) or next(iter(self._finders.values()))

    def _need_tokens(self) -> Tokens:
        if self._tokens is None:
            raise TemplateError(
                f'template {self.name!r} was made without a tokenizer;', 'call get_template(tokenizer, template=…)'
            )
        return self._tokens

    # --------------------------------------------------------------- training
    def encode(self, conversation: Conversation) -> list[Sample]:
        """Training samples of one conversation: one, or several (truncation_strategy split). Raises RowError."""
        [result] = self.encode_batch([conversation])
        if isinstance(result, RowError):
            raise result
        return result

    def encode_batch(self, conversations: Sequence[Conversation]) -> list[list[Sample] | RowError]:
        """The same for many at once: tokenised together; a bad row becomes its RowError."""
        tokens = self._need_tokens()
        results: list[list[Sample] | RowError] = [[] for _ in conversations]
        jobs: list[tuple[int, Rendered]] = []
        for i, conversation in enumerate(conversations):
            try:
                jobs.append((i, self._text(conversation)))
            except (RowError, TemplateError) as e:
                results[i] = _row_error(e, conversation)
        texts = [text for _, text in jobs if not text.shown]
        encoded = iter(tokens.batch([t.text for t in texts], [t.spans for t in texts], [[p[:2] for p in t.parts] for t in texts]))
        for i, text in jobs:
            try:
                if text.shown:
                    text, row = self.showing.encode(text, self._room(text), self.truncation_strategy)
                else:
                    row = next(encoded)
                results[i] = self._samples(text, row, conversations[i])
            except (RowError, TemplateError) as e:
                results[i] = _row_error(e, conversations[i])
        return results

    def _room(self, text: Rendered) -> int | None:
        """Tokens that a text may have, without those that are put around it."""
        return self.max_length - len(self._before) - 1 if self.max_length and text.plain else self.max_length

    def _text(self, conversation: Conversation) -> Rendered:
        conversation = self.showing.grounded(conversation)
        if conversation.text or not self.use_chat_template:
            return self._plain_text(conversation)
        messages, tools = self._prepare(conversation, training=True)
        chosen = self.loss_scale.turns(messages)
        finder = self._finder(tools)
        everything = self.loss_scale.base == 'all'
        assistants = [i for i, m in enumerate(messages) if m['role'] == 'assistant']
        if not chosen and not everything:
            raise RowError(
                'no message of this row is trained', hint='check its roles, its loss fields and --loss_scale'
            )
        turns = assistants if everything else list(chosen)
        if assistants and messages[-1]['role'] == 'assistant' and turns[-1:] != assistants[-1:]:
            turns = [*turns, assistants[-1]]  # its end is looked at even when it is not trained
        text, found = finder(messages, tools, turns=turns)
        tell_limits(finder.facts, messages, len(chosen), empty_think=self.add_non_thinking_prefix)
        text, found = self._closed(text, found, finder, final=messages[-1]['role'] == 'assistant')
        found = after_prefix(text, found, self.response_prefix)
        rows = [(turn, chosen.get(i, 0.0)) for i, turn in zip(turns, found, strict=True)]
        return self._showing_what(self._weighted(text, rows, everything), conversation)

    def _showing_what(self, text: Rendered, conversation: Conversation) -> Rendered:
        """The text with the media that it shows. Raises RowError for a tag or a media token that no medium belongs to."""
        text.shown = media_of(conversation.messages)
        self.showing.check_tags(conversation.messages, text.shown)
        if not text.shown:
            self.showing.check_text(text.text)
        return text

    def _weighted(self, text: str, rows: list[tuple[Turn, float]], everything: bool) -> Rendered:
        spans = [(t.start, t.end) for t, w in rows if (w or everything) and t.end > t.start]
        parts: list[Weighted] = []
        if self.loss_scale.weighted or any(w != 1.0 for _, w in rows if w or everything):
            for turn, weight in rows:
                if turn.end > turn.start and (weight or everything):
                    parts += self.loss_scale.parts(text, turn.start, turn.end, weight)
        return Rendered(text, spans, parts, all=everything)

    def _prepare(self, conversation: Conversation, *, training: bool = False) -> tuple[list[dict], list | None]:
        """Messages and tools as the chat template gets them; `training`: with the prefixes of answers."""
        tools = tidy_tools(conversation.tools) if conversation.tools else None
        facts = self._finder(tools).facts
        messages = tidy_messages(conversation.messages, string_arguments=facts.string_arguments)
        if not messages:
            raise RowError('the row has no messages')
        messages = self.showing.messages(with_system(messages, self.system), self._finder(tools).render)
        if self.agent is not None:
            messages, tools = self.agent.apply(messages, tools), None
        elif tools and not facts.renders_tools:
            raise TemplateError(
                'the chat template has no place for tools;',
                'write them into the system prompt: --agent_template hermes',
            )
        elif not facts.renders_calls and any(m.get('tool_calls') for m in messages):
            raise TemplateError(
                'the chat template does not print tool calls;', 'write them as text: --agent_template hermes'
            )
        if not facts.accepts_system and messages[0]['role'] == 'system':
            warn_once('The chat template refuses system messages: they are put in front of the first user message.')
            messages = system_into_user(messages)
        if training and (self.response_prefix or facts.empty_think):
            messages = prefixed(messages, facts, self.response_prefix, empty_think=self.add_non_thinking_prefix)
        return messages, tools

    def _closed(self, text: str, found: list[Turn], finder: SpanFinder, *, final: bool) -> tuple[str, list[Turn]]:
        """Every turn up to its stop token; one is appended to a last turn that the template leaves open."""
        role = self._stops.role
        out = []
        for k, turn in enumerate(found):
            if not turn.closed and role and text.startswith(role, turn.end):
                turn = turn._replace(end=turn.end + len(role), closed=True)
            elif not turn.closed and final and k == len(found) - 1:
                closing = role or self._stops.closing
                if not closing:
                    raise TemplateError('neither the chat template nor the tokenizer ends a turn (no eos token)')
                warn_once(
                    'The chat template does not end the last turn: %r is appended, so that the model learns to stop.',
                    closing,
                )
                text = text[: turn.end] + closing
                turn = turn._replace(end=len(text), closed=True)
            out.append(turn)
        return text, out

    def _plain_text(self, conversation: Conversation) -> Rendered:
        """Contents one after another; the answers are trained, or everything (text rows, loss_scale all)."""
        everything = conversation.text or self.loss_scale.base == 'all'
        messages = self.showing.messages(tidy_messages(conversation.messages), None)
        chosen = {i: 1.0 for i in range(len(messages))} if conversation.text else self.loss_scale.turns(messages)
        text, rows = self._opening(conversation.messages, self._before), []
        for i, message in enumerate(messages):
            said = content_text(message)
            if message['role'] == 'assistant' and (i in chosen or everything):
                rows.append((Turn(len(text), len(text) + len(said), False), chosen.get(i, 0.0)))
            text += said
        if not text.strip():
            raise RowError('the text of this row is empty')
        result = self._weighted(text, rows, everything)
        result.plain = True
        return self._showing_what(result, conversation)

    def _samples(self, text: Rendered, row: Encoded, conversation: Conversation) -> list[Sample]:
        ids = row.ids
        labels = list(ids) if text.all else [IGNORE_INDEX] * len(ids)
        if not text.all:
            for first, last in row.spans:
                labels[first:last] = ids[first:last]
        weights = None
        if text.parts:
            weights = [float(label != IGNORE_INDEX) for label in labels]
            for (first, last), (_, _, weight) in zip(row.marks, text.parts, strict=True):
                weights[first:last] = [weight] * (last - first)
            labels = [i if w else IGNORE_INDEX for i, w in zip(ids, weights, strict=True)]
            if all(w in (0.0, 1.0) for w in weights):
                weights = None
        if text.plain:
            ids, labels, weights = self._with_specials(text, ids, labels, weights)
        media = [self.showing.recipe(text)] if text.shown else None
        return [
            Sample(a, b, c, media=media, label=conversation.label, channel=conversation.channel, source=conversation.source)
            for a, b, c in fit(ids, labels, weights, self.max_length, self.truncation_strategy, text.plain)
        ]

    def _with_specials(self, text: Rendered, ids: list[int], labels: list[int], weights: list[float] | None) -> tuple:
        """Plain text between the tokenizer's own bos (never twice) and eos."""
        before = [] if ids[: len(self._before)] == self._before else self._before
        eos = self._stops.eos
        after = [] if eos is None or ids[-1:] == [eos] else [eos]
        trained = text.all or (bool(labels) and labels[-1] != IGNORE_INDEX)
        ids = [*before, *ids, *after]
        labels = [*(before if text.all else [IGNORE_INDEX] * len(before)), *labels]
        labels += after if trained else [IGNORE_INDEX] * len(after)
        if weights is not None:
            tail = weights[-1] if weights and trained else 0.0
            weights = [float(text.all)] * len(before) + weights + [tail] * len(after)
        return ids, labels, weights

    # -------------------------------------------------------------- inference
    def apply_chat_template(
        self, messages: list[Message], tools: list | None = None, *, add_generation_prompt: bool = False
    ) -> str:
        """The text of a conversation, with the default system prompt where it has none."""
        prepared, tools = self._prepare(Conversation(list(messages), tools=tools))
        finder = self._finder(tools)
        return self._asked(finder, prepared, tools) if add_generation_prompt else finder.render(prepared, tools)

    def _asked(self, finder: SpanFinder, messages: list[dict], tools: list | None) -> str:
        return finder.prompt(messages, tools) + self.response_prefix

    def prompt(self, conversation: Conversation) -> Prompt:
        """Everything up to where the assistant's next words go; a last assistant message with words is continued."""
        self._need_tokens()
        conversation = self.showing.grounded(conversation)
        stops = dict(stop_token_ids=self.stop_token_ids, stop=self.stop)
        if conversation.text or not self.use_chat_template:
            said = ''.join(content_text(m) for m in self.showing.messages(conversation.messages, None))
            text = self._opening(conversation.messages, self._before) + said
            ids, media = self._asked_ids(text, conversation)
            before = [] if ids[: len(self._before)] == self._before else self._before
            return Prompt([*before, *ids], text, media=media, **stops)
        messages, tools = self._prepare(conversation)
        finder = self._finder(tools)
        last = messages[-1]
        if last['role'] == 'assistant' and not (last['content'] or last.get('tool_calls')):
            messages = messages[:-1]  # an empty answer is a question
        if messages and messages[-1]['role'] == 'assistant':
            text = finder.unfinished(messages, tools)
        else:
            text = self._asked(finder, messages, tools)
        ids, media = self._asked_ids(text, conversation)
        return Prompt(ids, text, media=media, **stops)

    def _asked_ids(self, text: str, conversation: Conversation) -> tuple[list[int], dict[str, Any] | None]:
        """(ids, what they show) of a prompt."""
        shown = self._showing_what(Rendered(text, []), conversation)
        if not shown.shown:
            return self._need_tokens().ids(text), None
        shown, row = self.showing.encode(shown)
        return row.ids, self.showing.recipe(shown)

    def _opening(self, messages: Sequence[Message], before: Sequence[int]) -> str:
        """What plain text that shows something begins with: its processor must read what the ids say, and some put a missing bos
        elsewhere (Mllama: behind the pictures)."""
        return ''.join(self.tokenizer.convert_ids_to_tokens(list(before))) if media_of(messages) else ''

    def shown(
        self, text: str, conversation: Conversation, limit: int | None = None, before: Sequence[int] = ()
    ) -> Prompt | None:
        """A rendered text as tokens with the media of its conversation in it; None where that shows nothing.

        `before`: tokens that the caller puts in front of it, if it does not begin so. More than `limit` tokens are cut by the
        truncation strategy, a medium stays whole or goes; with `delete` the caller sees the length. Raises RowError for a tag or a
        media token that no medium belongs to.
        """
        opening = self._opening(conversation.messages, before)
        rendered = self._showing_what(Rendered(opening + text.removeprefix(opening), [], all=True), conversation)
        if not rendered.shown:
            return None
        rendered, row = self.showing.encode(rendered, limit, self.truncation_strategy)
        return Prompt(row.ids, rendered.text, media=self.showing.recipe(rendered))

    def read_media(self, sample: Sample) -> Sample:
        """A stored sample with what it shows made into tensors. Raises RowError naming a file that can't be read."""
        return self.showing.read(sample)

    def media_inputs(self, prompt: Prompt) -> dict[str, Any]:
        """The model's inputs beside the ids for what a prompt shows, for one row; {} for text."""
        return self.showing.inputs(prompt)

    def words(self, texts: Sequence[Sequence[str]]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """For texts given as words: their ids, joined by blanks and without special tokens, and the token range of every word.

        A range begins with the word's own first token; it is empty where the tokenizer drops the word.
        """
        joined, spans = [], []
        for text in texts:
            starts = list(accumulate((len(word) + 1 for word in text), initial=0))
            joined.append(' '.join(text))
            spans.append([(max(start - 1, 0), start + len(word)) for start, word in zip(starts, text, strict=False)])
        rows = self._need_tokens().batch(joined, spans)
        return [(row.ids, [self._behind_blank(row.ids, span) for span in row.spans]) for row in rows]

    def _behind_blank(self, ids: list[int], span: tuple[int, int]) -> tuple[int, int]:
        """A word's range without a first token that is nothing but the blank before it."""
        first, last = span
        return (first + 1, last) if last - first > 1 and not self.tokenizer.decode(ids[first : first + 1]).strip() else span

    def decode(self, completion: Completion) -> Message:
        """The assistant message of a completion: content, reasoning_content, tool_calls."""
        return self._decoder(completion)


def _row_error(error: SwiftError, conversation: Conversation) -> RowError:
    if isinstance(error, RowError):
        return error.at(conversation.source)
    return RowError(error.message, conversation.source, error.hint)
