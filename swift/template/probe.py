"""What a chat template does around a turn, learned once from small conversations.

Everything is compared in whole markup tokens, never in character prefixes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from swift.template.jinja import Renderer
from swift.template.trace import MARKUP, Trace, trace

_TOKEN = re.compile(rf'{MARKUP.pattern}|\s+|\w+|.', re.DOTALL)
_THINK = re.compile(r'think|channel|thought|reason|response', re.IGNORECASE)

_TOOLS = [
    {
        'type': 'function',
        'function': {
            'name': 'look_up',
            'description': 'Looks up a word.',
            'parameters': {
                'type': 'object',
                'properties': {'word': {'type': 'string', 'description': 'the word'}},
                'required': ['word'],
            },
        },
    }
]


def tokens_of(text: str) -> list[str]:
    """`text` cut into markup tokens, words, white space and single characters."""
    return [m.group() for m in _TOKEN.finditer(text)]


def common_tokens(a: str, b: str) -> str:
    """The longest common prefix of whole tokens; where the texts part, `a` may have more white space than `b`."""
    length = 0
    for x, y in zip(tokens_of(a), tokens_of(b), strict=False):
        if x != y:
            length += len(y) if y.isspace() and x.startswith(y) else 0
            break
        length += len(x)
    return a[:length]


def common_end(a: str, b: str) -> str:
    """The longest common suffix of whole tokens."""
    length = 0
    for x, y in zip(reversed(tokens_of(a)), reversed(tokens_of(b)), strict=False):
        if x != y:
            break
        length += len(x)
    return a[len(a) - length :]


@dataclass(slots=True)
class Facts:
    """What the probes showed."""

    generation_prompt: str = ''
    """What add_generation_prompt adds; '' where the template ignores it."""
    header: str = ''
    """The role header of an assistant turn of a template that ignores add_generation_prompt."""
    ends: list[str] = field(default_factory=list)
    """Strings that end an assistant turn, the longest first."""
    final_end: str = ''
    """What ends the last turn of a conversation; '' where nothing does (a stop token has to be added)."""
    call_end: str = ''
    """What ends a last turn that calls a tool."""
    next_role: str = ''
    """First markup token after a finished turn, where no end of turn is printed (it is what stops the model)."""
    continues: bool = True
    """The rendered last turn begins with the generation prompt."""
    rewrites: bool = False
    """Earlier turns look different once the conversation goes on (reasoning removed, …)."""
    keeps_reasoning: bool = True
    """`reasoning_content` of the last turn is printed."""
    renders_tools: bool = False
    """Tool definitions are printed."""
    renders_calls: bool = False
    """Tool calls of the assistant are printed."""
    string_arguments: bool = False
    """Arguments of tool calls have to be JSON strings: the template can't print a mapping."""
    accepts_system: bool = True
    """A system message is printed."""
    empty_think: str = ''
    """An empty think block that the inference prompt can have and plain answers lack, but print when they hold it."""


def user(word: str) -> dict:
    return {'role': 'user', 'content': f'question {word}'}


def assistant(word: str, **more: object) -> dict:
    return {'role': 'assistant', 'content': f'answer {word}', **more}


def call(word: str, arguments: object = None) -> dict:
    arguments = {'word': word} if arguments is None else arguments
    return {
        'role': 'assistant',
        'content': '',
        'tool_calls': [
            {'type': 'function', 'id': 'abcdefgh1', 'function': {'name': 'look_up', 'arguments': arguments}}
        ],
    }


def result(word: str) -> dict:
    return {'role': 'tool', 'name': 'look_up', 'tool_call_id': 'abcdefgh1', 'content': f'result {word}'}


def _try(render: Renderer, messages: list[dict], tools: list | None = None, prompt: bool = False) -> Trace | None:
    plain = render.attempt(messages, tools, generation_prompt=prompt)
    return None if plain is None else trace(render, messages, tools, generation_prompt=prompt, plain=plain)


def after(traced: Trace | None, index: int) -> str | None:
    """The text between message `index` and the next message (or the end)."""
    if traced is None or not traced.of(index):
        return None
    last = max(b for _, b in traced.of(index))
    following = [a for a, _, owner in traced.pieces if owner != index and a >= last]
    return traced.text[last : min(following, default=len(traced.text))]


