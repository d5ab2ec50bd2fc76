"""The rate in virtual time: kept in any second, reached, evenly spread, changed at any moment, and shared."""

import asyncio
import fcntl
import math
import os
import random
import statistics
import struct
import time
from itertools import pairwise
from pathlib import Path

import pytest

from bulkimg.pace.rate import RateLimiter
from bulkimg.pace.slots import FORGET, OwnSlots, SharedSlots, Slots, shared_slots
from tests.virtual import run_virtual
from tests.windows import most_within

RATES = (0.2, 1, 2.5, 5, 19, 20, 29, 50, 131, 500, 997, 5000)


async def send(
    rate: RateLimiter, until: float, sent: list[float], waiters: int = 32, stalls: random.Random | None = None
) -> None:
    """Run waiters that send as fast as they may. `stalls`: sometimes the process stops for up to 0.2 s."""
    loop = asyncio.get_running_loop()

    async def one() -> None:
        while loop.time() < until:
            await rate.admit()
            await rate.check()
            sent.append(loop.time())
            if stalls and stalls.random() < 0.005:
                loop.now += stalls.uniform(0, 0.2)  # type: ignore[attr-defined] # the loop is virtual

    await asyncio.gather(*(one() for _ in range(waiters)))


def sent_at(per_second: float, seconds: float, stalls: random.Random | None = None) -> list[float]:
    async def work() -> list[float]:
        sent: list[float] = []
        loop = asyncio.get_running_loop()
        await send(RateLimiter(per_second, loop.time), seconds, sent, stalls=stalls)
        return sent

    return run_virtual(work())


@pytest.mark.parametrize("per_second", RATES)
def test_it_is_reached_evenly_and_never_passed(per_second: float) -> None:
    sent = sent_at(per_second, max(4.0, 20 / per_second))
    assert most_within(1.0, sent) <= math.ceil(per_second)
    assert (len(sent) - 1) / (sent[-1] - sent[0]) >= 0.98 * per_second
    gaps = [later - earlier for earlier, later in pairwise(sent)]
    if per_second <= 500:  # above it, gaps are below the millisecond that a loop can wait for
        assert statistics.pstdev(gaps) / statistics.mean(gaps) < 0.3
    assert most_within(0.1, sent) <= 0.12 * per_second + 1


@pytest.mark.parametrize("per_second", [50, 997, 5000])
def test_a_process_that_stands_still_now_and_then_does_not_send_it_all_at_once_afterwards(per_second: float) -> None:
    sent = sent_at(per_second, 10, random.Random(1))
    assert most_within(1.0, sent) <= per_second
    assert most_within(0.1, sent) <= 0.12 * per_second + 1


@pytest.mark.parametrize("per_second", [0.2, 1.5, 2.5, 5, 500 / 60, 19.9, 20, 100 / 3, 60, 997])
def test_what_leaves_in_its_turn_is_not_held_before_its_first_byte(per_second: float) -> None:
    """A row's time is measured from its turn: waiting here would look like a slow server."""

    async def work() -> list[float]:
        loop, stalls = asyncio.get_running_loop(), random.Random(2)
        rate, held = RateLimiter(per_second, loop.time), list[float]()

        async def one() -> None:
            while loop.time() < max(10, 30 / per_second):
                await rate.admit()
                turn = loop.time()
                await rate.check()
                held.append(loop.time() - turn)
                if stalls.random() < 0.01:
                    loop.now += stalls.uniform(0, 0.2)  # type: ignore[attr-defined] # the loop is virtual

        await asyncio.gather(*(one() for _ in range(32)))
        return held

    assert max(run_virtual(work())) == 0


