"""What the desk promises for every order of messages, losses and commits; its workers are the test."""

import asyncio
from pathlib import Path

from bulkimg.cluster.gate import ALL_ASKED, PATIENCE, Gate
from bulkimg.pace.breaker import CircuitBreaker
from bulkimg.runtime import Runtime
from tests.cluster.office import Speaker, office, outcome


async def _turns(number: int = 10) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_what_a_lost_worker_held_is_asked_about(tmp_path: Path) -> None:
    async with office(tmp_path) as scene:
        first, second = await scene.worker(), await scene.worker()
        held = await first.claim(2)
        assert [(row.interrupted, row.doubtful) for row in held] == [(False, False)] * 2
        await scene.lose(first, stays=second)
        again = await second.claim(2)
        assert [row.ordinal for row in again] == [row.ordinal for row in held]
        assert all(row.interrupted and row.doubtful for row in again)
        assert [row.job_uuid for row in again] == [row.job_uuid for row in held]


async def test_a_desk_that_was_held_up_reads_first_what_workers_have_sent(tmp_path: Path) -> None:
    async with office(tmp_path) as scene:
        worker = await scene.worker()
        scene.now[0] += 10
        scene.hall.find_lost()
        assert scene.hall.crew.get(worker.key)
        await worker.renew()
        scene.now[0] += 0.1
        scene.hall.find_lost()
        assert scene.hall.crew.get(worker.key)
        for _ in range(20):  # held up all the time
            scene.now[0] += 2
            scene.hall.find_lost()
        assert scene.hall.crew.get(worker.key) is None


async def test_a_message_that_comes_twice_or_late_is_obeyed_once(tmp_path: Path) -> None:
    async with office(tmp_path) as scene:
        worker = await scene.worker()
        first = await worker.say("claim", 1, limit=2)
        assert await worker.say("claim", 1, limit=2) == first
        row = (await worker.say("claim", 2, limit=1))["rows"][0]
        assert not (await worker.say("claim", 1, limit=2)).get("rows")  # no worker would carry them
        again = ["again", row[0], 2, "f" * 32, 1.0]
        await worker.say("write", 1, ops=[again])
        await worker.say("write", 1, ops=[again])
        await worker.say("write", 2, ops=[["again", row[0], 3, "e" * 32, 2.0]])
        await worker.say("write", 1, ops=[again])
        assert scene.attempts(row[0])[1:] == ["f" * 32, "e" * 32]
        assert not scene.running.done()


async def test_a_worker_is_told_of_an_outcome_when_it_is_durable(tmp_path: Path) -> None:
    async with office(tmp_path) as scene:
        worker = await scene.worker()
        (row,) = await worker.claim(1)
        scene.disk.is_held = True
        told = asyncio.ensure_future(worker.write(["settle", outcome(row), False]))
        await _turns()
        assert not told.done()
        scene.disk.free()
        assert await told == {}


async def test_a_row_whose_outcome_is_being_written_is_handed_out_to_nobody(tmp_path: Path) -> None:
    async with office(tmp_path, rows=1) as scene:
        first, second = await scene.worker(), await scene.worker()
        (row,) = await first.claim(1)
        scene.disk.is_held = True
        told = asyncio.ensure_future(first.write(["settle", outcome(row), False]))
        await _turns()
        await scene.lose(first, stays=second)
        more = asyncio.ensure_future(second.claim(1))
        await _turns()
        assert not scene.desk._is_done()
        scene.disk.free()
        assert await more == []
        await told
        assert await asyncio.wait_for(scene.running, 5) is None


async def test_a_row_that_is_being_given_back_is_claimed_again(tmp_path: Path) -> None:
    """Its attempt is taken back, so it must not be sent with that one."""
    async with office(tmp_path, rows=1) as scene:
        first, second = await scene.worker(), await scene.worker()
        (row,) = await first.claim(1)
        scene.disk.is_held = True
        told = asyncio.ensure_future(first.write(["release", [row.ordinal]]))
        await _turns()
        await scene.lose(first, stays=second)
        scene.disk.free()
        await told
        (again,) = await second.claim(1)
        assert scene.attempts(row.ordinal) == [again.job_uuid]
        assert not again.interrupted


async def test_a_stop_waits_for_rows_that_are_being_claimed(tmp_path: Path) -> None:
    async with office(tmp_path, rows=1) as scene:
        worker = await scene.worker()
        scene.disk.is_held = True
        claimed = asyncio.ensure_future(worker.claim(1))
        await _turns()
        scene.desk.stop(5, "by the test")  # type: ignore[arg-type]
        assert not scene.desk._is_done()
        scene.disk.free()
        (row,) = await claimed
        await worker.write(["release", [row.ordinal]], ["ended"])
        await asyncio.wait_for(scene.running, 5)
        assert scene.attempts(row.ordinal) == []


async def test_what_comes_after_the_last_row_drives_no_worker_away(tmp_path: Path) -> None:
    async with office(tmp_path, rows=1) as scene:
        worker = await scene.worker()
        (row,) = await worker.claim(1)
        await worker.write(["settle", outcome(row), False])
        assert await worker.claim(1) == []
        await asyncio.wait_for(scene.running, 5)
        assert await worker.write(["ended"]) == {}


async def test_retries_of_all_workers_are_one_budget(tmp_path: Path) -> None:
    async with office(tmp_path) as scene:
        workers = [await scene.worker() for _ in range(3)]
        given = 0
        for _ in range(40):
            for worker in workers:
                given += (await worker.renew(retries=1))["retries"]
        assert 0 < given <= 20  # of 120 that were asked for, while nothing was sent


