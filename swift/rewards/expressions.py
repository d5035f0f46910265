"""Exact worth of a small expression in plain or LaTeX letters: sums, products, quotients, powers, roots, letters.

A value is a sum of terms: a product of symbols with whole exponents → its rational factor. `√n` is a symbol like a letter, with
√n·√n = n, so 2/√2 = √2 and (x+1)² = x²+2x+1. What can't be read that way (or would grow beyond reason) raises Unreadable.
"""

from __future__ import annotations

import re
from fractions import Fraction
from math import isqrt

_LARGEST_POWER = 64
_MOST_DIGITS = 400
_MOST_TERMS = 64
_LONGEST = 400
_TOKEN = re.compile(r'\s*(?:(\d+(?:\.\d*)?(?:[eE][-+]?\d{1,3}(?![\w]))?|\.\d+)|(\\?[A-Za-zα-ωπ]+)|(\*\*|[-+*/^(){}√]))')
_WORDS = {'\\cdot': '*', '\\times': '*', '\\div': '/', '\\pi': 'π', 'pi': 'π', '\\sqrt': 'sqrt', 'sqrt': 'sqrt', '√': 'sqrt'}
_DROPPED = re.compile(r'\\(?:left|right|displaystyle|!|,|;|:| )|[$£€¥]|~')

Monomial = tuple[tuple[str, int], ...]


class Unreadable(ValueError):
    """The text is no expression of the kind that is understood."""


class Value:
    """An exact value. Equal values are equal objects, and hash alike."""

    def __init__(self, terms: dict[Monomial, Fraction]):
        self.terms = {name: factor for name, factor in terms.items() if factor}
        sizes = [max(abs(f.numerator), f.denominator).bit_length() for f in self.terms.values()]
        if len(self.terms) > _MOST_TERMS or max(sizes, default=0) > 4 * _MOST_DIGITS:
            raise Unreadable('too large')

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Value) and self.terms == other.terms

    def __hash__(self) -> int:
        return hash(frozenset(self.terms.items()))

    @property
    def rational(self) -> Fraction | None:
        """The number it is; None: it holds symbols."""
        if not self.terms:
            return Fraction(0)
        return self.terms.get(()) if set(self.terms) == {()} else None

    def plus(self, other: Value, sign: int = 1) -> Value:
        """The sum (sign -1: the difference)."""
        terms = dict(self.terms)
        for name, factor in other.terms.items():
            terms[name] = terms.get(name, Fraction(0)) + sign * factor
        return Value(terms)

    def times(self, other: Value) -> Value:
        """The product."""
        if len(self.terms) * len(other.terms) > _MOST_TERMS**2:
            raise Unreadable('too large')
        terms: dict[Monomial, Fraction] = {}
        for left, a in self.terms.items():
            for right, b in other.terms.items():
                name, factor = _joined(left, right)
                terms[name] = terms.get(name, Fraction(0)) + a * b * factor
        return Value(terms)

    def divided(self, other: Value) -> Value:
        """The quotient by a single term, or by something equal up to a factor."""
        if len(other.terms) == 1:
            ((name, factor),) = other.terms.items()
            inverse, outside = _joined(tuple((symbol, -exponent) for symbol, exponent in name), ())
            return self.times(Value({inverse: outside / factor}))
        if other.terms and self.terms.keys() == other.terms.keys():
            ratios = {self.terms[name] / other.terms[name] for name in self.terms}
            if len(ratios) == 1:
                return Value({(): ratios.pop()})
        raise Unreadable('division by zero or by a sum')

    def power(self, exponent: Value) -> Value:
        """Whole powers, and square roots as the power 1/2."""
        number = exponent.rational
        if number == Fraction(1, 2):
            return _root(self)
        if number is None or number.denominator != 1 or abs(number) > _LARGEST_POWER:
            raise Unreadable('power')
        result = Value({(): Fraction(1)})
        for _ in range(abs(int(number))):
            result = result.times(self)
        return result if number >= 0 else Value({(): Fraction(1)}).divided(result)