@pytest.mark.parametrize("per_second", [2.5, 5, 500 / 60, 19.9, 20, 100 / 3, 60, 997])
def test_requests_whose_connections_are_there_all_at_once_are_not_sent_at_once(per_second: float) -> None:
    """A server that accepts no connection for three seconds, then all of them."""

    async def work() -> list[float]:
        loop = asyncio.get_running_loop()
        rate, sent = RateLimiter(per_second, loop.time), list[float]()

        async def one() -> None:
            while loop.time() < 8:
                await rate.admit()
                if 2 < loop.time() < 5:
                    await asyncio.sleep(5 - loop.time())
                await rate.check()
                sent.append(loop.time())

        await asyncio.gather(*(one() for _ in range(50)))
        return sent

    sent = run_virtual(work())
    assert most_within(1.0, sent) <= math.ceil(per_second)
    assert most_within(0.1, sent) <= 0.15 * per_second + 1
    assert sum(5 <= at < 8 for at in sent) >= 0.97 * per_second * 3 - 1, "the rate is reached again"


def test_those_that_wait_go_at_once_when_the_rate_becomes_unlimited() -> None:
    async def work() -> float:
        loop = asyncio.get_running_loop()
        rate = RateLimiter(50, loop.time)

        async def one(*, is_late: bool) -> None:
            await rate.admit()
            if is_late:
                await asyncio.sleep(1)  # for its connection
            await rate.check()

        waiting = [asyncio.create_task(one(is_late=number < 10)) for number in range(40)]
        await asyncio.sleep(0.5)
        rate.set(0.01)
        await asyncio.sleep(60)
        assert not all(task.done() for task in waiting)
        rate.set(math.inf)
        raised = loop.time()
        await asyncio.gather(*waiting)
        return loop.time() - raised

    assert run_virtual(work()) < 0.1


def test_it_changes_at_any_moment_and_no_second_holds_more_than_either_rate_allows() -> None:
    changes = [5000, 5, 500, 1, 50, 5000, 0.2, 50]

    async def work() -> tuple[list[float], list[tuple[float, float]]]:
        loop = asyncio.get_running_loop()
        rate, sent, since = RateLimiter(50, loop.time), list[float](), [(0.0, 50.0)]
        sending = asyncio.ensure_future(send(rate, 2.5 * (len(changes) + 1), sent))
        for per_second in changes:
            await asyncio.sleep(2.5)
            rate.set(per_second)
            since.append((loop.time(), per_second))
        await sending
        return sent, since

    sent, since = run_virtual(work())
    for (begun, per_second), (ended, _) in pairwise([*since, (22.5, 0)]):
        now = [moment for moment in sent if begun + 1 <= moment < ended]
        assert most_within(1.0, now) <= math.ceil(per_second)
        if per_second >= 5:
            assert len(now) >= 0.97 * (ended - begun - 1) * per_second - 1, f"{per_second}/s is reached again"
    for (_, before), (changed, after) in pairwise(since):
        around = [moment for moment in sent if changed - 1 < moment < changed + 1]
        assert most_within(1.0, around) <= max(before, after)


def test_two_share_the_rate_by_turns_and_one_that_waits_takes_nothing(tmp_path: Path) -> None:
    async def work() -> tuple[list[float], list[float]]:
        loop = asyncio.get_running_loop()
        first, second = RateLimiter(100, loop.time), RateLimiter(100, loop.time)
        ours: list[float] = []
        theirs: list[float] = []
        with first.shared(place(tmp_path)), second.shared(place(tmp_path)):
            both = asyncio.gather(send(first, 9, ours), asyncio.sleep(3))
            await asyncio.sleep(3)
            await asyncio.gather(both, send(second, 6, theirs))
        return ours, theirs

    ours, theirs = run_virtual(work())
    assert most_within(1.0, sorted(ours + theirs)) <= 100
    alone = [moment for moment in ours if moment < 3 or moment > 6.1]
    assert len(alone) >= 0.98 * 100 * 5.9
    assert abs(sum(moment <= 6 for moment in theirs) - 148) <= 4, "half of three seconds"


