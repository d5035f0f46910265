"""Figures of a server in the text format of Prometheus. Counted on the event loop only, so nothing is locked."""

from __future__ import annotations

import bisect
from collections.abc import Callable

PREFIX = 'swift_'
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Histogram:
    """Counts of values by upper bound."""

    def __init__(self, bounds: tuple[float, ...] = _SECONDS):
        self.bounds, self.counts, self.sum = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.sum += value

    def lines(self, name: str) -> list[str]:
        """Its samples."""
        found, total = [], 0
        for bound, count in zip((*self.bounds, '+Inf'), self.counts, strict=True):
            total += count
            found.append(f'{name}_bucket{{le="{bound}"}} {total}')
        return [*found, f'{name}_sum {self.sum:.6f}', f'{name}_count {total}']


class Metrics:
    """What a server has done since it started, and (`gauges`) what it does now."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, int], int] = {}
        """(path, status) → requests answered."""
        self.read = self.written = self.answers = self.cancelled = self.active = 0
        self.latency, self.first_token = Histogram(), Histogram()
        self.gauges: dict[str, tuple[str, Callable[[], float]]] = {
            'requests_active': ('Requests that are being answered.', lambda: self.active)
        }

    def request(self, path: str, status: int, seconds: float, *, timed: bool = True) -> None:
        """Count an answered request; its time only if it is one that asks for something."""
        self.requests[path, status] = self.requests.get((path, status), 0) + 1
        if timed:
            self.latency.add(seconds)

    def tokens(self, read: int, written: int, answers: int) -> None:
        """Count the tokens of a request that was answered."""
        self.read += read
        self.written += written
        self.answers += answers

    def text(self) -> str:
        """All figures."""
        lines = _head('requests_total', 'counter', 'Requests answered, by path and status.')
        lines += [f'{PREFIX}requests_total{{path="{p}",status="{s}"}} {n}' for (p, s), n in sorted(self.requests.items())]
        for name, text, value in (
            ('prompt_tokens_total', 'Tokens of prompts.', self.read),
            ('generation_tokens_total', 'Tokens of answers.', self.written),
            ('answers_total', 'Answers completed.', self.answers),
            ('cancelled_total', 'Requests whose client left before the end.', self.cancelled),
        ):
            lines += [*_head(name, 'counter', text), f'{PREFIX}{name} {value}']
        for name, (text, value) in self.gauges.items():
            lines += [*_head(name, 'gauge', text), f'{PREFIX}{name} {value()}']
        lines += _head('request_seconds', 'histogram', 'Time from the first byte of a request to the last of its answer.')
        lines += self.latency.lines(f'{PREFIX}request_seconds')
        lines += _head('first_token_seconds', 'histogram', 'Time to the first piece of a streamed answer.')
        lines += self.first_token.lines(f'{PREFIX}first_token_seconds')
        return '\n'.join(lines) + '\n'


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f'# HELP {PREFIX}{name} {text}', f'# TYPE {PREFIX}{name} {kind}']
