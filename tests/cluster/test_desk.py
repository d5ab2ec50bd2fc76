"""A desk and three workers: every row one outcome, whatever happens to workers, messages and the server."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bulkimg.cluster.members import Member
from bulkimg.credentials import Account, Session
from bulkimg.engine.anew import create_undo
from bulkimg.engine.reopen import resume_run, stored_settings
from bulkimg.errors import Exit, UsageError
from bulkimg.ledger import Ledger, RunDirectory
from bulkimg.live import status_of
from bulkimg.model import CanaryPassed, Summary
from bulkimg.settings import Settings
from tests.cluster.crew import Hired, Scene
from tests.conftest import Server, sandbox_process
from tests.stamped import stamped_sandbox
from tests.windows import most_within

ROWS = 150


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with stamped_sandbox(images=ROWS, service_time_ms=5, workers=8) as found:
        yield found


def manifest(place: Path, server: Server, mark: str, rows: int = ROWS) -> tuple[Path, dict[str, str]]:
    wanted = {uuid: f"{mark}-{n}" for n, uuid in enumerate(sorted(server.images())[:rows])}
    path = place / "m.csv"
    path.write_text("uuid,name\n" + "".join(f"{uuid},{name}\n" for uuid, name in wanted.items()))
    return path, wanted


def check_whole(server: Server, scene: Scene, summary: Summary, wanted: dict[str, str], before: int) -> None:
    """Check that every row is updated, that the images are so, and that the ledger knows every PUT."""
    assert summary.counts["updated"] == len(wanted), (summary.counts, summary.causes)
    images = server.images()
    assert all(images[uuid]["name"] == name for uuid, name in wanted.items())
    directory = RunDirectory(scene.settings.runs_dir / summary.run_id)
    ledger = Ledger.open(directory.ledger, read_only=True)
    known = Counter(
        uuid for (uuid,) in ledger.db.execute("SELECT lower(hex(uuid)) FROM attempt JOIN row USING (ordinal)")
    )
    jobs = {job for (job,) in ledger.db.execute("SELECT job_uuid FROM attempt")}
    ledger.close()
    puts = server.puts()[before:]
    for uuid, count in Counter(_image(put) for put in puts if "updateimage" in put["body"].lower()).items():
        assert count <= known[uuid] + 3, "more PUTs than attempts"  # three workers may find out the spelling
    assert {put["job_uuid"] for put in puts} <= jobs


def _image(put: dict[str, Any]) -> str:
    return str(re.findall("[0-9a-f]{32}", put["path"])[0])


def most_in_a_second(requests: list[dict[str, Any]]) -> int:
    return most_within(1.0, sorted(float(request["at"]) for request in requests))


async def test_three_workers_carry_one_run(tmp_path: Path, server: Server) -> None:
    path, wanted = manifest(tmp_path, server, "three")
    before, scene = len(server.puts()), Scene(tmp_path, server)
    summary = await scene.execute(scene.create(path))
    assert summary.exit_code == Exit.OK
    check_whole(server, scene, summary, wanted, before)
    ledger = Ledger.open(scene.settings.runs_dir / summary.run_id / "run.db", read_only=True)
    workers = ledger.meta("workers")
    assert [worker["state"] for worker in workers] == ["left"] * 3
    assert sum(worker["rows"] for worker in workers) == ROWS
    assert all(worker["rows"] for worker in workers)
    assert ledger.meta("leased") is False
    ledger.close()
    assert summary.details["pace"]["requests"] >= ROWS
    assert [one.said for one in scene.hired] == ["over"] * 3
    results = (scene.settings.runs_dir / summary.run_id / "results.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in results[1:]] == [str(n) for n in range(2, ROWS + 2)]


async def test_a_killed_worker_costs_no_row_and_doubles_none(tmp_path: Path, server: Server) -> None:
    path, wanted = manifest(tmp_path, server, "killed")
    before, scene = len(server.puts()), Scene(tmp_path, server)
    scene.when(30, scene.hired[0].kill)
    summary = await scene.execute(scene.create(path))
    check_whole(server, scene, summary, wanted, before)
    assert "is lost: no sign of life" in scene.heard()
    done = Counter(job for put in server.puts()[before:] if (job := put["job_uuid"]))
    assert max(done.values()) <= 2  # the same job once more is refused by the server, or is the other spelling


async def test_a_worker_without_its_desk_sends_nothing_after_its_lease(tmp_path: Path, server: Server) -> None:
    path, wanted = manifest(tmp_path, server, "cut")
    scene = Scene(tmp_path, server, rate=40, workers=2)
    wire, cut_at = scene.hired[0].wire, 0.0

    def cut() -> None:
        nonlocal cut_at
        wire.cut = True
        cut_at = time.time()
        asyncio.get_running_loop().call_later(5.0, connect)

    def connect() -> None:
        wire.cut = False

    before, puts = len(server.requests()), len(server.puts())
    scene.when(20, cut)
    summary = await scene.execute(scene.create(path))
    check_whole(server, scene, summary, wanted, puts)
    assert "here:0 is lost" in scene.heard()
    assert scene.heard().count("here:0 joined") == 2
    requests = server.requests()[before:]
    assert most_in_a_second(requests) <= 40
    # Its last lease ends within 2 s, and until half a second later only the other worker's share is used.
    between = [one for one in requests if cut_at + 2.05 < one["at"] < cut_at + 2.45]
    assert len(between) <= 0.4 * 20 + 2


async def test_lost_answers_lose_no_row(tmp_path: Path, server: Server) -> None:
    path, wanted = manifest(tmp_path, server, "lossy", rows=60)
    before, scene = len(server.puts()), Scene(tmp_path, server)

    def lose() -> None:
        for one in scene.hired:
            one.wire.lossy = 0.3

    scene.when(1, lose)
    summary = await scene.execute(scene.create(path))
    check_whole(server, scene, summary, wanted, before)
    assert "lost" not in scene.heard()


async def test_a_worker_that_is_let_in_nowhere_leaves_and_the_others_do_its_rows(
    tmp_path: Path, server: Server
) -> None:
    path, wanted = manifest(tmp_path, server, "stranger")
    workers = [Hired(Session("0" * 32)), Hired(Session(server.session)), Hired(Session(server.session))]
    before, scene = len(server.puts()), Scene(tmp_path, server, workers)
    summary = await scene.execute(scene.create(path))
    check_whole(server, scene, summary, wanted, before + 1)
    assert re.search("here:0 left: .*the session is invalid", scene.heard())


async def test_without_a_worker_that_is_let_in_the_run_ends_as_with_one_process(tmp_path: Path, server: Server) -> None:
    path, _ = manifest(tmp_path, server, "nobody")
    scene = Scene(tmp_path, server, [Hired(Session("0" * 32)), Hired(Account("admin", "wrong"))])
    summary = await scene.execute(scene.create(path))
    assert summary.exit_code == Exit.TARGET
    assert summary.counts["unprocessed"] == ROWS
    assert "session is invalid" in summary.reason or "login" in summary.reason


@pytest.mark.parametrize(
    ("introduction", "why"),
    [
        ({"version": "0.0.1"}, "has bulkimg 0.0.1, this is .*; install the same version"),
        ({"origin": "http://elsewhere:8080/zstack"}, "is set up for http://elsewhere:8080/zstack, but the run is for"),
    ],
)
async def test_a_worker_that_differs_is_refused(
    tmp_path: Path, server: Server, introduction: dict[str, Any], why: str
) -> None:
    path, wanted = manifest(tmp_path, server, f"differs-{next(iter(introduction))}", rows=10)
    workers = [Hired(Session(server.session), introduction=introduction), Hired(Session(server.session))]
    scene = Scene(tmp_path, server, workers)
    summary = await scene.execute(scene.create(path))
    assert summary.counts["updated"] == len(wanted)
    assert re.search(f"here:0 was refused: .*{why}", scene.heard())
    before = len(server.puts())
    alone = Scene(tmp_path, server, workers[:1])
    with pytest.raises(UsageError, match=why):
        await alone.execute(alone.create(path))
    assert len(server.puts()) == before


async def test_a_worker_of_another_account_is_refused(tmp_path: Path, server: Server) -> None:
    path, _ = manifest(tmp_path, server, "account", rows=10)
    scene = Scene(tmp_path, server, [Hired(Account("intruder", "password"))])
    scene.crew.account = "account admin"
    with pytest.raises(UsageError, match="credentials of account intruder, but the run is of account admin"):
        await scene.execute(scene.create(path))


async def test_a_stop_drains_and_leaves_nothing_unknown(tmp_path: Path, server: Server) -> None:
    path, wanted = manifest(tmp_path, server, "stopped")
    before, scene = len(server.puts()), Scene(tmp_path, server)
    scene.when(30, lambda: scene.engine.stop(Exit.INTERRUPTED, "by the test"))
    summary = await scene.execute(scene.create(path))
    assert summary.exit_code == Exit.INTERRUPTED
    assert summary.counts["unknown"] == 0
    assert summary.counts["updated"] + summary.counts["unprocessed"] == ROWS
    directory = RunDirectory(scene.settings.runs_dir / summary.run_id)
    again = Scene(tmp_path, server)
    resumed = resume_run(
        directory, Settings.model_validate(stored_settings(directory) | {"runs_dir": tmp_path / "runs"})
    )
    check_whole(server, again, await again.execute(resumed), wanted, before)


async def test_a_second_signal_leaves_rows_that_a_run_of_one_process_finishes(tmp_path: Path, server: Server) -> None:
    path, wanted = manifest(tmp_path, server, "at-once")
    before, scene = len(server.puts()), Scene(tmp_path, server)
    scene.when(
        30,
        lambda: scene.engine.stop_now(),  # noqa: PLW0108 - there is no engine yet
    )
    summary = await scene.execute(scene.create(path))
    assert summary.details["rows_to_do"]
    directory = RunDirectory(scene.settings.runs_dir / summary.run_id)
    ledger = Ledger.open(directory.ledger, read_only=True)
    assert ledger.meta("leased") is True
    ledger.close()
    alone = Scene(tmp_path, server)
    from bulkimg.engine.execute import Engine

    resumed = resume_run(
        directory, Settings.model_validate(stored_settings(directory) | {"runs_dir": tmp_path / "runs"})
    )
    puts, begun = len(server.puts()), time.time()
    summary = await Engine(resumed, alone.session, lambda event: None).execute()
    resumed.close()
    check_whole(server, alone, summary, wanted, before)
    assert server.puts()[puts]["at"] - begun > 2.5  # when the leases of the earlier process are over


async def test_too_many_errors_stop_all_workers(tmp_path: Path, server: Server) -> None:
    path = tmp_path / "m.csv"
    path.write_text("uuid,name\n" + "".join(f"{n:032x},gone-{n}\n" for n in range(200)))
    scene = Scene(tmp_path, server, survey=False, max_errors=5)
    summary = await scene.execute(scene.create(path))
    assert summary.exit_code == Exit.ERROR_LIMIT
    assert 6 <= summary.counts["failed"] < 100
    assert summary.counts["unprocessed"] == 200 - summary.counts["failed"]


async def test_the_canary_goes_first_and_the_plan_can_be_undone(tmp_path: Path, server: Server) -> None:
    path, wanted = manifest(tmp_path, server, "canary", rows=40)
    old = {uuid: server.images()[uuid]["name"] for uuid in wanted}
    scene = Scene(tmp_path, server, canary=3)
    summary = await scene.execute(scene.create(path))
    assert summary.counts["updated"] == 40
    assert [event for event in scene.events if isinstance(event, CanaryPassed)] == [CanaryPassed(3)]
    undo = Scene(tmp_path, server)
    run = create_undo(RunDirectory(scene.settings.runs_dir / summary.run_id), undo.settings)
    assert (await undo.execute(run)).counts["updated"] == 40
    assert {uuid: server.images()[uuid]["name"] for uuid in wanted} == old


async def test_a_pause_holds_all_workers_and_ctl_sees_them(tmp_path: Path, server: Server) -> None:
    path, wanted = manifest(tmp_path, server, "pause")
    before, scene = len(server.puts()), Scene(tmp_path, server)
    seen: dict[str, Any] = {}
    tasks: list[asyncio.Task[None]] = []

    async def pause() -> None:
        scene.engine.steering.obey([("pause", None)])
        settled = -1
        while settled < scene.settled:  # workers hear of it with their next lease, and finish what they have sent
            settled = scene.settled
            await asyncio.sleep(1)
        seen["settled"], seen["status"] = scene.settled, scene.engine.steering.status()
        await asyncio.sleep(1)
        seen["later"] = scene.settled
        scene.engine.steering.obey([("go", None), ("concurrency", 30)])

    scene.when(30, lambda: tasks.append(asyncio.create_task(pause())))
    summary = await scene.execute(scene.create(path))
    check_whole(server, scene, summary, wanted, before)
    assert seen["later"] == seen["settled"] < ROWS
    assert seen["status"]["paused"]
    assert scene.crew.hall.crew.most == 30


async def test_the_rate_of_all_workers_is_the_cap(tmp_path: Path, server: Server) -> None:
    path, wanted = manifest(tmp_path, server, "rate")
    before, puts = len(server.requests()), len(server.puts())
    scene = Scene(tmp_path, server, rate=60)
    summary = await scene.execute(scene.create(path))
    check_whole(server, scene, summary, wanted, puts)
    assert most_in_a_second(server.requests()[before:]) <= 60


async def test_an_outage_closes_the_one_gate(tmp_path: Path) -> None:
    faults = "429=3%:1,500=6%,502=6%,reset-after=4%,drop=2%"
    with sandbox_process("--images", "80", "--faults", faults, "--seed", "5") as server:
        path, wanted = manifest(tmp_path, server, "outage", rows=80)
        scene = Scene(tmp_path, server, retries=12, timeout=2)
        summary = await scene.execute(scene.create(path))
        assert summary.counts["updated"] == 80, (summary.counts, summary.causes)
        assert all(server.images()[uuid]["name"] == name for uuid, name in wanted.items())


async def test_a_row_whose_image_changes_meanwhile_is_a_conflict(tmp_path: Path, server: Server) -> None:
    """A worker compares its rows with the plan, takes back the attempts of those that differ, and settles them."""
    path, wanted = manifest(tmp_path, server, "changed", rows=60)
    scene = Scene(tmp_path, server, workers=2, rate=20)
    victims = sorted(wanted)[52:]

    def edit() -> None:
        for uuid in victims:
            server.edit(uuid, name="by another user")

    scene.when(1, edit)
    summary = await scene.execute(scene.create(path))
    assert summary.counts["conflict"] >= 1
    assert summary.counts["conflict"] + summary.counts["updated"] == 60
    assert {server.images()[uuid]["name"] for uuid in victims} <= {"by another user", *wanted.values()}


async def test_workers_of_a_killed_desk_are_lost_also_for_a_run_that_is_resumed_without_a_cluster(
    tmp_path: Path, server: Server
) -> None:
    path, _ = manifest(tmp_path, server, "lost-desk", rows=5)
    scene = Scene(tmp_path, server, workers=1)
    run = scene.create(path)
    member = Member("here:1", "here", 1, 1.0, state="working", in_flight=3)
    run.ledger.set_meta(workers=[member.as_document()])
    run.close()
    directory = RunDirectory(scene.settings.runs_dir / run.directory.run_id)
    assert [worker["state"] for worker in status_of(directory)["workers"]] == ["lost"]
    resumed = resume_run(directory, scene.settings)
    assert [(worker["state"], worker["in_flight"]) for worker in resumed.ledger.meta("workers")] == [("lost", 0)]
    resumed.close()
