"""Queue the rows to send: retries that are due first, else fresh rows, claimed ahead of need."""

import asyncio
import heapq
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from bulkimg.applier.row import RowState
from bulkimg.pace import Pace

T = TypeVar("T")

MOST_WAITING = 2000  # rows that wait for another try before no fresh one is begun: a row in memory is about 1 kB


class Scheduler:
    """Queue of rows to send, and those under way. A delayed retry occupies no slot.

    `claim(after, limit)` returns the last ordinal that it claimed and the rows to send, or (0, []) when there are no more.
    `failed` gets the error when it cannot. `ahead()` is how many rows are claimed at a time.
    """

    def __init__(
        self,
        claim: Callable[[int, int], Awaitable[tuple[int, list[RowState]]]],
        pace: Pace,
        clock: Callable[[], float],
        failed: Callable[[BaseException], None],
        ahead: Callable[[], int],
    ) -> None:
        self._claim = claim
        self._ahead = ahead
        self._pace = pace
        self._clock = clock
        self._failed = failed
        self._ready: deque[RowState] = deque()  # claimed, not yet begun
        self._due: list[tuple[float, int, RowState]] = []  # waiting for another try, by time
        self._cursor = 0  # the last ordinal claimed
        self._few = 0  # so many rows are left when more are claimed
        self._exhausted = False  # there are no more rows to claim
        self._refill: asyncio.Task[None] | None = None
        self._interruptible: asyncio.Future[Any] | None = None
        self._out = 0  # rows under way: each of them may come back
        self._wake = asyncio.Event()
        self._closed = False
        pace.on_go(self.wake)

    # -- what comes in --------------------------------------------------------------------------------------------------

    def at_once(self, row: RowState) -> None:
        """Before all others."""
        self._ready.appendleft(row)
        self._wake.set()

    def after(self, seconds: float, row: RowState) -> None:
        """Not before so long, and not before the retry budget allows it."""
        heapq.heappush(self._due, (self._clock() + seconds, row.claim.ordinal, row))
        self._wake.set()

    def not_begun(self, row: RowState) -> None:
        """It was handed out, and nothing was done for it: one of those that are left over."""
        self._ready.append(row)

    def done(self) -> None:
        """A row that was handed out has its outcome, or has been put back."""
        self._out -= 1
        if not self._out:
            self._wake.set()  # perhaps that was the last one

    # -- what goes out --------------------------------------------------------------------------------------------------

    def ready(self) -> RowState | None:
        """The next row where there is one at once; `done` has to be called for it."""
        if self._closed or self._pace.is_paused:
            return None
        if row := self._pick():
            self._out += 1
        return row

    async def next(self) -> RowState | None:
        """The next row, `done` to be called for it; None when there will be no more."""
        while not self._closed:
            if row := self.ready():
                return row
            if self._refill is None and self._exhausted and not self._due and not self._ready and not self._out:
                return None
            await self._sleep_until_something_happens()
        return None

    def close(self) -> None:
        """Hand out nothing more."""
        self._closed = True
        if self._interruptible:
            self._interruptible.cancel()
        self.wake()

    async def left_over(self) -> list[RowState]:
        """What was claimed and not begun, once claiming has ended."""
        if self._refill:
            await asyncio.gather(self._refill, return_exceptions=True)
        return list(self._ready)

    def wake(self) -> None:
        """Let those who wait look again."""
        self._wake.set()

    async def until_closed(self, work: Coroutine[Any, Any, T]) -> T | None:
        """The work's result; None where the scheduler was closed before it was done."""
        self._interruptible = task = asyncio.ensure_future(work)
        try:
            return await task
        except asyncio.CancelledError:
            if not self._closed:
                raise
            return None
        finally:
            self._interruptible = None

    # -- decisions ------------------------------------------------------------------------------------------------------

    def _pick(self) -> RowState | None:
        if self._due and self._due[0][0] <= self._clock() and self._may_retry():
            return heapq.heappop(self._due)[2]
        if len(self._ready) <= self._few and self._refill is None and not self._exhausted:
            self._refill = asyncio.create_task(self._claim_more())
        return self._ready.popleft() if self._ready and (not self._due or self._fresh_ones) else None

    @property
    def _fresh_ones(self) -> bool:
        """Whether rows that have not been tried yet can still be begun; those that wait are bounded too."""
        if not self._ready and self._exhausted:
            return False
        return len(self._due) < MOST_WAITING or len(self._due) < 8 * self._pace.concurrency

    def _may_retry(self) -> bool:
        """Within the budget. While the gate is closed fresh rows go first, so that no row spends its tries on finding out."""
        if self._pace.breaker.is_open and self._ready and self._fresh_ones:
            return False
        return self._pace.budget.take(nothing_else=not self._fresh_ones)

    async def _sleep_until_something_happens(self) -> None:
        self._wake.clear()
        if self._pace.is_paused:
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
            limit = self._ahead()
            last, rows = await self._claim(self._cursor, limit)
            self._few = min(2 * self._pace.concurrency, limit)
            self._exhausted = not last
            self._cursor = last or self._cursor
            self._ready.extend(rows)
        except Exception as error:  # handed to the run, which raises it
            self._failed(error)
        finally:
            self._refill = None
            self.wake()