def before(traced: Trace | None, index: int) -> str | None:
    """The text between whatever comes before message `index` and its first character."""
    if traced is None or not traced.of(index):
        return None
    first = min(a for a, _ in traced.of(index))
    earlier = [b for _, b, owner in traced.pieces if owner != index and b <= first]
    return traced.text[max(earlier, default=0) : first]


def wants_parts(render: Renderer) -> bool:
    """The template prints contents that are lists of parts, and no plain strings (some of multimodal models)."""
    messages = [user('one'), assistant('one')]
    if 'answer one' in (render.attempt(messages) or ''):
        return False
    return 'answer one' in (render.in_parts().attempt(messages) or '')


def probe(render: Renderer, eos: str | None) -> Facts:
    """Learn a template. Never raises: what can't be rendered stays unknown."""
    facts = Facts()
    one = _try(render, [user('one'), assistant('one')])
    two = _try(render, [user('one'), assistant('one'), user('two'), assistant('two')])
    asked = _try(render, [user('one')], prompt=True)
    _learn_start(facts, render, one, asked)
    _learn_ends(facts, render, one, two, eos)
    _learn_tools(facts, render, eos)
    _learn_reasoning(facts, render)
    _learn_system(facts, render)
    _learn_empty_think(facts, render)
    return facts


def _learn_start(facts: Facts, render: Renderer, one: Trace | None, asked: Trace | None) -> None:
    silent = render.attempt([user('one')])
    if asked is None or one is None:
        return
    tail = after(asked, 0) or ''
    if silent is not None and asked.text != silent:
        # some templates print an end of text instead of the generation prompt, so a prefix alone won't do
        kept = common_tokens(asked.text, silent)
        facts.generation_prompt = asked.text[len(kept) :]
    gap = before(one, 1)
    if gap is None:
        return
    common = common_tokens(gap, tail)
    rest = gap[len(common) :]
    facts.continues = common == tail
    if not facts.generation_prompt and rest.strip() and not _only_scaffold(rest) and not _always_prompts(one, tail):
        facts.header = rest


def _always_prompts(one: Trace, tail: str) -> bool:
    """A finished conversation ends with the very words that a question ends with: a prompt, printed unasked."""
    shared = common_end((after(one, 1) or '').rstrip(), tail.rstrip())
    return sum(1 for t in tokens_of(shared) if not t.isspace()) > 1


def shared_start(gap: str, prompt: str) -> int:
    """How far `gap`, the text before an answer, follows the inference prompt's tail.

    Where the prompt closes a think block at once and the answer fills it, the answer begins with the opening tag.
    """
    if gap.startswith(prompt):
        return len(prompt)
    common = common_tokens(gap, prompt)
    body = common.rstrip()
    opening = next(reversed(list(MARKUP.finditer(body))), None)
    closes = MARKUP.match(prompt[len(common) :].lstrip())
    if closes and opening and opening.end() == len(body) and _THINK.search(opening.group()):
        return opening.start()
    return len(common)


def _only_scaffold(text: str) -> bool:
    """Nothing but (empty) think markup and white space."""
    return all(t.isspace() or (MARKUP.fullmatch(t) and _THINK.search(t)) for t in tokens_of(text))


def _end_token(text: str) -> str:
    """The last markup token of `text`, or its last non-space token."""
    found = [t for t in tokens_of(text) if MARKUP.fullmatch(t)]
    return found[-1] if found else ''


def _cut_after(text: str | None, eos: str | None) -> str | None:
    """`text` up to and with the first `eos`; all of it where there is none."""
    return text[: text.index(eos) + len(eos)] if text and eos and eos in text else text


def _cut_before(text: str | None, start: str) -> str | None:
    """`text` up to a `start` that is not at its beginning; all of it where there is none."""
    return text[: text.index(start)] if text and start and text.find(start) > 0 else text


def _start_of_turn(facts: Facts, render: Renderer, one: Trace | None) -> str:
    """The first token of a role header: the generation prompt's, or the first markup before a first question."""
    prompt = facts.generation_prompt or facts.header
    if prompt:
        return next((t for t in tokens_of(prompt) if not t.isspace()), '')
    opening = (before(one, 0) or '').removeprefix(render.variables.get('bos_token') or '')
    return next((t for t in tokens_of(opening) if MARKUP.fullmatch(t)), '')


