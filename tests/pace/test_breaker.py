"""The circuit breaker in virtual time: an outage costs few requests and no row's tries; the server's waits are kept."""

import asyncio
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from bulkimg.pace import RATE_LIMITED, SILENT, WELL, CircuitBreaker, FailureCause, Health, Pace, State
from bulkimg.pace.breaker import MOST_HOLD, NEAR
from tests.virtual import run_virtual

SICK = Health(State.SICK, "NOT_CONNECTED")
SERVICE = 0.02  # seconds


def asked(seconds: float | None) -> Health:
    return Health(State.ASKED, "HTTP_429", seconds)


@dataclass
class Model:
    """Some workers that send as fast as they may, and a server whose health is `answer(moment)`."""

    answer: Callable[[float], Health]
    rate: float = 100.0
    workers: int = 16
    max_outage: float = math.inf
    seed: int = 1
    alive: Callable[[float], bool] | None = None  # the probe's result; as `answer` if it is None
    sent: list[float] = field(default_factory=list)
    probes: list[float] = field(default_factory=list)
    gave_up: list[str] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    failure_ids: list[int] = field(default_factory=list)

    def run(self, seconds: float) -> Pace:
        return run_virtual(self._run(seconds))

    async def _run(self, seconds: float) -> Pace:
        loop = asyncio.get_running_loop()
        pace = Pace(math.inf, self.workers, max_outage=self.max_outage, clock=loop.time, rng=random.Random(self.seed))
        pace.rate.admit = self._paced  # type: ignore[method-assign] # asyncio-throttle looks at the real clock
        self._gap, self._turn, self._pace = 1 / self.rate, asyncio.Lock(), pace
        pace.breaker.probe = self._probe
        pace.breaker.on_give_up = self.gave_up.append
        pace.breaker.on_closed = self.waited.append
        workers = [asyncio.create_task(self._work()) for _ in range(self.workers)]
        await asyncio.sleep(seconds)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        return pace

    async def _paced(self) -> None:
        async with self._turn:
            await asyncio.sleep(self._gap / self._pace.rate._share)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            epoch = await self._pace.admit()
            self.sent.append(loop.time())
            await asyncio.sleep(SERVICE)
            self.failure_ids.append(self._pace.record(epoch, self.answer(loop.time())))

    async def _probe(self) -> bool:
        epoch = await self._pace.admit_probe()
        now = asyncio.get_running_loop().time()
        self.probes.append(now)
        await asyncio.sleep(SERVICE)
        self._pace.record(epoch, SILENT)
        return self.alive(now) if self.alive else self.answer(now).state is State.WELL

    def within(self, begin: float, end: float) -> list[float]:
        return sorted(moment for moment in [*self.sent, *self.probes] if begin <= moment < end)


def outage(begin: float, end: float) -> Callable[[float], Health]:
    return lambda moment: SICK if begin <= moment < end else WELL


@pytest.mark.parametrize("seed", range(8))
def test_half_an_hour_of_outage_costs_at_most_a_hundred_requests(seed: int) -> None:
    model = Model(outage(10, 1810), workers=32, seed=seed)
    model.run(1900)
    during = model.within(10 + 0.1, 1810)
    assert len(during) <= 100 - 32
    assert all(later - earlier >= 0.8 for earlier, later in pairwise(during)), "one at a time, and not often"
    assert len(model.within(1875, 1900)) > 0.9 * 25 * 100, "within a minute everything goes on"
    assert [1800 <= seconds <= 1875 for seconds in model.waited] == [True], "its end is told once"


@pytest.mark.parametrize("seed", range(4))
def test_a_server_that_answers_questions_and_no_changes_is_not_hammered_either(seed: int) -> None:
    model = Model(outage(10, 1810), alive=lambda _: True, seed=seed)
    model.run(1850)
    assert len(model.within(10.1, 1810)) <= 100


def test_rows_lose_nothing_to_an_outage_and_what_failed_alone_is_their_own() -> None:
    model = Model(outage(1, 61))
    pace = model.run(130)
    blamed = {pace.breaker.cause_of(failure_id) for failure_id in model.failure_ids if failure_id}
    assert blamed == {FailureCause.SERVER}
    alone = Model(lambda moment: SICK if round(moment * 1000) % 7 == 0 else WELL)
    pace = alone.run(5)
    blamed = {pace.breaker.cause_of(failure_id) for failure_id in alone.failure_ids if failure_id}
    assert FailureCause.ROW in blamed
    assert not pace.breaker.is_open


