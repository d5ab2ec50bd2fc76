"""Only the tries that a row itself caused are counted. The server is asked if the cause is not clear."""

import asyncio
import random

from bulkimg.pace import WELL, CircuitBreaker, Health, RetryCounter, State
from bulkimg.pace.breaker import NEAR
from tests.virtual import run_virtual

SICK = Health(State.SICK, "HTTP_503")


def new_gate() -> CircuitBreaker:
    loop = asyncio.get_running_loop()
    return CircuitBreaker(loop.time, asyncio.sleep, random.Random(1))


def test_what_is_certainly_its_own_is_spent_after_so_many_retries() -> None:
    async def story() -> None:
        patience = RetryCounter(2, new_gate())
        for spent in (False, False, True):
            patience.note(0)
            assert patience.spent is spent

    run_virtual(story())


def test_tries_that_an_outage_cost_are_not_counted() -> None:
    async def story() -> None:
        breaker = new_gate()
        patience = RetryCounter(1, breaker)
        for _ in range(NEAR):
            patience.note(breaker.record(0, SICK))
        assert breaker.is_open
        assert not await patience.is_spent()
        assert patience.own == 1, "and nobody waits longer for them"

    run_virtual(story())


def test_tries_that_failed_while_others_got_through_are_its_own() -> None:
    async def story() -> None:
        breaker = new_gate()
        patience = RetryCounter(2, breaker)
        for _ in range(3):
            patience.note(breaker.record(0, SICK))
            breaker.record(await breaker.passed(), WELL)  # another row, sent after it
        assert patience.spent

    run_virtual(story())


def test_where_nobody_was_answered_since_the_server_is_asked() -> None:
    """Once, and only if it makes a difference."""

    async def story(*, well: bool) -> tuple[bool, int]:
        breaker, asked = new_gate(), 0

        async def probe() -> bool:
            nonlocal asked
            asked += 1
            return well

        breaker.probe = probe
        patience = RetryCounter(2, breaker)
        for _ in range(2):
            patience.note(breaker.record(0, SICK))
        assert not await patience.is_spent()
        assert asked == 0, "two tries are not too many, whoever is to blame"
        patience.note(breaker.record(0, SICK))
        return await patience.is_spent(), asked

    assert run_virtual(story(well=True)) == (True, 1)
    assert run_virtual(story(well=False)) == (False, 1)