def test_a_slow_one_does_not_slow_a_fast_one_down(tmp_path: Path) -> None:
    async def work() -> tuple[list[float], list[float]]:
        loop = asyncio.get_running_loop()
        fast, slow, slower = RateLimiter(50, loop.time), RateLimiter(5, loop.time), RateLimiter(5, loop.time)
        sent: list[list[float]] = [[], [], []]
        with fast.shared(place(tmp_path)), slow.shared(place(tmp_path)), slower.shared(place(tmp_path)):
            await asyncio.gather(send(fast, 10, sent[0]), send(slow, 20, sent[1], 4), send(slower, 20, sent[2], 4))
        return sent[0], sorted(sent[1] + sent[2])

    fast, slow = run_virtual(work())
    both = [moment for moment in sorted(fast + slow) if moment <= 10]
    assert most_within(1.0, both) <= 50
    assert sum(moment <= 10 for moment in fast) >= 0.75 * 50 * 10
    assert sum(moment <= 10 for moment in slow) >= 0.8 * 5 * 10
    assert most_within(1.0, [moment for moment in slow if 11 < moment <= 20]) <= 5, "two slow ones are one slow one"


def slots_file(tmp_path: Path) -> Path:
    """Return the file of the only target. Another one notes when unused files were removed."""
    (found,) = (path for path in (tmp_path / "pace").iterdir() if not path.name.startswith("."))
    return found


def place(folder: Path) -> Slots:
    return SharedSlots("http://node:8080/zstack", folder / "pace")


def test_a_process_that_is_stopped_while_it_holds_the_lock_stops_nobody_else(tmp_path: Path) -> None:
    async def work() -> list[float]:
        loop = asyncio.get_running_loop()
        rate, sent = RateLimiter(50, loop.time), list[float]()
        with rate.shared(place(tmp_path)):
            held = os.open(slots_file(tmp_path), os.O_RDWR)
            fcntl.flock(held, fcntl.LOCK_EX)
            await send(rate, 3, sent)
            os.close(held)
        return sent

    sent = run_virtual(work())
    assert most_within(1.0, sent) <= 50
    assert sum(moment < 3 for moment in sent) >= 0.9 * 50 * 3, "at their own rate"


def test_a_file_with_anything_in_it_is_begun_anew(tmp_path: Path) -> None:
    slots = place(tmp_path)
    file = slots_file(tmp_path)
    for content in (b"", b"\x00", b"\xff" * 16, b"garbage!garbage!", struct.pack("<dd", 1e9, 0.02), bytes(64)):
        file.write_bytes(content)
        assert slots.take(1000.0, 0.02) == 0
    slots.close()


def test_another_start_of_the_machine_or_another_target_is_not_waited_for(tmp_path: Path) -> None:
    slots, other = place(tmp_path), SharedSlots("http://other:8080/zstack", tmp_path / "pace")
    assert slots.take(1_000_000.0, 0.02) == 0
    assert slots.take(100.0, 0.02) == 0
    assert other.take(100.0, 0.02) == 0
    assert slots.take(100.0, 0.02) > 0
    slots.close()
    other.close()


def test_a_folder_that_others_can_write_in_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "pace").mkdir(mode=0o777)
    (tmp_path / "pace").chmod(0o777)
    with pytest.raises(PermissionError):
        place(tmp_path)
    (tmp_path / "elsewhere").symlink_to(tmp_path)
    with pytest.raises(PermissionError):
        SharedSlots("x", tmp_path / "elsewhere")


def test_files_that_nobody_has_used_for_days_go(tmp_path: Path) -> None:
    place(tmp_path).close()
    old, swept = sorted((tmp_path / "pace").iterdir(), key=lambda path: path.name.startswith("."))
    past = time.time() - FORGET - 1
    os.utime(old, (past, past))
    SharedSlots("another", tmp_path / "pace").close()
    assert old.exists(), "it was looked at a moment ago"
    os.utime(swept, (past, past))
    SharedSlots("another", tmp_path / "pace").close()
    assert not old.exists()


def test_where_there_is_no_safe_place_a_process_keeps_to_its_own_rate(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "pace").write_text("")
    monkeypatch.setattr("bulkimg.pace.slots._place", lambda: tmp_path / "pace")
    assert isinstance(shared_slots("http://node:8080"), OwnSlots)
