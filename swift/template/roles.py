"""What the outputs of a processor are to a batch: one entry a token, one a medium, or one row of media a row of text.

Found out by trying: an output that grows with the text is aligned with the tokens; one whose first dimension counts the rows of
a batch, and the second their media, is nested.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Probe = Callable[[str], tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]


class Roles:
    """`kinds` are those that the processor takes; `probe(kind)` gives the outputs for a short text, a longer one, and two rows with one and two media of that kind."""

    def __init__(self, probe: Probe, kinds: Iterable[str]):
        self._probe = probe
        self._kinds = tuple(kinds)
        self._found: dict[str, str] = {}
        self._tried: set[str] = set()

    def of(self, name: str, kinds: Iterable[str]) -> str:
        """`aligned`, `listed` or `nested`, for an output that was made of media of these kinds.

        An output that several kinds have in common has one role: pictures nest if those of any kind do.
        """
        for kind in [*sorted(kinds), *self._kinds]:
            if kind not in self._tried:
                self._tried.add(kind)
                self._learn(*self._probe(kind))
        return self._found.get(name, 'listed')

    def _learn(self, short: dict[str, Any], longer: dict[str, Any], rows: dict[str, Any]) -> None:
        grown = len(longer['input_ids'][0]) - len(short['input_ids'][0])
        for name, value in short.items():
            other = longer.get(name)
            if self._found.get(name, 'listed') != 'listed' or not hasattr(value, 'shape') or not hasattr(other, 'shape'):
                continue
            if value.ndim > 1 and len(value) == 1 and other.shape[1] - value.shape[1] == grown and grown:
                self._found[name] = 'aligned'
            else:
                both = rows.get(name)
                by_row = hasattr(both, 'shape') and both.ndim > 1 and len(both) == 2 and len(value) == 1
                self._found[name] = 'nested' if by_row else 'listed'
