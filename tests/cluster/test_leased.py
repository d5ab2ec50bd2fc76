"""A worker without a valid lease sends nothing, and its failures while it tries are told to the desk."""

import asyncio
import random
from typing import Any

import pytest

from bulkimg.cluster.gate import Gate
from bulkimg.cluster.leased import LeasedPace, Permit
from bulkimg.cluster.messages import Lease, Message
from bulkimg.cluster.worker import Worker
from bulkimg.credentials import Session
from bulkimg.engine.connect import Ports
from bulkimg.pace import FailureCause, Health, Pace, State
from bulkimg.runtime import Runtime
from bulkimg.settings import Settings
from tests.virtual import run_virtual
from tests.windows import most_within


def lease(seconds: float = 2.0, rate: float | None = None, *, shut: bool = False) -> Lease:
    return Lease(1, seconds, rate, 4, paused=False, shut=shut, retries=0, stopping=False)


def _runtime() -> Runtime:
    loop = asyncio.get_running_loop()
    return Runtime(loop.time, loop.time, asyncio.sleep, random.Random(1))


def test_nothing_begins_after_the_end_of_a_lease() -> None:
    async def story() -> list[float]:
        runtime, sent = _runtime(), []
        permit = Permit(runtime.clock)
        pace = LeasedPace(permit, runtime, adapts=False)

        async def send() -> None:
            while True:
                await pace.admit()
                sent.append(runtime.clock())
                await asyncio.sleep(0.1)

        task = asyncio.ensure_future(send())
        for at in (1.0, 6.0):
            await asyncio.sleep(at - runtime.clock())
            pace.obey(lease())
            permit.take(lease(), asked_at=at)
        await asyncio.sleep(4)
        task.cancel()
        return sent

    sent = run_virtual(story())
    assert sent
    assert all(1 <= at < 3 or 6 <= at < 8 for at in sent)


def test_a_request_whose_connection_comes_after_the_end_of_the_lease_has_lost_its_turn() -> None:
    async def story() -> tuple[bool, bool]:
        runtime = _runtime()
        permit = Permit(runtime.clock)
        pace = LeasedPace(permit, runtime, adapts=False)
        pace.obey(lease())
        permit.take(lease(), asked_at=0.0)
        epoch = await pace.admit()
        await asyncio.sleep(1.9)
        in_time = await pace.begin(epoch)
        await asyncio.sleep(0.2)
        return in_time, await pace.begin(epoch)

    assert run_virtual(story()) == (True, False)


def test_requests_of_an_earlier_lease_count_in_the_next_one() -> None:
    """They wait for their connections from one lease to the other, and are not sent beyond its rate."""

    async def story() -> list[float]:
        runtime, sent = _runtime(), []
        permit = Permit(runtime.clock)
        pace = LeasedPace(permit, runtime, adapts=False)

        async def send() -> None:
            while runtime.clock() < 9:
                epoch = await pace.admit()
                if runtime.clock() < 5:
                    await asyncio.sleep(5 - runtime.clock())
                if await pace.begin(epoch):
                    sent.append(runtime.clock())

        tasks = [asyncio.ensure_future(send()) for _ in range(12)]
        for at in (0.5, 4.9, 6.4, 7.9):
            await asyncio.sleep(at - runtime.clock())
            permit.take(lease(rate=20), asked_at=at)
            pace.obey(lease(rate=20))
        await asyncio.gather(*tasks)
        return sent

    sent = run_virtual(story())
    assert len(sent) >= 60
    assert most_within(1.0, sent) <= 20


def test_a_turn_that_comes_after_the_end_of_the_lease_is_not_used() -> None:
    async def story() -> list[float]:
        runtime, sent = _runtime(), []
        permit = Permit(runtime.clock)
        pace = LeasedPace(permit, runtime, adapts=False)
        pace.obey(lease(rate=0.5))
        permit.take(lease(rate=0.5), asked_at=0.0)

        async def send() -> None:
            await pace.admit()
            sent.append(runtime.clock())

        tasks = [asyncio.ensure_future(send()) for _ in range(3)]  # their turns are at 0, 2 and 4 s
        await asyncio.sleep(20)
        for task in tasks:
            task.cancel()
        return sent

    assert [at < 2 for at in run_virtual(story())] == [True]


def test_a_lease_counts_from_before_it_was_asked_for() -> None:
    class SlowLink:
        """The way to a desk that answers every message after 1.5 s."""

        async def call(self, op: str, message: Message) -> dict[str, Any]:
            await asyncio.sleep(1.5)
            return {"lease": lease()._asdict()} if op == "renew" else {}

        async def close(self) -> None:
            pass

    async def story() -> float:
        runtime = _runtime()
        settings = Settings.model_validate({"endpoint": "http://127.0.0.1:9"})
        worker = Worker(SlowLink(), settings, Session("5" * 32), {}, Ports(runtime), runtime.clock)
        task = asyncio.ensure_future(worker._keep_renewing())
        await asyncio.sleep(1.6)
        task.cancel()
        return worker._permit.ends

    assert run_virtual(story()) == 2.0


def test_a_trial_that_fails_is_told_and_counts_against_its_row() -> None:
    async def story() -> None:
        pace = LeasedPace(Permit(lambda: 0.0), _runtime(), adapts=False)
        pace.obey(lease(rate=1.0, shut=True))
        failure = pace.breaker.record(pace.breaker.epoch, Health(State.SICK, "HTTP_502"))
        assert pace.leased_breaker.trouble == ("HTTP_502", None)
        pace.obey(lease(rate=1.0, shut=True))
        assert pace.breaker.cause_of(failure) is FailureCause.ROW
        pace.obey(lease(rate=1.0))
        pace.leased_breaker.trouble = None
        failure = pace.breaker.record(pace.breaker.epoch, Health(State.SICK, "HTTP_502"))
        assert pace.leased_breaker.trouble is None  # one failure alone is no trouble
        assert pace.breaker.cause_of(failure) is FailureCause.UNDECIDED

    run_virtual(story())


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (7.0, "the server asked to wait (HTTP_429)"),
        (900.0, "the server asked to wait 900 s (HTTP_429), but a run waits at most 300 s"),
    ],
)
def test_what_the_server_asked_for_is_said_once(asked: float, said: str) -> None:
    """The worker reports it, and the desk puts it into words."""

    async def story() -> list[str]:
        pace, heard = LeasedPace(Permit(lambda: 0.0), _runtime(), adapts=False), list[str]()
        pace.obey(lease(rate=1.0))
        pace.breaker.record(pace.breaker.epoch, Health(State.ASKED, "HTTP_429", asked))
        desks = Pace(1.0, 1).breaker
        desks.on_opened = lambda seconds, why: heard.append(why)
        desks.on_give_up = heard.append
        gate = Gate(desks)
        assert pace.leased_breaker.trouble is not None
        gate.trouble("w", *pace.leased_breaker.trouble)
        await gate.close()
        return heard

    assert run_virtual(story())[0] == said