async def test_after_an_outage_the_rate_grows_again(tmp_path: Path) -> None:
    async with office(tmp_path, rate=100) as scene:
        worker = await scene.worker()
        scene.hall._pace._start_slowly()
        rates = []
        for _ in range(12):
            scene.now[0] += 0.5
            rates.append((await worker.renew())["rate"])
        assert rates[0] < 30
        assert rates[-1] == 99
        assert rates == sorted(rates)


async def test_trouble_stops_all_workers_but_one_and_the_trial_is_passed_on() -> None:
    now = [0.0]

    async def sleep(seconds: float) -> None:
        now[0] += seconds
        await asyncio.sleep(0)

    runtime = Runtime(clock=lambda: now[0], sleep=sleep)
    breaker = CircuitBreaker(runtime.clock, runtime.sleep, runtime.rng)
    gate = Gate(breaker)
    assert all(gate.may_send(name, now[0]) for name in "abc")
    gate.trouble("a", "no answer", None)
    assert not any(gate.may_send(name, now[0]) for name in "abc")
    await _turns(30)
    assert not gate.may_send("c", now[0], has_rows=False)  # it could try nothing
    assert [gate.may_send(name, now[0]) for name in "abc"] == [True, False, False]
    now[0] += PATIENCE + 0.1
    gate.idle("a", now[0])
    assert [gate.may_send(name, now[0]) for name in "abc"] == [False, True, False]
    now[0] += PATIENCE + 0.1
    gate.idle("b", now[0])
    assert not gate.may_send("a", now[0])
    assert not gate.may_send("b", now[0])
    now[0] += ALL_ASKED + 0.1  # no other worker is there
    assert gate.may_send("a", now[0])
    gate.well("a")
    assert all(gate.may_send(name, now[0]) for name in "abc")
    await gate.close()


async def test_the_concurrency_of_all_workers_is_that_of_the_run(tmp_path: Path) -> None:
    async with office(tmp_path, concurrency=8) as scene:
        first = await scene.worker()
        assert (await first.renew())["concurrency"] == 8
        second = await scene.worker()
        assert (await second.renew())["concurrency"] == 1  # until the first one has fewer in flight
        assert (await first.renew(in_flight=7))["concurrency"] == 4
        assert (await second.renew())["concurrency"] == 1
        assert (await first.renew(in_flight=3))["concurrency"] == 4
        assert (await second.renew())["concurrency"] == 4


async def test_every_worker_with_rows_has_its_turn_where_the_rate_is_too_low_for_all(tmp_path: Path) -> None:
    async with office(tmp_path, rate=12) as scene:
        workers = [await scene.worker() for _ in range(3)]
        for _ in range(8):
            scene.now[0] += 0.5
            for worker in workers:
                await worker.renew()
        for worker in workers:
            assert await worker.claim(1)
        scene.hall._pace.rate.set(1.0)
        had: set[str] = set()
        for _ in range(100):
            scene.now[0] += 0.5
            leases = {worker.key: (await worker.renew())["rate"] for worker in workers}
            assert sum(leases.values()) <= 12
            had |= {key for key, rate in leases.items() if rate == 1.0}
        assert had == {worker.key for worker in workers}


async def test_a_worker_without_rows_leaves_its_share_to_the_others(tmp_path: Path) -> None:
    async with office(tmp_path, rows=1, rate=12) as scene:
        busy, idle = await scene.worker(), await scene.worker()
        for _ in range(8):
            scene.now[0] += 0.5
            await busy.renew()
            await idle.renew()
        assert len(await busy.claim(5)) == 1
        assert await idle.claim(5) == []
        for _ in range(8):
            scene.now[0] += 0.5
            shares = [(await worker.renew())["rate"] for worker in (busy, idle)]
        assert shares == [11.0, 0.0]


async def test_a_worker_with_rows_begins_nothing_once_the_run_is_over(tmp_path: Path) -> None:
    async with office(tmp_path) as scene:
        worker = await scene.worker()
        scene.now[0] += 1.5
        await worker.renew()
        assert await worker.claim(1)
        scene.hall.is_over = True
        assert await worker.say("renew") == {"gone": True, "over": True}


async def test_a_worker_that_asks_to_join_twice_has_joined_once(tmp_path: Path) -> None:
    async with office(tmp_path) as scene:
        first = await Speaker(scene.hall).join("a token")
        again = await Speaker(scene.hall, numbers={"renew": 1}).join("a token")
        other = await Speaker(scene.hall).join("another")
        assert first.key == again.key != other.key
        assert len(scene.hall.crew.here) == 2


async def test_the_longest_wait_that_the_server_asks_any_worker_for_is_kept() -> None:
    now = [0.0]
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds
        await asyncio.sleep(0)

    runtime = Runtime(clock=lambda: now[0], sleep=sleep)
    gate = Gate(CircuitBreaker(runtime.clock, runtime.sleep, runtime.rng))
    gate.trouble("a", "no answer", None)
    await _turns(30)  # now a trial may be given out
    asked_at = now[0]
    gate.trouble("b", "HTTP_429", 60.0)
    assert not gate.may_send("a", now[0])
    await _turns(30)
    assert now[0] >= asked_at + 60
    assert gate.may_send("a", now[0])
    await gate.close()
