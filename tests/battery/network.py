"""A server and its network in one process and in virtual time: it answers, loses, delays and refuses by seed.

It shares only the type of an answer with bulkimg, and none of the rules that it tests.
"""

import asyncio
import math
import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bulkimg.zstack import Answer
from bulkimg.zstack.wire import TURN_LOST
from tests.battery.api import ZSTACK, Api, Call, Reply, error, inventory
from tests.zstack.raw import parts

EDITED = "Windows"  # another user's value of a platform
TIMEOUT = 30.0  # seconds until a client times out
NOT_APPLIED = ("refused", "lost-before", "500", "503", "429", "html", "internal", "not-ready", "204")
APPLIED = (
    "lost-after",
    "silent",
    "late",
    "html-after",
    "wrong-image",
    "cut",
    "500-after",
    "internal-after",
    "302-after",
)
KINDS = (*NOT_APPLIED, *APPLIED)


@dataclass(frozen=True)
class Weather:
    """The faults of a server and its network. Shares are of requests; outages are (begin, end, how)."""

    dialect: str
    service: float = 0.05
    faults: Mapping[str, float] = field(default_factory=dict)
    ask_faults: float = 0.0
    outages: tuple[tuple[float, float, str], ...] = ()
    sessions_die: tuple[float, ...] = ()
    edits: tuple[tuple[float, str], ...] = ()  # (when, image): another user changes its platform
    stalls: tuple[tuple[float, float], ...] = ()  # (begin, end): connections asked for meanwhile are there at its end
    deaf_to: str = ""  # a kind of query that a proxy never passes on: "api-jobs" or "images"


@dataclass(frozen=True)
class Put:
    """A PUT as it arrived."""

    at: float
    uuid: str
    job: str
    body: str


