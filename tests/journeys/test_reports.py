"""Reports of real runs: at the end, while it runs, after it died and was resumed, steered, and of bad places."""

import json
import re
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from bulkimg.ledger import Ledger, timeline
from tests.conftest import Cli, Running, Server, sandbox_process
from tests.journeys.test_faults import manifest
from tests.report.test_run_page import shown

ROWS = 120


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with sandbox_process("--images", str(ROWS), "--dialect", "zstack") as found:
        yield found


@pytest.fixture
def sandboxed(cli: Cli, server: Server, request: pytest.FixtureRequest) -> Cli:
    cli = cli.at(server)
    cli.write("m.csv", manifest(server, request.node.name[:30])[0])
    return cli


def page(cli: Cli) -> str:
    return shown((cli.run_dir() / "report.html").read_text("utf-8"))


def begun(cli: Cli, server: Server, *options: str) -> Running:
    before = len(server.puts())
    process = cli.start("run", "m.csv", "--yes", "--progress", "none", *options)
    server.wait_for_put(before)
    return process


def test_a_run_leaves_its_report_and_the_ledger_agrees_with_the_server(sandboxed: Cli, server: Server) -> None:
    before = len(server.requests())
    sandboxed("run", "m.csv", "--yes", "--rate", "60/s", "--note", "CHG-17")
    said = page(sandboxed)
    assert f"Finished: every one of {ROWS} rows is updated or was so already." in said
    assert "The cap was 60/s." in said
    assert "Note CHG-17" in said
    assert stat.S_IMODE((sandboxed.run_dir() / "report.html").stat().st_mode) == 0o600
    ledger = Ledger.open(sandboxed.run_dir() / "run.db", read_only=True)
    samples = list(timeline.samples(ledger))
    ledger.close()
    kinds = {"PUT": "put", "GET": "poll"}
    asked = [one for one in server.requests()[before:] if kinds.get(one["method"])]
    assert sum(one.requests.get("put", 0) for one in samples) == sum(one["method"] == "PUT" for one in asked)
    assert sum(one.requests.get("poll", 0) for one in samples) == sum("/api-jobs/" in one["path"] for one in asked)
    assert sum(one.outcomes.get("updated", 0) for one in samples) == ROWS
    assert samples[-1].waiting == 0
    assert len(samples) >= 3, "240 requests at 60/s take four seconds"
    assert max(sum(one.requests.values()) for one in samples) <= 61


def test_a_living_run_says_as_of_and_is_not_disturbed(sandboxed: Cli, server: Server) -> None:
    process = begun(sandboxed, server, "--rate", "40/s")
    out = sandboxed("report", "last", "--out", "live.html").out
    assert out == "live.html\n"
    said = shown((sandboxed.place / "live.html").read_text("utf-8"))
    assert re.search(rf"Running: \d+ of {ROWS} rows have their outcome\. As of 20", said)
    assert "Next command" not in said
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "Finished" in page(sandboxed)


def test_a_run_that_died_and_was_resumed_shows_both(sandboxed: Cli, server: Server) -> None:
    process = begun(sandboxed, server, "--rate", "40/s")
    process.kill()
    process.communicate(timeout=30)
    sandboxed("report")
    said = page(sandboxed)
    assert "Interrupted: the process ended suddenly; " in said
    assert f"Next command bulkimg resume {sandboxed.runs()[-1]}" in said
    assert "As of " in said
    sandboxed("resume", "last", "--rate", "unlimited")
    said = page(sandboxed)
    assert "Finished: " in said
    assert re.search(r"1 \S+ \S+ UTC the process ended suddenly", said)
    assert re.search(r"2 \S+ \S+ UTC resumed: run \S+: sending ", said)


def test_orders_and_waits_are_marks(sandboxed: Cli, server: Server) -> None:
    before = len(server.puts())
    process = begun(sandboxed, server, "--rate", "40/s")
    server.wait_for_put(before + 40)  # more than a second has passed
    sandboxed("ctl", "last", "rate=200/s", "pause")
    sandboxed("ctl", "last", "go")
    process.communicate(timeout=60)
    said = page(sandboxed)
    assert re.search(r"1 \S+ \S+ UTC rate is now 200/s \(bulkimg ctl\)", said)
    assert re.search(r"2 \S+ \S+ UTC paused \(bulkimg ctl pause\)", said)
    assert "The cap was 40/s to 200/s." in said


