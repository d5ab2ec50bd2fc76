"""A request that is given up while it waits leaves its place to the next one. In virtual time."""

import asyncio
import random

from bulkimg.pace import Health, Pace, State
from tests.virtual import run_virtual


def test_the_one_that_goes_alone_leaves_its_place_to_the_next() -> None:
    """It has passed the breaker and waits for its turn at the rate; nobody else may go before it has an answer."""

    async def story() -> float:
        loop = asyncio.get_running_loop()
        pace = Pace(0.1, 2, clock=loop.time, rng=random.Random(1))
        epoch = await pace.admit()
        pace.record(epoch, Health(State.ASKED, "HTTP_429", 1.0))
        alone = asyncio.create_task(pace.admit())
        await asyncio.sleep(3)
        assert not alone.done()
        alone.cancel()
        await asyncio.wait([alone])
        async with asyncio.timeout(60):
            await pace.admit()
        return loop.time()

    assert 10 <= run_virtual(story()) <= 22
