"""A server and its network in one process and in virtual time: it answers, loses, delays and refuses by seed.

It knows the API from docs/dev/protocol.md, and none of the rules that it tests. It shares only the type of an answer
with bulkimg.
"""

import json
import math
import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from bulkimg.zstack import Answer
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
    deaf_to: str = ""  # a kind of query that a proxy never passes on: "api-jobs" or "images"


@dataclass(frozen=True)
class Put:
    """A PUT as it arrived."""

    at: float
    uuid: str
    job: str
    body: str


class Network:
    """A network that outlives the processes that use it. `before_put` is called for each PUT that is sent."""

    def __init__(
        self,
        weather: Weather,
        images: Mapping[str, dict[str, Any]],
        rng: random.Random,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.weather = weather
        self.images = {uuid: dict(fields) for uuid, fields in images.items()}
        self._rng, self._clock, self._sleep = rng, clock, sleep
        self.puts: list[Put] = []
        self.requests: list[tuple[float, str]] = []
        self.applied: dict[str, set[str]] = {}
        self.holds: list[tuple[float, float]] = []
        self.before_put: Callable[[str, str], None] = lambda uuid, job: None
        self.breaches: list[str] = []
        self.logins = 0
        self.calm_since = math.inf
        self.met: set[str] = set()  # outages, by kind, that a request met
        self._sessions = {"5" * 32}
        self._jobs: dict[str, tuple[float, Callable[[], tuple[int, Any]]]] = {}
        self._flying: Counter[str] = Counter()
        self._dead_until = 0
        self.edited: dict[str, float] = {}

    def edit(self) -> None:
        """Make the edits of other users that are due."""
        for moment, uuid in self.weather.edits:
            if uuid not in self.edited and moment <= self._clock() and uuid in self.images:
                self.edited[uuid] = moment
                self.images[uuid]["platform"] = EDITED

    def calm(self) -> None:
        """End all faults."""
        self.calm_since = min(self.calm_since, self._clock())
        self.weather = Weather(self.weather.dialect, self.weather.service, edits=self.weather.edits)

    async def send(self, request: bytes) -> Answer:
        _, target, headers, body = parts(request)
        path = target.split("/zstack/v1/", 1)[1]
        kind = "put" if path.endswith("/actions") else re.split("[/?]", path)[0]
        now = self._clock()
        self.edit()
        self.requests.append((now, kind))
        if any(begin < now < end - 1e-6 for begin, end in self.holds):
            self.breaches.append(f"{kind} at {now:.3f} although the server asked to wait")
        for moment in [m for m in self.weather.sessions_die if self._dead_until <= m < now]:
            self._sessions.clear()
            self._dead_until = int(moment) + 1
        if kind == "put":
            uuid, job = path.split("/")[1], headers["X-Job-UUID"]
            self.before_put(uuid, job)
            if self._flying[uuid]:
                self.breaches.append(f"two PUTs of {uuid} at once")
            self._flying[uuid] += 1
            try:
                return await self._put(uuid, job, body.decode(), headers)
            finally:
                self._flying[uuid] -= 1
        return await self._ask(kind, path, headers)

    async def close(self) -> None:
        pass

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

    # -- the API --------------------------------------------------------------------------------------------------------

    async def _put(self, uuid: str, job: str, body: str, headers: Mapping[str, str]) -> Answer:
        if how := self._outage():
            if how != "refused":
                self.puts.append(Put(self._clock(), uuid, job, body))
            return await self._down(how)
        fault = self._draw()
        if fault == "refused":
            return await self._lost("NOT_CONNECTED", sent=False)
        self.puts.append(Put(self._clock(), uuid, job, body))
        return await self._early(fault) or await self._honest(uuid, job, body, headers, fault)

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
            return _refusal("SYS.1000" if fault == "internal" else "SYS.1010", "not now")
        return Answer(
            {"html": 200}.get(fault) or int(fault), b"<html>not what you think</html>" if fault != "204" else b""
        )

    async def _honest(self, uuid: str, job: str, body: str, headers: Mapping[str, str], fault: str) -> Answer:
        said = json.loads(body)
        key = "updateimage" if self.weather.dialect == "documented" else "updateImage"
        if key not in said:
            return Answer(
                400, f"the body doesn't contain action mapping to the URL[/v1/images/{uuid}/actions]".encode()
            )
        if self.weather.dialect == "zstack" and job in self._jobs:
            return Answer(400, f"Duplicate job uuid[{job}]".encode())
        session = headers.get("Authorization", "").removeprefix("OAuth ")
        late = self._rng.uniform(0.1, 60) if fault == "late" else 0.0
        result = self._once(lambda: self._act(uuid, said[key], session))
        if self.weather.dialect == "zstack":
            self._jobs[job] = (self._clock() + late + self.weather.service * self._rng.uniform(0.5, 2), result)
            answer = _json(202, {"location": f"http://10.9.9.9:8080/zstack/v1/api-jobs/{job}"})
            await self._sleep(0.01)
        else:
            if late:
                return await self._later(late, result)
            await self._sleep(self.weather.service)
            answer = _json(*result())
        return await self._spoil(fault, answer, uuid)

    async def _later(self, late: float, result: Callable[[], Any]) -> Answer:
        """Lose the answer and make the change later, whether a client waits for it or not."""
        import asyncio

        asyncio.get_running_loop().call_later(late, result)
        return await self._lost()

    async def _spoil(self, fault: str, answer: Answer, uuid: str) -> Answer:
        """Apply a fault that comes after the server has acted or has accepted the job."""
        if fault in ("lost-after", "late"):
            return Answer(None, failure="NO_ANSWER", detail="reset")
        if fault == "silent":
            return await self._lost("TIMEOUT", after=TIMEOUT)
        if fault == "html-after":
            return Answer(200, b"<html>log in</html>")
        if fault == "cut":
            return Answer(200, answer.raw[: len(answer.raw) // 2])
        if fault in ("500-after", "302-after"):
            return Answer(int(fault[:3]), b"oops")
        if fault == "internal-after":
            return _refusal("SYS.1000", "something broke")
        if fault == "wrong-image":
            other = self._rng.choice(sorted(self.images))
            return _json(200, {"inventory": {"uuid": other, **self.images[other]}}) if other != uuid else answer
        return answer

    def _act(self, uuid: str, fields: Mapping[str, Any], session: str) -> tuple[int, Any]:
        self.edit()
        if uuid not in self.images:
            details = f"invalid field[uuid], resource[uuid:{uuid}, type:ImageVO] not found"
            return 503, _error("SYS.1003", details)
        if session not in self._sessions:
            return 503, _error("ID.1001", "Session expired")
        if self.images[uuid].get("locked"):
            return 503, _error("ID.1002", f"no permission on image[uuid:{uuid}]")
        self.images[uuid].update({name: str(value).strip() for name, value in fields.items()})
        self.applied.setdefault(uuid, set()).add(json.dumps(fields, sort_keys=True))
        return 200, {"inventory": {"uuid": uuid, **self.images[uuid]}}

    @staticmethod
    def _once(act: Callable[[], tuple[int, Any]]) -> Callable[[], tuple[int, Any]]:
        done: list[tuple[int, Any]] = []

        def result() -> tuple[int, Any]:
            if not done:
                done.append(act())
            return done[0]

        return result

    def settle_jobs(self) -> None:
        """Execute all accepted jobs."""
        for _, result in self._jobs.values():
            result()

    async def _ask(self, kind: str, path: str, headers: Mapping[str, str]) -> Answer:
        if how := self._outage():
            return await self._down(how)
        if self._rng.random() < self.weather.ask_faults:
            return await self._lost() if self._rng.random() < 0.5 else Answer(502, b"<html>bad gateway</html>")
        await self._sleep(0.01)
        if kind == self.weather.deaf_to:
            return Answer(502, b"<html>bad gateway</html>")
        if kind == "accounts":
            return self._account(path)
        last = path.rsplit("/", maxsplit=1)[-1]
        if kind == "api-jobs":
            return self._poll(last)
        if headers.get("Authorization", "").removeprefix("OAuth ") not in self._sessions:
            return Answer(503, json.dumps(_error("ID.1001", "Session expired")).encode())
        asked = parse_qs(urlsplit(path).query).get("q", [f"uuid?={last}"])[0].removeprefix("uuid?=").split(",")
        found = [{"uuid": uuid, **self.images[uuid]} for uuid in sorted(asked) if uuid in self.images]
        return _json(200, {"inventories": found})

    def _poll(self, job: str) -> Answer:
        if job not in self._jobs:
            return Answer(404, b"the job has been expired")
        ready, result = self._jobs[job]
        return _json(*result()) if ready <= self._clock() else _json(202, {})

    def _account(self, path: str) -> Answer:
        if path != "accounts/login":
            return _json(200, {})
        self.logins += 1
        session = f"{self._rng.getrandbits(128):032x}"
        self._sessions.add(session)
        return _json(200, {"inventory": {"uuid": session}})


def _json(status: int, body: Any) -> Answer:
    return Answer(status, json.dumps(body).encode())


def _error(code: str, details: str) -> dict[str, Any]:
    return {"error": {"code": code, "description": "refused", "details": details}}


def _refusal(code: str, details: str) -> Answer:
    return _json(503, _error(code, details))


def row_of(body: str) -> str:
    """Return the body without its key: all attempts of a row must have the same."""
    return re.sub(r'^\{"update[iI]mage"', '{"update"', body)