def test_standard_output_and_comparison(sandboxed: Cli) -> None:
    sandboxed("run", "m.csv", "--yes", "--rate", "unlimited")
    first = sandboxed.runs()[-1]
    sandboxed("run", "m.csv", "--yes", "--rate", "unlimited")
    out = sandboxed("report", "last", "--compare", first, "--out", "-").out
    assert out.startswith("<!doctype html>")
    assert f"Compared with run {first}" in shown(out)


def test_a_plan_and_a_refused_manifest_have_reports_too(sandboxed: Cli) -> None:
    sandboxed("plan", "m.csv")
    assert "Planned: nothing was sent." in page(sandboxed)
    sandboxed.write("bad.csv", "uuid,name\nnot-a-uuid,x\n")
    sandboxed("run", "bad.csv", "--yes", code=3)
    assert "Refused: the manifest has problems" in page(sandboxed)


def test_the_plan_of_a_finished_run_can_be_looked_at(sandboxed: Cli) -> None:
    sandboxed("run", "m.csv", "--yes", "--rate", "unlimited")
    place = sandboxed.run_dir()
    assert not (place / "plan.html").exists()
    out = sandboxed("report", "--plan").out
    assert out.splitlines() == [f"runs/{place.name}/report.html", f"runs/{place.name}/plan.html"]
    assert "This plan was carried out: see report.html." in (place / "plan.html").read_text("utf-8")
    assert (place / "plan.csv").read_text("utf-8").count("\n") == ROWS + 1
    sandboxed.write("bad.csv", "uuid,name\nnot-a-uuid,x\n")
    sandboxed("run", "bad.csv", "--yes", code=3)
    assert "has no plan" in sandboxed("report", "--plan", code=7).err


def test_bad_places(sandboxed: Cli, tmp_path: Path) -> None:
    sandboxed("run", "m.csv", "--yes", "--rate", "unlimited")
    assert "'nope' is not a run" in sandboxed("report", "nope", code=2).err
    assert "'nope' is not a run" in sandboxed("report", "last", "--compare", "nope", code=2).err
    assert "does not exist; create it" in sandboxed("report", "--out", "no/such/place.html", code=2).err
    assert "is a directory" in sandboxed("report", "--out", str(tmp_path), code=2).err
    assert "standard output is the page itself" in sandboxed("report", "--open", "--out", "-", code=2).err
    assert "exists and is no page of bulkimg" in sandboxed("report", "--out", "m.csv", code=2).err
    assert "not a regular file" in sandboxed("report", "--out", "/dev/null", code=2).err
    assert sandboxed("report", "--json").json()["report"].endswith("/report.html")
    sandboxed("report", "--out", "again.html")
    sandboxed("report", "--out", "again.html")
    path = sandboxed.run_dir() / "run.db"
    db = sqlite3.connect(path)
    db.execute("UPDATE meta SET value = ? WHERE key = 'state'", (json.dumps("reading"),))
    db.commit()
    db.close()
    assert "checksum of its header is wrong" in sandboxed("report", code=8).err


def test_a_run_that_reads_its_manifest_has_nothing_to_show(sandboxed: Cli) -> None:
    process = sandboxed.start("run", "-", "--format", "csv", "--yes", stdin=-1)
    try:
        while not (sandboxed.place / "runs").is_dir() or not sandboxed.runs():
            pass
        while "the run is just beginning" in (said := sandboxed("report", code=7).err):
            pass
        assert "is still reading its manifest" in said
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.communicate(timeout=30)


def test_a_report_that_cannot_be_written_changes_no_exit_code(sandboxed: Cli, server: Server) -> None:
    process = begun(sandboxed, server, "--rate", "60/s")
    (sandboxed.run_dir() / "report.html").mkdir()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "report.html: cannot be written: Is a directory; bulkimg report" in err
    assert sandboxed.summary()["exit_code"] == 0


def test_a_damaged_record_is_a_sentence(sandboxed: Cli) -> None:
    sandboxed("run", "m.csv", "--yes", "--rate", "unlimited")
    db = sqlite3.connect(sandboxed.run_dir() / "run.db")
    db.execute("UPDATE sample SET latency = '{bad'")
    db.commit()
    db.close()
    assert "is damaged" in sandboxed("report", code=8).err


def test_a_run_that_died_while_it_read_is_not_called_living(sandboxed: Cli) -> None:
    process = sandboxed.start("run", "-", "--format", "csv", "--yes", stdin=-1)
    while not (sandboxed.place / "runs").is_dir() or not sandboxed.runs():
        pass
    while "is still reading its manifest" not in sandboxed("report", code=None).err:
        pass
    assert process.stdin is not None
    process.kill()
    process.stdin.close()
    process.communicate(timeout=30)
    assert "ended before its manifest was read" in sandboxed("report", code=7).err
