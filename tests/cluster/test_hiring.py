"""Looking for workers: what Dask and the network do costs no run, and a bug of ours ends it loudly."""

import asyncio
import importlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from distributed import Client, Scheduler, Worker
from distributed.client import ClosedClientError
from distributed.comm import CommClosedError
from distributed.scheduler import KilledWorker

import bulkimg.cluster.dask
from bulkimg.cluster.desk import NO_WORKER, Desk
from bulkimg.cluster.hall import Hall
from bulkimg.cluster.hiring import DESK_GONE, RUN_OVER, Hiring
from bulkimg.cluster.reach import reached
from bulkimg.credentials import Session
from bulkimg.engine.carrying import policy_of
from bulkimg.engine.create import create_run
from bulkimg.engine.execute import Engine
from bulkimg.errors import Exit, TargetError, UsageError
from bulkimg.settings import Settings
from tests.cluster.office import office
from tests.conftest import Server

Hire = Callable[[Client, str], Any]


@asynccontextmanager
async def scheduler(port: int = 0) -> AsyncIterator[Scheduler]:
    """A scheduler of Dask in this event loop."""
    async with Scheduler(host="127.0.0.1", port=port, protocol="tcp", dashboard_address="127.0.0.1:0") as found:
        yield found


@asynccontextmanager
async def worker(of: Scheduler, place: Path) -> AsyncIterator[Worker]:
    given = {"nthreads": 1, "dashboard_address": "127.0.0.1:0", "local_directory": str(place)}
    async with Worker(of.address, **given) as one:
        yield one


@asynccontextmanager
async def client(of: Scheduler, timeout: float = 0.3) -> AsyncIterator[Client]:
    """A client that looks for a lost scheduler for so many seconds."""
    async with Client(of.address, asynchronous=True, set_as_default=False, timeout=30) as found:
        found._timeout = timeout
        yield found


@asynccontextmanager
async def keeps_hiring(of: Client, hall: Hall, hire: Hire) -> AsyncIterator["asyncio.Task[None]"]:
    task = asyncio.create_task(Hiring(of, hall, hire).keep())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(is_so: Callable[[], Any]) -> None:
    deadline = asyncio.get_running_loop().time() + 30
    while not is_so():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)


def ends_with(text: str) -> Hire:
    """A task that ends at once with this text."""
    return lambda of, one: of.submit(str, text, workers=[one], pure=False)


# -- how tasks end ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hire", "again", "why"),
    [
        (ends_with(DESK_GONE), True, ""),
        (ends_with(RUN_OVER), False, ""),
        (ends_with("h: no credentials"), False, "h: no credentials"),
        (lambda of, one: of.submit(int, "x", workers=[one], pure=False), False, "invalid literal for int"),
        (
            lambda of, one: of.submit(importlib.import_module, "no_such", workers=[one], pure=False),
            False,
            "No module named 'no_such'; install bulkimg",
        ),
    ],
    ids=["the desk was gone", "the run is over", "it cannot work", "it failed", "without bulkimg"],
)
async def test_a_worker_is_hired_again_only_if_the_desk_was_gone(
    tmp_path: Path, hire: Hire, again: bool, why: str
) -> None:
    futures = []

    async with scheduler() as dask, office(tmp_path) as scene, worker(dask, tmp_path), client(dask) as of:

        def hired(of: Client, one: str) -> Any:
            futures.append(hire(of, one))
            return futures[-1]

        hiring = Hiring(of, scene.hall, hired)
        await hiring.look()
        await until(futures[0].done)
        await hiring.look()
        await hiring.look()
        assert len(futures) == (2 if again else 1)
        refused = scene.hall._refused
        assert [text[: len(why)] for text in refused] == ([why] if why else [])


