"""What a worker's send loop runs on: the pace of a lease, and a store whose ledger is the desk's."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from bulkimg.cluster.messages import Lease, Message, claim_of
from bulkimg.model import Claim, Outcome
from bulkimg.pace import Pace
from bulkimg.pace.breaker import MOST_HOLD, CircuitBreaker
from bulkimg.runtime import Runtime

LOOK_AGAIN = 0.2  # seconds until a worker without rows asks again


class Permit:
    """The lease that the worker has, by a clock that runs while the machine sleeps (CLOCK_BOOTTIME), in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._rate = 0.0
        self._changed = asyncio.Event()
        self.number = 0
        self.ends = -math.inf

    @property
    def is_valid(self) -> bool:
        """Return whether a request may begin now."""
        return self._rate > 0 and self._clock() < self.ends

    def take(self, lease: Lease, asked_at: float) -> None:
        """Replace the lease by one that was asked for at that time."""
        self.number, self.ends = lease.number, asked_at + lease.seconds
        self._rate = math.inf if lease.rate is None else lease.rate
        self._changed.set()

    async def valid(self) -> None:
        """Return as soon as a request may begin."""
        while not self.is_valid:
            self._changed.clear()
            await self._changed.wait()


class LeasedBreaker(CircuitBreaker):
    """Finds out that the server is in trouble. How long to wait, and whether it is over, is the desk's to decide."""

    trouble: tuple[str, float | None] | None = None  # why, and the seconds that the server asks for; to be reported
    tries: bool = False  # the lease is for the trial whether the server is well again
    _asked: tuple[str, float | None] = ("", None)  # the latest wait that the server asked for, and why

    def _asked_to_wait(self, seconds: float | None, why: str, *, again: bool) -> None:
        """Keep the reason as it is: the desk says it in its own words."""
        self._asked = (why, seconds)
        super()._asked_to_wait(seconds, why, again=again)

    def _failed(self, why: str, *, alone: bool) -> int:
        """A trial that fails is reported. It counts against its row, which may be the cause, and not as the outage's."""
        if not self.tries:
            return super()._failed(why, alone=alone)
        self.trouble = (why, None)
        self.epoch += 1
        return self.epoch

    def _open(self, seconds: float, why: str) -> None:
        asked = None if self._down else seconds
        if self.trouble is None or (self.trouble[1] or 0) <= (asked or 0):  # the longest wait is reported
            self.trouble = (why if asked is None else self._asked[0], asked)
        super()._open(0.0, why)

    def _give_up(self, why: str) -> None:
        reason, seconds = self._asked
        self.trouble = (reason, max(MOST_HOLD + 1, seconds or 0))  # the desk gives up for the same reason


class LeasedBudget:
    """Spends the retries that come with the leases."""

    def __init__(self) -> None:
        self._left = 0
        self._wanted = False  # since the last report
        self.nothing_else = False

    def add(self, retries: int) -> None:
        self._left += retries

    def take(self, *, nothing_else: bool) -> bool:
        """Take one retry. Returns whether there was one."""
        self.nothing_else = nothing_else
        if not self._left:
            self._wanted = True
            return False
        self._left -= 1
        return True

    @property
    def is_wanted(self) -> bool:
        """Return whether a retry was refused since the last report."""
        return self._wanted

    def reported(self) -> int:
        """Return how many retries to ask for, once for each refusal: a worker without retries must not collect them."""
        wanted, self._wanted = self._wanted, False
        return int(wanted)

    def wait(self) -> float:
        """Return the seconds until the next look."""
        return 0.0 if self._left else LOOK_AGAIN


