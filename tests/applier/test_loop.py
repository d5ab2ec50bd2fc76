"""The loop over rows: what it writes down, and when, beside what it sends. A server and a ledger of the test's own, in virtual time."""

import asyncio
import json
import math
import random
import re
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any
from urllib.parse import unquote

import pytest

from bulkimg.applier import Ending, Loop, Paced, Policy
from bulkimg.applier.perform import FRESH
from bulkimg.credentials import Session
from bulkimg.errors import Exit
from bulkimg.model import Claim, Fields, Outcome, Status
from bulkimg.pace import Pace
from bulkimg.planner import Reader
from bulkimg.runtime import Runtime
from bulkimg.values import Limit
from bulkimg.zstack import Answer, ImageApi, Transport, make_auth
from tests.virtual import run_virtual

SLOW = 10.0  # seconds until an outcome is durable
NAMED: Fields = {"name": "x"}
BUSY = Answer(503, b"<html>busy</html>")
WAIT = Answer(429, retry_after=100.0)
LOST = Answer(None, failure="NO_ANSWER", detail="lost")
JOB_FAILED = Answer(503, b'{"error": {"code": "SYS.1001", "description": "busy"}}')


class Desk:
    """A server that keeps what it gets, after the given answers; a ledger in memory; and what happened, in order."""

    def __init__(
        self,
        rows: int,
        *,
        puts: Sequence[Answer] = (),
        polls: Sequence[Answer] = (),
        fields: Fields = NAMED,
        before: Fields | None = None,
        shows: Fields | None = None,
        connects: Sequence[float] = (),
        stops_at: float = math.inf,
    ) -> None:
        """`before`: what the plan saw of every image; `shows`: what every image shows now.

        `connects`: the seconds that the connections of the first requests take. `stops_at`: when the run is stopped.
        """
        self.happened: list[tuple[str, str]] = []  # (what, the job's uuid, or the row's line)
        self.moments: dict[str, list[float]] = {}  # when it happened
        self.outcomes: list[Outcome] = []
        self._rows = rows
        self._puts, self._polls, self._connects = list(puts), list(polls), list(connects)
        self._fields, self._before, self._shows = fields, before, shows or before or {}
        self.bodies: list[Fields] = []  # of the PUTs
        self._stops_at = stops_at
        self._loop = asyncio.get_running_loop()

    def _note(self, what: str, of: str) -> None:
        self.happened.append((what, of))
        self.moments.setdefault(what, []).append(self._loop.time())

    async def run(self, concurrency: int = 1) -> Ending | None:
        clock = self._loop.time
        runtime = Runtime(clock, lambda: 1e9 + clock(), asyncio.sleep, random.Random(1))
        pace = Pace(math.inf, concurrency, clock=clock, rng=runtime.rng)
        transport = Transport(self, "http://node:8080/zstack", Paced(pace))
        api = ImageApi(transport, make_auth(Session("5" * 32), transport, runtime.now), "updateImage")
        reader = Reader(api, pace.breaker, runtime, retries=3)
        policy = Policy(retries=3, max_errors=Limit(), job_timeout=60, drain_timeout=60)
        sends = Loop(self, api, reader, pace, policy, lambda event: None, runtime)
        if self._stops_at < math.inf:
            self._loop.call_at(self._stops_at, sends.stop, Exit.INTERRUPTED, "stopped")
        return await sends.run()

    # -- the server -----------------------------------------------------------------------------------------------------

    async def send(self, request: bytes, begin: Callable[[], Awaitable[bool]]) -> Answer:
        await asyncio.sleep(self._connects.pop(0) if self._connects else 0)
        if not await begin():
            return Answer(None, failure="TURN_LOST", sent=False)
        await asyncio.sleep(0.01)
        head, _, body = request.decode().partition("\r\n\r\n")
        if found := re.match(r"PUT /zstack/v1/images/(\w+)/actions", head):
            (job,) = re.findall(r"X-Job-UUID: (\w+)", head)
            self._note("put", job)
            self.bodies.append(json.loads(body)["updateImage"])
            return self._puts.pop(0) if self._puts else self._updated(found[1], self.bodies[-1])
        target = unquote(head.split()[1])
        if "/v1/api-jobs/" in target:
            self._note("poll", target.rpartition("/")[2])
            return self._polls.pop(0)
        self._note("look", target)
        images = [{"uuid": uuid, **self._shows} for uuid in re.findall("[0-9a-f]{32}", target)]
        return Answer(200, json.dumps({"inventories": images}).encode())

    @staticmethod
    def _updated(uuid: str, fields: Fields) -> Answer:
        return Answer(200, json.dumps({"inventory": {"uuid": uuid, **fields}}).encode())

    async def close(self) -> None:
        pass

    # -- the ledger -----------------------------------------------------------------------------------------------------

    async def claim(
        self, after: int, limit: int, new_job: Callable[[], str], now: float, only: Sequence[int] | None
    ) -> list[Claim]:
        numbers = range(after + 1, min(self._rows, after + limit) + 1)
        text = json.dumps(self._fields)
        claims = [
            Claim(n, n + 1, f"{n:032x}", self._fields, 1, new_job(), before=self._before, text=text) for n in numbers
        ]
        for claim in claims:
            self._note("claim", claim.job_uuid)
        return claims

    async def claim_again(self, item: Claim, now: float) -> None:
        await asyncio.sleep(0.01)
        self._note("claim", item.job_uuid)

    async def close_attempt(self, item: Claim, fate: str, code: str, http_status: int | None) -> None:
        self._note(fate, item.job_uuid)

    async def release(self, items: Sequence[Claim]) -> None:
        assert not items or self._loop.time() >= self._stops_at
        for item in items:
            self._note("release", item.job_uuid)

    def settle(self, outcome: Outcome, *, as_sent: bool = False) -> "asyncio.Future[None]":
        durable: asyncio.Future[None] = self._loop.create_future()
        self.outcomes.append(outcome)
        self._loop.call_later(SLOW, self._durable, durable, outcome)
        return durable

    def _durable(self, durable: "asyncio.Future[None]", outcome: Outcome) -> None:
        self._note("durable", str(outcome.line))
        durable.set_result(None)

    def remember_key(self, key: str) -> None:
        pass


