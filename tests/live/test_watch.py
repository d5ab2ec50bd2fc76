"""`bulkimg watch`: on terminals of two widths, in a pipe, as JSON; a run that ends, dies, or is left alone again."""

import fcntl
import itertools
import json
import os
import pty
import re
import signal
import struct
import termios
from collections.abc import Iterator

import pytest
from rich.cells import cell_len

from bulkimg.cli.execute import cause_line
from bulkimg.live.terminal import frame, plain, sparkline
from bulkimg.live.watching import Look
from bulkimg.model import RunEvent, Sample
from tests.cli.terminal import CONTROL, at_width
from tests.conftest import UUID, Cli, Running, Server, sandbox_process
from tests.live.asking import wait_for


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with sandbox_process("--images", "120") as found:
        yield found


def started(cli: Cli, server: Server, rows: int, *options: str) -> Running:
    lines = [f"{uuid},watched\n" for uuid in sorted(server.images())[:rows]]
    cli.write("m.csv", "uuid,name\n" + "".join(lines) + f"{UUID},is not there\n")
    before = len(server.puts())
    run = cli.at(server).start("run", "m.csv", "--yes", "--no-survey", "--progress", "none", "--run-id", "w", *options)
    server.wait_for_put(before)
    wait_for(lambda: cli("status", "w", "--json", code=None).json().get("state") in ("running", "done"))
    return run


def ended(run: Running) -> None:
    run.kill()
    run.communicate(timeout=30)


@pytest.mark.parametrize("columns", [60, 200])
def test_it_shows_a_run_to_its_end_and_the_last_picture_stays(cli: Cli, server: Server, columns: int) -> None:
    run = started(cli, server, 60, "--rate", "30/s")
    code, lines = at_width(cli, columns, "watch", "w", "--interval", "200ms")
    assert code == 0, "the run has ended, however it ended"
    run.communicate(timeout=30)
    assert run.returncode == 1
    assert all(cell_len(line.rstrip()) <= columns for line in lines)
    assert any(re.search(r"run w  running, about \d+:\d\d left", line) for line in lines)
    assert any(re.fullmatch(r"[━─]+ \d+ %  \d+ of 61 rows\s*", line) for line in lines)
    assert any(re.match(r"\d+ updated.*  \d+ in flight", line) for line in lines)
    assert any(re.match(r"\d+ requests/s \(cap 30/s\), limit \d+ in flight  [▁▂▃▄▅▆▇█]+", line) for line in lines)
    last = lines[-9:]
    assert any(line.startswith("run w  done") for line in last)
    assert any(line.startswith("60 updated  1 failed") for line in last)
    assert any(line.startswith("1 failed (in line 62)") for line in last)
    assert last[-1].rstrip() == "next: bulkimg retry w"


def test_ctrl_c_ends_the_watching_and_not_the_run(cli: Cli, server: Server) -> None:
    run = started(cli, server, 60, "--rate", "5/s")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    before = termios.tcgetattr(ours)
    here = Cli(cli.place, {"TERM": "xterm"})
    watching = here.start("watch", "w", stdin=theirs, stdout=theirs, stderr=theirs, session=True)
    shown = b""
    while b"in flight" not in shown:
        shown += os.read(ours, 65536)
    watching.send_signal(signal.SIGINT)
    assert watching.wait(30) == 130
    while b"the run continues" not in shown:
        shown += os.read(ours, 65536)
    assert shown.rfind(b"\x1b[?25h") > shown.rfind(b"\x1b[?25l"), "the cursor is back"
    assert termios.tcgetattr(ours) == before
    os.close(ours)
    os.close(theirs)
    assert run.poll() is None
    assert cli("status", "w", "--json").json()["state"] == "running"
    ended(run)


def test_a_death_ends_it_and_names_the_next_command(cli: Cli, server: Server) -> None:
    run = started(cli, server, 60, "--rate", "5/s")
    watching = cli.start("watch", "w", "--interval", "100ms")
    assert watching.stdout is not None
    line = watching.stdout.readline()
    assert re.match(r"running: \d+ of 61 rows; .*\d+ in flight\n", line), line
    ended(run)
    out, err = watching.communicate(timeout=30)
    assert (watching.returncode, err) == (0, "")
    assert "run w: interrupted, target" in out
    assert out.endswith("next: bulkimg resume w\n")


def test_in_a_pipe_it_is_a_line_for_every_change(cli: Cli, server: Server) -> None:
    run = started(cli, server, 20, "--rate", "10/s")
    out, _ = cli.start("watch", "w", "--interval", "50ms").communicate(timeout=60)
    run.communicate(timeout=30)
    assert not CONTROL.search(out)
    lines = [line for line in out.splitlines() if line.startswith("running: ")]
    assert len(lines) > 3
    assert all(one != other for one, other in itertools.pairwise(lines))
    assert "20 of 21 rows" in out or "21 of 21 rows settled" in out


