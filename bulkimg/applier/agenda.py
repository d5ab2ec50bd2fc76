"""Queue the rows to send: retries that are due first, else fresh rows, claimed ahead of need."""

import asyncio
import heapq
from collections import deque
from collections.abc import Awaitable, Callable

from bulkimg.applier.journey import Errand
from bulkimg.model import Claim
from bulkimg.pace import Pace

MOST_WAITING = 2000  # rows that wait for another try before no fresh one is begun: a row in memory is about 1 kB


class Agenda:
    """Queue of errands to do, and those under way. A delayed retry occupies no worker.

    `claim(after, limit)` gives the next rows of the ledger beyond an ordinal, none when there are no more; `look` leaves those
    of their errands that are to be sent; `failed` gets the error when they cannot. `ahead()` is how many rows are claimed at a time.
    """

    def __init__(
        self,
        claim: Callable[[int, int], Awaitable[list[Claim]]],
        new_errand: Callable[[Claim], Errand],
        look: Callable[[list[Errand]], Awaitable[list[Errand]]],
        pace: Pace,
        clock: Callable[[], float],
        failed: Callable[[BaseException], None],
        ahead: Callable[[], int],
    ) -> None:
        self._claim = claim
        self._new_errand = new_errand
        self._look = look
        self._ahead = ahead
        self._pace = pace
        self._clock = clock
        self._failed = failed
        self._ready: deque[Errand] = deque()  # claimed, not yet begun
        self._due: list[tuple[float, int, Errand]] = []  # waiting for another try, by time
        self._cursor = 0  # the last ordinal claimed
        self._exhausted = False  # the ledger has no more rows to claim
        self._refill: asyncio.Task[None] | None = None
        self._looking: asyncio.Future[list[Errand]] | None = None
        self._out = 0  # errands under way: each of them may come back
        self._wake = asyncio.Event()
        self._closed = False
        pace.on_go(self.wake)

    # -- what comes in --------------------------------------------------------------------------------------------------

    def at_once(self, errand: Errand) -> None:
        """Before all others."""
        self._ready.appendleft(errand)
        self._wake.set()

    def after(self, seconds: float, errand: Errand) -> None:
        """Not before so long, and not before the retry budget allows it."""
        heapq.heappush(self._due, (self._clock() + seconds, errand.claim.ordinal, errand))
        self._wake.set()

    def not_begun(self, errand: Errand) -> None:
        """It was handed out, and nothing was done for it: one of those that are left over."""
        self._ready.append(errand)

    def done(self) -> None:
        """An errand that was handed out has its outcome, or has been put back."""
        self._out -= 1
        if not self._out:
            self.wake()  # perhaps that was the last one

    # -- what goes out --------------------------------------------------------------------------------------------------

    async def next(self) -> Errand | None:
        """The next errand, `done` to be called for it; None when there will be no more."""
        while not self._closed:
            if not self._pace.paused and (errand := self._pick()):
                self._out += 1
                return errand
            if self._refill is None and self._exhausted and not self._due and not self._ready and not self._out:
                return None
            await self._sleep_until_something_happens()
        return None

    def close(self) -> None:
        """Hand out nothing more."""
        self._closed = True
        if self._looking:
            self._looking.cancel()
        self.wake()

    async def left_over(self) -> list[Errand]:
        """What was claimed and not begun, once claiming has ended."""
        if self._refill:
            await asyncio.gather(self._refill, return_exceptions=True)
        return list(self._ready)

    def wake(self) -> None:
        """Let those who wait look again."""
        self._wake.set()

    # -- decisions ------------------------------------------------------------------------------------------------------

    def _pick(self) -> Errand | None:
        if self._due and self._due[0][0] <= self._clock() and self._may_retry():
            return heapq.heappop(self._due)[2]
        if self._refill is None and not self._exhausted and len(self._ready) <= self._few():
            self._refill = asyncio.create_task(self._claim_more())
        return self._ready.popleft() if self._ready and self._fresh_ones else None

    def _few(self) -> int:
        """So many rows are left when more are claimed."""
        return min(2 * self._pace.concurrency, self._ahead())

    @property
    def _fresh_ones(self) -> bool:
        """Whether rows that have not been tried yet can still be begun; those that wait are bounded too."""
        if not self._ready and self._exhausted:
            return False
        return len(self._due) < MOST_WAITING or len(self._due) < 8 * self._pace.concurrency

    def _may_retry(self) -> bool:
        """Within the budget. While the gate is closed fresh rows go first, so that no row spends its tries on finding out."""
        if self._pace.gate.closed and self._ready and self._fresh_ones:
            return False
        return self._pace.budget.take(nothing_else=not self._fresh_ones)

    async def _sleep_until_something_happens(self) -> None:
        self._wake.clear()
        if self._pace.paused:
            await self._wake.wait()
            return
        # Not 0: a retry that waits for the budget while rows are being claimed would spin until they are there.
        timeout = max(self._due[0][0] - self._clock(), self._pace.budget.wait(), 0.001) if self._due else None
        try:
            async with asyncio.timeout(timeout):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _claim_more(self) -> None:
        """Claim ahead of need, in one commit, but no more than is sent soon: open claims are asked about after a crash."""
        try:
            claims = await self._claim(self._cursor, self._ahead())
            self._exhausted = not claims
            if claims:
                self._cursor = claims[-1].ordinal
                self._ready.extend(await self._looked([self._new_errand(item) for item in claims]))
        except Exception as error:  # handed to the run, which raises it
            self._failed(error)
        finally:
            self._refill = None
            self.wake()

    async def _looked(self, errands: list[Errand]) -> list[Errand]:
        """Those that are to be sent; all of them, to be given back, once the agenda has been closed."""
        if self._closed:
            return errands
        self._looking = asyncio.ensure_future(self._look(errands))
        try:
            return await self._looking
        except asyncio.CancelledError:
            if not self._closed:
                raise
            return errands
        finally:
            self._looking = None
