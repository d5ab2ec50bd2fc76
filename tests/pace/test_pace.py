"""The rate is a hard cap over any second, spread evenly, first come first served, and can change at any time."""

import asyncio
import math
import time

import pytest

from bulkimg.pace import SILENT, WELL, Health, Pace, State
from tests.virtual import run_virtual
from tests.windows import most_within


@pytest.mark.parametrize(("rate", "seconds", "waiters"), [(10, 2.0, 5), (100, 2.0, 50), (1000, 2.0, 200)])
async def test_the_cap_holds_in_every_second_and_in_every_tenth(rate: int, seconds: float, waiters: int) -> None:
    pace = Pace(rate, 1)
    times: list[float] = []

    async def take() -> None:
        while time.monotonic() < end:
            await pace.begin(await pace.admit())
            times.append(time.monotonic())

    end = time.monotonic() + seconds
    await asyncio.gather(*(take() for _ in range(waiters)))
    times.sort()
    assert most_within(1.0, times) <= rate
    assert most_within(0.1, times) <= 0.15 * rate + 1


async def test_first_come_first_served() -> None:
    pace = Pace(200, 1)
    order: list[int] = []

    async def take(number: int) -> None:
        await pace.admit()
        order.append(number)

    await asyncio.gather(*(take(number) for number in range(60)))
    assert order == list(range(60))


async def test_a_cancelled_waiter_takes_nothing_and_the_rate_changes_live() -> None:
    pace = Pace(1, 1)
    await pace.admit()
    waiters = [asyncio.create_task(pace.admit()) for _ in range(5)]
    await asyncio.sleep(0.02)
    for waiter in waiters:
        waiter.cancel()
    pace.rate.set(math.inf)
    await asyncio.wait_for(pace.admit(), 30)


async def test_a_request_whose_connection_comes_when_the_breaker_is_open_has_lost_its_turn() -> None:
    pace = Pace(math.inf, 4)
    early, late = await pace.admit(), await pace.admit()
    assert await pace.begin(early)
    pace.record(early, Health(State.ASKED, "HTTP_429", 0.02))
    assert not await pace.begin(late)
    pace.give_back(late)
    trial = await pace.admit()
    assert await pace.begin(trial), "the trial is what the breaker waits for"
    probe = await pace.admit_probe()
    assert await pace.begin(probe), "the breaker asks by itself"
    pace.record(probe, SILENT)
    pace.record(trial, WELL)
    assert pace.requests == 3, "what is not sent is not counted"


def test_requests_that_have_lost_their_turns_hold_up_no_other() -> None:
    """Fifty connections are there at once, and the first answer asks the run to wait."""

    async def work() -> tuple[list[float], float]:
        loop = asyncio.get_running_loop()
        pace = Pace(10, 50, clock=loop.time)
        epochs = [await pace.admit() for _ in range(50)]
        opened = loop.time()
        late = [asyncio.create_task(pace.begin(epoch)) for epoch in epochs[1:]]
        await asyncio.sleep(0.01)
        pace.record(epochs[0], Health(State.ASKED, "HTTP_429", 0.3))
        lost = []
        for epoch, task in zip(epochs[1:], late, strict=True):
            if not await task:
                pace.give_back(epoch)
                lost.append(loop.time() - opened)
        trial = await pace.admit()
        assert await pace.begin(trial)
        return lost, loop.time() - opened

    lost, begun = run_virtual(work())
    assert len(lost) >= 45
    assert max(lost) < 0.2
    assert begun < 1
