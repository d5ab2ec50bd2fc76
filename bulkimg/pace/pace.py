"""Keep and change a run's speed: rate, concurrency, gate, retry budget."""

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

NOBODY = -1  # the era of what no waiter sent
SLOWEST_START = 5.0  # requests a second: a rate below it needs no slow start
SLOW_START = 0.1  # of the rate in the first second after an outage, twice as much in each one after it


class Pace:
    """`admit` before every request of any kind, `heard` after it; `concurrency` bounds the rows in flight.

    Rate and concurrency can change at any time. Clock (monotonic seconds), sleep and chance are arguments.
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
        self._out = 0  # requests that have no answer yet
        self.requests = 0  # admitted so far, of every kind
        self._on_idle: Callable[[], object] | None = None
        self.limit = AdaptiveConcurrency(concurrency, adapts=adapts)
        self._shown = self.limit.value
        self._pauses: dict[str, None] = {}  # reasons, in order
        self.is_paused = False  # no row is begun
        self._on_go: Callable[[], None] = lambda: None
        self._on_change: Callable[[], None] = lambda: None

    async def admit(self) -> int:
        """Return when one more request may go out: the gate lets it, and the rate allows it. Hand the era to `heard`, or to
        `give_back`."""
        if not self.breaker.is_open and self.rate.is_unlimited and self._reopened is None:
            self._out += 1
            self.requests += 1
            return self.breaker.epoch
        epoch = await self._passed_in_turn()
        while self.breaker.is_open and not self.breaker.is_trial(epoch):  # it closed while we waited for our turn
            epoch = await self._passed_in_turn()
        self._sent()
        return epoch

    async def admit_probe(self) -> int:
        """As `admit`, for the gate's own question: a closed gate does not hold it, but for the time that it was given."""
        await self._in_turn()
        while (seconds := self.breaker.remaining) > 0:
            await self._sleep(seconds)
        self._sent()
        return NOBODY

    async def _passed_in_turn(self) -> int:
        epoch = await self.breaker.passed()
        try:
            await self._in_turn()
        except BaseException:
            self.breaker.record(epoch, SILENT)  # it may be the one that goes alone: the next one takes its place
            raise
        return epoch

    def record(self, epoch: int, health: Health) -> int:
        """What a request that was admitted came to: called exactly once for each. Returns what Gate.heard does."""
        self._out -= 1
        failure_id = 0 if health is WELL and self.breaker.is_calm else self.breaker.record(epoch, health)
        if not self._out and self._on_idle:
            self._on_idle()
        if health.quota is not None and health.quota[0] <= self._out:
            # What is under way will use up the rest of what the server takes.
            remaining, reset = health.quota
            why = f"its rate limit has {remaining} {'request' if remaining == 1 else 'requests'} left"
            self.breaker.record(NOBODY, Health(State.ASKED, why, min(reset, MOST_HOLD)))
        return failure_id

    def give_back(self, epoch: int) -> None:
        """A request that was admitted and not sent."""
        self.requests -= 1
        self.record(epoch, SILENT)

    def when_idle(self, callback: Callable[[], object]) -> None:
        """Call back as soon as every request that went out has been heard of: at the next answer, or now."""
        if self._out:
            self._on_idle = callback
        else:
            callback()

    def _sent(self) -> None:
        self._out += 1
        self.requests += 1

    async def _in_turn(self) -> None:
        if self._reopened is not None:
            self._climb(self._reopened)
        await self.rate.admit()

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
        """The most rows that may be in flight now."""
        return self.limit.value

    def set_concurrency(self, most: int) -> None:
        """Change its cap; rows in flight above a lower one finish first."""
        self.limit.most = most
        self._tell_of_change()

    @property
    def paused(self) -> str:
        """Why no row is begun; empty when rows are."""
        return "; ".join(self._pauses)

    def pause(self, why: str) -> bool:
        """Begin no row until every reason is gone; rows in flight finish. Whether that is a new reason."""
        new = why not in self._pauses
        self._pauses[why] = None
        self.is_paused = True
        return new

    def go(self, why: str) -> bool:
        """That reason is gone. Whether it was there."""
        there = why in self._pauses
        self._pauses.pop(why, None)
        self.is_paused = bool(self._pauses)
        self._on_go()
        return there

    def on_go(self, callback: Callable[[], None]) -> None:
        """Call back when a pause has ended, so that the caller can begin rows."""
        self._on_go = callback

    def row_sent(self) -> InFlight:
        """A row is in flight from here to `row_done`."""
        flight = self.limit.sent(self._clock())
        if self.limit.adapts:
            self._tell_of_change()
        return flight

    def row_done(self, flight: InFlight, signal: LoadSignal) -> None:
        """It has its answer and its job's result, or there are none to be had: exactly once for each."""
        self.limit.landed(flight, self._clock(), signal)
        if self.limit.adapts:
            self._tell_of_change()

    def _tell_of_change(self) -> None:
        if self.limit.value != self._shown:
            self._shown = self.limit.value
            self._on_change()

    def on_concurrency_change(self, callback: Callable[[], None]) -> None:
        """Call back after each change, so that the caller can start rows."""
        self._on_change = callback
