"""The scheduler: every row once, in its time, and an end that no worker waits for in vain. In virtual time."""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from bulkimg.applier.row import RowState
from bulkimg.applier.scheduler import MOST_WAITING, Scheduler
from bulkimg.model import Claim
from bulkimg.pace import Health, Pace, State
from bulkimg.pace.breaker import NEAR
from bulkimg.pace.budget import BANK
from tests.virtual import run_virtual


@dataclass
class Desk:
    """A ledger of so many rows, a scheduler over it, and the workers."""

    rows: int
    concurrency: int = 4
    rate: float = math.inf
    claimed: list[int] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)
    claim_fails_after: float = math.inf

    def __post_init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.pace = Pace(self.rate, self.concurrency, clock=self.loop.time, rng=random.Random(1))
        self.scheduler = Scheduler(self._claim, self.pace, self.loop.time, self._failed, self._ahead)

    async def _claim(self, after: int, limit: int) -> tuple[int, list[RowState]]:
        await asyncio.sleep(0.01)
        if after >= self.claim_fails_after:
            raise OSError("the disk is full")
        found = range(after + 1, min(self.rows, after + limit) + 1)
        self.claimed += found
        rows = [RowState(Claim(n, n + 1, f"{n:032x}", {"name": "x"}, 1, f"{n:032x}")) for n in found]
        return (found[-1] if found else 0), rows

    def _ahead(self) -> int:
        return max(1, int(min(4 * self.concurrency, self.rate / 4)))

    def _failed(self, error: BaseException) -> None:
        self.failures.append(error)
        self.scheduler.close()

    async def work(self, workers: int, one: Callable[[RowState], Awaitable[None]]) -> list[int]:
        """Work off all rows. Returns the ordinals in the order in which they were given out."""
        handed: list[int] = []

        async def worker() -> None:
            while errand := await self.scheduler.next():
                handed.append(errand.claim.ordinal)
                try:
                    await one(errand)
                finally:
                    self.scheduler.done()

        await asyncio.gather(*(worker() for _ in range(workers)))
        return handed


def test_every_row_is_handed_out_once_and_in_order() -> None:
    async def story() -> None:
        desk = Desk(rows=103)

        async def one(_: RowState) -> None:
            await asyncio.sleep(0.1)

        assert await desk.work(4, one) == list(range(1, 104))
        assert desk.claimed == list(range(1, 104))

    run_virtual(story())


def test_nobody_leaves_while_somebody_may_still_bring_a_row_back() -> None:
    """The last row comes back once, and the worker that waits gets it."""

    async def story() -> None:
        desk, seen = Desk(rows=1), []

        async def one(errand: RowState) -> None:
            seen.append(errand.claim.ordinal)
            await asyncio.sleep(5)
            if len(seen) == 1:
                desk.scheduler.after(7, errand)

        assert await desk.work(3, one) == [1, 1]
        assert desk.loop.time() == pytest.approx(5 + 7 + 5, abs=0.1)

    run_virtual(story())


def test_what_is_sent_again_at_once_goes_before_all_others() -> None:
    async def story() -> None:
        desk, again = Desk(rows=5, concurrency=1), [3]

        async def one(errand: RowState) -> None:
            if errand.claim.ordinal in again:
                again.remove(errand.claim.ordinal)
                desk.scheduler.at_once(errand)

        assert await desk.work(1, one) == [1, 2, 3, 3, 4, 5]

    run_virtual(story())


def test_closing_wakes_everybody_and_leaves_what_was_not_begun() -> None:
    async def story() -> None:
        desk = Desk(rows=50)

        async def one(errand: RowState) -> None:
            if errand.claim.ordinal == 6:
                desk.scheduler.close()
            await asyncio.sleep(1)

        handed = await desk.work(4, one)
        left = [errand.claim.ordinal for errand in await desk.scheduler.left_over()]
        assert sorted(handed + left) == sorted(desk.claimed)
        assert not set(handed) & set(left)
        assert max(handed) <= 8

    run_virtual(story())


def test_a_ledger_that_fails_ends_the_work_and_says_why() -> None:
    async def story() -> None:
        desk = Desk(rows=500, claim_fails_after=40)

        async def one(_: RowState) -> None:
            await asyncio.sleep(0.1)

        await asyncio.wait_for(desk.work(4, one), 60)
        assert [str(error) for error in desk.failures] == ["the disk is full"]

    run_virtual(story())


def test_retries_wait_for_the_budget_while_there_are_fresh_rows() -> None:
    """Every row fails once: beyond the bank, one retry is sent for every ten requests."""

    async def story() -> None:
        desk = Desk(rows=400, concurrency=1)
        tried: set[int] = set()

        async def one(errand: RowState) -> None:
            desk.pace.requests += 1
            await asyncio.sleep(0.01)
            if errand.claim.ordinal not in tried:
                tried.add(errand.claim.ordinal)
                desk.scheduler.after(0, errand)

        handed = await desk.work(1, one)
        assert sorted(handed) == sorted([*range(1, 401), *range(1, 401)])
        last_fresh = handed.index(400)
        retries = last_fresh + 1 - 400
        assert retries <= 0.1 * (last_fresh + 1) + BANK

    run_virtual(story())


def test_rows_that_wait_are_bounded_and_no_fresh_one_is_begun_beyond() -> None:
    async def story() -> None:
        desk, most = Desk(rows=MOST_WAITING * 2, concurrency=1), 0
        tried: set[int] = set()

        async def one(errand: RowState) -> None:
            nonlocal most
            if errand.claim.ordinal not in tried:
                tried.add(errand.claim.ordinal)
                desk.scheduler.after(30, errand)
            most = max(most, len(desk.scheduler._due))

        handed = await desk.work(1, one)
        assert len(handed) == 2 * desk.rows
        assert most <= MOST_WAITING

    run_virtual(story())


def test_while_the_gate_is_closed_fresh_rows_find_out_and_not_those_that_were_tried() -> None:
    async def story() -> None:
        desk = Desk(rows=20, concurrency=2)
        first = await desk.scheduler.next()
        assert first is not None
        desk.scheduler.after(0, first)
        for _ in range(NEAR):
            desk.pace.breaker.record(0, Health(State.SICK, "HTTP_503"))
        assert desk.pace.breaker.is_open
        await asyncio.sleep(1)
        after = await desk.scheduler.next()
        assert after is not None
        assert after.claim.ordinal == 2

    run_virtual(story())
