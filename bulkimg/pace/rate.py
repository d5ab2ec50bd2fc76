"""This file caps requests a second with asyncio-throttle, used so that none of its traps bites.

Bare, it lets a whole second's budget go at once, polls once per waiter and serves waiters in no order. Small windows and
one waiter at a time cure all three; the figures are in research/ecosystem.md §3.1 (100 % of the rate reached, the cap
never passed in any second, 1–8 % of a core for 1 to 10,000 requests/s).
"""

import asyncio
import math

from asyncio_throttle.throttler import Throttler

WINDOW = 0.05  # seconds: short enough that no 0.1 s carries more than 0.15 of a second's budget

# Requests reach the server a little earlier or later than they leave us. Keeping 1 % below the cap lets the server's own
# count of any second stay within it when they bunch by up to 10 ms.
MARGIN = 0.99


class Rate:
    """At most `per_second` admissions in any second, evenly, first come first served; `inf` admits at once."""

    def __init__(self, per_second: float) -> None:
        self._throttler = Throttler(rate_limit=1)
        self._turn = asyncio.Lock()
        self.per_second = per_second
        self.set(per_second)

    def set(self, per_second: float) -> None:
        """Change the rate; those already waiting go on under the new one."""
        self.per_second = per_second
        if math.isinf(per_second):
            return
        paced = per_second * MARGIN
        burst = max(1, math.floor(paced * WINDOW))
        self._throttler.rate_limit = burst
        self._throttler.period = burst / paced
        self._throttler.retry_interval = min(0.001 if paced >= 20 else 0.005, self._throttler.period / 10)

    async def admit(self) -> None:
        """Return when one more request may go out. Cancelling a waiter takes nothing from the budget."""
        if math.isinf(self.per_second):
            return
        async with self._turn:
            if not math.isinf(self.per_second):
                await self._throttler.acquire()
