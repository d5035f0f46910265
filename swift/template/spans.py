"""Which characters of a rendered conversation the assistant produced, for any Jinja chat template.

The text is the template's own, unchanged. A turn of the assistant begins where the inference prompt ends and goes up
to and with its end-of-turn; headers, generation prompts and the words of other roles are never in a span. Where this
can't be shown for a conversation, it is refused.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from swift.core.errors import RowError
from swift.template.jinja import Renderer
from swift.template.probe import Facts, after, common_tokens, probe, shared_start, wants_parts
from swift.template.trace import MARKUP, Trace, strings, trace


class Turn(NamedTuple):
    """One turn of the assistant in the rendered text."""

    start: int
    """Where the inference prompt for it ends."""
    end: int
    """After its end-of-turn; after its last word where the template prints none."""
    closed: bool
    """An end-of-turn is printed."""


@dataclass(slots=True)
class _Outline:
    """What was printed between the messages of a conversation, from which the next one of the same shape is proved.

    If the printed text is exactly these gaps with the contents of the other conversation between them, then the
    contents are where they must be, and no second rendering is needed to see it.
    """

    gaps: list[str]
    """Before every message, and after the last one."""
    turns: list[tuple[int, int, bool]]
    """For every trained turn: its start in the gap before, its end in the gap after, closed."""

    @staticmethod
    def of(traced: Trace, messages: list[dict], turns: Sequence[int], found: list[Turn]) -> _Outline | None:
        """The outline of a traced conversation whose messages were printed whole, each once, in order."""
        text, pieces = traced.text, traced.pieces
        if [owner for _, _, owner in pieces] != list(range(len(messages))):
            return None
        if any(text[a:b] != messages[i]['content'] for i, (a, b, _) in enumerate(pieces)):
            return None
        borders = [0, *[x for a, b, _ in pieces for x in (a, b)], len(text)]
        gaps = [text[a:b] for a, b in zip(borders[::2], borders[1::2], strict=True)]
        inside = [
            (turn.start - borders[2 * i], turn.end - pieces[i][1], turn.closed)
            for i, turn in zip(turns, found, strict=True)
        ]
        return _Outline(gaps, inside)

    def fit(self, text: str, messages: list[dict], turns: Sequence[int]) -> list[Turn] | None:
        """The turns, if `text` is this outline filled with the messages' contents."""
        parts = [self.gaps[0]]
        at = len(self.gaps[0])
        borders = []
        for message, gap in zip(messages, self.gaps[1:], strict=True):
            content = message['content']
            parts += (content, gap)
            borders.append((at, at + len(content)))
            at += len(content) + len(gap)
        if ''.join(parts) != text:
            return None
        return [
            Turn(borders[i][0] - len(self.gaps[i]) + start, borders[i][1] + end, closed)
            for i, (start, end, closed) in zip(turns, self.turns, strict=True)
        ]


_PLAIN = frozenset({'role', 'content', 'loss'})


def _shape(messages: list[dict], turns: Sequence[int]) -> tuple | None:
    """Who speaks in which order, for conversations of plain contents without outer white space; else None."""
    roles = []
    for message in messages:
        content = message.get('content')
        if type(content) is not str or not content or content[0] in '<[ \t\n\r' or content != content.strip():
            return None  # markup at the start may be what the inference prompt ends with
        if not message.keys() <= _PLAIN:
            return None
        roles.append(message['role'])
    return (*roles, *turns)


