"""Runs of a query and of a Parquet file: what a run needs later is in its ledger, and the database may be gone."""

import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import duckdb
import pytest

from tests.conftest import Cli, Server, sandbox_process

ROWS = 60
QUERY = "SELECT uuid, name, description FROM image ORDER BY uuid"


@pytest.fixture
def slow(dialect: str) -> Iterator[Server]:
    with sandbox_process(
        "--images", str(ROWS), "--dialect", dialect, "--workers", "4", "--service-time", "20"
    ) as found:
        yield found


@pytest.fixture(scope="module")
def fleet() -> Iterator[Server]:
    with sandbox_process("--images", "30") as found:
        yield found


def inventory(place: Path, server: Server, name: str) -> dict[str, str]:
    """Make a database of names, a query of them and a job. Returns the names by uuid."""
    wanted = {uuid: f"{name}-{at} 100% :x" for at, uuid in enumerate(sorted(server.images()))}
    with closing(sqlite3.connect(place / "inventory.db")) as made, made:
        made.execute("CREATE TABLE image (uuid TEXT, name TEXT, description TEXT)")
        made.executemany("INSERT INTO image VALUES (?, ?, NULL)", wanted.items())
    (place / "images.sql").write_text(f"{QUERY};\n")
    (place / "database.url").write_text("sqlite:///inventory.db\n")
    (place / "database.url").chmod(0o600)
    (place / "job.toml").write_text(
        '[source]\nsql_file = "images.sql"\nurl_file = "database.url"\n[run]\nyes = true\nprogress = "none"\n'
    )
    return wanted


def forget(place: Path) -> None:
    """Remove everything that the rows came from."""
    for name in ("inventory.db", "images.sql", "database.url", "job.toml"):
        (place / name).unlink()


def names(server: Server) -> dict[str, str]:
    return {uuid: image["name"] for uuid, image in server.images().items()}


def test_a_killed_run_of_a_query_is_resumed_and_undone_without_its_database(cli: Cli, slow: Server) -> None:
    at = cli.at(slow)
    wanted, before = inventory(cli.place, slow, "killed"), slow.table()
    process = at.start("run", "job.toml", "--rate", "100/s", "--concurrency", "4")
    slow.wait_for_put(3)
    process.kill()
    process.communicate(timeout=30)
    (run,) = cli.runs()
    forget(cli.place)
    done = at("resume", run, "--rate", "unlimited")
    assert "has changed" not in done.err
    assert Counter(result["status"] for result in cli.results()) == {"updated": ROWS}
    assert sorted(result["line"] for result in cli.results()) == list(range(1, ROWS + 1))
    assert names(slow) == wanted
    assert at("verify", run).code == 0
    at("undo", run, "--yes", "--rate", "unlimited")
    assert slow.table() == before


def test_a_plan_of_a_query_is_applied_without_its_database(cli: Cli, fleet: Server) -> None:
    at = cli.at(fleet)
    wanted = inventory(cli.place, fleet, "planned")
    at("plan", "job.toml", "--run-id", "planned")
    with closing(sqlite3.connect(cli.place / "inventory.db")) as changed, changed:
        changed.execute("UPDATE image SET name = 'changed'")
    at("apply", "planned", "--yes")
    assert names(fleet) == wanted
    forget(cli.place)
    at("retry", "planned")
    assert cli.runs() == ["planned"]


def test_the_summary_names_the_query_and_the_digest_of_its_rows(cli: Cli, fleet: Server) -> None:
    inventory(cli.place, fleet, "named")
    summary = cli.at(fleet)("run", "job.toml", "--json").json()
    digest = cli("check", "job.toml", "--json").json()["sha256"]
    assert summary["manifest"] == {"name": "images.sql", "sha256": digest}
    again = cli.at(fleet)("run", "job.toml", "--json").json()
    assert again["counts"]["unchanged"] == 30


