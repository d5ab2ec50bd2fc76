"""Circuit breaker: hold all requests while the server is down or asks the run to wait.

Retries per row during an outage sent 72,000 requests and failed 14,400 rows. One breaker sent 47 and failed none
(docs/dev/reliability.md F14). `record` decides without waiting; `passed` waits as decided.
"""

import asyncio
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable
from enum import Enum, auto

from bulkimg.pace.health import Health, State

NEAR = 5  # failures in a row, of any rows, that make an outage
FIRST = 1.0  # seconds to the first probe; each failed probe doubles the wait
MOST = 60.0  # seconds between probes of a server that does not answer: 30 minutes cost about 35 requests
# If the server answers a probe but no change, one row after another is tried, each after a probe: the rows may be the
# cause. A few quick trials find out in seconds if only a few rows are. 30 minutes cost about 75 requests.
QUICK_TRIALS = 8
MOST_ALIVE = 75.0
WORTH_A_WORD = 0.95  # seconds; shorter waits are not reported
RATE_LIMITED = -1  # the server asked the run to wait; this is not a failure
MOST_HOLD = 300.0  # seconds; the run does not wait longer for a server that asks


class FailureCause(Enum):
    """The cause of a failed try."""

    ROW = auto()  # the row: other requests succeeded
    SERVER = auto()  # an outage: the try does not count against the row
    UNDECIDED = auto()  # no request that was sent later has succeeded yet


class CircuitBreaker:
    """Hold requests while it is open. It closes when one trial request succeeds. `clock` returns monotonic seconds.

    An open breaker lets one request through at a time: the trial. After an outage it first asks a harmless question
    (`probe`), so that no change is risked on a server that does not answer.

    Callbacks: `on_opened(seconds, why)` for each wait, `on_closed(seconds)` with the time it was open, and
    `on_give_up(why)` once, when the server was down for `max_outage` seconds or asks for more than MOST_HOLD.
    `on_recovered` tells the pace that an outage is over.
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
        self.open_for = 0.0  # seconds that it was open, without the present time
        self._down = False  # open because of an outage, and not because the server asked
        self._alive = False  # the last probe was answered
        self._since = 0.0  # open without a break since then
        self._until = 0.0
        self._rounds = 0
        self._given_up = False
        self.epoch = 0  # grows with every failure and trial: it tells which failures came before a request was sent
        self._trial: int | None = None  # the epoch of the trial in flight
        self._answered = asyncio.Event()
        self._turn = asyncio.Lock()
        self._in_a_row = 0  # failures since the last success
        # Failure ids: those without a success since, and those that an outage caused.
        self._undecided: deque[int] = deque()
        self._outages: set[int] = set()

    # -- before sending --------------------------------------------------------------------------------------------------

    async def passed(self) -> int:
        """Return the epoch of one more request when it may go out. Pass it to `record` with the result."""
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
        """Decide the causes of undecided failures with one harmless question to the server."""
        async with self._turn:
            if self._undecided and not self.is_open and self.probe is not None:
                epoch = self.epoch
                well = await self.probe()
                if self.is_open:
                    return  # another request decided it meanwhile
                if well:
                    self._acquit(epoch)
                else:
                    self._open_for_outage("the server does not answer")

    # -- what came of it ------------------------------------------------------------------------------------------------

    def record(self, epoch: int, health: Health) -> int:
        """Record a request's result. Returns 0, RATE_LIMITED, or a failure id for `cause_of`."""
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
            case State.SILENT:  # cancelled, or an answer that does not show the server's health
                pass
        return 0

    def trip(self, why: str) -> None:
        """Open because another process has found the server down."""
        if not self.is_open:
            self._open_for_outage(why)

    def blame_outage(self) -> None:
        """Count the undecided failures as an outage's, because another process has found the server down."""
        self._in_a_row = 0
        self._condemn()

    def cause_of(self, failure: int) -> FailureCause:
        """Return the cause of a failure. It is the row as soon as a request that was sent later succeeds."""
        if failure in self._outages:
            return FailureCause.SERVER
        return FailureCause.UNDECIDED if failure in self._undecided else FailureCause.ROW

    @property
    def is_calm(self) -> bool:
        """Return whether one more success would change nothing."""
        return not (self.is_open or self._in_a_row or self._undecided or self._trial is not None)

    def is_trial(self, epoch: int) -> bool:
        """Return whether the request of this epoch is the trial."""
        return epoch == self._trial

    @property
    def remaining(self) -> float:
        """Return the seconds until the next request may go out; 0 when the breaker is closed."""
        return max(0.0, self._until - self._clock()) if self.is_open else 0.0

    def closed_time(self) -> float:
        """Return the seconds of a clock that stops while the breaker is open.

        So an outage does not use up a job's time.
        """
        now = self._clock()
        return now - self.open_for - (now - self._since if self.is_open else 0.0)

    # -- decisions ------------------------------------------------------------------------------------------------------

    def _failed(self, why: str, *, alone: bool) -> int:
        self.epoch += 1
        number = self.epoch
        if alone and self._down:
            self._stay_open(why)  # the probe succeeded and this change failed: the row or the server is the cause
            return number
        self._undecided.append(number)
        if self.is_open and not alone:  # it was in flight when the breaker opened
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
        """Return the seconds to the next trial.

        They grow, and they are spread so that many runs do not probe in step.
        """
        most, quick = (MOST_ALIVE, QUICK_TRIALS) if self._alive else (MOST, 0)
        seconds = min(most, FIRST * 2.0 ** min(max(0, self._rounds - quick), 16))
        self._rounds += 1
        seconds *= self._rng.uniform(0.85, 1.15)
        left = self._since + self._max_outage - self._clock() if self.is_open else self._max_outage
        return max(FIRST, min(seconds, left) if left > 0 else seconds)

    def _asked_to_wait(self, seconds: float | None, why: str, *, again: bool) -> None:
        """Open for as long as the server says, or for a growing time if it does not say.

        Requests that were already in flight do not make the time grow.
        """
        if again or not self.is_open:
            self._rounds = self._rounds + 1 if self.is_open else 0
        # A server that says "one second" for half an hour must not get 1,800 requests.
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
        """Clear the failures before this epoch. A request that was sent after them succeeded, so the server worked.

        Later failures stay undecided, because slow answers still arrive after an outage has begun.
        """
        self._in_a_row = 0
        while self._undecided and self._undecided[0] <= epoch:
            self._undecided.popleft()

    def _condemn(self) -> None:
        """Count the undecided failures as an outage's."""
        self._outages.update(self._undecided)
        self._undecided.clear()
