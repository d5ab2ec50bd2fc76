"""Results as a workbook and as Parquet: at the end of runs, of earlier runs, fed back, interrupted, on a bad disk."""

import csv
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from tests.cli.terminal import on_a_terminal
from tests.conftest import Cli, Server
from tests.report.workbooks import texts

NOBODY = "0" * 32


@pytest.fixture
def at(cli: Cli, server: Server) -> Cli:
    return cli.at(server)


def manifest(server: Server, mark: str, count: int = 6) -> str:
    """Return a manifest with a formula, a missing image and, at its end, a platform that does not exist."""
    uuids = sorted(server.images())[:count]
    rows = [[uuid, f"{mark}-{n}", "Linux"] for n, uuid in enumerate(uuids)]
    rows[0][1] = f"=1+1 {mark} <r>x</r>"
    rows[1][0] = NOBODY
    rows[-1][2] = "Linus"
    return "uuid,name,platform\n" + "".join(",".join(row) + "\n" for row in rows)


def shown(path: Path) -> list[dict[str, str]]:
    header, *rows = texts(path)
    return [dict(zip(header, row, strict=True)) for row in rows]


def parquet(path: Path) -> list[tuple[object, ...]]:
    query = "SELECT line, uuid, status, code FROM read_parquet(?) ORDER BY line"
    return duckdb.connect(":memory:").execute(query, [str(path)]).fetchall()


