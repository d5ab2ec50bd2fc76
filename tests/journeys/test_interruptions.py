"""Ctrl-C, kill -9, resume, retry: every row ends with exactly one outcome, and the ledger knows every request."""

import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Cli, Server, sandbox_process
from tests.journeys.test_faults import attempts, manifest, puts_by_image

ROWS = 300


@pytest.fixture
def slow(dialect: str) -> Iterator[Server]:
    with sandbox_process(
        "--images", str(ROWS), "--dialect", dialect, "--workers", "8", "--service-time", "30"
    ) as found:
        yield found


def check_complete(cli: Cli, server: Server, wanted: dict[str, str], crashes: int) -> None:
    results = cli.results()
    assert Counter(result["status"] for result in results) == {"updated": ROWS}
    assert sorted(result["uuid"] for result in results) == sorted(wanted)
    images = server.images()
    assert all(images[uuid]["name"] == name for uuid, name in wanted.items())
    known, puts = attempts(cli), puts_by_image(server)
    assert all(count <= known[uuid] for uuid, count in puts.items())
    assert sum(puts.values()) <= ROWS + 1 + crashes * 16, "at most what was in flight is sent once more"


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_killed_at_any_moment_and_resumed(cli: Cli, slow: Server, seed: int) -> None:
    rng = random.Random(seed)
    text, wanted = manifest(slow, f"kill{seed}")
    cli.write("m.csv", text)
    run = ["run", "m.csv", "--yes", "--rate", "unlimited", "--concurrency", "16", "--progress", "none"]
    resume = ["resume", "last", "--rate", "unlimited", "--progress", "none"]
    crashes = 0
    command = run
    for _ in range(3):
        before = len(slow.puts())
        process = cli.at(slow).start(*command)
        if command is run:
            slow.wait_for_put(before)
        time.sleep(rng.random() * 0.9)  # somewhere in the run
        process.kill()
        process.communicate(timeout=30)
        crashes += 1
        command = resume
    (cli.place / "m.csv").unlink()  # the manifest is not needed any more
    cli.at(slow)(*resume, code=0)
    check_complete(cli, slow, wanted, crashes)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_drains(cli: Cli, slow: Server, number: signal.Signals, code: int) -> None:
    text, wanted = manifest(slow, "drain")
    cli.write("m.csv", text)
    process = cli.at(slow).start("run", "m.csv", "--yes", "--rate", "40/s", "--progress", "none")
    slow.wait_for_put(10)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert f"next:    bulkimg resume {cli.runs()[-1]}" in said
    counts = cli.summary()["counts"]
    assert 0 < counts["updated"] < ROWS
    assert counts["updated"] + counts["unprocessed"] == ROWS, "what was in flight has finished"
    cli.at(slow)("resume", "last", "--rate", "unlimited")
    check_complete(cli, slow, wanted, crashes=0)


def test_the_second_signal_stops_at_once_and_stays_resumable(cli: Cli) -> None:
    with sandbox_process("--images", str(ROWS), "--service-time", "90000", "--workers", "100") as server:
        text, _ = manifest(server, "twice")
        cli.write("m.csv", text)
        process = cli.at(server).start("run", "m.csv", "--yes", "--progress", "none")
        server.wait_for_put(1)  # the first one asks how the server spells the key
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGUSR1)
        assert process.stderr is not None
        while "rows settled" not in (line := process.stderr.readline()):  # so the first signal has come too
            assert line
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=25)  # after one signal it takes more than half a minute
        assert process.returncode == 130, said
        counts = cli.summary()["counts"]
        assert counts["unknown"] > 0
        assert counts["unknown"] + counts["unprocessed"] == ROWS
        assert {r["status"] for r in cli.results()} == {"unknown", "unprocessed"}


def test_a_slow_pace_does_not_keep_a_stop_waiting(cli: Cli, server: Server) -> None:
    cli.write("m.csv", manifest(server, "slow")[0])
    before = len(server.puts())
    process = cli.at(server).start("run", "m.csv", "--yes", "--rate", "1/s", "--progress", "none")
    server.wait_for_put(before)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)  # 16 rows at a time wait for the rate
    assert len(server.puts()) - before <= 8
    counts = cli.summary()["counts"]
    assert counts["unknown"] == 0
    assert counts["unprocessed"] >= 292


