"""Carry rows for a desk: leases come from it, outcomes go to it, and the requests go out from here."""

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bulkimg.applier import Loop, Policy
from bulkimg.cluster.leased import LOOK_AGAIN, LeasedPace, LeasedStore, Permit
from bulkimg.cluster.messages import RENEW, Lease, Link, LinkLost, Message
from bulkimg.credentials import Credentials
from bulkimg.engine.connect import Ports, Server, connected
from bulkimg.errors import BulkimgError, Exit, LoginRefused, TargetError, UsageError
from bulkimg.meter import Meter
from bulkimg.model import Event, Retrying
from bulkimg.pace.slots import OwnSlots
from bulkimg.settings import Settings
from bulkimg.values import Limit
from bulkimg.zstack import log_out

LOOK = 0.05  # seconds between two looks whether a lease has to be renewed
TRY_AGAIN = 0.3  # seconds between two tries to reach the desk
DESERTED = 20.0  # seconds without a word of the desk until the worker ends
MOST_EVENTS = 100
LOGINS = 20  # tries to log in, each after the desk found the server well again


class DeskGone(Exception):
    """The desk cannot be reached any more, or has taken this worker's rows back."""

    def __init__(self, *, may_rejoin: bool) -> None:
        super().__init__("the desk is gone")
        self.may_rejoin = may_rejoin


