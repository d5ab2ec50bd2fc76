"""A run goes faster, pauses and stops on request, keeps its hours and time limit, and reports its status."""

import asyncio
import contextlib
import json
import re
import signal
import socket
import sqlite3
import stat
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from bulkimg.credentials import Session
from bulkimg.engine import control
from bulkimg.engine.connect import Ports
from bulkimg.engine.control import ask, parse_orders
from bulkimg.engine.create import create_run
from bulkimg.engine.execute import Engine
from bulkimg.engine.run import OpenRun
from bulkimg.errors import RunRefused, StorageError, UsageError
from bulkimg.ledger import RunDirectory
from bulkimg.ledger.thread import OwnThread
from bulkimg.model import Adjusted, Event, Settled
from bulkimg.settings import Settings
from bulkimg.values import parse_window
from tests.conftest import Cli, Running, Server, sandbox_process
from tests.stamped import stamped_sandbox
from tests.windows import most_within, reached


def manifest(server: Server) -> str:
    return "uuid,name\n" + "".join(f"{uuid},n-{uuid[:8]}\n" for uuid in server.images())


@pytest.fixture
def server() -> Iterator[Server]:
    with sandbox_process("--images", "200") as found:
        yield found


def started(cli: Cli, server: Server, *options: str, puts: int = 5) -> Running:
    """Start a slow run, and wait until it has sent some rows."""
    cli.write("m.csv", manifest(server))
    process = cli.start("run", "m.csv", "--yes", "--no-survey", "--progress", "plain", *options)
    wait_for(lambda: len(server.puts()) >= puts)
    return process


