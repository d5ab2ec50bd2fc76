"""One run of a job at a time: two that start at once, those that wait, and those that are tired of waiting."""

import os
import signal
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

from bulkimg.engine.overlap import Work, alone
from bulkimg.errors import RunRefused
from bulkimg.ledger import Ledger, list_runs, new_run
from tests.cli.test_commands import manifest, some_images
from tests.conftest import Cli, Running, Server

SLOW = ("--yes", "--rate", "20/s", "-q")
SLOWER = ("--yes", "--rate", "2/s", "-q")


def begin(cli: Cli, server: Server, rows: int = 12) -> Cli:
    cli.write("m.csv", manifest(some_images(server, rows)))
    cli.write("job.toml", '[job]\nname = "nightly"\nmanifest = "m.csv"\n')
    return cli.at(server)


def ended(process: Running) -> tuple[int, str]:
    """Wait for the end of a command. Returns its exit code and what it said."""
    said = process.communicate(timeout=100)[1]
    assert process.returncode is not None
    return process.returncode, said or ""


def one_of(here: Cli, first: Running, second: Running) -> str:
    """Wait until one of two runs is refused, then let the other one end well. Returns what the refused one said."""
    until = time.monotonic() + 60
    while first.poll() is None and second.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.02)
    refused, other = (first, second) if first.poll() is not None else (second, first)
    while other.poll() is None and all(here("ctl", name, "rate=unlimited", code=None).code for name in here.runs()):
        assert time.monotonic() < until  # it takes no orders yet
    code, said = ended(refused)
    assert (code, ended(other)[0]) == (7, 0), said
    return said


@pytest.mark.parametrize("attempt", range(3))
def test_of_two_that_start_at_once_one_runs(cli: Cli, server: Server, attempt: int) -> None:
    here = begin(cli, server)
    said = one_of(here, *[here.start("run", "job.toml", *SLOWER) for _ in range(2)])
    assert "of the same manifest or job is under way" in said


def test_of_many_that_enter_at_once_one_is_in(tmp_path: Path) -> None:
    """Each enters as a run does: it looks for others and makes its own, under the kernel's lock."""
    work = Work("http://x/zstack", "/m.csv", "nightly", "")
    gate, won = threading.Barrier(8), []

    def enter() -> None:
        gate.wait()
        try:
            with alone(tmp_path, work):
                directory = new_run(tmp_path, time.time())
                ledger = Ledger.create(directory.ledger)
                time.sleep(0.01)  # longer than the others need to look
                ledger.set_meta(
                    state="reading", manifest_path="/m.csv", settings={"endpoint": "http://x", "base_path": "/zstack"}
                )
                won.append((directory, ledger))
        except RunRefused:
            pass

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == len(list_runs(tmp_path)) == 1
    won[0][1].close()
    won[0][0].release()


def test_same_content_in_two_files_runs_once(cli: Cli, server: Server) -> None:
    """Only the content ties these two, and it is known when both exist already."""
    here = begin(cli, server)
    cli.write("copy.csv", (cli.place / "m.csv").read_bytes())
    one_of(here, *[here.start("run", name, *SLOWER) for name in ("m.csv", "copy.csv")])


def test_those_that_wait_run_one_after_the_other(cli: Cli, server: Server) -> None:
    here = begin(cli, server, 6)
    puts = len(server.puts())
    first = here.start("run", "job.toml", *SLOW)
    server.wait_for_put(puts)
    waiting = [here.start("run", "job.toml", *SLOW, "--lock-wait", "60s") for _ in range(2)]
    assert [ended(process)[0] for process in (first, *waiting)] == [0, 0, 0]
    spans = []
    for name in here.runs():
        ledger = Ledger.open(here.place / "runs" / name / "run.db", read_only=True)
        spans.append((ledger.meta("created_at"), ledger.meta("ended_at")))
        ledger.close()
    assert len(spans) == 3
    for (_, end), (begun, _) in pairwise(spans):
        assert begun >= end, "a run began before the one before it had ended"


def test_a_wait_that_is_over_names_the_run(cli: Cli, server: Server) -> None:
    here = begin(cli, server, 60)
    first = here.start("run", "job.toml", *SLOW, "--run-id", "first", "--rate", "4/s")
    try:
        server.wait_for_put(len(server.puts()))
        begun = time.monotonic()
        done = here("run", "job.toml", "--yes", "--lock-wait", "400ms", code=7)
        assert time.monotonic() - begun >= 0.4
        assert "run first of the same manifest or job is still under way; waiting" in done.err
        assert "run first of the same manifest or job is under way after 0.4 s of --lock-wait" in done.err
        assert "bulkimg status first" in done.err
        assert here.runs() == ["first"], "a run that did not begin leaves nothing"
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate(timeout=30)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_signal_ends_the_wait(cli: Cli, server: Server, number: signal.Signals, code: int) -> None:
    here = begin(cli, server, 60)
    first = here.start("run", "job.toml", *SLOW, "--run-id", "first", "--rate", "4/s")
    try:
        server.wait_for_put(len(server.puts()))
        waiting = here.start("run", "job.toml", "--yes", "--lock-wait", "5m", stderr=(read := os.pipe())[1])
        os.close(read[1])
        with os.fdopen(read[0]) as err:
            assert "waiting for its end" in err.readline()
            waiting.send_signal(number)
            waiting.communicate(timeout=30)
        assert waiting.returncode == code
        assert here.runs() == ["first"]
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate(timeout=30)


def test_ctrl_c_ends_the_wait_of_a_resumed_run(cli: Cli, server: Server) -> None:
    """It waits within the engine, and can be resumed again."""
    here = begin(cli, server, 60)
    here("run", "job.toml", "--yes", "--rate", "10/s", "--max-duration", "2s", "--run-id", "old", code=6)
    first = here.start("run", "job.toml", *SLOW, "--run-id", "first", "--rate", "4/s")
    try:
        server.wait_for_put(len(server.puts()))
        waiting = here.start("resume", "old", "--yes", "--lock-wait", "5m", stderr=(read := os.pipe())[1])
        os.close(read[1])
        with os.fdopen(read[0]) as err:
            while "waiting for its end" not in (line := err.readline()):
                assert line
            waiting.send_signal(signal.SIGINT)
            said = err.read()
            waiting.communicate(timeout=30)
        assert waiting.returncode == 130
        assert "bulkimg resume old" in said
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate(timeout=30)
    assert here("resume", "old", "--yes", "--rate", "unlimited", "--max-duration", "1m").code == 0


def test_a_dead_run_is_not_waited_for(cli: Cli, server: Server) -> None:
    here = begin(cli, server, 30)
    first = here.start("run", "job.toml", *SLOW, "--rate", "4/s")
    server.wait_for_put(len(server.puts()))
    waiting = here.start("run", "job.toml", "--yes", "--rate", "unlimited", "--lock-wait", "60s")
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=30)
    assert ended(waiting)[0] == 0


def test_the_job_file_says_how_long(cli: Cli, server: Server) -> None:
    here = begin(cli, server, 6)
    cli.write("job.toml", '[job]\nname = "nightly"\nmanifest = "m.csv"\n[guard]\nlock_wait = "60s"\n')
    both = [ended(process) for process in [here.start("run", "job.toml", *SLOW) for _ in range(2)]]
    assert [code for code, _ in both] == [0, 0]
    for wrong in ('"soon"', "-1", "true"):
        cli.write("job.toml", f'[job]\nmanifest = "m.csv"\n[guard]\nlock_wait = {wrong}\n')
        assert "job.toml:4: [guard] lock_wait =" in here("run", "job.toml", code=2).err