async def test_a_slow_worker_is_waited_for_when_all_others_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bulkimg.cluster.hall.OTHERS", 0.05)
    async with office(tmp_path) as scene:
        hall = scene.hall
        hall.refuse("tcp://h:1", "h: no credentials")
        with pytest.raises(UsageError, match="can work for this run: h: no credentials"):
            await hall.first_worker()
        hall.expected = 1
        with pytest.raises(UsageError, match="can work for this run: h: no credentials"):
            await hall.first_worker(within=0.2)
        waiting = asyncio.create_task(hall.first_worker())
        await asyncio.wait([waiting], timeout=0.3)
        assert not waiting.done(), "one may still come"
        await scene.worker()
        await waiting


async def test_workers_that_were_put_to_work_are_expected(tmp_path: Path) -> None:
    def hire(of: Client, one: str) -> Any:
        return of.submit(str, "h: no credentials", workers=[one], pure=False)

    async with scheduler() as dask, office(tmp_path) as scene, worker(dask, tmp_path), client(dask) as of:
        hiring = Hiring(of, scene.hall, hire)
        await hiring.look()
        assert scene.hall.expected == 1
        await until(lambda: all(future.done() for future in hiring._hired.values()))
        await hiring.look()
        assert scene.hall.expected == 0


# -- what is away -------------------------------------------------------------------------------------------------------


async def test_a_scheduler_that_goes_away_is_named_where_the_run_ends_without_workers(tmp_path: Path) -> None:
    def never(of: Client, one: str) -> Any:
        raise AssertionError("there is no worker")

    async with (
        scheduler() as dask,
        office(tmp_path) as scene,
        client(dask) as of,
        keeps_hiring(of, scene.hall, never) as task,
    ):
        address = dask.address
        await dask.close()
        await until(lambda: scene.hall.trouble)
        await until(lambda: of.status == "closed")  # it has given the scheduler up
        await until(lambda: scene.hall.trouble.endswith("has closed the connection"))
        said = f"the scheduler at {address} has closed the connection"
        assert scene.hall.trouble == said
        with pytest.raises(TargetError, match=rf"came within 0\.1 s, so nothing was sent; {said}; check that it runs"):
            await scene.hall.first_worker(0.1)
        scene.now[0] += NO_WORKER + 1
        ending = await scene.running
        assert ending.exit_code == Exit.TARGET
        assert ending.why == f"no worker of the cluster is left: {said}"
        assert not task.done(), "it looks again and again"


async def test_workers_of_a_scheduler_that_is_back_are_hired(tmp_path: Path) -> None:
    hired: list[str] = []

    def hire(of: Client, one: str) -> Any:
        hired.append(one)
        return of.submit(str, RUN_OVER, workers=[one], pure=False)

    async with (
        scheduler() as first,
        office(tmp_path) as scene,
        client(first, 20) as of,
        keeps_hiring(of, scene.hall, hire),
    ):
        port = first.port
        await first.close()
        await until(lambda: scene.hall.trouble)
        async with scheduler(port) as second, worker(second, tmp_path):
            await until(lambda: hired)
            await until(lambda: not scene.hall.trouble)


async def test_a_scheduler_that_is_started_again_after_the_client_has_given_it_up_is_found(tmp_path: Path) -> None:
    by: list[Client] = []

    def hire(of: Client, one: str) -> Any:
        by.append(of)
        return of.submit(str, RUN_OVER, workers=[one], pure=False)

    async with scheduler() as first, office(tmp_path) as scene, client(first, 0.1) as of:
        reach = partial(reached, first.address, None)
        task = asyncio.create_task(Hiring(of, scene.hall, hire, reach).keep())
        port = first.port
        await first.close()
        await until(lambda: of.status == "closed" and scene.hall.trouble.endswith("has closed the connection"))
        async with scheduler(port) as second, worker(second, tmp_path):
            await until(lambda: by)
            await until(lambda: not scene.hall.trouble)
            assert by[0] is not of
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert by[0].status == "closed", "who made it closes it"


async def test_without_trouble_the_hint_is_about_workers(tmp_path: Path) -> None:
    async with office(tmp_path) as scene:
        with pytest.raises(TargetError, match=r"so nothing was sent; check that it has workers"):
            await scene.hall.first_worker(0.01)


