"""Circuit breaker: pause all requests while the server is down or asks us to wait.

Per-row retries during an outage sent 72,000 requests and failed 14,400 rows; one gate sent 47 and failed none
(docs/dev/reliability.md F14). Decisions are made in `heard`, without waiting; `passed` only obeys them.
"""

import asyncio
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable
from enum import Enum, auto

from bulkimg.pace.health import Health, State

NEAR = 5  # troubles in a row, from whatever rows, that make an outage: no answer in between was well
FIRST = 1.0  # seconds to the first probe; each that fails doubles the next one's distance
MOST = 60.0  # between probes of a server that is not there: 30 minutes cost about 35 requests
# A server that answers a question but no change is tried with one row after the other, each after a question: the rows may
# be to blame. A few quick trials tell that of a few rows in seconds; 30 minutes cost about 75 requests.
QUICK_TRIALS = 8
MOST_ALIVE = 75.0
WORTH_A_WORD = 0.95  # seconds: shorter waits are not reported
RATE_LIMITED = -1  # the server asked the run to wait: no failure
MOST_HOLD = 300.0  # seconds: a server that asks for more is not waited for


class FailureCause(Enum):
    """Whose trouble a failed attempt was."""

    ROW = auto()  # others got through
    SERVER = auto()  # it was an outage: the row loses no attempt to it
    UNDECIDED = auto()  # no request has been answered since