def test_after_an_outage_the_start_is_slow() -> None:
    model = Model(outage(5, 30), rate=200)
    model.run(90)
    begin = next(moment for moment in sorted(model.sent) if moment > 30)
    counts = [len(model.within(begin + n, begin + n + 1)) for n in range(6)]
    assert counts[0] <= 0.1 * 200 + 1
    assert counts == sorted(counts)
    assert counts[5] >= 0.95 * 200


@pytest.mark.parametrize("seconds", [1.0, 30.0, MOST_HOLD])
def test_nothing_is_sent_while_the_server_asks_to_wait(seconds: float) -> None:
    model = Model(lambda moment: asked(seconds) if 2 <= moment < 2.1 else WELL)
    pace = model.run(2 + seconds + 5)
    last = max(moment for moment in model.sent if moment < 2.1)
    assert model.within(last + 0.001, 2 + seconds) == []
    assert model.within(2 + seconds, 2 + seconds + 5)
    assert RATE_LIMITED in model.failure_ids
    assert not pace.breaker.is_open


def test_a_server_that_asks_for_a_second_again_and_again_is_asked_ever_less_often() -> None:
    model = Model(lambda moment: asked(1.0) if moment > 2 else WELL)
    model.run(1802)
    assert len(model.within(2.1, 1802)) <= 60


def test_a_server_that_asks_for_too_long_is_given_up() -> None:
    model = Model(lambda moment: asked(MOST_HOLD + 1) if moment > 2 else WELL)
    model.run(5)
    assert len(model.gave_up) == 1
    assert "301 s" in model.gave_up[0]


def test_patience_ends() -> None:
    model = Model(outage(1, 1e9), max_outage=60.0)
    model.run(200)
    assert len(model.gave_up) == 1
    assert "--max-outage" in model.gave_up[0]


def test_what_is_left_of_a_quota_is_not_passed() -> None:
    """The server accepts 20 requests in each ten seconds, and says how many are left."""
    taken: dict[int, int] = {}

    def answer(moment: float) -> Health:
        window = int(moment // 10)
        taken[window] = taken.get(window, 0) + 1
        left, reset = 20 - taken[window], 10 - moment % 10
        return Health(State.WELL, quota=(left, reset)) if left >= 0 else asked(reset)

    model = Model(answer, workers=8, rate=1000)
    model.run(100)
    assert max(taken.values()) <= 20
    assert min(list(taken.values())[:-1]) >= 19


async def test_a_cancelled_trial_does_not_keep_the_others_waiting() -> None:
    pace = Pace(math.inf, 4)
    for _ in range(NEAR):
        pace.record(await pace.admit(), SICK)
    assert pace.breaker.is_open
    pace.breaker._until = 0.0
    epoch = await pace.admit()
    second = asyncio.create_task(pace.admit())
    await asyncio.sleep(0.05)
    assert not second.done()
    pace.record(epoch, SILENT)
    pace.record(await asyncio.wait_for(second, 30), WELL)
    assert not pace.breaker.is_open


def test_a_waiter_that_leaves_takes_nothing_with_it() -> None:
    async def scene() -> None:
        loop = asyncio.get_running_loop()
        pace = Pace(math.inf, 4, clock=loop.time)
        for _ in range(NEAR):
            pace.record(await pace.admit(), SICK)
        waiters = [asyncio.create_task(pace.admit()) for _ in range(3)]
        await asyncio.sleep(0.1)
        waiters[0].cancel()
        await asyncio.sleep(5)
        assert waiters[1].done()
        pace.record(waiters[1].result(), WELL)
        pace.record(await waiters[2], WELL)

    run_virtual(scene())


def test_slow_answers_that_still_arrive_when_an_outage_has_begun_blame_no_row() -> None:
    """They were sent before it. A request that is sent after a failure and succeeds makes the row the cause."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        breaker = CircuitBreaker(loop.time, asyncio.sleep, random.Random(1))
        slow = [await breaker.passed() for _ in range(20)]
        own = breaker.record(slow.pop(), SICK)
        breaker.record(await breaker.passed(), WELL)
        assert breaker.cause_of(own) is FailureCause.ROW
        slow = [await breaker.passed() for _ in range(20)]
        troubles = []
        while slow:
            troubles.append(breaker.record(await breaker.passed(), SICK))
            breaker.record(slow.pop(), WELL)
        assert {breaker.cause_of(number) for number in troubles} == {FailureCause.UNDECIDED}
        assert not breaker.is_open
        troubles += [breaker.record(await breaker.passed(), SICK) for _ in range(NEAR)]
        assert breaker.is_open
        assert {breaker.cause_of(number) for number in troubles} == {FailureCause.SERVER}
        assert breaker.cause_of(own) is FailureCause.ROW

    run_virtual(story())