def test_with_json_it_waits_and_prints_one_document(cli: Cli, server: Server) -> None:
    run = started(cli, server, 20, "--rate", "10/s")
    done = cli("watch", "w", "--json")
    run.communicate(timeout=30)
    found = json.loads(done.out)
    assert (found["state"], found["counts"]["updated"]) == ("done", 20)


def test_a_run_that_is_removed_meanwhile_is_said(cli: Cli, server: Server) -> None:
    run = started(cli, server, 60, "--rate", "5/s")
    watching = cli.start("watch", "w", "--interval", "100ms")
    assert watching.stdout is not None
    watching.stdout.readline()
    (cli.place / "runs" / "w").rename(cli.place / "elsewhere")
    _, err = watching.communicate(timeout=30)
    assert (watching.returncode, err) == (7, "bulkimg: run w is gone: its directory was removed\n")
    ended(run)


def test_a_reader_that_goes_away_ends_it(cli: Cli, server: Server) -> None:
    run = started(cli, server, 60, "--rate", "5/s")
    watching = cli.start("watch", "w", "--interval", "50ms")
    assert watching.stdout is not None
    assert watching.stderr is not None
    watching.stdout.readline()
    watching.stdout.close()
    assert (watching.wait(30), watching.stderr.read()) == (0, "")
    watching.stderr.close()
    assert run.poll() is None
    ended(run)


def test_a_finished_run_is_shown_once_and_mistakes_are_said(cli: Cli, server: Server) -> None:
    started(cli, server, 3).communicate(timeout=60)
    assert "run w: done, target" in cli("watch").out
    assert "--interval '0s' is not a duration" in cli("watch", "--interval", "0s", code=2).err
    assert "is not a run" in cli("watch", "nothing", code=2).err
    assert "there are no runs" in cli("watch", "--runs-dir", "none", code=2).err


# -- frames -------------------------------------------------------------------------------------------------------------

STATUS = {
    "run_id": "r\x1b[31m", "state": "running", "running": True, "target": "http://h\u202e:1", "manifest": "a\nb" * 60, "rows": 1000,
    "settled": 400, "in_flight": 16, "waiting": 584, "rows_per_s": 10.0, "plan": "", "next": None,
    "counts": {"updated": 390, "failed": 10, "conflict": 0, "unknown": 1, "drifted": 123_456, "unprocessed": 5_000_000},
    "workers": [{"name": "h\x1b[2J:" + "9" * n, "state": "working", "rows": n, "requests": n, "in_flight": 1, "rate": None} for n in range(12)],
    "causes": [{"status": "failed", "code": f"SYS.{n}", "rows": 9, "first_line": 2, "message": "\x07" + "名" * 300, "hint": ""} for n in range(9)],
}  # fmt: skip


def look(samples: int, **status: object) -> Look:
    now = 1_700_000_000.0
    made = [
        Sample(now + n, 1, {"put": n % 60, "poll": 1}, {"updated": n % 60}, {}, 16, 16, 50.0, 600)
        for n in range(samples)
    ]
    return Look({**STATUS, **status}, made, [RunEvent(now, "held", "the server\x1b]0;evil\x07 is not well")])


@pytest.mark.parametrize("columns", [20, 60, 80, 200])
@pytest.mark.parametrize("samples", [0, 1, 30, 500])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_no_line_is_wider_than_the_terminal_and_none_is_obeyed(columns: int, samples: int, ascii_only: bool) -> None:
    lines = [line.plain for line in frame(look(samples), columns, cause_line, ascii_only=ascii_only, now=1_700_000_500)]
    assert max(map(cell_len, lines)) <= columns
    assert not any(character in "\x1b\x07\n\u202e" for line in lines for character in line)
    text = " ".join(lines)
    assert "5,000,000 unprocessed" in text or columns == 20
    assert "… and 4 more" in text
    assert not any(character in "\x1b\x07\n\u202e" for character in plain(look(samples)))


def test_a_line_without_the_newest_seconds_shows_that_nothing_is_sent() -> None:
    quiet = frame(look(30), 80, cause_line, now=1_700_000_040)
    (pace,) = (line.plain for line in quiet if "requests/s" in line.plain)
    assert pace.startswith("0 requests/s (cap 50/s)")
    assert pace.endswith("▁" * 10)


def test_a_sparkline_is_a_part_of_the_cap() -> None:
    assert sparkline([0, 25, 50], 50.0) == "▁▅█"
    assert sparkline([0, 1, 2], 50.0) == "▁▅█", "a cap that is far away would hide what goes on"
    assert sparkline([0, 1], None, ascii_only=True) == "_@"
    assert sparkline([], None) == ""