def wait_for(what: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not what():
        assert time.monotonic() < until
        time.sleep(0.05)


def told(cli: Cli, *orders: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(cli("ctl", "last", *orders, "--json").out)
    return found


def test_it_goes_faster_pauses_goes_on_and_tells_of_it(cli: Cli, server: Server) -> None:
    cli = cli.at(server)
    process = started(cli, server, "--rate", "10/s")
    assert told(cli, "status")["rate"] == 10.0
    assert told(cli, "pause")["paused"] == "bulkimg ctl pause"
    for _ in range(2):  # a row that already waited for the rate is sent, at the latest between the two
        time.sleep(0.25)
        wait_for(lambda: told(cli, "status")["in_flight"] == 0)
    sent = len(server.puts())
    time.sleep(0.5)
    assert len(server.puts()) == sent, "nothing is sent while it is paused"
    found = told(cli, "rate=500/s", "concurrency=4", "go")
    assert (found["rate"], found["concurrency"], found["paused"]) == (500.0, 4, "")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert re.search(r"paused \(bulkimg ctl pause\).*\n(.*\n)*pause ended: sending resumes\n", err), err
    assert {result["status"] for result in cli.results()} == {"updated"}
    summary = json.loads((cli.run_dir() / "summary.json").read_text())
    assert (summary["pace"]["rate_cap"], summary["pace"]["concurrency"]) == (500.0, 4)
    assert not (cli.run_dir() / "ctl.sock").exists()


def test_stop_leaves_a_run_that_goes_on_at_the_pace_it_was_told(cli: Cli) -> None:
    with stamped_sandbox(images=100) as server:
        cli = cli.at(server)
        process = started(cli, server, "--rate", "10/s")
        told(cli, "rate=40/s", "stop")
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert f"next:    bulkimg resume {cli.runs()[-1]}" in err
        before = len(server.requests())
        cli("resume", "last")
        times = sorted(request["at"] for request in server.requests()[before:])
    assert len(times) > 40
    assert most_within(1.0, times) <= 40
    assert reached(40, times) > 0.65, "the pace that it was told"
    assert most_within(1.0, times) >= 36


def test_a_run_that_is_dead_or_done_takes_no_orders(cli: Cli, server: Server) -> None:
    cli = cli.at(server)
    process = started(cli, server, "--rate", "10/s")
    path = cli.run_dir() / "ctl.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    process.kill()
    process.communicate()
    assert "takes no orders" in cli("ctl", "last", "pause", code=7).err
    cli("resume", "last", "--rate", "unlimited")
    assert not path.exists()
    assert "takes no orders" in cli("ctl", "last", "pause", code=7).err


def test_an_order_that_cannot_be_is_refused_and_none_is_obeyed(cli: Cli, server: Server) -> None:
    cli = cli.at(server)
    process = started(cli, server, "--rate", "5/s", puts=2)
    for order in ("rate=0", "concurrency=1001", "faster", "rate"):
        assert repr(order) in cli("ctl", "last", "pause", order, code=2).err
    assert told(cli, "status")["paused"] == ""
    told(cli, "stop")
    process.communicate(timeout=30)


@pytest.mark.parametrize(
    "order",
    ["rate=0", "rate=fast", "concurrency=0", "concurrency=1001", "concurrency=x", "faster", "rate", "pause=1", ""],
)
def test_what_is_no_order(order: str) -> None:
    with pytest.raises(UsageError, match=re.escape(repr(order))):
        parse_orders(["pause", order])


def test_a_run_that_lies_deep_is_reached_too(cli: Cli, server: Server) -> None:
    deep = Path(*["a-directory-with-a-long-name"] * 6)
    cli = cli.at(server)
    process = started(cli, server, "--rate", "10/s", "--runs-dir", str(deep))
    (run,) = (cli.place / deep).iterdir()
    assert "rows settled" in cli("ctl", str(run), "rate=unlimited").out
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_nonsense_on_the_socket_harms_nobody(cli: Cli, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    cli = cli.at(server)
    process = started(cli, server, "--rate", "10/s")
    monkeypatch.chdir(cli.run_dir())
    for line in (b"", b"\n", b"{}\n", b"[1]\n", b"[" * 4000 + b"\n", b"\xff\n", b"x" * 100_000, b'["status"'):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1)
            connection.connect("ctl.sock")
            try:
                connection.sendall(line)
                connection.shutdown(socket.SHUT_WR)
                connection.recv(100)
            except OSError:
                pass
    assert told(cli, "rate=unlimited")["rate"] == "unlimited"
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_a_signal_asks_for_the_status(cli: Cli, server: Server) -> None:
    cli = cli.at(server)
    process = started(cli, server, "--rate", "10/s")
    process.send_signal(signal.SIGUSR1)
    time.sleep(0.3)
    told(cli, "rate=unlimited")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert re.search(
        r"\d+ of 200 rows settled(, about \d+:\d\d left)?; (\d+ \w+; )*rate 10/s; \d+ rows? in flight, limit \d+ \(cap 16\)\n",
        err,
    )


def test_a_time_box_ends_it_and_it_can_be_resumed(cli: Cli, server: Server) -> None:
    cli = cli.at(server)
    cli.write("m.csv", manifest(server))
    begun = time.monotonic()
    done = cli("run", "m.csv", "--yes", "--no-survey", "--rate", "20/s", "--max-duration", "2s", code=6)
    assert time.monotonic() - begun >= 2
    assert "stopped: the time limit is reached (--max-duration 2s)" in done.err
    assert f"next:    bulkimg resume {cli.runs()[-1]}" in done.err
    counts = json.loads((cli.run_dir() / "summary.json").read_text())["counts"]
    assert counts["updated"] > 0
    assert counts["updated"] + counts["unprocessed"] == 200
    cli("resume", "last", "--rate", "unlimited", "--max-duration", "1h")
    assert {result["status"] for result in cli.results()} == {"updated"}


def test_a_time_box_that_leaves_nothing_undone_does_not_count(cli: Cli) -> None:
    """The one row is in flight when the time is over."""
    with sandbox_process("--images", "1", "--service-time", "2500", "--dialect", "documented") as server:
        cli.write("m.csv", manifest(server))
        begun = time.monotonic()
        cli.at(server)("run", "m.csv", "--yes", "--no-survey", "--no-adaptive", "--max-duration", "2s")
        assert time.monotonic() - begun > 2
    assert {result["status"] for result in cli.results()} == {"updated"}


def test_what_is_told_while_the_images_are_looked_at_holds_for_whoever_resumes(cli: Cli) -> None:
    with sandbox_process("--images", "3000") as server:
        cli = cli.at(server)
        cli.write("m.csv", manifest(server))
        process = cli.start("run", "m.csv", "--yes", "--rate", "6/min")
        wait_for(lambda: len(server.requests()) >= 1)
        told(cli, "rate=77/s", "stop")
        process.communicate(timeout=30)
        assert process.returncode == 130
        assert server.puts() == []
        process = cli.start("resume", "last")
        wait_for(lambda: len(server.puts()) >= 1)
        assert told(cli, "status")["rate"] == 77.0
        told(cli, "stop")
        process.communicate(timeout=60)


class HeldThread(OwnThread):
    """Writes nothing while it is held."""

    def __init__(self) -> None:
        super().__init__()
        self.may_write = threading.Event()
        self.may_write.set()

    def put(self, work: Callable[[], None]) -> None:
        def in_time() -> None:
            self.may_write.wait()
            work()

        super().put(in_time)


@contextlib.asynccontextmanager
async def under_way(
    tmp_path: Path, server: Server, thread: HeldThread, changed: asyncio.Event
) -> AsyncIterator[OpenRun]:
    """Execute a run that has settled its first row. `changed` is set when it has obeyed an order."""
    begun = asyncio.Event()

    def observe(event: Event) -> None:
        if isinstance(event, Settled):
            begun.set()
        if isinstance(event, Adjusted):
            changed.set()

    (tmp_path / "m.csv").write_text(manifest(server))
    given = {"endpoint": server.url, "rate": 30, "runs_dir": tmp_path / "runs"}
    run = create_run(str(tmp_path / "m.csv"), Settings.model_validate(given))
    engine = Engine(run, Session(server.session), observe, Ports(writer_thread=lambda: thread))
    running = asyncio.create_task(engine.execute())
    try:
        await begun.wait()
        yield run
    finally:
        thread.may_write.set()
        engine.steering.obey([("stop", None)])
        try:
            await running
        finally:
            run.close()


def kept_rate(directory: RunDirectory) -> float:
    with contextlib.closing(sqlite3.connect(directory.ledger)) as ledger:
        (kept,) = ledger.execute("SELECT value FROM meta WHERE key = 'settings'").fetchone()
    return float(json.loads(kept)["rate"])


async def test_an_order_is_answered_when_it_is_durable(tmp_path: Path, server: Server) -> None:
    thread, changed = HeldThread(), asyncio.Event()
    async with under_way(tmp_path, server, thread, changed) as run:
        thread.may_write.clear()
        asking = asyncio.create_task(asyncio.to_thread(ask, run.directory.path, ["rate=40/s"]))
        await changed.wait()
        await asyncio.wait([asking], timeout=0.3)
        assert not asking.done(), "it is obeyed, and not yet in the ledger"
        thread.may_write.set()
        assert (await asking)["rate"] == 40
        assert kept_rate(run.directory) == 40


async def test_an_order_that_a_slow_disk_keeps_is_not_called_refused(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread, changed = HeldThread(), asyncio.Event()
    async with under_way(tmp_path, server, thread, changed) as run:
        thread.may_write.clear()
        monkeypatch.setattr(control, "PATIENCE", 0.3)
        with pytest.raises(RunRefused, match="may have obeyed or not"):
            await asyncio.to_thread(ask, run.directory.path, ["rate=40/s"])
        monkeypatch.undo()
        assert changed.is_set()
        assert (await asyncio.to_thread(ask, run.directory.path, ["status"]))["rate"] == 40, "nothing is kept of that"
        thread.may_write.set()
        await asyncio.to_thread(ask, run.directory.path, ["rate=41/s"])
        assert kept_rate(run.directory) == 41


async def test_an_order_that_cannot_be_written_down_is_an_error(tmp_path: Path, server: Server) -> None:
    why = "run.db: the ledger failed: attempt to write a readonly database"

    async def order() -> None:
        thread, changed = HeldThread(), asyncio.Event()
        async with under_way(tmp_path, server, thread, changed) as run:
            thread.may_write.clear()
            asking = asyncio.create_task(asyncio.to_thread(ask, run.directory.path, ["rate=40/s"]))
            await changed.wait()
            run.ledger.db.execute("PRAGMA query_only = 1")
            thread.may_write.set()
            with pytest.raises(StorageError, match=f"the run has obeyed, and ends: .*{why}"):
                await asking

    with pytest.raises(StorageError, match=why):  # the run itself
        await order()


def hours(begin: timedelta, end: timedelta) -> str:
    now = datetime.now().astimezone()
    return f"{now + begin:%H:%M}-{now + end:%H:%M}"


def test_outside_its_hours_nothing_is_changed(cli: Cli, server: Server) -> None:
    cli = cli.at(server)
    cli.write("m.csv", manifest(server))
    closed = hours(timedelta(hours=2), timedelta(hours=3))
    done = cli("run", "m.csv", "--yes", "--window", closed, "--max-duration", "2s", code=6)
    assert f"paused (outside --window {closed})" in done.err
    assert server.puts() == []
    assert [request["method"] for request in server.requests()].count("GET") >= 1, "but it has looked"
    opened = hours(-timedelta(hours=1), timedelta(hours=1))
    cli("resume", "last", "--window", opened, "--rate", "unlimited", "--max-duration", "1h")
    assert {result["status"] for result in cli.results()} == {"updated"}


def test_a_window_that_is_none_is_refused(cli: Cli) -> None:
    done = cli("check", "m.csv", BULKIMG_WINDOW="25:00-06:00", code=2)
    assert "BULKIMG_WINDOW '25:00-06:00' is not a time window; write 22:00-06:00" in done.err


@pytest.mark.parametrize("window", ["22:00", "25:00-06:00", "22:00-22:00", "22:60-06:00", "a-b", "22:00-24:01", ""])
def test_what_is_no_window(window: str) -> None:
    with pytest.raises(ValueError, match="is not a time window"):
        parse_window(window)


@pytest.mark.parametrize(
    ("window", "opened", "closed"),
    [
        ("22:00-06:00", ("22:00", "23:59", "00:00", "05:59"), ("06:00", "21:59", "12:00")),
        ("08:30-12:00, 13:00-24:00", ("08:30", "11:59", "13:00", "23:59"), ("12:00", "12:59", "08:29", "00:00")),
        ("none", ("00:00", "12:00"), ()),
    ],
)
def test_the_hours_of_a_window(window: str, opened: tuple[str, ...], closed: tuple[str, ...]) -> None:
    hours_ = parse_window(window)
    for expected, moments in ((True, opened), (False, closed)):
        for moment in moments:
            hour, minute = moment.split(":")
            assert hours_.is_open(int(hour) * 60 + int(minute)) is expected, moment
    assert parse_window(str(hours_)) == hours_
