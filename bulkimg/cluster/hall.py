"""The hall: where workers join, get leases, and leave. It owns the gate, the retry budget and the rate of all of them."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bulkimg import __version__
from bulkimg.cluster.gate import Gate
from bulkimg.cluster.members import Crew, Member
from bulkimg.cluster.messages import GRACE, LEASE, Lease, Message
from bulkimg.cluster.shares import Shares, usable, wanted
from bulkimg.engine.carrying import Equipment, policy_of
from bulkimg.errors import Exit, StorageError, TargetError, UsageError
from bulkimg.model import Retrying, WorkerChanged

if TYPE_CHECKING:
    from bulkimg.cluster.desk import Desk

HELD_UP = 1.0  # seconds between two looks at the leases that show that this process was held up
LONG_LOST = 30.0  # seconds after which a silent worker is lost even if this process is held up all the time
TURN = 8.0  # seconds until other workers have the shares, where there are fewer shares than workers with rows
TICK = 0.1  # seconds between two looks at the leases
TRIAL_RATE = 1.0  # requests a second while one worker tries whether the server is well again
FIRST_WORKER = 60.0  # seconds until the first worker has to be here
OTHERS = 3.0  # seconds for other workers to appear, when all that are known were refused
FAREWELL = 5.0  # seconds in which workers log out
MOST_ROWS = 500  # of one message


class Hall:
    """Where workers join, for the whole run. Rows are given out while a desk is open in it."""

    def __init__(self, own: Equipment, *, origin: str, account: str) -> None:
        self._own = own
        self._action_key = own.action_key
        self._origin, self._account = origin, account
        self._runtime, self._pace = own.runtime, own.pace
        self.crew = Crew(own.pace.limit.most)
        own.pace.limit = self.crew  # type: ignore[assignment] # what status, report and metrics read of it
        self.gate = Gate(own.pace.breaker)
        self._shares = Shares()
        self._shares.grant("the desk itself", math.inf, math.inf, 0, own.runtime.clock(), own.runtime.clock())
        self._handlers: dict[str, Callable[[Member, str, Message], Awaitable[dict[str, Any]]]] = {
            "renew": self._renew,
            "claim": self._claim,
            "write": self._write,
            "leave": self._leave,
        }
        self.desk: Desk | None = None
        self.earlier: list[dict[str, Any]] = own.run.ledger.meta("workers", [])  # of earlier processes of this run
        self.is_over = False
        self.expected = 0  # workers whose tasks have begun and not ended
        self.trouble = ""  # why no worker can be looked for at the moment
        self.failure: BaseException | None = None  # a bug
        self._refused: list[str] = []
        self._joined: dict[str, dict[str, Any]] = {}  # answers, by the token of the joining
        self._looked_at = own.runtime.clock()
        self._changed = asyncio.Event()  # a worker has joined or was refused

    # -- workers --------------------------------------------------------------------------------------------------------

    async def first_worker(self, within: float = FIRST_WORKER) -> None:
        """Return when the first worker is here. Raises UsageError where it is refused, TargetError where none comes."""
        try:
            async with asyncio.timeout(within):
                while not self.crew.here:
                    if self.failure:
                        raise self.failure
                    if not self._refused:
                        self._changed.clear()
                        await self._changed.wait()
                    elif await self._are_all_refused():
                        raise self._no_worker_fits()
        except TimeoutError:
            if self._refused:
                raise self._no_worker_fits() from None
            hint = (
                f"{self.trouble}; check that it runs"
                if self.trouble
                else "check that it has workers, that bulkimg is installed there, and that they can reach this machine "
                "(--desk HOST:PORT)"
            )
            raise TargetError(
                f"no worker of the cluster came within {within:g} s, so nothing was sent; {hint}"
            ) from None

    async def _are_all_refused(self) -> bool:
        """Return whether no worker is here after a moment, and none is expected."""
        await self._runtime.sleep(OTHERS)
        return not self.crew.here and not self.expected

    def _no_worker_fits(self) -> UsageError:
        return UsageError(f"no worker of the cluster can work for this run: {self._refused[0]}")

    def fail(self, error: BaseException) -> None:
        """End the run by a bug."""
        self.failure = error
        self._changed.set()
        if self.desk:
            self.desk.fail(error)

    def refuse(self, worker: str, why: str) -> None:
        """Take note that a worker cannot work for this run."""
        self._refused.append(why)
        self._tell(worker, f"was refused: {why}")
        self._changed.set()

    async def handle(self, op: str, message: Message) -> dict[str, Any]:
        """Obey one message of a worker, and return the answer. A message that comes again gets the same answer."""
        if op == "join":
            return {"gone": True, "over": True} if self.is_over else self._join(message)
        member = self.crew.get(str(message.get("worker")))
        if member is None or op not in self._handlers:
            return {"gone": True, "over": self.is_over}
        number, earlier = member.answered.get(op, (0, None))
        if message["number"] < number:
            return {"late": True}  # it was under way for long, and its sender has had the answer of another copy
        if message["number"] > number:
            earlier = asyncio.ensure_future(self._handlers[op](member, str(message["worker"]), message))
            member.answered[op] = (message["number"], earlier)
        try:
            answer: dict[str, Any] = await asyncio.shield(earlier)
        except StorageError:  # the writer has told the run
            return {"gone": True}
        except Exception as error:  # a bug ends the run, and not only this message
            self.fail(error)
            return {"gone": True}
        return answer

    def _join(self, message: Message) -> dict[str, Any]:
        token = str(message.get("token", ""))
        if not token or token not in self._joined:  # another version may have none, and is refused
            self._joined[token] = self._first_join(message)
        return self._joined[token]

    def _first_join(self, message: Message) -> dict[str, Any]:
        name = f"{message['host']}:{message['pid']}"
        if why := self._unfit(message):
            self.refuse(name, why)
            return {"refused": why}
        ends = self._runtime.clock() + LEASE
        key = self.crew.add(Member(name, message["host"], message["pid"], self._runtime.now(), ends))
        self._tell(name, "joined")
        self._changed.set()
        return {"worker": key, "action_key": self._action_key, "policy": asdict(policy_of(self._own.run.settings, 0))}

    def _unfit(self, message: Message) -> str:
        """Return why this worker must not work for the run, or ""."""
        who = f"the worker on {message['host']}"
        if message["version"] != __version__:
            return f"{who} has bulkimg {message['version']}, this is {__version__}; install the same version"
        if message["origin"] != self._origin:
            return f"{who} is set up for {message['origin']}, but the run is for {self._origin}; change its BULKIMG_ENDPOINT or profile"
        if self._account and message["account"] and message["account"] != self._account:
            return f"{who} has the credentials of {message['account']}, but the run is of {self._account}; give it the same account"
        return ""

    def know_key(self, key: str) -> None:
        """Tell workers that join from now on how the server spells the action key."""
        self._action_key = key

    def _tell(self, worker: str, what: str) -> None:
        self._own.observe(WorkerChanged(worker, what))

    # -- leases ---------------------------------------------------------------------------------------------------------

    async def _renew(self, member: Member, key: str, message: Message) -> dict[str, Any]:
        if self.is_over and member.held:  # it must begin nothing more
            return {"gone": True, "over": True}
        self._take_in(member, key, message)
        now, cap = self._runtime.clock(), usable(self._pace.present_rate())
        has_rows = bool(member.held) or self._has_more
        sends = (self.desk is not None or self.is_over) and self.gate.may_send(key, now, has_rows=has_rows)
        share = self._part(member, cap, now) if sends else 0.0
        if self.gate.is_shut:
            share = min(TRIAL_RATE, cap) if sends else 0.0
        member.concurrency = most = 1 if self.gate.is_shut else self.crew.part_of(member)
        member.ends = now + LEASE
        number, member.rate = self._shares.grant(key, cap, share, message["holding"], member.ends, now)
        retries = 0 if not sends else min(1, message["retries"]) if self.gate.is_shut else self._retries(message)
        rate = None if math.isinf(member.rate) else member.rate
        paused, shut, stopping = self._pace.is_paused, self.gate.is_shut, self._is_stopping
        return {"lease": Lease(number, LEASE, rate, most, paused, shut, retries, stopping)._asdict()}

    def _part(self, member: Member, cap: float, now: float) -> float:
        """Return the requests a second that a worker should have now."""
        those = [one for one in self.crew.here if one.held]
        shares = max(1, int(min(cap, self.crew.most)))
        if len(those) > shares:
            those = turns(those, now)
        elif self._has_more or self.is_over:
            those += [one for one in self.crew.here if not one.held]
        those = those[:shares]
        return wanted(cap, those.index(member), len(those)) if member in those else 0.0

    @property
    def _has_more(self) -> bool:
        return self.desk is not None and self.desk.has_more

    @property
    def _is_stopping(self) -> bool:
        return self.desk is not None and self.desk.is_stopping

    def _take_in(self, member: Member, key: str, message: Message) -> None:
        """Count what the worker did, and hear of trouble."""
        meter, clock = self._own.meter, self._runtime.clock()
        meter.take_in(message["requests"], message["latency"], message["latency_sum"], clock)
        self._pace.requests += message["made"]
        member.requests += message["made"]
        member.in_flight, member.limit = message["in_flight"], message["limit"]
        if message["baseline"] is not None:
            self.crew.baseline = message["baseline"]
        for ordinal, uuid, code, after in message["retrying"]:
            self._own.observe(Retrying(ordinal, uuid, code, after))
        if message["trouble"]:
            self.gate.trouble(key, *message["trouble"])
        elif any(result == "ok" and number for _, result, number in message["requests"]):
            self.gate.well(key)
        else:
            self.gate.idle(key, clock)

    def _retries(self, message: Message) -> int:
        budget = self._pace.budget
        return sum(budget.take(nothing_else=message["nothing_else"]) for _ in range(min(message["retries"], 10)))

    # -- rows -----------------------------------------------------------------------------------------------------------

    async def _claim(self, member: Member, key: str, message: Message) -> dict[str, Any]:
        if self.is_over:
            return {"over": True}
        if self.desk is None or self.desk.is_stopping or self._runtime.clock() >= member.ends or not member.rate:
            return {"wait": self.desk is None or not self.desk.is_stopping}
        soon = 8 * member.limit if math.isinf(member.rate) else int(member.rate)
        rows = await self.desk.take(member, min(message["limit"], max(1, soon), MOST_ROWS))
        return {"rows": [list(row) for row in rows]}

    async def _write(self, member: Member, key: str, message: Message) -> dict[str, Any]:
        if self.desk is None:
            return {"gone": True} if member.held else {}
        await self.desk.write(member, message["ops"])
        return {}

    async def _leave(self, member: Member, key: str, message: Message) -> dict[str, Any]:
        self._end(member, key, "left", message["why"])
        return {}

    def _end(self, member: Member, key: str, state: str, why: str) -> None:
        member.state, member.why = state, why
        self.gate.pass_on(key)
        if state == "left":
            self._shares.end(key, self._runtime.clock())
        if self.desk:
            self.desk.take_back(member)
            if state == "left" and why and not self.crew.here:
                self.desk.stop(Exit.TARGET, why)
        if state == "lost" or why:
            what = f"is lost: {why}; what it may have sent is asked about" if state == "lost" else f"left: {why}"
            self._tell(member.name, what)

    def find_lost(self) -> None:
        """Take back the rows of the workers whose leases have ended without another.

        Not after this process itself was held up: what workers have sent meanwhile is read first.
        """
        now = self._runtime.clock()
        held_up, self._looked_at = now - self._looked_at > HELD_UP, now
        grace = LONG_LOST if held_up else GRACE
        for key, member in self.crew.items():
            if member.is_here and now > member.ends + grace:
                self._end(member, key, "lost", "no sign of life")

    async def close(self) -> None:
        """Let the workers log out, then end."""
        self.is_over = True
        until = self._runtime.clock() + FAREWELL
        while self.crew.here and self._runtime.clock() < until:
            await self._runtime.sleep(TICK)
            self.find_lost()
        await self.gate.close()


def turns(holders: Sequence[Member], now: float) -> list[Member]:
    """Return the workers that hold rows, first those whose turn it is: there may be more of them than shares."""
    first = int(now / TURN) % len(holders)
    return [*holders[first:], *holders[:first]]