class SpanFinder:
    """Spans for one template and one set of template variables. Learns about the template when it is built."""

    def __init__(self, render: Renderer, eos_token: str | None = None):
        self.render = render = render.in_parts() if wants_parts(render) else render
        self.eos_token = eos_token
        self.facts: Facts = probe(render, eos_token)
        self._starts: OrderedDict[tuple, int] = OrderedDict()
        self._outlines: dict[tuple, _Outline] = {}

    def __call__(
        self, messages: list[dict], tools: list | None = None, *, turns: Sequence[int] | None = None
    ) -> tuple[str, list[Turn]]:
        """(text, a Turn for each message index in `turns`); `turns` None means every assistant message.

        Raises TemplateError where the template refuses the conversation, RowError where a span can't be proved.
        """
        if turns is None:
            turns = [i for i, m in enumerate(messages) if m.get('role') == 'assistant']
        text = self.render(messages, tools)
        if not turns:
            return text, []
        key = None if tools else _shape(messages, turns)
        if key is not None and key in self._outlines:
            found = self._outlines[key].fit(text, messages, turns)
            if found is not None:
                return text, found
        traced = trace(self.render, messages, tools, plain=text)
        if traced is None:
            raise RowError('the chat template changes the messages in a way that hides who said what')
        found = [self._turn(traced, messages, tools, i) for i in turns]
        _check(traced, turns, found)
        if key is not None and (outline := _Outline.of(traced, messages, turns, found)):
            if len(self._outlines) > 1024:
                self._outlines.clear()
            self._outlines[key] = outline
        return text, found

    def prompt(self, messages: list[dict], tools: list | None = None) -> str:
        """The inference prompt: up to where the words of the next assistant turn go.

        A template that prints the role header with the answer only, whatever it is asked, gets the header added.
        """
        text = self.render(messages, tools, generation_prompt=True)
        return text + self.facts.header if self.facts.header else text

    def unfinished(self, messages: list[dict], tools: list | None = None) -> str:
        """The text up to the last word of a last assistant message that is to be continued."""
        index = len(messages) - 1
        text, [turn] = self(messages, tools, turns=[index])
        traced = trace(self.render, messages, tools, plain=text)
        last = max((b for _, b in traced.of(index)), default=turn.start) if traced else turn.start
        last = self._own_tail(text, messages[index], last, len(text))
        content = messages[index].get('content')
        space = content[len(content.rstrip()) :] if isinstance(content, str) else ''
        return text[: last + len(space)] if text.startswith(space, last) else text[:last]

    def _turn(self, traced: Trace, messages: list[dict], tools: list | None, index: int) -> Turn:
        text = traced.text
        own = traced.of(index)
        if own:
            first, last = own[0][0], max(b for _, b in own)
            if any(owner != index and a < last and b > first for a, b, owner in traced.pieces):
                raise RowError(f'the chat template mixes the words of message {index} with those of other messages')
            floor = max((b for _, b, owner in traced.pieces if owner != index and b <= first), default=0)
            ceiling = min((a for a, _, owner in traced.pieces if owner != index and a >= last), default=len(text))
            last = self._own_tail(text, messages[index], last, ceiling)
            start = self._start(traced, messages, tools, index, floor, first)
        else:
            if any(s.strip() for s in strings(messages[index])):
                raise RowError(f'the chat template does not print message {index} (assistant)')
            floor = max((b for _, b, owner in traced.pieces if owner < index), default=0)
            ceiling = min((a for a, b, owner in traced.pieces if owner > index and a >= floor), default=len(text))
            start = last = self._start(traced, messages, tools, index, floor, ceiling)
        gap = text[last:ceiling]
        ends = [(gap.find(e), -len(e)) for e in self.facts.ends if e in gap]
        if ends:  # the first one; the longest of those
            at, length = min(ends)
            return Turn(start, last + at - length, True)
        if messages[index].get('tool_calls'):
            last += len(self._closing(gap, messages, tools, index).rstrip())
        return Turn(start, last, False)

    @staticmethod
    def _own_tail(text: str, message: dict, last: int, ceiling: int) -> int:
        """`last`, moved over markup at the very end of the message's own strings (which is never marked)."""
        for string in strings(message):
            string = string.rstrip()
            match = next(reversed(list(MARKUP.finditer(string))), None)
            while match is not None and match.end() == len(string):
                at = match.start()
                tail = string[len(string[:at].rstrip()) :]
                if tail and text.startswith(tail, last) and last + len(tail) <= ceiling:
                    return last + len(tail)
                match = None
        return last

    # ------------------------------------------------------------------ start
    def _start(
        self, traced: Trace, messages: list[dict], tools: list | None, index: int, floor: int, first: int
    ) -> int:
        """Where the inference prompt for this turn ends, between `floor` and `first`."""
        gap = traced.text[floor:first]
        role = messages[index - 1].get('role') if index else None
        key = (gap, role, bool(tools), not traced.of(index), index == 0)
        known = self._starts.get(key)
        if known is None:
            known = self._starts[key] = self._start_in_gap(gap, messages, tools, index)
            if len(self._starts) > 4096:
                self._starts.popitem(last=False)
        return floor + known

    def _start_in_gap(self, gap: str, messages: list[dict], tools: list | None, index: int) -> int:
        tail = self._prompt_tail(messages[:index], tools)
        at = 0
        if tail is not None:
            at = shared_start(gap, tail)
        facts = self.facts
        if facts.header:
            found = gap.find(facts.header.rstrip(), at)
            if found >= 0:
                rest = gap[found:]
                at = found + len(facts.header if rest.startswith(facts.header) else facts.header.rstrip())
        elif facts.generation_prompt and (tail is None or not gap.startswith(tail)):
            found = gap.rfind(facts.generation_prompt)
            if found >= 0:
                at = max(at, found + len(facts.generation_prompt))
        return at

    def _prompt_tail(self, messages: list[dict], tools: list | None) -> str | None:
        """What the inference prompt prints after the last word of any message; None where it can't be rendered."""
        plain = self.render.attempt(messages, tools, generation_prompt=True) if messages else None
        traced = trace(self.render, messages, tools, generation_prompt=True, plain=plain) if plain is not None else None
        if traced is None:
            return None
        return traced.text[max((b for _, b, _ in traced.pieces), default=0) :]

    # -------------------------------------------------------------------- end
    def _closing(self, gap: str, messages: list[dict], tools: list | None, index: int) -> str:
        """What closes a tool call in a template without end-of-turn: what is printed whatever comes next."""
        if index + 1 < len(messages):
            other = self._tail_after(messages[: index + 1], tools, index)
        else:
            other = self._tail_after([*messages, {'role': 'user', 'content': 'question'}], tools, index)
        return common_tokens(gap, other) if other is not None else ''

    def _tail_after(self, messages: list[dict], tools: list | None, index: int) -> str | None:
        plain = self.render.attempt(messages, tools)
        return after(trace(self.render, messages, tools, plain=plain), index) if plain is not None else None


