"""Monte Carlo tree search over the steps of an answer (UCT, Kocsis & Szepesvári 2006). It knows no model: `grow` and `judge` do.

    search = TreeSearch(grow, judge, exploration=0.5, iterations=64, depth=16)
    ends = search.run()           # finished answers with their scores, best first

One descent: from the root to a node that was not grown, always to the child with the largest mean + c·√(ln N / n); grow it; value
each child (`judge`); add the value to every node on the way. A node below which everything is finished is grown again, since a model
says other things another time; it is closed once that brings nothing new.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

State = TypeVar('State')
"""What the caller keeps for a beginning of an answer."""


@dataclass(eq=False)
class Node(Generic[State]):
    """A beginning of an answer. `finished`: it is a whole answer."""

    state: State
    finished: bool = False
    depth: int = 0
    visits: int = 0
    total: float = 0.0
    """Sum of the values that descents through it came to."""
    score: float = 0.0
    """Of a finished answer: what it is worth."""
    children: list[Node[State]] = field(default_factory=list)
    barren: bool = False
    """Grown the last time, it brought nothing new."""
    closed: bool = False
    """Nothing is left to find below it."""

    @property
    def mean(self) -> float:
        """Mean value."""
        return self.total / self.visits if self.visits else 0.0


Grow = Callable[[State], Sequence[tuple[State, bool]]]
"""A beginning → distinct longer ones by a step, each with whether it is finished."""
Judge = Callable[[Sequence[tuple[State, bool]]], Sequence[float]]
"""Beginnings (and whether each is finished) → what each is worth, from 0 to 1 if it can be."""


class TreeSearch(Generic[State]):
    """A search from one prompt. `enough` is asked after every descent whether to stop; None: all iterations are used."""

    def __init__(
        self, root: State, grow: Grow, judge: Judge, *, exploration: float = 0.5, iterations: int = 64, depth: int = 16,
        enough: Callable[[], bool] | None = None,
    ):
        self.root: Node[State] = Node(root)
        self._grow, self._judge = grow, judge
        self._exploration, self._iterations, self._depth, self._enough = exploration, iterations, depth, enough
        self.iterations = 0
        """Descents made."""

    def run(self) -> list[Node[State]]:
        """The finished answers that were found, best first (of equal ones the most visited)."""
        while self.iterations < self._iterations and not self.root.closed:
            self.iterations += 1
            path = self._descend()
            values = self._extend(path[-1])
            self._back(path, values)
            if self._enough is not None and self._enough():
                break
        return sorted(self._ends(self.root), key=lambda node: (-node.score, -node.visits))

    def _descend(self) -> list[Node[State]]:
        node = self.root
        path = [node]
        while open_ := [child for child in node.children if not child.closed]:
            node = max(open_, key=lambda child, parent=node: self._uct(parent, child))
            path.append(node)
        return path

    def _uct(self, parent: Node[State], child: Node[State]) -> float:
        if child.visits == 0:
            return math.inf
        return child.mean + self._exploration * math.sqrt(math.log(max(parent.visits, 1)) / child.visits)

    def _extend(self, node: Node[State]) -> list[float]:
        """Give a node children that it has not yet, each visited once, and say what they are worth."""
        known = [child.state for child in node.children]
        grown = [step for step in self._grow(node.state) if step[0] not in known] if node.depth < self._depth else []
        children = [Node(state, finished, node.depth + 1) for state, finished in grown]
        node.children += children
        node.barren = not children
        values = list(self._judge(grown)) if grown else []
        for child, value in zip(children, values, strict=True):
            child.visits, child.total = 1, value
            child.score = value if child.finished else 0.0
            child.closed = child.finished
        return values

    def _back(self, path: list[Node[State]], values: list[float]) -> None:
        for node in path:
            node.visits += len(values)
            node.total += sum(values)
        for node in reversed(path):
            node.closed = node.barren and all(child.closed for child in node.children)
            if not node.closed:
                break

    def _ends(self, node: Node[State]) -> list[Node[State]]:
        return [node] if node.finished else [end for child in node.children for end in self._ends(child)]
