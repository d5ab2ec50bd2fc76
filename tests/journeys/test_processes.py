"""`--processes`: whichever process puts a request on the wire, and however it ends, every row has one honest outcome."""

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bulkimg.credentials import Session
from bulkimg.engine.look import reading
from bulkimg.engine.world import World
from bulkimg.errors import UsageError
from bulkimg.settings import Settings
from bulkimg.zstack import Client
from tests.conftest import ROOT, Cli, Server, sandbox_process
from tests.journeys.test_faults import FAULTS, attempts, manifest, puts_by_image
from tests.windows import most_within

ROWS = 300
QUICK = ("--rate", "unlimited", "--concurrency", "16", "--progress", "none")


def senders(pid: int) -> list[int]:
    """The pids of a run's sending processes, zombies left out."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            found.append(int(child))
    return found


def ready_senders(pid: int) -> list[int]:
    """Once each has begun to set itself up, and has had the time to say so."""
    wait_for(lambda: bool(pids := senders(pid)) and all(map(_ignores_signals, pids)))
    time.sleep(0.3)
    return senders(pid)


def _ignores_signals(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    (ignored,) = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigIgn")]
    return bool(ignored >> signal.SIGUSR1 - 1 & 1)


def wait_for(come: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not come():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@contextmanager
def sending_by_one(cli: Cli, *how: str) -> "Iterator[tuple[Server, dict[str, str], subprocess.Popen[str], int]]":
    """A server, the names wanted there, and a run whose requests one other process sends: its pid."""
    with sandbox_process("--images", "120") as server:
        text, wanted = manifest(server, "one")
        cli.write("m.csv", text)
        fixed = ("--concurrency", "64", "--no-adaptive", "--processes", "2", "--action-key", "updateImage")
        process = cli.at(server).start("run", "m.csv", "--yes", "--no-survey", *fixed, *how)
        server.wait_for_put(5)
        (pid,) = ready_senders(process.pid)
        time.sleep(0.2)
        yield server, wanted, process, pid


def check_complete(cli: Cli, server: Server, wanted: dict[str, str]) -> None:
    results = cli.results()
    assert Counter(result["status"] for result in results) == {"updated": len(wanted)}
    assert [result["uuid"] for result in results] == list(wanted)
    images = server.images()
    assert all(images[uuid]["name"] == name for uuid, name in wanted.items())
    known = attempts(cli)
    assert all(count <= known[uuid] for uuid, count in puts_by_image(server).items()), "a PUT the ledger does not know"


def test_every_row_is_updated_through_a_storm_of_faults(cli: Cli) -> None:
    with sandbox_process("--images", "150", "--faults", FAULTS, "--seed", "7") as sick:
        text, wanted = manifest(sick, "storm")
        cli.write("m.csv", text)
        cli.at(sick)("run", "m.csv", "--yes", *QUICK, "--retries", "12", "--processes", "3", code=None)
        check_complete(cli, sick, wanted)


def test_the_rate_is_one_for_all_processes(cli: Cli) -> None:
    with sandbox_process("--images", str(ROWS)) as server:
        cli.write("m.csv", manifest(server, "pace")[0])
        cli.at(server)("run", "m.csv", "--yes", "--no-survey", "--rate", "100/s", "--processes", "3")
        moments = sorted(put["at"] for put in server.puts())
        assert most_within(0.98, moments) <= 100


def test_the_rate_is_kept_when_a_sending_process_stands_still(cli: Cli) -> None:
    """It was handed requests for many moments, and must not let them out in one."""
    with sending_by_one(cli, "--rate", "20/s") as (server, wanted, process, pid):
        for seconds in (1.5, 0.3):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(seconds)
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.5)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
        check_complete(cli, server, wanted)
        assert most_within(0.98, sorted(put["at"] for put in server.puts())) <= 20
        assert set(attempts(cli).values()) == {1}, "what was not sent is no attempt"


def test_a_sending_process_that_is_killed_costs_no_row(cli: Cli) -> None:
    with sandbox_process("--images", str(ROWS), "--workers", "8", "--service-time", "80") as server:
        text, wanted = manifest(server, "kill")
        cli.write("m.csv", text)
        process = cli.at(server).start("run", "m.csv", "--yes", *QUICK, "--processes", "3", "--retries", "0")
        server.wait_for_put()
        for pid in ready_senders(process.pid):
            os.kill(pid, signal.SIGKILL)
            time.sleep(0.3)
        _, said = process.communicate(timeout=60)
        assert (process.returncode, "Traceback" in said) == (0, False), said
        assert "a sender process died; the rows it was sending are checked; 1 remaining" in said
        assert "are checked; this process sends alone now" in said
        assert "the server" not in said, "it is not to blame, and nobody waits for it"
        check_complete(cli, server, wanted)


def test_a_signal_gives_back_what_a_process_was_handed_and_has_not_sent(cli: Cli) -> None:
    with sending_by_one(cli, "--rate", "20/s") as (server, wanted, process, pid):
        os.kill(pid, signal.SIGSTOP)
        time.sleep(1)
        sent = len(server.puts())
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        os.kill(pid, signal.SIGCONT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130, said
        assert len(server.puts()) <= sent + 1, "no new row starts"
        counts = cli.summary()["counts"]
        assert counts["updated"] + counts["unprocessed"] == len(wanted)


def test_what_a_killed_process_never_sent_is_sent_again_and_costs_no_try(cli: Cli) -> None:
    with sending_by_one(cli, "--rate", "30/s", "--retries", "0") as (server, wanted, process, pid):
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.3)  # it is handed what it will never send
        os.kill(pid, signal.SIGKILL)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
        check_complete(cli, server, wanted)
        assert sum(attempts(cli).values()) > len(wanted)


def test_a_run_that_is_killed_takes_its_processes_along_and_is_resumed(cli: Cli) -> None:
    with sandbox_process("--images", str(ROWS), "--workers", "8", "--service-time", "80") as server:
        text, wanted = manifest(server, "gone")
        cli.write("m.csv", text)
        process = cli.at(server).start("run", "m.csv", "--yes", *QUICK, "--processes", "2")
        server.wait_for_put()
        pids = ready_senders(process.pid)
        assert len(pids) == 1
        os.kill(pids[0], signal.SIGSTOP)  # however it stands: nothing of a run that is gone goes out later
        process.kill()
        process.communicate(timeout=30)
        wait_for(lambda: all(is_gone(pid) for pid in pids))
        cli.at(server)("resume", "last", "--progress", "none")
        check_complete(cli, server, wanted)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_the_whole_group_drains(cli: Cli, number: signal.Signals, code: int) -> None:
    """As a terminal sends it, and systemd: to the sending processes, too."""
    with sandbox_process("--images", str(ROWS), "--workers", "8", "--service-time", "30") as server:
        text, wanted = manifest(server, "drain")
        cli.write("m.csv", text)
        process = cli.at(server).start("run", "m.csv", "--yes", "--rate", "100/s", "--processes", "2", group=True)
        server.wait_for_put(2)  # the first one may only find out how the server spells the key
        os.killpg(process.pid, number)
        _, said = process.communicate(timeout=35)
        assert process.returncode == code, said
        counts = cli.summary()["counts"]
        assert 0 < counts["updated"] < ROWS
        assert counts["updated"] + counts["unprocessed"] == ROWS, "what was in flight has finished"
        cli.at(server)("resume", "last", "--rate", "unlimited")
        check_complete(cli, server, wanted)


def test_the_second_signal_breaks_off_what_the_processes_send(cli: Cli) -> None:
    with sandbox_process("--images", str(ROWS), "--service-time", "20000", "--workers", "100") as server:
        cli.write("m.csv", manifest(server, "twice")[0])
        process = cli.at(server).start("run", "m.csv", "--yes", "--no-survey", *QUICK, "--processes", "2", group=True)
        server.wait_for_put(2)  # the first one may only find out how the server spells the key
        pids = senders(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.3)
        begun = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=30)
        assert (process.returncode, time.monotonic() - begun < 4) == (130, True), said
        assert all(is_gone(pid) for pid in pids)
        counts = cli.summary()["counts"]
        assert counts["unknown"] > 0
        assert counts["unknown"] + counts["unprocessed"] == ROWS


def test_what_is_wrong_with_an_authority_is_said_before_any_process(cli: Cli, server: Server) -> None:
    cli.write("m.csv", manifest(server, "tls")[0])
    cli.write("ca.pem", "no certificate")
    done = cli.at(server)("run", "m.csv", "--yes", "--processes", "2", "--ca-file", "ca.pem", code=2)
    assert "--ca-file" in done.err
    assert not server.requests()


async def test_who_asks_one_question_at_a_time_starts_no_process() -> None:
    asked_for: list[int] = []

    def connect(settings: Settings, now: Callable[[], float]) -> Client:
        asked_for.append(settings.processes)
        raise UsageError("far enough")

    settings = Settings(endpoint="http://127.0.0.1:9", processes=4)
    with pytest.raises(UsageError, match="far enough"):
        async with reading(settings, Session("5" * 32), lambda event: None, World(connect=connect)):
            pass
    assert asked_for == [1]


@pytest.mark.parametrize("count", ["0", "65", "many"])
def test_an_odd_number_of_processes_is_refused(cli: Cli, server: Server, count: str) -> None:
    cli.write("m.csv", manifest(server, "odd")[0])
    done = cli.at(server)("run", "m.csv", "--yes", "--processes", count, code=2)
    assert f"--processes '{count}' is not valid" in done.err


def test_where_processes_cannot_be_loaded_the_run_goes_on_alone(cli: Cli) -> None:
    """No memory for them, say: what they would say of it has no place on a screen or in a log of JSON."""
    broken = "import os, sys\nif 'import sender' in ' '.join(sys.orig_argv):\n    os.write(2, b'Traceback')\n    os._exit(3)\n"
    cli.write("sitecustomize.py", broken)
    with sandbox_process("--images", "20") as server:
        text, wanted = manifest(server, "small")
        cli.write("m.csv", text)
        how = ("--rate", "20/s", "--processes", "3", "--log-format", "json", "--progress", "none")
        done = cli.at(server)("run", "m.csv", "--yes", *how, PYTHONPATH=f"{cli.place}:{ROOT}")
        check_complete(cli, server, wanted)
    said = [json.loads(line) for line in done.err.splitlines()]
    assert [line["message"] for line in said if line["event"] == "processlost"] == [
        "a sender process failed to start; 1 remaining",
        "a sender process failed to start; this process sends alone now",
    ]
