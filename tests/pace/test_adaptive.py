"""Adaptive concurrency in virtual time, against a queue: changing workers, noise, a neighbour, errors."""

import asyncio
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from bulkimg.pace.adaptive import FEW, AdaptiveConcurrency, LoadSignal
from tests.virtual import run_virtual

SERVICE = 0.02  # seconds
SETTLING = 10.0  # seconds after the start and after each step

Noise = Callable[[random.Random], float]
NOISES: dict[str, Noise] = {
    "none": lambda rng: rng.uniform(0.99, 1.01),
    "lognormal": lambda rng: rng.lognormvariate(-0.045, 0.3),
}


class Server:
    """A server of so many workers, first come first served."""

    def __init__(self, workers: int, noise: Noise, rng: random.Random) -> None:
        self.workers = workers
        self._noise, self._rng = noise, rng
        self._busy = 0
        self._queue: deque[asyncio.Future[None]] = deque()

    async def serve(self) -> None:
        if self._busy >= self.workers or self._queue:
            turn = asyncio.get_running_loop().create_future()
            self._queue.append(turn)
            await turn
        else:
            self._busy += 1
        await asyncio.sleep(SERVICE * self._noise(self._rng))
        self._busy -= 1
        while self._queue and self._busy < self.workers:
            self._busy += 1
            self._queue.popleft().set_result(None)


@dataclass
class Trial:
    """A run against a server whose number of workers changes every `each` seconds."""

    steps: tuple[int, ...]
    most: int = 200
    noise: str = "none"
    seed: int = 1
    each: float = 24.0
    neighbour: tuple[int, float, float] = (0, 0, 0)  # so many other requests at any time, from, to
    rows_per_s: float = 1e9
    done: list[tuple[float, float]] = field(default_factory=list)  # (when, seconds it took)
    limits: list[tuple[float, int]] = field(default_factory=list)
    limit: AdaptiveConcurrency = field(init=False)

    def run(self) -> "Trial":
        self.limit = AdaptiveConcurrency(self.most)
        run_virtual(self._run())
        return self

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        server = Server(self.steps[0], NOISES[self.noise], random.Random(self.seed))
        end = self.each * len(self.steps)
        workers: set[asyncio.Task[None]] = set()
        fresh = itertools.count()

        async def work() -> None:
            while loop.time() < end and len(workers) <= self.limit.value:
                if (wait := next(fresh) / self.rows_per_s - loop.time()) > 0:
                    await asyncio.sleep(wait)
                flight = self.limit.sent(loop.time())
                assert self.limit.in_flight <= self.most
                await server.serve()
                self.limit.landed(flight, loop.time(), LoadSignal.WELL)
                self.done.append((loop.time(), loop.time() - flight.since))
                spawn()
            workers.discard(asyncio.current_task())

        def spawn() -> None:
            while len(workers) < self.limit.value and loop.time() < end:
                workers.add(asyncio.ensure_future(work()))

        async def neighbour() -> None:
            _, begin, until = self.neighbour
            await asyncio.sleep(begin)
            while loop.time() < until:
                await server.serve()

        spawn()
        others = [asyncio.ensure_future(neighbour()) for _ in range(self.neighbour[0])]
        for workers_now in self.steps:
            server.workers = workers_now
            for _ in range(int(self.each * 10)):
                await asyncio.sleep(0.1)
                self.limits.append((loop.time(), self.limit.value))
        await asyncio.gather(*workers, *others)

    def between(self, begin: float, end: float) -> tuple[float, float]:
        """Return (rows a second, p95 seconds)."""
        took = sorted(seconds for when, seconds in self.done if begin <= when < end)
        return len(took) / (end - begin), took[int(0.95 * len(took))]


@pytest.mark.parametrize(
    ("steps", "noise"),
    [((5,), "none"), ((20,), "none"), ((20,), "lognormal"), ((50, 5, 50), "none"), ((5, 50, 5), "lognormal")],
)
def test_it_finds_what_the_server_can_do_within_ten_seconds_of_each_step(steps: tuple[int, ...], noise: str) -> None:
    trial = Trial(steps, noise=noise).run()
    for number, workers in enumerate(steps):
        reached, p95 = trial.between(number * trial.each + SETTLING, (number + 1) * trial.each)
        assert reached >= 0.95 * workers / SERVICE, (workers, reached)
        # Noise alone makes the 95th percentile 1.6 times as long. The limit here is for the queue.
        assert p95 <= SERVICE * (2.02 if noise == "none" else 2.5), (workers, p95)


def test_the_cap_is_never_passed() -> None:
    trial = Trial((50,), most=9, each=15).run()
    assert max(limit for _, limit in trial.limits) <= 9
    assert trial.between(5, 15)[0] >= 0.9 * 9 / SERVICE


def test_where_the_rate_bounds_it_the_limit_does_not_run_away() -> None:
    trial = Trial((50,), rows_per_s=50, each=40).run()
    assert max(limit for _, limit in trial.limits) <= 16
    assert trial.between(10, 40)[0] >= 49


def test_a_neighbour_is_made_room_for_and_what_he_leaves_is_taken_again() -> None:
    trial = Trial((20,), neighbour=(20, 15, 40), each=65).run()
    reached, p95 = trial.between(25, 40)
    assert 0.3 * 20 / SERVICE <= reached <= 0.7 * 20 / SERVICE
    assert p95 <= 4 * SERVICE
    assert trial.between(50, 65)[0] >= 0.95 * 20 / SERVICE


def flown(limit: AdaptiveConcurrency, now: float, together: int, seconds: float, record: LoadSignal) -> float:
    flights = [limit.sent(now) for _ in range(together)]
    for flight in flights:
        limit.landed(flight, now + seconds, record)
    return now + seconds


def settled(value: int) -> tuple[AdaptiveConcurrency, float]:
    """Let the limit grow to so much, on a server that never queues."""
    limit, now = AdaptiveConcurrency(value), 0.0
    while limit.value < value:
        now = flown(limit, now, limit.value, SERVICE, LoadSignal.WELL)
    return limit, now


def test_errors_shrink_it_once_for_all_that_were_out_together() -> None:
    limit, now = settled(100)
    flown(limit, now, 100, 0.001, LoadSignal.SICK)
    assert limit.value == 70


def test_fast_errors_and_refusals_never_speed_it_up() -> None:
    for record in (LoadSignal.SICK, LoadSignal.ELSE):
        limit, now = settled(40)
        limit.most = 1000
        for _ in range(200):
            before = limit.value
            now = flown(limit, now, limit.value, 0.0001, record)
            assert limit.value <= before


def test_a_server_that_has_become_slower_for_good_is_measured_anew() -> None:
    limit, now = settled(64)
    until = now + 200
    while now < until:
        now = flown(limit, now, limit.value, 3 * SERVICE, LoadSignal.WELL)
    assert limit.value == 64
    assert limit.baseline == pytest.approx(3 * SERVICE, rel=0.01)


def test_measuring_costs_a_hundredth_of_the_time_and_no_more_than_seconds() -> None:
    limit, now, few = AdaptiveConcurrency(64), 0.0, 0.0
    while now < 3000:
        measuring = limit.value == FEW
        before = now
        now = flown(limit, now, limit.value, 1.5, LoadSignal.WELL)
        few += (now - before) * measuring
    assert few <= 0.02 * now + 10


def test_without_it_the_cap_is_the_limit() -> None:
    limit = AdaptiveConcurrency(16, adapts=False)
    flown(limit, 0.0, 16, 100, LoadSignal.SICK)
    assert limit.value == 16
