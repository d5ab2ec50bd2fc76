"""This file is the one place where a run's speed is kept and changed: rate, concurrency, gate."""

import time
from collections.abc import Callable

from bulkimg.pace.gate import Gate
from bulkimg.pace.rate import Rate


class Pace:
    """`admit` before every request of any kind; `concurrency` bounds the rows in flight. Both can change at any time."""

    def __init__(self, rate: float, concurrency: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = Rate(rate)
        self.gate = Gate(clock)
        self._concurrency = concurrency
        self._on_change: Callable[[], None] = lambda: None

    async def admit(self) -> None:
        """Return when one more request may go out: the gate is open, and the rate allows it."""
        if self.gate.held:
            await self.gate.passed()
        await self.rate.admit()
        while self.gate.held:  # it closed while we waited for our turn
            await self.gate.passed()
            await self.rate.admit()

    @property
    def concurrency(self) -> int:
        """The most rows that may be in flight."""
        return self._concurrency

    def set_concurrency(self, limit: int) -> None:
        """Change it; rows in flight above a lower limit finish first."""
        self._concurrency = limit
        self._on_change()

    def on_concurrency_change(self, callback: Callable[[], None]) -> None:
        """Call back after each change, so that whoever starts rows can follow."""
        self._on_change = callback