def test_a_workbook_with_every_row_of_a_run_can_be_run_again_as_it_is(at: Cli, server: Server) -> None:
    at.write("m.csv", manifest(server, "book"))
    at.write("x.xlsx", "an old file")
    at("run", "m.csv", "--yes", "--skip-invalid", "--results", "x.xlsx", code=1)
    found = shown(at.place / "x.xlsx")
    assert [(row["_line"], row["_status"], row["_code"]) for row in found] == [
        (str(result["line"]), result["status"], result["code"]) for result in at.results()
    ]
    assert [row["_status"] for row in found] == ["updated", "failed", *["updated"] * 3, "invalid"]
    with (at.place / "m.csv").open(newline="") as file:
        assert [[row["uuid"], row["name"], row["platform"]] for row in found] == list(csv.reader(file))[1:]
    assert server.images()[found[0]["uuid"]]["name"] == found[0]["name"] == "=1+1 book <r>x</r>"
    assert (at.place / "x.xlsx").stat().st_mode & 0o777 == 0o600
    summary = {row[0]: row[1] for row in texts(at.place / "x.xlsx", "summary")}
    assert summary["run"] == at.runs()[-1]
    assert summary["next"] == f"bulkimg retry {at.runs()[-1]}"
    assert summary["exit code"] == "1"

    with (at.place / "again.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(texts(at.place / "x.xlsx"))
    before = len(server.puts())
    at("run", "again.csv", "--yes", "--skip-invalid", code=1)
    assert [result["status"] for result in at.results()] == ["unchanged", "failed", *["unchanged"] * 3, "invalid"]
    assert len(server.puts()) == before


def test_a_workbook_of_results_is_a_manifest_without_an_option(at: Cli, server: Server) -> None:
    at.write("m.csv", manifest(server, "again").replace("Linus", "Linux"))
    at("run", "m.csv", "--yes", "--results", "x.xlsx", code=1)
    again = at("run", "x.xlsx", "--yes", "--json", code=1).json()
    assert {status: rows for status, rows in again["counts"].items() if rows} == {"unchanged": 5, "failed": 1}
    assert again["manifest"]["name"] == "x.xlsx"


def test_libreoffice_opens_it_and_runs_nothing(at: Cli, server: Server, soffice: str) -> None:
    at.write("m.csv", manifest(server, "office"))
    at("run", "m.csv", "--yes", "--skip-invalid", "--results", "x.xlsx", code=1)
    # Comma, quotes, UTF-8, from line 1, texts as they are, and every sheet as a file of its own.
    form = "csv:Text - txt - csv (StarCalc):44,34,76,1,,0,false,true,false,false,false,-1"
    profile = f"-env:UserInstallation={(at.place / 'profile').as_uri()}"
    words = [soffice, profile, "--headless", "--convert-to", form, "--outdir", str(at.place / "out"), "x.xlsx"]
    home = {**os.environ, "HOME": str(at.place)}
    for _ in range(2):  # where it has just made its profile, it may end without doing anything
        subprocess.run(words, cwd=at.place, env=home, check=False, capture_output=True, timeout=100)
        if (at.place / "out" / "x-summary.csv").exists():
            break
    for sheet in ("results", "summary"):
        with (at.place / "out" / f"x-{sheet}.csv").open(newline="", encoding="utf-8") as file:
            converted = list(csv.reader(file))
        assert converted == texts(at.place / "x.xlsx", sheet)


def test_parquet_has_every_row_of_a_run(at: Cli, server: Server) -> None:
    at.write("m.csv", manifest(server, "parquet"))
    at("run", "m.csv", "--yes", "--skip-invalid", "--results", "x.parquet", code=1)
    assert parquet(at.place / "x.parquet") == [
        (result["line"], result["uuid"], result["status"], result["code"]) for result in at.results()
    ]


@pytest.mark.parametrize("kind", ["xlsx", "parquet"])
def test_runs_that_end_early_have_their_table_too(at: Cli, server: Server, kind: str) -> None:
    """A refused manifest, a plan, the plan's run, a retry, an undo."""
    read: Callable[[], list[str]] = {
        "xlsx": lambda: [row["_status"] for row in shown(at.place / "x.xlsx")],
        "parquet": lambda: [str(row[2]) for row in parquet(at.place / "x.parquet")],
    }[kind]
    name = f"x.{kind}"
    at.write("m.csv", manifest(server, f"early-{kind}", 3))
    at("run", "m.csv", "--yes", "--results", name, code=3)
    assert read() == ["unprocessed", "unprocessed", "invalid"]
    at("plan", "m.csv", "--skip-invalid", "--results", name, code=1)
    assert read() == ["unprocessed", "failed", "invalid"]
    at("apply", at.runs()[-1], "--results", name, code=1)
    assert read() == ["updated", "failed", "invalid"]
    first = at.runs()[-1]
    at("retry", first, "--yes", "--results", name, code=1)
    assert read() == ["failed"]
    at("undo", first, "--yes", "--results", name)
    assert read() == ["updated"]


def test_a_file_of_a_run_that_is_no_manifest_is_one_sentence(at: Cli, server: Server) -> None:
    at.write("m.csv", manifest(server, "fed"))
    at("plan", "m.csv", "--skip-invalid", "--run-id", "plan", code=1)
    at("run", "m.csv", "--yes", "--skip-invalid", "--run-id", "run", "--results", "x.parquet", code=1)
    at("results", "run", "--as", "jsonl", "--out", "x.jsonl")
    results = "is the result file of a run, not a manifest; give failed.csv or unprocessed.csv of that run"
    for name in ("runs/run/results.csv", "x.jsonl", "x.parquet"):
        (line,) = at("check", name, code=3).out.splitlines()
        assert results in line, name
        assert at("run", name, "--yes", code=3).err.count(": is ") == 1
    (line,) = at("check", "runs/plan/plan.csv", code=3).out.splitlines()
    assert "is the plan of a run, not a manifest; use bulkimg apply" in line
    at("check", "runs/run/failed.csv")
    mapped = [f"--map={column}=description" for column in ("status",)]
    assert len(at("check", "runs/run/results.csv", *mapped, code=3).out.splitlines()) > 1, "a person names the columns"


@pytest.fixture
def without_libraries(at: Cli) -> Cli:
    """Packages of these names that cannot be imported stand in for ones that are missing."""
    for name in ("duckdb", "xlsxwriter", "python_calamine"):
        (at.place / "hidden" / name).mkdir(parents=True)
        at.write(f"hidden/{name}/__init__.py", "raise ImportError\n")
    path = os.pathsep.join([str(at.place / "hidden"), at.env()["PYTHONPATH"]])
    return Cli(at.place, {**at.environment, "PYTHONPATH": path})


def test_without_duckdb_it_says_how_to_install_it_and_sends_nothing(without_libraries: Cli, server: Server) -> None:
    at = without_libraries
    at.write("m.csv", manifest(server, "missing"))
    before = len(server.requests())
    said = at("run", "m.csv", "--yes", "--skip-invalid", "--results", "x.parquet", code=2).err
    assert said.startswith(
        "bulkimg: --results x.parquet: Parquet needs duckdb, which is not installed; install bulkimg"
    )
    assert "uv tool install '.[parquet]'" in said
    assert len(server.requests()) == before
    at("run", "m.csv", "--yes", "--skip-invalid", "--results", "x.xlsx", code=1)  # needs no library
    assert len(shown(at.place / "x.xlsx")) == 6


def test_results_of_an_earlier_run_in_every_format(at: Cli, server: Server) -> None:
    at.write("m.csv", manifest(server, "earlier"))
    at("run", "m.csv", "--yes", "--skip-invalid", code=1)
    directory = at.run_dir()
    assert at("results").out == at("results", "last", "--as", "csv").out == (directory / "results.csv").read_text()
    assert at("results", "--as", "jsonl").out == (directory / "results.jsonl").read_text()
    assert at("results", "--as", "xlsx").out == f"runs/{directory.name}/results.xlsx\n"
    assert len(shown(directory / "results.xlsx")) == 6
    assert at("results", "--as", "parquet", "--json").json() == {
        "schema": 1, "exit_code": 0, "run_id": directory.name, "results": f"runs/{directory.name}/results.parquet",
    }  # fmt: skip
    assert len(parquet(directory / "results.parquet")) == 6
    for name in ("y.csv", "y.jsonl", "y.xlsx", "y.parquet"):
        assert at("results", "last", "--out", name).out == f"{name}\n"
    assert (at.place / "y.csv").read_text() == (directory / "results.csv").read_text()
    assert (at.place / "y.xlsx").read_bytes() == (directory / "results.xlsx").read_bytes()
    assert not [path for path in (at.place, directory) if list(path.glob("*.tmp")) + list(path.glob(".parquet*"))]
    with (at.place / "z.xlsx").open("wb") as file:
        process = at.start("results", "last", "--as", "xlsx", "--out", "-", stdout=file.fileno())
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert (at.place / "z.xlsx").read_bytes() == (directory / "results.xlsx").read_bytes()


PLACES = (
    (["--as", "xls"], "--as 'xls': is not a format; give csv, jsonl, xlsx or parquet"),
    (["--out", "y.txt"], "--out y.txt: the file name does not say the format"),
    (["--out", "y"], "--out y: the file name does not say the format"),
    (["--as", "csv", "--out", "y.xlsx"], "--out y.xlsx: ends in .xlsx, but --as is csv"),
    (["--out", "m.csv"], "--out m.csv: exists already and is left as it is"),
    (["--out", "none/y.csv"], "--out none/y.csv: the directory none does not exist"),
    (["--out", "runs", "--as", "csv"], "--out runs: is a directory"),
    (["--out", "link.csv"], "--out link.csv: not a regular file"),
    (["--json"], "--json: standard output is the results themselves"),
)


def test_a_place_that_cannot_be_meant_is_refused(at: Cli, server: Server) -> None:
    at.write("m.csv", manifest(server, "place"))
    (at.place / "link.csv").symlink_to("m.csv")
    at("plan", "m.csv", "--skip-invalid", code=1)
    for words, why in PLACES:
        assert why in at("results", *words, code=2).err
    assert (at.place / "m.csv").read_text() == manifest(server, "place")


def test_a_file_that_exists_is_replaced_where_that_is_asked_for(at: Cli, server: Server) -> None:
    at.write("m.csv", manifest(server, "force"))
    at.write("y.xlsx", "old")
    at("plan", "m.csv", "--skip-invalid", code=1)
    at("results", "--out", "y.xlsx", "--force")
    assert [row["_status"] for row in shown(at.place / "y.xlsx")] == [
        "unprocessed",
        "failed",
        *["unprocessed"] * 3,
        "invalid",
    ]


def test_a_terminal_gets_no_workbook(at: Cli, server: Server) -> None:
    at.write("m.csv", manifest(server, "tty"))
    at("plan", "m.csv", "--skip-invalid", code=1)
    code, said, _ = on_a_terminal(at, server, "", "results", "--as", "xlsx", "--out", "-")
    assert code == 2
    assert "a terminal cannot show xlsx" in said
    assert "PK" not in said


def test_a_place_that_is_gone_when_the_run_ends_is_a_failed_disk_and_resume_writes_it(at: Cli, server: Server) -> None:
    at.write("m.csv", manifest(server, "gone"))
    (at.place / "out").mkdir()
    before = len(server.puts())
    process = at.start(
        "run", "m.csv", "--yes", "--skip-invalid", "--results", "out/x.xlsx", "--rate", "4/s", "--progress", "none"
    )
    server.wait_for_put(before)
    assert shown(at.place / "out" / "x.xlsx") == []  # the run has begun: the file is its own, without rows
    now = [json.loads(line) for line in at("results", "--as", "jsonl").out.splitlines()]
    assert [row["line"] for row in now] == [2, 3, 4, 5, 6, 7]
    assert {row["status"] for row in now} > {"failed", "invalid"}
    (at.place / "out").rename(at.place / "moved")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 8
    assert "No such file or directory; free space or fix the disk, then resume the run" in said
    assert not (at.run_dir() / "summary.json").exists()
    (at.place / "moved").rename(at.place / "out")
    at("resume", at.runs()[-1], code=1)
    assert [row["_status"] for row in shown(at.place / "out" / "x.xlsx")].count("updated") == 4
    assert at.summary()["exit_code"] == 1


def test_ctrl_c_ends_the_writing_of_a_large_workbook_and_resume_writes_it(at: Cli, server: Server) -> None:
    """Rows that agree are merged, and what is so already is not sent: the run is short, and the sheet is long."""
    uuid = min(server.images())
    server.edit(uuid, description="d" * 2000)
    line = f"{uuid},{'d' * 2000},{os.urandom(500).hex()}\n"
    at.write("m.csv", "uuid,description,_more\n" + line * 4000)
    process = at.start("run", "m.csv", "--yes", "--results", "x.xlsx")
    temporary, until = at.place / ".x.xlsx.tmp", time.monotonic() + 60
    while not (temporary.exists() and temporary.stat().st_size > 30_000):
        assert process.poll() is None, "it ended before"
        assert time.monotonic() < until
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.monotonic() - begun < 5
    run = at.runs()[-1]
    assert "stopped: interrupted with Ctrl-C before x.xlsx was written" in said
    assert f"next:    bulkimg resume {run}" in said
    assert shown(at.place / "x.xlsx") == []
    assert not temporary.exists()
    assert (at.summary()["exit_code"], at.summary()["counts"]["unchanged"]) == (130, 4000)
    at("resume", run)
    assert len(shown(at.place / "x.xlsx")) == 4000
    assert json.loads((at.run_dir() / "summary.json").read_text())["exit_code"] == 0
