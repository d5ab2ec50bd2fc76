"""Limit retries to a tenth of the requests, to protect a failing server (SRE book, "Handling Overload")."""

from collections.abc import Callable

SHARE = 0.1  # retries earned by each request
BANK = 10.0  # retries that may be sent at once
FEWEST = 0.5  # retries a second when only retries are left, at least; otherwise a tenth of the rate, at most MOST
MOST = 10.0


class RetryBudget:
    """Earn a tenth of a retry with every request.

    `rate` returns the run's present cap in requests a second, `requests` the number of requests so far. When only
    retries are left, no request earns any more. They are then sent at a tenth of the rate, so that the run ends.
    """

    def __init__(self, clock: Callable[[], float], rate: Callable[[], float], requests: Callable[[], int]) -> None:
        self._clock = clock
        self._rate = rate
        self._requests = requests
        self._counted = 0  # requests that have earned their share
        self._left = BANK
        self._last = -1e9

    def take(self, *, nothing_else: bool) -> bool:
        """Take one retry from the budget if one may go out now. Returns whether it may."""
        requests = self._requests()
        self._left = min(BANK, self._left + SHARE * max(0, requests - self._counted))
        self._counted = requests
        if self._left >= 1:
            self._left -= 1
        elif not nothing_else or self.wait() > 0:
            return False
        self._last = self._clock()
        return True

    def wait(self) -> float:
        """Return the seconds until a retry may go out although the budget is spent."""
        return max(0.0, self._last + 1 / max(FEWEST, min(MOST, SHARE * self._rate())) - self._clock())
