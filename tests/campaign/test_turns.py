"""Runs of one question are admitted in one order, so that two campaigns cannot wait for each other."""

import asyncio

from bulkimg.campaign.execute import Turns
from bulkimg.engine.together import lock_order
from bulkimg.settings import Settings

A, B = "http://a.example", "http://b.example"


def targets(**endpoints: str) -> dict[str, Settings]:
    return {name: Settings(endpoint=endpoint) for name, endpoint in endpoints.items()}


def test_the_order_is_that_of_the_servers_whatever_they_are_called() -> None:
    assert lock_order(targets(eu=A, us=B)) == ["eu", "us"]
    assert lock_order(targets(us=B, eu=A)) == ["eu", "us"]
    assert lock_order(targets(x=B, y="HTTP://A.example:80/")) == ["y", "x"]


def test_campaigns_that_lock_the_same_servers_in_their_own_order_both_end() -> None:
    """Each keeps what it has until it has all, as the runs of a question do."""
    servers = {A: asyncio.Lock(), B: asyncio.Lock()}
    both_began = asyncio.Barrier(2)

    async def campaign(chosen: dict[str, Settings]) -> None:
        turns, has_all, held = Turns(lock_order(chosen)), asyncio.Barrier(2), []

        async def run(name: str) -> None:
            server = servers[str(chosen[name].endpoint).removesuffix(":80")]
            async with turns.turn(name):
                await server.acquire()
                held.append(name)
            await has_all.wait()
            server.release()

        await both_began.wait()
        await asyncio.gather(*map(run, chosen))
        assert held == lock_order(chosen)

    async def two() -> None:
        async with asyncio.timeout(5):
            await asyncio.gather(campaign(targets(eu=A, us=B)), campaign(targets(us=B, eu=A)))

    asyncio.run(two())


def test_a_run_that_ends_without_its_turn_is_not_waited_for() -> None:
    async def second() -> str:
        turns = Turns(["eu", "us"])
        turns.ended("eu")
        async with asyncio.timeout(5), turns.turn("us"):
            return "entered"

    assert asyncio.run(second()) == "entered"
