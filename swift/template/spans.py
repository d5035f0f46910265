"""Which characters of a rendered conversation the assistant produced, for any Jinja chat template.

The text is the template's own, unchanged. A turn of the assistant begins where the inference prompt ends and goes up
to and with its end-of-turn; headers, generation prompts and the words of other roles are never in a span. Where this
can't be shown for a conversation, it is refused.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache

from swift.core.errors import RowError
from swift.template.jinja import Renderer
from swift.template.probe import Facts, after, common_tokens, probe, shared_start
from swift.template.trace import MARKUP, Trace, strings, trace

Span = tuple[int, int]


class SpanFinder:
    """Spans for one template and one set of template variables. Learns about the template when it is built."""

    def __init__(self, render: Renderer, eos_token: str | None = None):
        self.render = render
        self.eos_token = eos_token
        self.facts: Facts = probe(render, eos_token)
        self._starts: OrderedDict[tuple, int] = OrderedDict()

    def __call__(
        self, messages: list[dict], tools: list | None = None, *, turns: Sequence[int] | None = None
    ) -> tuple[str, list[Span]]:
        """(text, one span for each message index in `turns`); `turns` None means every assistant message.

        Raises TemplateError where the template refuses the conversation, RowError where a span can't be proved.
        """
        if turns is None:
            turns = [i for i, m in enumerate(messages) if m.get('role') == 'assistant']
        text = self.render(messages, tools)
        if not turns:
            return text, []
        traced = trace(self.render, messages, tools, plain=text)
        if traced is None:
            raise RowError('the chat template changes the messages in a way that hides who said what')
        spans = [self._turn(traced, messages, tools, i) for i in turns]
        _check(traced, messages, turns, spans)
        return text, spans

    def _turn(self, traced: Trace, messages: list[dict], tools: list | None, index: int) -> Span:
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
        return start, self._end(text, messages, tools, index, last, ceiling, bool(own))

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
    def _end(
        self, text: str, messages: list[dict], tools: list | None, index: int, last: int, ceiling: int, spoke: bool
    ) -> int:
        """The end of the first end-of-turn after `last`; `last` where the template prints none."""
        gap = text[last:ceiling]
        found = [(gap.find(e), -len(e)) for e in self.facts.ends if e in gap]
        if found:
            at, length = min(found)
            return last + at - length
        if messages[index].get('tool_calls'):
            return last + len(self._closing(gap, messages, tools, index).rstrip())
        return last

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


def _check(traced: Trace, messages: list[dict], turns: Sequence[int], spans: list[Span]) -> None:
    """Every word of a trained message is inside its span, no word of anybody else is; spans in order, apart."""
    end = 0
    for index, (a, b) in zip(turns, spans, strict=True):
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
) -> tuple[str, list[Span]]:
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
    text, spans = _finder(chat_template, bos_token, eos_token)(messages, tools, turns=turns)
    return text, [s for s in spans if s[1] > s[0]]