def test_retry_is_a_new_run_of_what_is_left(cli: Cli, server: Server) -> None:
    images = sorted(server.images())
    gone = [f"{n:032x}" for n in range(3)]
    cli.write("m.csv", "uuid,name\n" + "".join(f"{uuid},again\n" for uuid in [*images[:5], *gone]))
    cli.at(server)("run", "m.csv", "--yes", code=1)
    first = cli.run_dir()
    before = (first / "results.jsonl").read_bytes()
    cli.at(server)("retry", "last", code=1)
    assert cli.run_dir() != first
    assert [(r["uuid"], r["line"], r["status"]) for r in cli.results()] == [
        (uuid, n + 7, "failed") for n, uuid in enumerate(gone)
    ]
    assert cli.summary()["retry_of"] == first.name
    assert (first / "results.jsonl").read_bytes() == before
    assert "code SYS" not in cli("status", first.name).out
    cli.write("ok.csv", f"uuid,name\n{images[0]},fine\n")
    cli.at(server)("run", "ok.csv", "--yes")
    assert f"no row of run {cli.runs()[-1]} is failed, unknown or unprocessed" in cli.at(server)("retry", "last").err


def test_failed_csv_is_a_manifest_again(cli: Cli, server: Server) -> None:
    cli.write("m.csv", f'uuid;name;_note\n{1:032x};"=1+1; ""x""";keep me\n')
    cli.at(server)("run", "m.csv", "--yes", code=1)
    failed = cli.run_dir() / "failed.csv"
    assert failed.read_text("utf-8-sig").splitlines()[0] == "uuid,name,_note,_status,_code,_message,_hint"
    assert '"=1+1; ""x"""' in failed.read_text(), "the manifest's own cells are exact"
    cli.at(server)("run", str(failed), "--yes", code=1)
    assert cli.results()[0]["code"] == "NO_SUCH_IMAGE"


def test_a_refused_run_cannot_be_resumed_or_retried(cli: Cli, server: Server) -> None:
    cli.write("m.csv", "uuid,name\nx,y\n")
    cli.at(server)("run", "m.csv", "--yes", code=3)
    for command in ("resume", "retry"):
        assert "was refused" in cli.at(server)(command, "last", code=7).err


def test_a_run_is_resumed_as_the_account_that_began_it(cli: Cli, server: Server) -> None:
    cli.write("m.csv", manifest(server, "who")[0])
    account: dict[str, Any] = {
        "BULKIMG_ENDPOINT": server.url,
        "BULKIMG_ACCOUNT": "admin",
        "BULKIMG_PASSWORD": "password",
    }
    before = len(server.puts())
    process = cli.start("run", "m.csv", "--yes", "--rate", "20/s", "--progress", "none", **account)
    server.wait_for_put(before)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    other = cli("resume", "last", code=7, BULKIMG_ACCOUNT="mallory", BULKIMG_PASSWORD="x")
    assert "started as account admin, but the credentials now are for account mallory" in other.err


def test_run_files_are_private(cli: Cli, server: Server) -> None:
    cli.write("m.csv", f"uuid,name\n{sorted(server.images())[0]},x\n")
    cli.at(server)("run", "m.csv", "--yes", "--results", "out.csv")
    assert cli.run_dir().stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o077 for path in cli.run_dir().iterdir()} == {0}
    assert (cli.place / "out.csv").stat().st_mode & 0o077 == 0
    assert (cli.place / "out.csv").read_bytes() == (cli.run_dir() / "results.csv").read_bytes()
    everything = b"".join(path.read_bytes() for path in cli.run_dir().iterdir())
    assert server.session.encode() not in everything


def test_resuming_a_finished_run_leaves_its_summary_as_it_was(cli: Cli, server: Server) -> None:
    text, _ = manifest(server, "again")
    cli.write("m.csv", text)
    cli.at(server)("run", "m.csv", "--yes", "--rate", "unlimited", "--max-rows", "20")
    before = cli.summary()
    time.sleep(1.1)
    cli.at(server)("resume", "last")
    assert cli.summary() == before
