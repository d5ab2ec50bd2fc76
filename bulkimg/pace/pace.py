"""Keep and change a run's speed: rate, adaptive concurrency, circuit breaker, retry budget."""

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable

from bulkimg.pace.adaptive import AdaptiveConcurrency, InFlight, LoadSignal
from bulkimg.pace.breaker import MOST_HOLD, CircuitBreaker
from bulkimg.pace.budget import RetryBudget
from bulkimg.pace.health import SILENT, WELL, Health, State
from bulkimg.pace.rate import RateLimiter

NOBODY = -1  # the epoch of results that belong to no request
SLOWEST_START = 5.0  # requests a second; a lower rate needs no slow start
SLOW_START = 0.1  # share of the rate in the first second after an outage; it doubles each second


class Pace:
    """Pace all requests of a run.

    Call `admit` before every request of any kind, `begin` before its first byte and `record` after it. `concurrency`
    bounds the rows in flight. Rate and concurrency can change at any time. The clock (monotonic seconds), sleep and
    random generator are arguments.
    """

    def __init__(
        self,
        rate: float,
        concurrency: int,
        *,
        max_outage: float = math.inf,
        adapts: bool = False,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self.rate = RateLimiter(rate, clock)
        self.breaker = CircuitBreaker(clock, sleep, rng or random.Random(), max_outage)  # noqa: S311 - spreads waits, keeps no secret
        self.breaker.on_recovered = self._start_slowly
        self.budget = RetryBudget(clock, lambda: self.rate.per_second, lambda: self.requests)
        self._clock, self._sleep = clock, sleep
        self._reopened: float | None = None
        self._out = 0  # requests without an answer yet
        self.requests = 0  # admitted so far, of every kind
        self._on_idle: Callable[[], object] | None = None
        self.limit = AdaptiveConcurrency(concurrency, adapts=adapts)
        self._shown = self.limit.value
        self._pauses: dict[str, None] = {}  # the reasons, in order
        self.is_paused = False  # no row is begun
        self._on_go: Callable[[], None] = lambda: None
        self._on_change: Callable[[], None] = lambda: None

    async def admit(self) -> int:
        """Return the epoch of one more request when the breaker and the rate allow it.

        Pass the epoch to `record`, or to `give_back` if the request is not sent.
        """
        if not self.breaker.is_open and self.rate.is_unlimited and self._reopened is None:
            self._out += 1
            self.requests += 1
            return self.breaker.epoch
        epoch = await self._passed_in_turn()
        while self.breaker.is_open and not self.breaker.is_trial(epoch):  # it opened during the wait for the rate
            epoch = await self._passed_in_turn()
        self._sent()
        return epoch

    async def admit_probe(self) -> int:
        """Return when the breaker's own probe may go out.

        An open breaker holds it only for the time the server asked for.
        """
        await self._in_turn()
        while (seconds := self.breaker.remaining) > 0:
            await self._sleep(seconds)
        self._sent()
        return NOBODY

    async def begin(self, epoch: int) -> bool:
        """Return whether an admitted request, which has its connection now, may be sent.

        A connection may take seconds. The breaker may have opened meanwhile; then the request has lost its turn.
        """
        if not self.rate.is_unlimited:
            await self.rate.check(lambda: self._is_lost(epoch))
        return not self._is_lost(epoch)

    def _is_lost(self, epoch: int) -> bool:
        """Return whether an admitted request must not be sent any more."""
        return self.breaker.is_open and epoch != NOBODY and not self.breaker.is_trial(epoch)

    async def _passed_in_turn(self) -> int:
        epoch = await self.breaker.passed()
        try:
            await self._in_turn()
        except BaseException:
            self.breaker.record(epoch, SILENT)  # it may be the trial; the next request takes its place
            raise
        return epoch

    def record(self, epoch: int, health: Health) -> int:
        """Record the result of an admitted request.

        Call it exactly once for each. Returns what `CircuitBreaker.record` returns.
        """
        self._out -= 1
        failure_id = 0 if health is WELL and self.breaker.is_calm else self.breaker.record(epoch, health)
        if not self._out and self._on_idle:
            self._on_idle()
        if health.quota is not None and health.quota[0] <= self._out:
            # The requests in flight use up what the server still accepts.
            remaining, reset = health.quota
            why = f"its rate limit has {remaining} {'request' if remaining == 1 else 'requests'} left"
            self.breaker.record(NOBODY, Health(State.ASKED, why, min(reset, MOST_HOLD)))
        return failure_id

    def give_back(self, epoch: int) -> None:
        """Take back a request that was admitted and not sent."""
        self.requests -= 1
        self.record(epoch, SILENT)

    def when_idle(self, callback: Callable[[], object]) -> None:
        """Call back when no request is in flight: at once, or with the next last result."""
        if self._out:
            self._on_idle = callback
        else:
            callback()

    def _sent(self) -> None:
        self._out += 1
        self.requests += 1

    async def _in_turn(self) -> None:
        self.present_rate()
        await self.rate.admit()

    def present_rate(self) -> float:
        """Return the requests a second that are allowed now: after an outage less than the rate, and growing."""
        if self._reopened is not None:
            self._climb(self._reopened)
        return self.rate.present

    def _start_slowly(self) -> None:
        self._reopened = self._clock()
        self._climb(self._reopened)

    def _climb(self, reopened: float) -> None:
        share = max(SLOW_START, SLOWEST_START / self.rate.per_second) * 2.0 ** math.floor(self._clock() - reopened)
        self.rate.slow_down(min(1.0, share))
        if share >= 1:
            self._reopened = None

    @property
    def concurrency(self) -> int:
        """Return how many rows may be in flight now."""
        return self.limit.value

    def set_concurrency(self, most: int) -> None:
        """Change the maximum of rows in flight. Rows in flight above a lower maximum finish first."""
        self.limit.most = most
        self._tell_of_change()

    @property
    def paused(self) -> str:
        """Return why new rows are paused, or ""."""
        return "; ".join(self._pauses)

    def pause(self, why: str) -> bool:
        """Start no new row until every reason is gone; rows in flight finish. Returns whether the reason is new."""
        new = why not in self._pauses
        self._pauses[why] = None
        self.is_paused = True
        return new

    def go(self, why: str) -> bool:
        """Remove a reason for the pause. Returns whether it was there."""
        there = why in self._pauses
        self._pauses.pop(why, None)
        self.is_paused = bool(self._pauses)
        self._on_go()
        return there

    def on_go(self, callback: Callable[[], None]) -> None:
        """Set the callback for the end of a pause. The caller can then start rows."""
        self._on_go = callback

    def row_sent(self) -> InFlight:
        """Count a row as in flight until `row_done`."""
        flight = self.limit.sent(self._clock())
        if self.limit.adapts:
            self._tell_of_change()
        return flight

    def row_done(self, flight: InFlight, signal: LoadSignal) -> None:
        """End a row that was in flight. Call it exactly once for each, also if no answer came."""
        self.limit.landed(flight, self._clock(), signal)
        if self.limit.adapts:
            self._tell_of_change()

    def _tell_of_change(self) -> None:
        if self.limit.value != self._shown:
            self._shown = self.limit.value
            self._on_change()

    def on_concurrency_change(self, callback: Callable[[], None]) -> None:
        """Set the callback for each change of `concurrency`. The caller can then start rows."""
        self._on_change = callback