class Worker:
    """One worker of one desk, from joining to leaving. `introduction` says who it is; `boottime` is its lease's clock."""

    def __init__(
        self,
        link: Link,
        settings: Settings,
        credentials: Credentials,
        introduction: Message,
        ports: Ports,
        boottime: Callable[[], float],
    ) -> None:
        self._link = link
        self._settings = settings
        self._credentials = credentials
        self._introduction = introduction
        self._ports = replace(ports, slots=lambda target: OwnSlots())  # the desk divides the rate
        self._runtime = ports.runtime
        self._boottime = boottime
        self._permit = Permit(boottime)
        self._pace = LeasedPace(self._permit, self._runtime, adapts=settings.adaptive)
        self._meter = Meter()
        self._told: tuple[dict[tuple[str, str], int], dict[int, int], float, int] = ({}, {}, 0.0, 0)
        self._reported = self._told  # with the report that is under way
        self._events: list[Retrying] = []
        self._numbers: dict[str, int] = {}
        self._loop: Loop | None = None
        self._stopping = False
        self._id = ""
        self._heard_at: float | None = None  # of the desk
        self._policy: dict[str, Any] = {}

    async def work(self) -> None:
        """Work until the run is over. Raises DeskGone, and UsageError where the desk refuses this worker."""
        token = f"{self._runtime.rng.getrandbits(64):016x}"  # a joining that arrives twice is one
        joined = await self._call("join", {**self._introduction, "token": token})
        if refused := joined.get("refused"):
            raise UsageError(str(refused))
        self._id, self._policy = joined["worker"], joined["policy"]
        why = ""
        renewing: asyncio.Task[None] | None = None
        try:
            async with connected(
                self._settings,
                self._credentials,
                self._pace,
                self._observe,
                lambda why: None,
                self._ports,
                joined["action_key"],
                self._meter,
            ) as server:
                self._listen_to_the_desk(server)
                renewing = asyncio.create_task(self._keep_renewing())
                why = await self._first_to_end(renewing, self._serve(server))
                await self._first_to_end(renewing, log_out(server.auth))
        except BulkimgError as error:
            why = str(error)
        finally:
            if renewing:
                renewing.cancel()
                await asyncio.gather(renewing, return_exceptions=True)
        await self._call("leave", {"why": why})

    async def _first_to_end(self, renewing: "asyncio.Task[None]", work: Any) -> Any:
        """Do the work while leases are renewed. Raises what ends the renewing."""
        task = asyncio.ensure_future(work)
        await asyncio.wait([renewing, task], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            if self._loop:
                self._loop.stop_now()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            renewing.result()
        return task.result()

    def _listen_to_the_desk(self, server: Server) -> None:
        """Let the desk decide whether the server is well again."""
        breaker = self._pace.breaker
        breaker.on_opened, breaker.on_closed = (lambda seconds, why: None), (lambda seconds: None)

        async def probe() -> bool:
            await self._permit.valid()
            return True if breaker.is_open else await server.api.is_there()

        breaker.probe = probe

    def _observe(self, event: Event) -> None:
        if isinstance(event, Retrying) and len(self._events) < MOST_EVENTS:
            self._events.append(event)

    # -- rows -----------------------------------------------------------------------------------------------------------

    async def _serve(self, server: Server) -> str:
        """Send rows while there are any. Returns why no row of this worker can succeed, or ""."""
        await self._log_in(server)
        store = LeasedStore(self._call, self._runtime.sleep)
        while not store.is_over:
            if self._stopping or not await store.first(1):
                await self._runtime.sleep(LOOK_AGAIN)
                if self._stopping:
                    await store.first(0)  # only to hear whether the run is over
                continue
            loop = Loop(store, server.api, server.reader, self._pace, self._as_policy(), self._observe, self._runtime)
            self._loop = loop
            if self._stopping:
                self._stop()
            try:
                ending = await loop.run()
            finally:
                self._loop = None
            await store.ended()
            if ending and not self._stopping:
                return ending.why
        return ""

    async def _log_in(self, server: Server) -> None:
        """Log in. A server that cannot be reached is the desk's to wait for. Raises LoginRefused."""
        for number in itertools.count(1):
            try:
                await server.auth.open()
                return
            except TargetError as error:
                if isinstance(error, LoginRefused) or number > LOGINS:
                    raise
                self._pace.leased_breaker.trouble = (str(error), None)
                await self._runtime.sleep(TRY_AGAIN)

    def _as_policy(self) -> Policy:
        return Policy(**(self._policy | {"max_errors": Limit()}))  # the desk counts the errors

    def _stop(self) -> None:
        self._stopping = True
        if self._loop:
            self._loop.stop(Exit.INTERRUPTED, "the desk stops")

    # -- leases ---------------------------------------------------------------------------------------------------------

    async def _keep_renewing(self) -> None:
        """Get a new lease before the old one ends, and at once where the desk has to know something."""
        due = -1.0
        while True:
            breaker, budget = self._pace.leased_breaker, self._pace.leased_budget
            if self._boottime() >= due or breaker.trouble:
                asked_at = self._boottime()
                report = self._report()
                reply = await self._call("renew", report)
                self._heard(report)
                lease = Lease(**reply["lease"])
                self._permit.take(lease, asked_at)
                self._pace.obey(lease)
                if lease.stopping and not self._stopping:
                    self._stop()
                due = asked_at + (RENEW / 2 if budget.is_wanted else RENEW)
            await self._runtime.sleep(LOOK)

    def _report(self) -> dict[str, Any]:
        """Return what happened since the last report that arrived."""
        requests, latency, seconds, made = self._told
        breaker, budget = self._pace.leased_breaker, self._pace.leased_budget
        trouble, breaker.trouble = breaker.trouble, None
        self._reported = (
            dict(self._meter.requests),
            dict(self._meter.latency),
            self._meter.latency_sum,
            self._pace.requests,
        )
        return {
            "holding": self._permit.number,
            "requests": [[*key, number - requests.get(key, 0)] for key, number in self._reported[0].items()],
            "latency": [[bucket, number - latency.get(bucket, 0)] for bucket, number in self._reported[1].items()],
            "latency_sum": self._reported[2] - seconds,
            "made": self._reported[3] - made,
            "in_flight": self._pace.limit.in_flight,
            "limit": self._pace.limit.value,
            "baseline": self._pace.limit.baseline,
            "trouble": trouble,
            "retries": budget.reported(),
            "nothing_else": budget.nothing_else,
            "retrying": [[event.ordinal, event.uuid, event.code, event.after] for event in self._events],
        }

    def _heard(self, report: Message) -> None:
        self._told = self._reported
        del self._events[: len(report["retrying"])]

    # -- messages -------------------------------------------------------------------------------------------------------

    async def _call(self, op: str, message: Message) -> dict[str, Any]:
        """Send a message until the desk has answered it. The desk obeys a message once, however often it arrives."""
        number = self._numbers[op] = self._numbers.get(op, 0) + 1
        whole = {**message, "worker": self._id, "number": number}
        if self._heard_at is None:
            self._heard_at = self._boottime()
        while True:
            try:
                reply = await self._link.call(op, whole)
            except LinkLost:
                if self._boottime() - self._heard_at > DESERTED:
                    raise DeskGone(may_rejoin=False) from None
                await self._runtime.sleep(TRY_AGAIN)
                continue
            self._heard_at = self._boottime()
            if reply.get("gone"):
                raise DeskGone(may_rejoin=not reply.get("over"))
            return reply

    async def close(self) -> None:
        """Close the link."""
        with contextlib.suppress(LinkLost):
            await self._link.close()
