"""Cap the requests a second. Slots spread them evenly, and asyncio-throttle checks every second.

By itself, asyncio-throttle lets a whole second's requests go at once, polls once per waiter, and serves waiters in no
order (docs/dev/adr/0009-evenly-spaced-slots.md). Behind the slots it sees one waiter at a time and is the second check.
It holds a request that the slots let through after the process was stopped for a moment, or after the rate was lowered.

The third check is right before the first byte. It holds nothing that leaves in its turn, so that an answer's time is the
server's. It holds requests that have waited for their connections: those that a server accepts late are there all at
once.
"""

import asyncio
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from asyncio_throttle.throttler import Throttler

from bulkimg.pace.slots import OwnSlots, Slots

# Requests reach the server a little earlier or later than they leave this process. Slots are 1.7 % farther apart than
# the rate needs. This makes up for late slots that stay valid (CATCH_UP), and keeps the server's own count of any
# second within the cap.
STRETCH = 1.017
GUARD = 1.008  # seconds over which the throttler counts
FEWEST = 20  # requests a second; below this rate the throttler counts single requests
# From this rate on, the throttler allows a little less: bytes that leave in one turn of the event loop may arrive in
# another second.
MANY = 200
KEPT_BACK = 0.006
TENTH = 0.15  # share of a second's requests that may be sent within a tenth of it, and one more

UNLIMITED = 500.0  # requests a second that `slow_down` takes a share of when the rate is unlimited


class RateLimiter:
    """Admit at most `per_second` requests in any second, evenly spaced, first come first served.

    Call `admit` for the turn of a request, and `check` before its first byte. `inf` admits at once.
    """

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._own = OwnSlots()
        self._theirs: Slots | None = None  # shared with other processes
        self._parts = 1.0  # the rate of all of them together, as a multiple of this one's
        self._clock = clock
        self._throttler = Throttler(rate_limit=1)
        self._written = Throttler(rate_limit=1)
        self._written_in_a_tenth = Throttler(rate_limit=1, period=0.1)
        self._turn = asyncio.Lock()
        self._writing = asyncio.Lock()
        self._alarm: asyncio.Future[None] | None = None
        self._share = 1.0
        self.is_unlimited = False  # every request is admitted at once
        self.per_second = per_second
        self.set(per_second)

    def set(self, per_second: float) -> None:
        """Change the rate. Requests that wait follow the new rate."""
        self.per_second = per_second
        self._apply()

    def slow_down(self, share: float) -> None:
        """Use a share of the rate, from 0 to 1."""
        if share != self._share:
            self._share = share
            self._apply()

    @contextmanager
    def shared(self, slots: Slots, parts: float = 1.0) -> Iterator[None]:
        """Share these slots with other processes within the block. They are closed at its end.

        `parts`: this rate is one of so many equal parts, and all processes together may use the whole.
        """
        self._theirs, self._parts = slots, parts
        try:
            yield
        finally:
            self._theirs, self._parts = None, 1.0
            slots.close()

    @property
    def present(self) -> float:
        """Return the requests a second that are allowed now: after an outage less than `per_second`."""
        if self._share == 1:
            return self.per_second
        return self._share * (UNLIMITED if math.isinf(self.per_second) else self.per_second)

    def _apply(self) -> None:
        present = self.present
        self.is_unlimited = math.isinf(present)
        if self.is_unlimited:  # those that wait poll this
            for throttler in (self._throttler, self._written, self._written_in_a_tenth):
                throttler.rate_limit = sys.maxsize
        else:
            self._throttler.rate_limit, self._throttler.period = guard(present)
            whole = max(1, math.ceil(present - 1e-9))  # over a second or a little more: no second holds more
            self._written.rate_limit, self._written.period = whole, whole / present
            self._written_in_a_tenth.rate_limit = math.floor(TENTH * present) + 1
            # At least 1 ms: uvloop rounds a shorter sleep down to none, and the poll becomes a busy loop.
            pause = max(0.001, min(0.005, self._throttler.period / 50))
            for throttler in (self._throttler, self._written, self._written_in_a_tenth):
                throttler.retry_interval = pause
        if self._alarm:
            _ring(self._alarm)

    async def admit(self) -> None:
        """Return when it is one more request's turn. A cancelled waiter uses no slot."""
        if math.isinf(self.present):
            return
        async with self._turn:
            for slots, parts in ((self._own, 1.0), (self._theirs, self._parts)):
                while slots and not math.isinf(self.present):
                    seconds = slots.take(self._clock(), STRETCH / (self.present * parts))
                    if not seconds:
                        break
                    await self._sleep_or_change(seconds)
            if not math.isinf(self.present):
                await self._throttler.acquire()

    async def check(self, is_lost: Callable[[], bool] = lambda: False) -> None:
        """Return when a request whose turn it was may be sent: at once, unless the last second or tenth had enough.

        One that has lost its turn by the time that it is next holds up no other.
        """
        if math.isinf(self.present):
            return
        async with self._writing:
            if not is_lost():
                await self._written_in_a_tenth.acquire()
                await self._written.acquire()

    async def _sleep_or_change(self, seconds: float) -> None:
        """Sleep for so many seconds, or until the rate changes."""
        loop = asyncio.get_running_loop()
        self._alarm = alarm = loop.create_future()
        timer = loop.call_later(seconds, _ring, alarm)
        try:
            await alarm
        finally:
            timer.cancel()
            self._alarm = None


def guard(per_second: float) -> tuple[int, float]:
    """Return (requests, seconds) for the throttler.

    It allows a little less than one second's requests in a little more than a second.
    """
    if per_second < FEWEST:
        return 1, GUARD / per_second
    if per_second >= MANY:
        return math.floor(per_second * (1 - KEPT_BACK)), GUARD
    whole = math.floor(per_second)
    return whole, GUARD * whole / per_second


def _ring(alarm: "asyncio.Future[None]") -> None:
    if not alarm.done():
        alarm.set_result(None)