def _learn_ends(facts: Facts, render: Renderer, one: Trace | None, two: Trace | None, eos: str | None) -> None:
    final, middle = after(one, 1), after(two, 1)
    if final is None:
        return
    start_of_turn = _start_of_turn(facts, render, one)
    final = _cut_before(_cut_after(final, eos), start_of_turn)
    middle = (
        _cut_before(_cut_after(middle, eos), start_of_turn) if not facts.generation_prompt else _cut_after(middle, eos)
    )
    ends: list[str] = []
    if eos and eos in final:
        ends.append(eos)
    if middle is not None:
        if eos and eos in middle:
            ends.append(eos)
        both = _end_token(common_tokens(final, middle))
        opening = common_end(middle, before(two, 0) or '')
        if start_of_turn and start_of_turn in opening:
            opening = opening[opening.index(start_of_turn) :]
        own = middle[: len(middle) - len(opening)]
        ends += [t for t in (both, _end_token(own)) if t]
        if not own.strip():
            facts.next_role = next((t for t in tokens_of(opening) if MARKUP.fullmatch(t)), '')
    if not any(e in final for e in ends) and not (start_of_turn and start_of_turn in final):
        first = next((t for t in tokens_of(final) if MARKUP.fullmatch(t)), '')
        if first:
            ends.append(first)
    facts.final_end = next((e for e in ends if e in final), '')
    facts.ends = sorted(dict.fromkeys(ends), key=len, reverse=True)


def _learn_tools(facts: Facts, render: Renderer, eos: str | None) -> None:
    system = {'role': 'system', 'content': 'system word'}
    asked = [render.attempt(m, _TOOLS, generation_prompt=True) for m in ([user('one')], [system, user('one')])]
    facts.renders_tools = any(text is not None and 'look_up' in text for text in asked)
    calling = call('one')
    text = render.attempt([user('one'), calling], _TOOLS)
    if text is None or "{'word'" in text:
        as_string = call('one', '{"word": "one"}')
        other = render.attempt([user('one'), as_string], _TOOLS)
        if other is not None:
            facts.string_arguments, calling = True, as_string
    last = _try(render, [user('one'), calling], _TOOLS)
    full = _try(render, [user('one'), calling, result('one'), assistant('two')], _TOOLS)
    facts.renders_calls = any(t is not None and t.of(1) for t in (last, full))
    final, middle = after(last, 1), after(full, 1)
    if final is None or middle is None:
        return
    start = _start_of_turn(facts, render, _try(render, [user('one'), assistant('one')]))
    end = _end_token(_cut_before(_cut_after(common_tokens(final, middle), eos), start) or '')
    if end and not end.startswith(('</', '[/')):  # the closing tag of a call is no end of turn
        facts.call_end = end
        if end not in facts.ends:
            facts.ends.append(end)


def _learn_reasoning(facts: Facts, render: Renderer) -> None:
    why = 'because word'  # under the names that transformers gives it
    thought = render.attempt([user('one'), assistant('one', reasoning_content=why, thinking=why)])
    facts.keeps_reasoning = thought is not None and 'because word' in thought
    inline = [user('one'), {'role': 'assistant', 'content': '<think>\nbecause word\n</think>\n\nanswer one'}]
    later = render.attempt([*inline, user('two'), assistant('two')])
    alone = render.attempt(inline)
    facts.rewrites = bool(alone and later and 'because word' in alone and 'because word' not in later)


def _learn_system(facts: Facts, render: Renderer) -> None:
    said = render.attempt([{'role': 'system', 'content': 'system word'}, user('one')], generation_prompt=True)
    facts.accepts_system = said is not None and 'system word' in said


_EMPTY_THINK = re.compile(r'<([^<>\s/]*think[^<>\s]*)>\s*</\1>\s*$')
_OPEN_THINK = re.compile(r'<([^<>\s/]*think[^<>\s]*)>\s*$')


def _learn_empty_think(facts: Facts, render: Renderer) -> None:
    off = Renderer(render.source, {**render.variables, 'enable_thinking': False}, parts=render.parts)
    block = ''
    for prompt in (off.attempt([user('one')], generation_prompt=True), facts.generation_prompt):
        if prompt and (match := _EMPTY_THINK.search(prompt)):
            block = match.group()
        elif prompt and (match := _OPEN_THINK.search(prompt)):
            block = f'<{match[1]}>\n\n</{match[1]}>\n\n'
        if block:
            break
    if not block:
        return
    bare = render.attempt([user('one'), assistant('one')])
    given = render.attempt([user('one'), {'role': 'assistant', 'content': f'{block}answer one'}])
    if bare and given and block + 'answer one' in given and block.split('>')[0] not in bare:
        facts.empty_think = block