class Network(Api):
    """The API behind a network that outlives the processes that use it. `before_put` is called for each PUT that is sent."""

    sessions: set[str]

    def __init__(
        self,
        weather: Weather,
        images: Mapping[str, dict[str, Any]],
        rng: random.Random,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        super().__init__(
            weather.dialect,
            {uuid: {"uuid": uuid, **fields} for uuid, fields in images.items()},
            sessions={"5" * 32},
            new_session=lambda: f"{rng.getrandbits(128):032x}",
        )
        self.weather = weather
        self._rng, self._clock, self._sleep = rng, clock, sleep
        self.puts: list[Put] = []
        self.requests: list[tuple[float, str]] = []
        self.applied: set[str] = set()
        self.holds: list[tuple[float, float]] = []
        self.before_put: Callable[[str, str], None] = lambda uuid, job: None
        self.breaches: list[str] = []
        self.calm_since = math.inf
        self.met: set[str] = set()  # outages, by kind, that a request met
        self._ready: dict[str, float] = {}  # when jobs end
        self._flying: Counter[str] = Counter()
        self._dead_until = 0
        self.late_to_hear = 0.0  # seconds until all processes know that the server asks to wait
        self.edited: dict[str, float] = {}

    def edit(self) -> None:
        """Make the edits of other users that are due."""
        for moment, uuid in self.weather.edits:
            if uuid not in self.edited and moment <= self._clock() and uuid in self.table:
                self.edited[uuid] = moment
                self.table[uuid]["platform"] = EDITED

    def calm(self) -> None:
        """End all faults."""
        self.calm_since = min(self.calm_since, self._clock())
        self.weather = Weather(self.weather.dialect, self.weather.service, edits=self.weather.edits)

    async def send(self, request: bytes, begin: Callable[[], Awaitable[bool]]) -> Answer:
        await self.connected()
        if not await begin():
            return Answer(None, failure=TURN_LOST, sent=False)
        return await self.serve_wire(request)

    async def connected(self) -> None:
        """Return when a connection is there."""
        now = self._clock()
        for begin, end in self.weather.stalls:
            if begin <= now < end:
                await self._sleep(end - now)

    async def serve_wire(self, request: bytes) -> Answer:
        """Return the answer to a request whose bytes have been sent."""
        call = Call.of(*parts(request))
        now = self._clock()
        self.edit()
        self.requests.append((now, call.kind))
        if any(begin + self.late_to_hear < now < end - 1e-6 for begin, end in self.holds):
            self.breaches.append(f"{call.kind} at {now:.3f} although the server asked to wait")
        for moment in [m for m in self.weather.sessions_die if self._dead_until <= m < now]:
            self.sessions.clear()
            self._dead_until = int(moment) + 1
        if call.kind != "put":
            return await self._ask(call)
        self.before_put(call.uuid, call.job)
        if self._flying[call.uuid]:
            self.note_overlap(call.uuid)
        self._flying[call.uuid] += 1
        try:
            return await self._put(call)
        finally:
            self._flying[call.uuid] -= 1

    async def close(self) -> None:
        pass

    def note_overlap(self, uuid: str) -> None:
        """Take note of a PUT that begins while another one for the image is in flight."""
        self.breaches.append(f"two PUTs of {uuid} at once")

    # -- faults ---------------------------------------------------------------------------------------------------------

    def _outage(self) -> str:
        now = self._clock()
        return next((how for begin, end, how in self.weather.outages if begin <= now < end), "")

    async def _lost(self, failure: str = "NO_ANSWER", *, sent: bool = True, after: float = 0.01) -> Answer:
        await self._sleep(after)
        return Answer(None, failure=failure, detail="no answer", sent=sent)

    async def _down(self, how: str) -> Answer:
        self.met.add(how)
        if how == "refused":
            return await self._lost("NOT_CONNECTED", sent=False, after=0.001)
        if how == "silent":
            return await self._lost("TIMEOUT", after=TIMEOUT)
        await self._sleep(0.01)
        return Answer(503, b"<html>no server is available</html>")

    def _draw(self) -> str:
        point = self._rng.random()
        for kind, share in self.weather.faults.items():
            if point < share:
                return kind
            point -= share
        return ""

    async def _put(self, call: Call) -> Answer:
        put = Put(self._clock(), call.uuid, call.job, call.body.decode())
        if how := self._outage():
            if how != "refused":
                self.puts.append(put)
            return await self._down(how)
        fault = self._draw()
        if fault == "refused":
            return await self._lost("NOT_CONNECTED", sent=False)
        self.puts.append(put)
        return await self._early(fault) or await self._honest(call, fault)

    async def _early(self, fault: str) -> Answer | None:
        """Apply a fault that comes before the server acts. Returns its answer, or None without such a fault."""
        if fault not in NOT_APPLIED:
            return None
        await self._sleep(0.02)
        if fault == "lost-before":
            return Answer(None, failure="NO_ANSWER", detail="reset")
        if fault == "429":
            seconds = self._rng.choice((0.5, 1.0, 3.0))
            self.holds.append((self._clock(), self._clock() + seconds))
            return Answer(429, b"slow down", seconds)
        if fault in ("internal", "not-ready"):
            return _answer(error("SYS.1000" if fault == "internal" else "SYS.1010", "not now"))
        return Answer(
            {"html": 200}.get(fault) or int(fault), b"<html>not what you think</html>" if fault != "204" else b""
        )

    async def _honest(self, call: Call, fault: str) -> Answer:
        if refusal := self.refusal(call):
            return _answer(refusal)
        late = self._rng.uniform(0.1, 60) if fault == "late" else 0.0
        if self.dialect == ZSTACK:
            self._ready[call.job] = self._clock() + late + self.weather.service * self._rng.uniform(0.5, 2)
            reply = self.accept(call, executes=False)
            await self._sleep(0.01)
        elif late:  # the change is made, whether a client waits for it or not
            asyncio.get_running_loop().call_later(late, self.execute, call)
            return await self._lost()
        else:
            await self._sleep(self.weather.service)
            reply = self.execute(call)
        return await self._spoil(fault, reply, call.uuid)

    async def _spoil(self, fault: str, reply: Reply, uuid: str) -> Answer:
        """Apply a fault that comes after the server has acted or has accepted the job."""
        if fault in ("lost-after", "late"):
            return Answer(None, failure="NO_ANSWER", detail="reset")
        if fault == "silent":
            return await self._lost("TIMEOUT", after=TIMEOUT)
        if fault == "html-after":
            return Answer(200, b"<html>log in</html>")
        if fault == "cut":
            return Answer(200, reply.body[: len(reply.body) // 2])
        if fault in ("500-after", "302-after"):
            return Answer(int(fault[:3]), b"oops")
        if fault == "internal-after":
            return _answer(error("SYS.1000", "something broke"))
        if fault == "wrong-image" and (other := self._rng.choice(sorted(self.table))) != uuid:
            return _answer(inventory(other, self.table[other]))
        return _answer(reply)

    async def _ask(self, call: Call) -> Answer:
        if how := self._outage():
            return await self._down(how)
        if self._rng.random() < self.weather.ask_faults:
            return await self._lost() if self._rng.random() < 0.5 else Answer(502, b"<html>bad gateway</html>")
        await self._sleep(0.01)
        if self.weather.deaf_to and f"/{self.weather.deaf_to}" in call.path:
            return Answer(502, b"<html>bad gateway</html>")
        return _answer(self.answer(call))

    # -- its jobs, and images that nobody may change --------------------------------------------------------------------

    def execute(self, call: Call) -> Reply:
        self.edit()
        return super().execute(call)

    def apply(self, call: Call) -> Reply:
        if self.table[call.uuid].get("locked"):
            return error("ID.1002", f"no permission on image[uuid:{call.uuid}]")
        self.applied.add(call.uuid)
        return super().apply(call)

    def poll(self, uuid: str) -> Reply:
        if self._ready.get(uuid, math.inf) <= self._clock():
            self._settle(uuid)
        return super().poll(uuid)

    def _settle(self, uuid: str) -> None:
        job = self.jobs[uuid]
        job.reply = job.reply or self.execute(job.call)

    def settle_jobs(self) -> None:
        """Execute all accepted jobs."""
        for uuid in self.jobs:
            self._settle(uuid)


def _answer(reply: Reply) -> Answer:
    return Answer(reply.status, reply.body)


def row_of(body: str) -> str:
    """Return the body without its key: all attempts of a row must have the same."""
    return re.sub(r'^\{"update[iI]mage"', '{"update"', body)
