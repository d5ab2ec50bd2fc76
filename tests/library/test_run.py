"""`bulkimg.Run`: an async context with a stream of events. The run stops at the end of the block."""

import asyncio
import time
from pathlib import Path

import pytest

import bulkimg
from tests.library.calling import Caller


def a_run(call: Caller, rows: int, rate: str) -> bulkimg.Run:
    return bulkimg.Run(
        call.changes(rows),
        endpoint=call.server.url,
        credentials=bulkimg.Session(call.server.session),
        runs_dir=call.runs_dir,
        rate=rate,
    )


async def until_settled(run: bulkimg.Run) -> None:
    async for event in run:
        if isinstance(event, bulkimg.Settled):
            return


async def test_the_context_gives_events_and_then_the_result(call: Caller) -> None:
    async with a_run(call, 5, "unlimited") as run:
        events = [event async for event in run]
    assert isinstance(events[-1], bulkimg.Summary)
    assert run.summary == events[-1]
    assert {bulkimg.PlanMade, bulkimg.Started, bulkimg.Settled} <= {type(event) for event in events}
    assert (run.result.ok, run.result.counts["updated"]) == (True, 5)
    assert run.result == bulkimg.open_run(run.result.run_id, runs_dir=call.runs_dir)


async def test_leaving_the_context_stops_the_run_resumable(call: Caller) -> None:
    async with a_run(call, 60, "30/s") as run:
        await until_settled(run)
    left = run.result
    assert (left.exit_code, left.counts["unknown"]) == (130, 0)
    assert 0 < left.counts["updated"] < 60
    assert left.counts["updated"] + left.counts["unprocessed"] == 60
    resumed = await bulkimg.aresume(
        left.run_id,
        runs_dir=call.runs_dir,
        credentials=bulkimg.Session(call.server.session),
        rate="unlimited",
    )
    assert (resumed.run_id, resumed.exit_code, resumed.counts["updated"]) == (left.run_id, 0, 60)


async def test_an_error_in_the_block_stops_the_run_and_reaches_the_program(call: Caller) -> None:
    run = a_run(call, 60, "30/s")

    async def fail() -> None:
        async with run:
            await until_settled(run)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert (run.result.exit_code, run.result.counts["unknown"]) == (130, 0)


async def test_a_cancelled_task_leaves_a_run_that_can_be_resumed(call: Caller) -> None:
    run, has_settled = a_run(call, 60, "30/s"), asyncio.Event()

    async def work() -> None:
        async with run:
            async for event in run:
                if isinstance(event, bulkimg.Settled):
                    has_settled.set()

    task = asyncio.create_task(work())
    await has_settled.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert run.result.counts["unknown"] == 0
    assert run.result.counts["unprocessed"] > 0


async def test_stop_starts_no_new_row(call: Caller) -> None:
    async with a_run(call, 60, "30/s") as run:
        async for event in run:
            if isinstance(event, bulkimg.Settled):
                run.stop()
    assert (run.result.exit_code, run.result.reason) == (130, "stopped by the program")
    assert run.result.counts["unprocessed"] > 0
    assert run.result.counts["unknown"] == 0


async def test_a_rate_that_is_raised_holds_at_once(call: Caller) -> None:
    begun = time.monotonic()
    async with a_run(call, 300, "10/s") as run:
        async for event in run:
            if isinstance(event, bulkimg.Settled):
                run.pace.rate.set(1000.0)
    assert run.result.counts["updated"] == 300
    assert time.monotonic() - begun < 28, "300 rows take more than 30 s at 10/s"


async def test_nothing_is_known_of_a_run_that_has_not_begun(call: Caller) -> None:
    run = a_run(call, 1, "unlimited")
    for name in ("result", "pace"):
        with pytest.raises(bulkimg.UsageError, match="has not started"):
            getattr(run, name)
    assert run.summary is None
    async with run:
        run.stop()
    assert not call.runs_dir.exists()


async def test_a_run_is_iterated_over_once(call: Caller) -> None:
    async with a_run(call, 1, "unlimited") as run:
        async for _ in run:
            pass
        with pytest.raises(bulkimg.UsageError, match="iterated over already"):
            await anext(aiter(run))


async def test_two_runs_in_one_loop_do_not_disturb_each_other(call: Caller, tmp_path: Path) -> None:
    given = call.given | {"endpoint": call.server.url}
    first, second = await asyncio.gather(
        bulkimg.arun(call.changes(10), **given), bulkimg.arun(call.changes(10, start=20), **given)
    )
    assert (first.counts["updated"], second.counts["updated"]) == (10, 10)
    assert first.run_id != second.run_id