class CircuitBreaker:
    """Open, or closed until some request that goes alone is answered well. `clock` is monotonic seconds.

    A closed gate lets one request through at a time. After an outage it asks a harmless question first (`probe`), so
    that no change is risked on a server that is not there. `on_closed(seconds, why)`, `on_open(seconds)` after so long a
    time and `on_give_up(why)` tell the run; the last once, when the server has been away for `patience` seconds or asks
    for more than MOST_HOLD. `on_reopened` reports to the pace that an outage is over.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        rng: random.Random,
        max_outage: float = math.inf,
    ) -> None:
        self._clock, self._sleep, self._rng, self._max_outage = clock, sleep, rng, max_outage
        self.on_opened: Callable[[float, str], None] = lambda seconds, why: None
        self.on_closed: Callable[[float], None] = lambda seconds: None
        self.on_give_up: Callable[[str], None] = lambda why: None
        self.on_recovered: Callable[[], None] = lambda: None
        self.probe: Callable[[], Awaitable[bool]] | None = None
        self.is_open = False
        self.open_for = 0.0  # seconds, of all closings that are over
        self._down = False  # closed by an outage, not by the server's asking
        self._alive = False  # it has answered the last question
        self._since = 0.0  # closed without a break since
        self._until = 0.0
        self._rounds = 0
        self._given_up = False
        self.epoch = 0  # grows with every trouble and every trial: a request knows by it which troubles came before it
        self._trial: int | None = None  # the era of the one request that is out alone
        self._answered = asyncio.Event()
        self._turn = asyncio.Lock()
        self._in_a_row = 0  # troubles without any good answer in between
        # Troubles by their numbers: those since which no request was answered well, and those that an outage cost.
        self._undecided: deque[int] = deque()
        self._outages: set[int] = set()

    # -- before sending --------------------------------------------------------------------------------------------------

    async def passed(self) -> int:
        """Return when one more request may go out; its era is handed to `heard` with its answer."""
        if not self.is_open:
            return self.epoch
        async with self._turn:
            while self.is_open:
                if self._trial is not None:
                    self._answered.clear()
                    await self._answered.wait()
                elif (seconds := self._until - self._clock()) > 0:
                    await self._sleep(seconds)
                elif await self._worth_a_trial():
                    self.epoch += 1
                    self._trial = self.epoch
                    break
            return self.epoch

    async def _worth_a_trial(self) -> bool:
        if not self._down or self.probe is None:
            return True
        self._alive = await self.probe()
        if not self._alive:
            self._stay_open("the server does not answer")
        return self._alive and self._until <= self._clock()

    async def decide(self) -> None:
        """Find out with one harmless question whether the undecided failures are the server's."""
        async with self._turn:
            if self._undecided and not self.is_open and self.probe is not None:
                epoch = self.epoch
                well = await self.probe()
                if self.is_open:
                    return  # others have found out meanwhile
                if well:
                    self._acquit(epoch)
                else:
                    self._open_for_outage("the server does not answer")

    # -- what came of it ------------------------------------------------------------------------------------------------

    def record(self, epoch: int, health: Health) -> int:
        """Record a request's result. Return 0 on success, HELD, or a failure's number for `blame`."""
        alone = self._trial is not None and epoch == self._trial
        if alone:
            self._trial = None
            self._answered.set()
        match health.state:
            case State.WELL:
                if alone:
                    self._close(epoch)
                elif not self.is_open:
                    self._acquit(epoch)
            case State.ASKED:
                self._asked_to_wait(health.wait, health.why, again=alone)
                return RATE_LIMITED
            case State.SICK:
                return self._failed(health.why, alone=alone)
            case State.SILENT:  # cancelled, or nothing that shows the server's health
                pass
        return 0

    def cause_of(self, failure: int) -> FailureCause:
        """Whose trouble it was: the row's as soon as a request that was sent after it has been answered well."""
        if failure in self._outages:
            return FailureCause.SERVER
        return FailureCause.UNDECIDED if failure in self._undecided else FailureCause.ROW

    @property
    def is_calm(self) -> bool:
        """Whether one more good answer would change nothing."""
        return not (self.is_open or self._in_a_row or self._undecided or self._trial is not None)

    def is_trial(self, epoch: int) -> bool:
        """Whether the request of that era is the one that goes alone."""
        return epoch == self._trial

    @property
    def remaining(self) -> float:
        """Seconds until something may go out; 0 when the gate is open."""
        return max(0.0, self._until - self._clock()) if self.is_open else 0.0

    def closed_time(self) -> float:
        """A clock that stands still while the gate is closed: an outage does not use up a job's time."""
        now = self._clock()
        return now - self.open_for - (now - self._since if self.is_open else 0.0)

    # -- decisions ------------------------------------------------------------------------------------------------------

    def _failed(self, why: str, *, alone: bool) -> int:
        self.epoch += 1
        number = self.epoch
        if alone and self._down:
            self._stay_open(why)  # a question is answered and this change is not: the row's, and the gate's too
            return number
        self._undecided.append(number)
        if self.is_open and not alone:  # it was under way when the gate closed
            if self._down:
                self._condemn()
            return number
        self._in_a_row += 1
        if alone or self._in_a_row >= NEAR:
            self._open_for_outage(why)
        return number

    def _open_for_outage(self, why: str) -> None:
        self._condemn()
        self._down, self._alive, self._rounds = True, False, 0
        self._open(self._next_round(), f"{why}, {self._in_a_row} times in a row" if self._in_a_row > 1 else why)

    def _stay_open(self, why: str) -> None:
        self._open(self._next_round(), why)

    def _next_round(self) -> float:
        """Seconds to the next one: growing, and spread, so that many runs do not probe in step."""
        most, quick = (MOST_ALIVE, QUICK_TRIALS) if self._alive else (MOST, 0)
        seconds = min(most, FIRST * 2.0 ** min(max(0, self._rounds - quick), 16))
        self._rounds += 1
        seconds *= self._rng.uniform(0.85, 1.15)
        left = self._since + self._max_outage - self._clock() if self.is_open else self._max_outage
        return max(FIRST, min(seconds, left) if left > 0 else seconds)

    def _asked_to_wait(self, seconds: float | None, why: str, *, again: bool) -> None:
        """For as long as it says; for a growing while where it does not. What was under way is no new demand."""
        if again or not self.is_open:
            self._rounds = self._rounds + 1 if self.is_open else 0
        # A server that says "one second" for half an hour is not asked eighteen hundred times.
        growing = min(MOST, 0.5 * 2.0 ** min(self._rounds, 16)) + self._rng.random() / 2
        wait = max(seconds or growing, growing if self._rounds else 0.0)
        if wait > MOST_HOLD:
            self._give_up(f"the server asked to wait {wait:.0f} s ({why}), but a run waits at most {MOST_HOLD:.0f} s")
        self._open(min(wait, MOST_HOLD), f"the server asked to wait ({why})")

    def _open(self, seconds: float, why: str) -> None:
        now = self._clock()
        if not self.is_open:
            self.is_open, self._since = True, now
        elif now - self._since >= self._max_outage:
            self._give_up(f"the server has been down for {now - self._since:.0f} s (--max-outage): {why}")
        until = max(self._until, now + seconds)
        if until > self._until:
            self._until = until
            if until - now >= WORTH_A_WORD:
                self.on_opened(until - now, why)

    def _close(self, epoch: int) -> None:
        was_down, open_for = self._down, self._clock() - self._since
        self.open_for += open_for
        self.is_open = self._down = self._alive = False
        self._rounds = 0
        self._acquit(epoch)
        if was_down:
            self.on_recovered()
        if open_for >= WORTH_A_WORD:
            self.on_closed(open_for)

    def _give_up(self, why: str) -> None:
        if not self._given_up:
            self._given_up = True
            self.on_give_up(why)

    def _acquit(self, epoch: int) -> None:
        """A good answer to a request of that era: the server was well after all troubles that came before it was sent.

        It says nothing of those that came later: slow answers still arrive when an outage has begun.
        """
        self._in_a_row = 0
        while self._undecided and self._undecided[0] <= epoch:
            self._undecided.popleft()

    def _condemn(self) -> None:
        """It is an outage: no row is to blame for the troubles that are undecided."""
        self._outages.update(self._undecided)
        self._undecided.clear()
