"""Decide when the errors are too many (`--max-errors`). Pure."""

from collections import deque

from bulkimg.values import Limit

WINDOW = 1000  # finished rows that a share of errors is taken over


class ErrorWatch:
    """Counts finished rows and errors against the limit of `--max-errors`."""

    def __init__(self, limit: Limit, errors: int = 0) -> None:
        """`errors`: those there are already."""
        self._limit = limit
        self._last: deque[bool] = deque(maxlen=WINDOW)
        self._recent = 0
        self.errors = errors

    def note(self, *, error: bool) -> str:
        """Count one more finished row. Return why the run must stop, or an empty string."""
        if len(self._last) == WINDOW:
            self._recent -= self._last[0]
        self._last.append(error)
        self._recent += error
        self.errors += error
        if self._limit.count is not None and self.errors > self._limit.count:
            return f"{self.errors} {'row' if self.errors == 1 else 'rows'} failed, but --max-errors allows {self._limit.count}"
        if self._limit.share is not None and len(self._last) >= self._limit.sample:
            share = self._recent / len(self._last)
            if share > self._limit.share:
                return f"{share:.0%} of the last {len(self._last)} rows failed, but --max-errors allows {self._limit}"
        return ""