@pytest.mark.parametrize(
    "error",
    [
        OSError("no route"), CommClosedError("gone"), ConnectionResetError("reset"), ClosedClientError("closed"),
        CancelledError("lost"), KilledWorker("task", SimpleNamespace(address="tcp://h:1"), 3),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
async def test_what_dask_and_the_network_raise_is_trouble_and_no_end(tmp_path: Path, error: Exception) -> None:
    errors = [error]

    def hire(of: Client, one: str) -> Any:
        if errors:
            raise errors.pop()
        return of.submit(str, RUN_OVER, workers=[one], pure=False)

    async with scheduler() as dask, office(tmp_path) as scene, worker(dask, tmp_path), client(dask) as of:
        hiring = Hiring(of, scene.hall, hire)
        task = asyncio.create_task(hiring.keep())
        await until(lambda: not errors)
        assert scene.hall.trouble.startswith(f"the scheduler at {dask.address} cannot be asked for workers: ")
        await until(lambda: not scene.hall.trouble)
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# -- bugs ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bug", [AttributeError, TypeError, KeyError, ValueError, RuntimeError, AssertionError])
async def test_a_bug_ends_the_looking(tmp_path: Path, bug: type[Exception]) -> None:
    def hire(of: Client, one: str) -> Any:
        raise bug("planted")

    async with scheduler() as dask, office(tmp_path) as scene, worker(dask, tmp_path), client(dask) as of:
        hiring = Hiring(of, scene.hall, hire)
        with pytest.raises(bug, match="planted"):
            await asyncio.wait_for(hiring.keep(), 30)


async def test_a_bug_ends_the_run_in_each_of_its_phases(tmp_path: Path) -> None:
    async with office(tmp_path / "sending") as scene:
        scene.hall.fail(KeyError("planted"))
        with pytest.raises(KeyError, match="planted"):
            await scene.running
    async with office(tmp_path / "waiting") as scene:
        waiting = asyncio.create_task(scene.hall.first_worker())
        await asyncio.sleep(0)
        scene.hall.fail(KeyError("planted"))
        with pytest.raises(KeyError, match="planted"):
            await waiting
        with pytest.raises(KeyError, match="planted"):
            await scene.running
        policy = policy_of(scene.hall._own.run.settings, 0)
        later = Desk(scene.hall, scene.hall._own, scene.desk._store, policy, None)
        with pytest.raises(KeyError, match="planted"):  # it failed before this desk was open
            await later.run()


async def test_a_bug_in_the_answer_to_a_worker_ends_a_run_that_has_no_desk_yet(tmp_path: Path) -> None:
    async def fails(*message: Any) -> dict[str, Any]:
        raise KeyError("planted")

    async with office(tmp_path) as scene:
        one = await scene.worker()
        scene.desk.stop_now()
        await scene.running
        assert scene.hall.desk is None
        scene.hall._handlers["leave"] = fails
        assert await one.say("leave", why="") == {"gone": True}
        scene.hall._end(scene.hall.crew.get(one.key), one.key, "left", "")  # type: ignore[arg-type]
        with pytest.raises(KeyError, match="planted"):
            await scene.hall.first_worker()


async def test_a_bug_in_hiring_is_raised_by_the_run(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hire(*given: Any, **more: Any) -> Any:
        raise KeyError("planted")

    monkeypatch.setattr(bulkimg.cluster.dask, "_hire", hire)
    before = len(server.puts())
    async with scheduler() as dask, worker(dask, tmp_path):
        options = {"endpoint": server.url, "runs_dir": tmp_path / "runs", "cluster": dask.address}
        rows = [{"uuid": sorted(server.images())[0], "name": "hired"}]
        run = create_run("(rows)", Settings.model_validate(options), rows)
        session = Session(server.session)
        try:
            engine = Engine(run, session, lambda event: None, bulkimg.cluster.ports_of(run.settings, session))
            with pytest.raises(KeyError, match="planted"):
                await asyncio.wait_for(engine.execute(), 30)
        finally:
            run.close()
    assert len(server.puts()) == before