def told(story: Callable[[], Coroutine[Any, Any, Desk]]) -> Desk:
    return run_virtual(story())


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_row_has_its_slot_until_its_outcome_is_durable(concurrency: int) -> None:
    async def story() -> Desk:
        desk = Desk(6)
        assert await desk.run(concurrency) is None
        return desk

    desk = told(story)
    puts, durable = desk.moments["put"], desk.moments["durable"]
    assert len(puts) == len(durable) == 6
    for at, moment in enumerate(puts[concurrency:]):
        assert moment >= durable[at]


def test_another_try_is_written_down_before_it_is_sent_and_keeps_a_job_that_was_not_used() -> None:
    async def story() -> Desk:
        desk = Desk(1, puts=[BUSY])
        assert await desk.run() is None
        return desk

    desk = told(story)
    assert [what for what, _ in desk.happened] == ["claim", "put", "unclear", "claim", "put", "durable"]
    assert len({job for what, job in desk.happened if what != "durable"}) == 1
    assert [(one.status, one.attempts) for one in desk.outcomes] == [(Status.UPDATED, 2)]


def test_another_try_after_a_job_that_failed_is_another_job() -> None:
    async def story() -> Desk:
        desk = Desk(1, puts=[LOST], polls=[JOB_FAILED])
        assert await desk.run() is None
        return desk

    desk = told(story)
    assert [what for what, _ in desk.happened] == ["claim", "put", "poll", "unclear", "claim", "put", "durable"]
    first, second = (job for what, job in desk.happened if what == "put")
    assert first != second
    assert [job for what, job in desk.happened if what == "claim"] == [first, second]


def test_a_row_whose_turn_comes_late_is_compared_again_before_it_is_sent() -> None:
    """Both rows were compared when they were claimed; then the server asked the run to wait."""

    async def story() -> Desk:
        desk = Desk(2, puts=[WAIT], before={"name": "old"})
        assert await desk.run() is None
        return desk

    desk = told(story)
    assert [(one.status, one.attempts) for one in desk.outcomes] == [(Status.UPDATED, n) for n in (1, 2)]
    looks, puts = desk.moments["look"], desk.moments["put"]
    assert len(puts) == 3
    for put in puts:
        assert any(put - FRESH <= look <= put for look in looks)


def test_a_row_whose_connection_is_there_when_the_breaker_is_open_waits_and_is_compared_again() -> None:
    async def story() -> Desk:
        look, first, second = 0.0, 0.0, 5.0
        desk = Desk(2, puts=[WAIT], before={"name": "old"}, connects=[look, first, second])
        assert await desk.run(2) is None
        return desk

    desk = told(story)
    assert sorted((one.status, one.attempts) for one in desk.outcomes) == [(Status.UPDATED, n) for n in (1, 2)]
    refused, *later = desk.moments["put"]
    assert len(later) == 2, "the second row sends nothing at 5 s"
    assert all(put >= refused + 100 for put in later)
    assert all(any(put - FRESH <= look <= put for look in desk.moments["look"]) for put in later)
    assert len({job for what, job in desk.happened if what == "put"}) == 2, "no job is used"
    assert [what for what, _ in desk.happened if what in ("refused", "unsent", "unclear")] == ["refused"]


def test_a_stop_gives_back_what_waits_for_its_connection() -> None:
    """The second row has sent its bytes, and is waited for."""

    async def story() -> Desk:
        desk = Desk(4, connects=[0, 4.995, 20, 20], stops_at=5)
        assert await desk.run(4) is not None
        assert asyncio.get_running_loop().time() < 20, "nothing waits for the connections"
        return desk

    desk = told(story)
    assert [one.line for one in desk.outcomes] == [2, 3]
    assert len(desk.moments["put"]) == 2
    jobs = {what: {job for happened, job in desk.happened if happened == what} for what in ("claim", "put", "release")}
    assert jobs["claim"] == jobs["put"] | jobs["release"]


def test_a_stop_gives_back_what_has_lost_its_turn() -> None:
    """The server has asked the run to wait, and the second row's connection is there meanwhile."""

    async def story() -> Desk:
        desk = Desk(2, puts=[WAIT], connects=[0, 5], stops_at=10)
        assert await desk.run(2) is not None
        return desk

    desk = told(story)
    assert desk.outcomes == []
    assert len(desk.moments["put"]) == 1
    jobs = {what: {job for happened, job in desk.happened if happened == what} for what in ("claim", "put", "release")}
    assert jobs["claim"] - jobs["put"] <= jobs["release"]


def test_only_what_differs_now_is_sent() -> None:
    """One field got its value after the plan was made."""

    async def story() -> Desk:
        fields: Fields = {"name": "x", "description": "y"}
        desk = Desk(2, fields=fields, before={"name": "a", "description": "b"}, shows={"name": "a", "description": "y"})
        assert await desk.run() is None
        return desk

    desk = told(story)
    assert desk.bodies == [{"name": "x"}] * 2
    assert [one.status for one in desk.outcomes] == [Status.UPDATED] * 2