def _check(traced: Trace, turns: Sequence[int], found: list[Turn]) -> None:
    """Every word of a trained message is inside its span, no word of anybody else is; spans in order, apart."""
    end = 0
    for index, (a, b, _) in zip(turns, found, strict=True):
        if a < end or b < a or b > len(traced.text):
            raise RowError(f'message {index}: the turns of the assistant overlap in the rendered text')
        end = b
        for x, y, owner in traced.pieces:
            if owner == index and not (a <= x and y <= b):
                raise RowError(f'message {index}: some of its words lie outside of its turn in the rendered text')
            if owner != index and x < b and y > a:
                raise RowError(f'message {index}: its turn in the rendered text holds words of another message')


@lru_cache(maxsize=256)
def _finder(chat_template: str, bos_token: str | None, eos_token: str | None) -> SpanFinder:
    return SpanFinder(Renderer(chat_template, {'bos_token': bos_token, 'eos_token': eos_token}), eos_token)


def assistant_spans(
    chat_template: str,
    messages: list[dict],
    tools: list | None = None,
    *,
    bos_token: str | None = None,
    eos_token: str | None = None,
    which: str = 'all',
) -> tuple[str, list[tuple[int, int]]]:
    """The text that `chat_template` makes of a conversation, and the character spans the assistant said.

    A span goes from the end of the inference prompt to the end-of-turn inclusive. `which` is 'all' (every assistant
    turn) or 'last'. Raises TemplateError where the template refuses the conversation, RowError where it can't be
    shown that a span holds the assistant's words and nobody else's.
    """
    if which not in ('all', 'last'):
        raise ValueError(f"which must be 'all' or 'last', not {which!r}")
    turns = [i for i, m in enumerate(messages) if m.get('role') == 'assistant']
    if which == 'last':
        turns = turns[-1:]
    text, found = _finder(chat_template, bos_token, eos_token)(messages, tools, turns=turns)
    return text, [(turn.start, turn.end) for turn in found if turn.end > turn.start]
