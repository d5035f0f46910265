"""What happens to rows that can't be used: counted, the first three shown, skipped; too many stop the run.

One `BadRows` is shared by everything that reads or encodes the rows of one run.
"""

from __future__ import annotations

from swift.core.errors import DatasetError, RowError, RowTooLong
from swift.core.log import get_logger

LIMIT = 0.10
"""Share of bad rows above which a run stops."""
SHOWN = 3
"""How many bad rows are printed one by one."""
_EARLY = 200
"""While reading goes on, the share is judged only once this many rows were seen."""


class SkipRow(RowError):
    """A row that a preprocessor leaves out on purpose (it returned None). Counted, but not as bad."""

    def __reduce__(self):
        return SkipRow, (self.reason, self.source, self.hint)


class BadRows:
    """The policy for bad rows. `strict`: the first one stops the run; else more than `limit` of all rows do.

    `add` a RowError for each bad row, `good(n)` for usable ones, `finish()` when all rows were seen. Rows that are only
    longer than --max_length (with --truncation_strategy delete) are left out as asked: counted, but not as bad.
    """

    def __init__(self, *, strict: bool = False, limit: float = LIMIT, shown: int = SHOWN):
        self.strict, self.limit, self.shown = strict, limit, shown
        self.bad_count = self.good_count = self.skipped_count = self.long_count = 0
        self.first: list[str] = []

    def add(self, error: RowError) -> None:
        """Count a bad row. Raises the error itself when strict, DatasetError once clearly too many are bad."""
        if isinstance(error, SkipRow):
            self.skipped_count += 1
            return
        if isinstance(error, RowTooLong):
            self.long_count += 1
            return
        if self.strict:
            raise error
        self.bad_count += 1
        if len(self.first) < self.shown:
            self.first.append(str(error))
            get_logger().warning('bad row skipped: %s', error)
        if self.bad_count + self.good_count >= _EARLY and self.bad_count > self.limit * max(self.total, 10 * _EARLY):
            self._stop()

    def good(self, count: int = 1) -> None:
        """Count usable rows."""
        self.good_count += count

    @property
    def total(self) -> int:
        """Rows judged so far."""
        return self.bad_count + self.good_count

    def check(self) -> None:
        """Stop if too many (or all) of the rows judged so far are bad. Raises DatasetError."""
        if self.bad_count > self.limit * self.total or (self.total and not self.good_count):
            self._stop()

    def finish(self) -> None:
        """All rows were seen: stop if too many (or all) are bad, else say in one line how many were skipped."""
        self.check()
        if self.bad_count > len(self.first):
            get_logger().warning('%d of %d rows are bad and were skipped (--strict true stops at the first)',
                                 self.bad_count, self.total)  # fmt: skip
        if self.skipped_count:
            get_logger().info('%d rows were left out by their preprocessor', self.skipped_count)
        self._say_long(self.long_count, self.total)

    def merge(self, bad: int, good: int, skipped: int, long: int, first: list[str], shown: bool = False) -> None:
        """Add the counts of rows that were judged before (tokens read back from the cache); say so unless they
        were `shown`."""
        if bad and self.strict:
            raise RowError(first[0] if first else f'{bad} bad rows')
        if bad and not shown:
            get_logger().warning('%d of %d rows are bad and were skipped; the first: %s', bad, bad + good, ' | '.join(first))
        if not shown:
            self._say_long(long, bad + good)
        self.bad_count, self.good_count = self.bad_count + bad, self.good_count + good
        self.skipped_count, self.long_count = self.skipped_count + skipped, self.long_count + long
        self.first += first[: max(0, self.shown - len(self.first))]

    @staticmethod
    def _say_long(count: int, others: int) -> None:
        if count:
            get_logger().warning('%d of %d rows are longer than --max_length and are left out; --truncation_strategy right or left '
                                 'keeps a part of each', count, count + others)  # fmt: skip

    def _stop(self) -> None:
        raise DatasetError(
            f'{self.bad_count} of {self.total} rows are bad, more than {self.limit:.0%}; the first: '
            + ' | '.join(self.first or ['-']) + ';',
            'mend the rows or map their columns with --columns',
        )  # fmt: skip