def _joined(left: Monomial, right: Monomial) -> tuple[Monomial, Fraction]:
    """The product of two products of symbols, and the rational factor that comes out of roots."""
    powers: dict[str, int] = {}
    for symbol, exponent in (*left, *right):
        powers[symbol] = powers.get(symbol, 0) + exponent
    factor, radicand = Fraction(1), 1
    for symbol in [symbol for symbol in powers if symbol.startswith('√')]:
        exponent, under = powers.pop(symbol), int(symbol[1:])
        factor *= Fraction(under) ** (exponent // 2)
        radicand *= under if exponent % 2 else 1
    outside, inside = _split_root(radicand)
    if inside != 1:
        powers[f'√{inside}'] = 1
    return tuple(sorted((symbol, exponent) for symbol, exponent in powers.items() if exponent)), factor * outside


def _split_root(number: int) -> tuple[int, int]:
    """√number = outside · √inside."""
    if number > 10**12:
        root = isqrt(number)
        if root * root == number:
            return root, 1
        raise Unreadable('root')
    outside, inside, divisor = 1, number, 2
    while divisor * divisor <= inside and divisor < 10**4:
        while inside % (divisor * divisor) == 0:
            inside //= divisor * divisor
            outside *= divisor
        divisor += 1
    root = isqrt(inside)
    return (outside * root, 1) if root * root == inside else (outside, inside)


def _root(value: Value) -> Value:
    number = value.rational
    if number is None or number < 0:
        raise Unreadable('root')
    name, factor = _joined(((f'√{number.numerator * number.denominator}', 1),), ()) if number else ((), Fraction(0))
    return Value({name: factor / number.denominator})


def value_of(text: str) -> Value:
    """The value of a text. Raises Unreadable."""
    if len(text) > _LONGEST:
        raise Unreadable('too long')
    text = _DROPPED.sub(' ', text).replace('−', '-').replace('×', '*').replace('÷', '/').replace('·', '*')
    text = re.sub(r'\\[dt]frac', r'\\frac', text)
    text = re.sub(r'(?<=\d),(?=\d{3}(?:\D|$))', '', text)
    text = re.sub(r'\\frac\s*(\d)\s*(\d)', r'\\frac{\1}{\2}', text)
    text = re.sub(r'(?<![\d.])(\d+)\s+(\d+)\s*/\s*(\d+)', r'(\1+\2/\3)', text)  # 1 1/2
    text = re.sub(r'(?<![\d.])(\d+)\s*\\frac\{(\d+)\}\{(\d+)\}', r'(\1+\2/\3)', text)
    return _Parser(text).whole()


class _Parser:
    """Recursive descent over `expr = term (± term)*`, `term = factor (·/ or nothing, factor)*`, `factor = ±atom ^ factor`."""

    def __init__(self, text: str):
        self._tokens: list[str] = []
        place = 0
        while place < len(text) and text[place:].strip():
            found = _TOKEN.match(text, place)
            if not found:
                raise Unreadable(text)
            token = found[1] or found[2] or found[3]
            self._tokens.append(_WORDS.get(token, '^' if token == '**' else token))
            place = found.end()
        self._at = 0
        self._depth = 0

    def whole(self) -> Value:
        value = self._sum()
        if self._at != len(self._tokens):
            raise Unreadable(self._tokens[self._at])
        return value

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ''

    def _next(self) -> str:
        token = self._peek()
        self._at += 1
        return token

    def _sum(self) -> Value:
        value = self._product()
        while self._peek() in ('+', '-'):
            sign = 1 if self._next() == '+' else -1
            value = value.plus(self._product(), sign)
        return value

    def _product(self) -> Value:
        value = self._signed()
        while (token := self._peek()) and token not in '+-)}':
            if token in ('*', '/'):
                self._next()
                value = value.times(self._signed()) if token == '*' else value.divided(self._signed())
            else:  # side by side: 2x, 3(x+1)
                value = value.times(self._powered())
        return value

    def _signed(self) -> Value:
        if self._peek() in ('+', '-'):
            sign = -1 if self._next() == '-' else 1
            return self._signed().times(Value({(): Fraction(sign)}))
        return self._powered()

    def _powered(self) -> Value:
        value = self._atom()
        if self._peek() == '^':
            self._next()
            value = value.power(self._signed())
        return value

    def _atom(self) -> Value:
        self._depth += 1
        if self._depth > _LARGEST_POWER:
            raise Unreadable('too deep')
        token = self._next()
        try:
            if token in ('(', '{'):
                return self._closed({'(': ')', '{': '}'}[token])
            if token == '\\frac':
                return self._atom().divided(self._atom())
            if token == 'sqrt':
                return _root(self._atom())
            if token[:1].isdigit() or token[:1] == '.':
                return _number(token)
            if token and token[0].isalpha() and len(token) <= 2:
                letters = Value({(): Fraction(1)})
                for letter in token:
                    letters = letters.times(Value({((letter, 1),): Fraction(1)}))
                return letters
            raise Unreadable(token or 'the end')
        finally:
            self._depth -= 1

    def _closed(self, end: str) -> Value:
        value = self._sum()
        if self._next() != end:
            raise Unreadable(f'no {end}')
        return value


def _number(token: str) -> Value:
    digits, _, exponent = token.lower().partition('e')
    if len(digits) > _MOST_DIGITS or (exponent and abs(int(exponent)) > _MOST_DIGITS):
        raise Unreadable('too many digits')
    return Value({(): Fraction(token if token[-1] != '.' else token[:-1])})
