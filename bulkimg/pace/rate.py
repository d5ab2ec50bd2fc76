"""This file caps requests a second with asyncio-throttle, used so that none of its traps bites.

Bare, it lets a whole second's budget go at once, polls once per waiter and serves waiters in no order. Small windows and
one waiter at a time cure all three; the figures are in research/ecosystem.md §3.1 (100 % of the rate reached, the cap
never passed in any second, 1–8 % of a core for 1 to 10,000 requests/s).
"""

import asyncio
import math

from asyncio_throttle.throttler import Throttler

# Windows a second. Few, because each costs up to one poll of the throttler; enough that no 0.1 s carries more than 0.15 of
# a second's budget.
FEWEST, MOST = 20, 60

# Requests reach the server a little earlier or later than they leave us. Windows 1.5 % longer than they need be let the
# server's own count of any second stay within the cap when they bunch by up to 15 ms.
STRETCH = 1.015

UNLIMITED = 500.0  # what a share of an unlimited rate is a share of, requests a second


def windows(per_second: float) -> tuple[int, float]:
    """(requests a window, seconds a window): no second holds more whole windows than fill the cap.

    A second holds at most `n` windows of 1/n s. So the budget has to divide well: of the possible n, the one that loses
    least by rounding down is taken. Below FEWEST requests a second each has a window of its own.
    """
    if per_second < FEWEST:
        return 1, STRETCH / per_second
    count = max(range(FEWEST, MOST + 1), key=lambda n: (math.floor(per_second / n) * n, -n))
    return math.floor(per_second / count), STRETCH / count


class Rate:
    """At most `per_second` admissions in any second, evenly, first come first served; `inf` admits at once."""

    def __init__(self, per_second: float) -> None:
        self._throttler = Throttler(rate_limit=1)
        self._turn = asyncio.Lock()
        self._share = 1.0
        self.per_second = per_second
        self.set(per_second)

    def set(self, per_second: float) -> None:
        """Change the rate; those already waiting go on under the new one."""
        self.per_second = per_second
        self._apply()

    def slow_down(self, share: float) -> None:
        """Keep to a share of the rate, 1 being all of it."""
        if share != self._share:
            self._share = share
            self._apply()

    @property
    def _present(self) -> float:
        if self._share == 1:
            return self.per_second
        return self._share * (UNLIMITED if math.isinf(self.per_second) else self.per_second)

    def _apply(self) -> None:
        present = self._present
        if math.isinf(present):
            return
        self._throttler.rate_limit, self._throttler.period = windows(present)
        # Not less than 1 ms: uvloop rounds a shorter sleep down to none, and the poll becomes a busy loop.
        self._throttler.retry_interval = max(0.001, min(0.005, self._throttler.period / 50))

    async def admit(self) -> None:
        """Return when one more request may go out. Cancelling a waiter takes nothing from the budget."""
        if math.isinf(self._present):
            return
        async with self._turn:
            if not math.isinf(self._present):
                await self._throttler.acquire()