def test_a_named_run_is_resumed_only_for_the_same_query(cli: Cli, fleet: Server) -> None:
    at = cli.at(fleet)
    wanted = inventory(cli.place, fleet, "again")
    at("plan", "job.toml", "--run-id", "night")
    (cli.place / "images.sql").write_text(f"{QUERY} LIMIT 3")
    refused = at("run", "job.toml", "--run-id", "night", code=7)
    assert "images.sql: not the manifest of run night" in refused.err
    (cli.place / "images.sql").write_text(f"{QUERY};\n")
    (cli.place / "inventory.db").unlink()
    assert "resuming run night" in at("run", "job.toml", "--run-id", "night").err
    assert names(fleet) == wanted


def test_a_second_living_run_of_a_query_is_refused(cli: Cli, slow: Server) -> None:
    at = cli.at(slow)
    inventory(cli.place, slow, "twice")
    process = at.start("run", "job.toml", "--rate", "20/s")
    slow.wait_for_put()
    assert "of the same manifest or job is under way" in at("run", "job.toml", code=7).err
    process.kill()
    process.communicate(timeout=30)


def test_what_is_wrong_with_a_source_leaves_no_run(cli: Cli, fleet: Server) -> None:
    at, puts = cli.at(fleet), len(fleet.puts())
    inventory(cli.place, fleet, "wrong")
    (cli.place / "images.sql").write_text("DELETE FROM image")
    assert "DELETE is not a query" in at("run", "job.toml", code=2).err
    (cli.place / "images.sql").write_text("SELECT uuid, name, name FROM image")
    assert "name: appears twice" in at("run", "job.toml", code=3).err
    (cli.place / "images.sql").write_text(f"{QUERY.replace(' ORDER', ' WHERE 0 ORDER')}")
    assert "the query returned no rows" in at("run", "job.toml", code=3).err
    shutil.rmtree(cli.place / "runs")
    text = (cli.place / "job.toml").read_text()
    (cli.place / "job.toml").write_text(text.replace("[source]\n", "[source]\nallow_empty = true\n"))
    assert cli.at(fleet)("run", "job.toml", "--json").json()["counts"]["updated"] == 0
    shutil.rmtree(cli.place / "runs")
    (cli.place / "database.url").chmod(0o644)
    assert "chmod 600" in at("run", "job.toml", code=2).err
    (cli.place / "database.url").chmod(0o600)
    (cli.place / "database.url").write_text("postgresql://u:hunter2@127.0.0.1:1/d")
    refused = at("run", "job.toml", "--json", code=3)
    assert "hunter2" not in refused.out + refused.err
    assert "cannot connect to PostgreSQL" in refused.json()["error"]["message"]
    assert not (cli.place / "runs").exists()
    assert len(fleet.puts()) == puts


def test_a_program_runs_a_job_with_a_query(cli: Cli, fleet: Server) -> None:
    inventory(cli.place, fleet, "library")
    cli.write("go.py", f"import bulkimg\nprint(bulkimg.run('job.toml', endpoint='{fleet.url}').counts['updated'])\n")
    done = subprocess.run(
        [sys.executable, "go.py"], cwd=cli.place, env=cli.at(fleet).env(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "30\n"


def test_a_run_of_parquet_is_undone_without_the_file(cli: Cli, fleet: Server) -> None:
    at, before = cli.at(fleet), fleet.table()
    uuids = sorted(fleet.images())
    with duckdb.connect(":memory:") as made:
        values = ", ".join(f"('{uuid}', 'parquet-{number}')" for number, uuid in enumerate(uuids))
        made.execute(
            f"COPY (SELECT * FROM (VALUES {values}) t(uuid, name)) TO '{cli.place}/m.parquet' (FORMAT parquet)"
        )
    at("run", "m.parquet", "--yes")
    assert names(fleet) == {uuid: f"parquet-{number}" for number, uuid in enumerate(uuids)}
    (run,) = cli.runs()
    (cli.place / "m.parquet").unlink()
    at("undo", run, "--yes")
    assert fleet.table() == before
