"""Keys and values of what was read before, so that prompts that begin alike are read once.

A tree of token runs for each adapter: a node holds the keys and values of its run, children go on from there. What
was used longest ago goes first when there are too many tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

LEAST = 16
"""Shorter beginnings are computed again: fetching them costs as much."""

Layers = dict[int, tuple[Tensor, Tensor]]
"""Layer → keys and values [heads, tokens, size]."""


class _Node:
    """A run of tokens behind those of its parent."""

    __slots__ = ('tokens', 'layers', 'children', 'used')

    def __init__(self, tokens: list[int], layers: Layers, used: int):
        self.tokens, self.layers, self.used = tokens, layers, used
        self.children: dict[int, _Node] = {}

    def cut(self, start: int, end: int) -> Layers:
        """Keys and values of a part of the run."""
        return {layer: (keys[:, start:end], values[:, start:end]) for layer, (keys, values) in self.layers.items()}

    def split(self, length: int) -> None:
        """Keep the first `length` tokens; the others, with all that follows, become the only child."""
        rest = _Node(self.tokens[length:], _owned(self.cut(length, len(self.tokens))), self.used)
        rest.children, self.children = self.children, {rest.tokens[0]: rest}
        self.tokens, self.layers = self.tokens[:length], _owned(self.cut(0, length))


class Prefixes:
    """At most `budget` tokens of keys and values (0: nothing is kept). Used by one thread at a time.

    `reused` counts the tokens that did not have to be read, over its whole life; who reads adds to it.
    """

    def __init__(self, budget: int, least: int = LEAST):
        self.budget, self.reused, self.tokens = budget, 0, 0
        self._least, self._clock = least, 0
        self._roots: dict[Any, _Node] = {}

    def clear(self) -> None:
        """Forget everything."""
        self._roots, self.tokens = {}, 0

    def find(self, owner: Any, tokens: Sequence[int]) -> tuple[int, list[tuple[int, Layers]]]:
        """How many of these tokens are known from their start on, and their pieces, each with the place of its first."""
        self._clock += 1
        place, pieces = 0, []
        for node, length in self._along(owner, tokens):
            node.used = self._clock
            pieces.append((place, node.cut(0, length)))
            place += length
        if place < self._least:
            return 0, []
        return place, pieces

    def add(self, owner: Any, tokens: list[int], cache: Any, slot: int) -> None:
        """Remember `tokens`, which fill a slot of the cache from its start; what is known already isn't copied."""
        tokens = tokens[: self.budget * 3 // 4]
        if not tokens:
            return
        self._clock += 1
        place, last = 0, self._roots.setdefault(owner, _Node([], {}, 0))
        for node, length in self._along(owner, tokens):
            node.used = self._clock
            place += length
            if length < len(node.tokens) and place < len(tokens):
                node.split(length)
            last = node
        if place < len(tokens):
            last.children[tokens[place]] = _Node(tokens[place:], cache.read(slot, place, len(tokens)), self._clock)
            self.tokens += len(tokens) - place
            if self.tokens > self.budget:
                self._shrink()

    def _along(self, owner: Any, tokens: Sequence[int]) -> Iterator[tuple[_Node, int]]:
        """The nodes that begin as the tokens go on, with the length of what they share."""
        node, place = self._roots.get(owner), 0
        while node is not None and place < len(tokens) and (child := node.children.get(tokens[place])) is not None:
            length = _shared(child.tokens, tokens, place)
            whole = length == len(child.tokens)  # asked before the caller may split it
            yield child, length
            node, place = child if whole else None, place + length

    def _shrink(self) -> None:
        """Drop ends of the tree, oldest first, until an eighth of the budget is free."""
        wanted = self.budget * 7 // 8
        while self.tokens > wanted:
            ends = sorted(_ends(self._roots.values()), key=lambda end: end[1].used)
            for parent, node in ends:
                if self.tokens <= wanted:
                    break
                del parent.children[node.tokens[0]]
                self.tokens -= len(node.tokens)


def _ends(roots: Any) -> Iterator[tuple[_Node, _Node]]:
    """Nodes without children, each with its parent."""
    todo = list(roots)
    while todo:
        parent = todo.pop()
        for node in parent.children.values():
            if node.children:
                todo.append(node)
            else:
                yield parent, node


def _shared(run: Sequence[int], tokens: Sequence[int], place: int) -> int:
    """How many tokens of the run `tokens` repeats from `place` on."""
    there = tokens[place : place + len(run)]
    if there == run:
        return len(run)
    return next((i for i, (a, b) in enumerate(zip(run, there, strict=False)) if a != b), min(len(run), len(there)))


def _owned(layers: Layers) -> Layers:
    """Copies, so that nothing else is kept in memory by them."""
    return {layer: (keys.clone(), values.clone()) for layer, (keys, values) in layers.items()}
