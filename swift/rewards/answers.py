"""What a text gives as its answer, and whether two answers are the same: by their letters, or by what they are worth."""

from __future__ import annotations

import re
import unicodedata

from swift.rewards.expressions import Unreadable, value_of

_THINK = re.compile(r'<think>.*?(?:</think>|\Z)|\A.*?</think>', re.S)
_TAG = re.compile(r'<answer>(.*?)</answer>', re.S | re.I)
_HASHES = re.compile(r'####[ \t]*(.+)')
_WORDS = re.compile(
    r'(?:(?:final |correct |right )?answer(?: is|:| =)|答案(?:是|为|：|:))[ \t]*:?[ \t]*(.+?)(?=$|\n|(?<!\d)[.。!！](?:\s|$)|(?<=\d)[.。!！](?:\s|$))', re.I
)
_NUMBER = re.compile(r'(?<![\w.])[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?(?![\w])%?|(?<![\w.])[-+−]?\.\d+')
_UNITS = re.compile(r'\\(?:text|mathrm|textbf|mbox)\{[^{}]*\}|\\(?:degree|circ)\b|\^\s*\{?\\circ\}?|°')
_OPEN, _CLOSE = '([{', ')]}'


def final_answer(text: str, *, number: bool = False) -> tuple[str, bool]:
    """(the answer that a text comes to, whether it was marked as such).

    Marks, strongest first: the last `\\boxed{…}`, `<answer>…</answer>`, `#### …`, “the answer is …” (答案是…). Thoughts in
    `<think>` are no answer. Without a mark the last number of the text with `number`, else all of it.
    """
    said = _THINK.sub('', text).strip()
    if (boxed := _boxed(said)) is not None:
        return boxed.strip(), True
    for mark in (_TAG, _HASHES, _WORDS):
        if found := mark.findall(said):
            return found[-1].strip(), True
    if number and (numbers := _NUMBER.findall(said)):
        return numbers[-1], False
    return said, False


def _boxed(text: str) -> str | None:
    """What the last \\boxed{…} holds, braces counted; None: there is none that ends."""
    start = max(text.rfind('\\boxed{'), text.rfind('\\fbox{'))
    if start < 0:
        return None
    first = text.index('{', start) + 1
    depth = 1
    for place in range(first, len(text)):
        depth += {'{': 1, '}': -1}.get(text[place], 0)
        if depth == 0:
            return text[first:place]
    return None


def normalised(text: str) -> str:
    """Letters and digits as they count: widths, case, blanks, outer quotes and closing marks don't."""
    text = unicodedata.normalize('NFKC', text).casefold().replace('−', '-')
    text = re.sub(r'\s+', ' ', text).strip()
    text = re.sub(r'^[\s"\'`“”‘’*$]+|[\s"\'`“”‘’*$]+$', '', text)
    return re.sub(r'(?<=\w)[.。!！]+$', '', re.sub(r'\b(?:the|an?) (?=\w)', '', text)).strip()


def same_answer(said: str, reference: str) -> bool:
    """Whether two answers are the same text, or worth the same: 0.5 = 1/2 = \\frac{1}{2} = 50%, 1,000 = 1000, x+1 = 1+x, (1, 2) part by part."""
    if normalised(said) == normalised(reference):
        return True
    mine, other = _parts(said), _parts(reference)
    if mine is None or other is None:
        return False
    if mine[0] == other[0] == '{}':  # a set has no order
        left = list(other[1])
        return len(mine[1]) == len(left) and all(_take(left, part) for part in mine[1])
    return mine[0] == other[0] and len(mine[1]) == len(other[1]) and all(map(_equal, mine[1], other[1]))


def _take(parts: list[str], wanted: str) -> bool:
    """Take the part that equals `wanted` out of the list."""
    for index, part in enumerate(parts):
        if _equal(wanted, part):
            del parts[index]
            return True
    return False


def _equal(one: str, two: str) -> bool:
    if normalised(one) == normalised(two):
        return True
    try:
        mine, other = _values(one), _values(two)
    except Unreadable:
        return False
    return not mine.isdisjoint(other)


def _values(text: str) -> set:
    """What a text is worth; with a percent sign either the number or a hundredth of it, since both are meant by it."""
    text = text.strip().rstrip('.。')
    plain = text.replace('\\%', '%')
    if plain.endswith('%'):
        value = value_of(plain[:-1])
        return {value, value.divided(value_of('100'))}
    name, equals, right = text.rpartition('=')
    if equals and re.fullmatch(r'\s*\\?[A-Za-z](?:_\{?\w+\}?)?(?:\([a-z]\))?\s*', name):  # x = 5
        text = right
    return {value_of(text)}


def _parts(text: str) -> tuple[str, list[str]] | None:
    """(its brackets, its parts) of a tuple, interval or set; ('', [text]) of anything else. None: nothing in it."""
    text = unicodedata.normalize('NFKC', text).strip().strip('$').strip()
    text = re.sub(r'\\(?:left|right|!|,|;|:| )', '', text).replace('\\{', '{').replace('\\}', '}')
    text = _UNITS.sub('', text).strip()
    if not text:
        return None
    inner, brackets = text, ''
    if text[0] in _OPEN and text[-1] in _CLOSE and _closes_last(text):
        inner, brackets = text[1:-1], text[0] + text[-1]
    parts = _cut(re.sub(r'(?<=\d),(?=\d{3}(?:\D|$))', '', inner) if not brackets else inner)
    if len(parts) == 1:
        return ('{}', parts) if brackets == '{}' else ('', [text])
    return brackets, parts


def _closes_last(text: str) -> bool:
    """Whether the first bracket is closed by the last character."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter in _OPEN) - (letter in _CLOSE)
        if depth == 0:
            return place == len(text) - 1
    return False


def _cut(text: str) -> list[str]:
    """A text cut at the commas that stand in no bracket."""
    parts, depth, start = [], 0, 0
    for place, letter in enumerate(text):
        depth += (letter in _OPEN) - (letter in _CLOSE)
        if letter in ',;' and depth == 0:
            parts.append(text[start:place].strip())
            start = place + 1
    return [*parts, text[start:].strip()]