class LeasedPace(Pace):
    """The pace of a worker: its share of the rate, and nothing without a lease."""

    def __init__(self, permit: Permit, runtime: Runtime, *, adapts: bool) -> None:
        super().__init__(1.0, 1, adapts=adapts, clock=runtime.clock, sleep=runtime.sleep, rng=runtime.rng)
        self._permit = permit
        self.leased_breaker = LeasedBreaker(runtime.clock, runtime.sleep, runtime.rng)
        self.leased_budget = LeasedBudget()
        self.breaker, self.budget = self.leased_breaker, self.leased_budget  # type: ignore[assignment] # same interface

    async def admit(self) -> int:
        while True:
            await self._permit.valid()
            epoch = await super().admit()
            if self._permit.is_valid:
                return epoch
            self.give_back(epoch)  # its turn came too late

    def _is_lost(self, epoch: int) -> bool:
        return not self._permit.is_valid or super()._is_lost(epoch)

    async def admit_probe(self) -> int:
        while True:
            await self._permit.valid()
            epoch = await super().admit_probe()
            if self._permit.is_valid:
                return epoch
            self.give_back(epoch)

    def obey(self, lease: Lease) -> None:
        """Take over what the lease says about speed."""
        rate = math.inf if lease.rate is None else lease.rate
        if rate and rate != self.rate.per_second:
            self.rate.set(rate)
        if lease.concurrency != self.limit.most:
            self.set_concurrency(lease.concurrency)
        if lease.paused != self.is_paused:
            (self.pause if lease.paused else self.go)("the desk")
        self.leased_breaker.tries = lease.shut and bool(rate)
        if lease.shut:
            self.breaker.blame_outage()
        self.leased_budget.add(lease.retries)


class LeasedStore:
    """The desk's ledger, as the send loop needs it. What comes while a message is under way goes with the next one.

    `call` sends a message and raises what ends the worker. Every future is done when the desk has made the writes durable.
    """

    def __init__(
        self, call: Callable[[str, Message], Awaitable[dict[str, Any]]], sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        self._call = call
        self._sleep = sleep
        self._first: list[Claim] = []
        self._ops: list[list[Any]] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._writing: asyncio.Task[None] | None = None
        self.is_over = False  # the run is, or the desk stops

    async def first(self, limit: int) -> bool:
        """Ask for the first rows of a send loop. Returns whether there are any."""
        self._first = await self._claimed(limit) or []
        return bool(self._first)

    async def claim(
        self, after: int, limit: int, new_job: Callable[[], str], now: float, only: Sequence[int] | None
    ) -> list[Claim]:
        if self._first:
            found, self._first = self._first, []
            return found
        while (rows := await self._claimed(limit)) is None:
            await self._sleep(LOOK_AGAIN)
        return rows

    async def _claimed(self, limit: int) -> list[Claim] | None:
        """Return rows, [] where there are none left, or None where none may be claimed now."""
        reply = await self._call("claim", {"limit": limit})
        self.is_over = bool(reply.get("over"))
        return None if reply.get("wait") else [claim_of(values) for values in reply.get("rows", ())]

    async def claim_again(self, item: Claim, now: float) -> None:
        await self._op("again", item.ordinal, item.attempt, item.job_uuid, now)

    async def close_attempt(self, item: Claim, fate: str, code: str, http_status: int | None) -> None:
        await self._op("close", item.ordinal, fate, code, http_status)

    async def release(self, items: Sequence[Claim]) -> None:
        if items:
            await self._op("release", [item.ordinal for item in items])

    def settle(self, outcome: Outcome, *, as_sent: bool = False) -> "asyncio.Future[None]":
        return self._op("settle", outcome, as_sent)

    async def ended(self) -> None:
        """Say that the send loop has ended: the rows that it has left are the desk's again."""
        await self._op("ended")

    def remember_key(self, key: str) -> None:
        self._op("key", key)

    def _op(self, *op: Any) -> "asyncio.Future[None]":
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.add_done_callback(_heed)
        self._ops.append(list(op))
        self._waiting.append(done)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        return done

    async def _write(self) -> None:
        try:
            while self._ops:
                ops, self._ops = self._ops, []
                waiting, self._waiting = self._waiting, []
                try:
                    await self._call("write", {"ops": ops})
                except BaseException as error:
                    for done in [*waiting, *self._waiting]:
                        if not done.done():
                            done.set_exception(error if isinstance(error, Exception) else asyncio.CancelledError())
                    raise
                for done in waiting:
                    if not done.done():
                        done.set_result(None)
        except Exception:  # the callers that wait have got it
            self._ops.clear()
            self._waiting.clear()
        finally:
            self._writing = None

    async def flushed(self) -> None:
        """Return when everything that was written has arrived, or cannot."""
        if self._writing:
            await asyncio.gather(self._writing, return_exceptions=True)


def _heed(done: "asyncio.Future[None]") -> None:
    if not done.cancelled():
        done.exception()
