"""Runs of shards: together they are the manifest, each row once, and each is a run like any other."""

import json
import signal
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import duckdb
import pytest
import xlsxwriter  # type: ignore[import-untyped]

from bulkimg.shard import Shard
from tests.conftest import UUID, Cli
from tests.fleet.conftest import IMAGES, Fleet


def test_all_shards_together_send_every_row_once(fleet: Fleet) -> None:
    before = len(fleet.server.puts())
    fleet.shards(4)
    assert [row["line"] for row in fleet.results(*fleet.names(4))] == list(range(2, IMAGES + 2))
    assert {row["status"] for row in fleet.results(*fleet.names(4))} == {"updated"}
    asked = Counter(put["path"] for put in fleet.server.puts()[before:])
    assert set(asked.values()) == {1}
    assert len(asked) == IMAGES == fleet.changed()
    for at, name in enumerate(fleet.names(4), 1):
        assert all(Shard(at, 4).holds(bytes.fromhex(row["uuid"])) for row in fleet.results(name))


def test_rate_and_guards_are_those_of_a_shard(fleet: Fleet) -> None:
    fleet.cli("run", "m.csv", "--yes", "--shard", "1/4", "--run-id", "s", "--rate", "400/s")
    assert fleet.summary("s-1-of-4")["pace"]["rate_cap"] == 100
    most = len(fleet.results("s-1-of-4"))
    fleet.cli.write("n.csv", fleet.manifest().replace(fleet.text, "n"))
    done = fleet.cli("run", "n.csv", "--yes", "--shard", "1/4", "--max-changes", str(4 * most - 4), code=7)
    assert f"--max-changes allows {most - 1}" in done.err
    fleet.cli("run", "n.csv", "--yes", "--shard", "1/4", "--max-changes", str(4 * most))


def test_a_manifest_that_one_shard_refuses_is_refused_by_all(fleet: Fleet) -> None:
    """Also where the rows that contradict each other, or the bad row, are in another shard."""
    image = sorted(fleet.server.images())[0]
    before = len(fleet.server.puts())
    for more in (f"{image},another text", "no-uuid,text"):
        fleet.cli.write("bad.csv", fleet.manifest(more))
        said = {done.err.splitlines()[-2] for done in fleet.shards(3, source="bad.csv", name="b", code=3)}
        assert len(said) == 1, "each shard counts the problems of the whole manifest"
        assert "cannot be sent" in said.pop()
    assert len(fleet.server.puts()) == before


def test_a_bad_row_is_recorded_by_one_shard(fleet: Fleet) -> None:
    image = sorted(fleet.server.images())[0]
    bad = ("no-uuid,text", ",text", f"{image},another text", "\u00e9\u0301,x", "no-uuid,text")
    fleet.cli.write("bad.csv", fleet.manifest(*bad))
    for at in (1, 2, 3):
        fleet.cli("run", "bad.csv", "--yes", "--skip-invalid", "--shard", f"{at}/3", "--run-id", "i", code=None)
    rows = fleet.results(*fleet.names(3, "i"))
    assert [row["line"] for row in rows] == list(range(2, IMAGES + 2 + len(bad)))
    assert Counter(row["status"] for row in rows) == {"updated": IMAGES - 1, "invalid": len(bad) + 1}


def test_rows_of_one_image_are_in_one_shard_and_one_put(fleet: Fleet) -> None:
    images = sorted(fleet.server.images())[:6]
    lines = [f"{image},{fleet.text}," for image in images] + [f"{image},,n {fleet.text}" for image in images]
    fleet.cli.write("twice.csv", "uuid,description,name\n" + "\n".join(lines) + "\n")
    before = len(fleet.server.puts())
    fleet.shards(3, source="twice.csv", name="t")
    assert len(fleet.server.puts()) == before + len(images)
    rows = fleet.results(*fleet.names(3, "t"))
    assert [(row["line"], row["uuid"]) for row in rows] == list(enumerate(images + images, 2))
    fleet.cli("merge", *fleet.names(3, "t"), "--run-id", "whole")
    assert fleet.results("whole") == rows


def test_chosen_rows_are_divided_after_they_are_chosen(fleet: Fleet) -> None:
    fleet.cli.write(
        "c.csv",
        "uuid,description,_kind\n"
        + "".join(f"{uuid},{fleet.text},{'ab'[at % 2]}\n" for at, uuid in enumerate(sorted(fleet.server.images()))),
    )
    fleet.shards(3, "--where", "_kind=a", "--skip-rows", "4", "--max-rows", "5", source="c.csv", name="c")
    fleet.cli("plan", "c.csv", "--where", "_kind=a", "--skip-rows", "4", "--max-rows", "5", "--run-id", "whole")
    rows = fleet.results(*fleet.names(3, "c"))
    assert [row["line"] for row in rows] == [row["line"] for row in fleet.results("whole")]
    assert len(rows) == 5
    left = [fleet.summary(name)["rows_left_out"] for name in fleet.names(3, "c")]
    assert left == [fleet.summary("whole")["rows_left_out"]] * 3
    fleet.cli("merge", *fleet.names(3, "c"), "--run-id", "all")
    assert fleet.summary("all")["rows_left_out"] == left[0]


def test_a_shard_without_a_row_ends_well(fleet: Fleet) -> None:
    uuid = sorted(fleet.server.images())[0]
    fleet.cli.write("one.csv", f"uuid,description\n{uuid},{fleet.text}\n")
    fleet.shards(3, source="one.csv", name="e")
    assert sorted(fleet.summary(name)["rows"] for name in fleet.names(3, "e")) == [0, 0, 1]
    fleet.cli("merge", *fleet.names(3, "e"), "--run-id", "all")
    assert [row["status"] for row in fleet.results("all")] == ["updated"]
    fleet.cli("undo", "all")
    assert fleet.changed() == 0


def test_a_job_keeps_names_files_and_old_runs_of_each_shard_apart(fleet: Fleet) -> None:
    (fleet.place / "prom").mkdir()
    fleet.cli.write(
        "job.toml",
        '[job]\nname = "nightly"\nmanifest = "m.csv"\nkeep = { last = 1 }\n[run]\nmetrics_file = "prom"\n'
        '[results]\npath = "r.csv"\n',
    )
    for night in ("one", "two"):
        for at in (1, 2):
            fleet.cli("run", "job.toml", "--shard", f"{at}/2", "--run-id", night, "--yes", "--lock-wait", "1s")
    assert fleet.run_ids() == set(fleet.names(2, "two"))
    assert {path.name for path in fleet.place.glob("r*.csv")} == {"r-1-of-2.csv", "r-2-of-2.csv"}
    assert {path.name for path in (fleet.place / "prom").iterdir()} == {
        "bulkimg-nightly-1-of-2.prom",
        "bulkimg-nightly-2-of-2.prom",
    }
    lines = [len((fleet.place / f"r-{at}-of-2.csv").read_text().splitlines()) - 1 for at in (1, 2)]
    assert sum(lines) == IMAGES


def test_metrics_without_a_job_are_those_of_each_shard(fleet: Fleet) -> None:
    (fleet.place / "prom").mkdir()
    fleet.shards(2, "--metrics-file", "prom")
    found = {path.name for path in (fleet.place / "prom").iterdir()}
    assert len(found) == 2
    assert all(name.endswith(("-1-of-2.prom", "-2-of-2.prom")) for name in found)


def interrupted(fleet: Fleet, *words: str, by: int = signal.SIGKILL) -> None:
    """Run shard 1 of 2 slowly, and end it as soon as it sends."""
    before = len(fleet.server.puts())
    run = fleet.cli.start("run", "m.csv", "--yes", "--shard", "1/2", "--run-id", "k", "--rate", "20/s", *words)
    fleet.server.wait_for_put(before)
    run.send_signal(by)
    run.communicate(timeout=60)


def test_a_shard_is_resumed_as_the_shard_that_it_is(fleet: Fleet) -> None:
    interrupted(fleet)
    done = fleet.cli("resume", "k-1-of-2", BULKIMG_SHARD="2/4")
    assert "resuming run k-1-of-2" in done.err
    rows = fleet.results("k-1-of-2")
    assert {row["status"] for row in rows} <= {"updated", "unchanged"}
    assert all(Shard(1, 2).holds(bytes.fromhex(row["uuid"])) for row in rows)
    assert fleet.summary("k-1-of-2")["pace"]["rate_cap"] == 2000, "half of the rate that the environment gives"


def test_the_same_command_again_resumes_the_shard(fleet: Fleet) -> None:
    interrupted(fleet, by=signal.SIGINT)
    again = ("run", "m.csv", "--yes", "--shard", "1/2", "--run-id", "k")
    assert "resuming run k-1-of-2" in fleet.cli(*again).err
    assert "run k-1-of-2 is finished" in fleet.cli(*again, code=7).err
    fleet.cli("run", "m.csv", "--yes", "--shard", "2/2", "--run-id", "k")
    assert fleet.changed() == IMAGES


def test_retry_and_undo_of_a_shard_use_the_whole_rate(fleet: Fleet) -> None:
    fleet.cli.write("m.csv", fleet.manifest(*(f"{at:032x},x" for at in range(6))))
    fleet.cli("run", "m.csv", "--yes", "--shard", "1/2", "--run-id", "s", "--rate", "400/s", code=1)
    fleet.cli("retry", "s-1-of-2", "--run-id", "again", code=1, BULKIMG_RATE="")
    fleet.cli("undo", "s-1-of-2", "--run-id", "back", BULKIMG_RATE="", BULKIMG_SHARD="1/2")
    caps = [fleet.summary(name)["pace"]["rate_cap"] for name in ("s-1-of-2", "again", "back")]
    assert caps == [200, 400, 400]
    assert fleet.changed() == 0


def test_an_order_for_the_rate_is_for_this_shard_and_kept_for_all(fleet: Fleet) -> None:
    before = len(fleet.server.puts())
    run = fleet.cli.start("run", "m.csv", "--yes", "--shard", "1/2", "--run-id", "k", "--rate", "10/s", BULKIMG_RATE="")
    fleet.server.wait_for_put(before)
    fleet.cli("ctl", "k-1-of-2", "rate=6/s")
    run.kill()
    run.communicate(timeout=30)
    with closing(sqlite3.connect(fleet.place / "runs/k-1-of-2/run.db")) as ledger:
        (kept,) = ledger.execute("SELECT value FROM meta WHERE key = 'settings'").fetchone()
    assert json.loads(kept)["rate"] == 12


def test_a_shard_and_the_whole_do_not_run_at_once(fleet: Fleet) -> None:
    before = len(fleet.server.puts())
    run = fleet.cli.start("run", "m.csv", "--yes", "--shard", "1/2", "--run-id", "k", "--rate", "10/s")
    fleet.server.wait_for_put(before)
    for words in ((), ("--shard", "1/2"), ("--shard", "1/3"), ("--shard", "2/4")):
        done = fleet.cli("run", "m.csv", "--yes", *words, code=7)
        assert "run k-1-of-2 of the same manifest or job is under way" in done.err
    fleet.cli("run", "m.csv", "--yes", "--shard", "2/2")
    run.kill()
    run.communicate(timeout=30)


def test_a_shard_of_a_campaign_is_refused(fleet: Fleet) -> None:
    fleet.cli.write(
        "job.toml", '[job]\nmanifest = "m.csv"\nevery_target = true\n[targets.eu]\nendpoint = "http://127.0.0.1:9"\n'
    )
    for words in (("run", "job.toml", "--shard", "1/2"), ("plan", "job.toml", "--shard", "1/2")):
        assert "--shard is for a run of one" in fleet.cli(*words, code=2).err
    assert "--shard is for" in fleet.cli("run", "job.toml", code=2, BULKIMG_SHARD="1/2").err


def workbook(path: Path, rows: list[list[str]]) -> None:
    with xlsxwriter.Workbook(str(path)) as book:
        sheet = book.add_worksheet()
        for at, row in enumerate(rows):
            sheet.write_row(at, 0, row)


@pytest.mark.parametrize("kind", ["xlsx", "parquet", "sql", "-"])
def test_other_manifests_are_divided_alike(fleet: Fleet, kind: str) -> None:
    rows = [line.split(",") for line in fleet.manifest().splitlines()]
    source, stdin = f"m.{kind}", ""
    if kind == "xlsx":
        workbook(fleet.place / source, rows)
    elif kind == "parquet":
        duckdb.connect(":memory:").execute(
            f"COPY (SELECT * FROM read_csv('{fleet.place}/m.csv')) TO '{fleet.place}/m.parquet'"
        )
    elif kind == "sql":
        source = "job.toml"
        with closing(sqlite3.connect(fleet.place / "i.db")) as made, made:
            made.execute("CREATE TABLE image (uuid TEXT, description TEXT)")
            made.executemany("INSERT INTO image VALUES (?, ?)", rows[1:])
        fleet.cli.write("q.sql", "SELECT uuid, description FROM image ORDER BY uuid")
        (fleet.place / fleet.cli.write("url", f"sqlite:///{fleet.place}/i.db")).chmod(0o600)
        fleet.cli.write("job.toml", '[source]\nsql_file = "q.sql"\nurl_file = "url"\n')
    else:
        source, stdin = "-", fleet.manifest()
    for at in (1, 2):
        fleet.cli("run", source, "--yes", "--shard", f"{at}/2", "--run-id", "s", stdin=stdin)
    assert fleet.changed() == IMAGES
    fleet.cli("merge", *fleet.names(2), "--run-id", "all")
    assert len({row["line"] for row in fleet.results("all")}) == IMAGES
    assert sorted(row["uuid"] for row in fleet.results("all")) == sorted(fleet.server.images())


def test_a_planned_shard_is_applied(fleet: Fleet) -> None:
    for at in (1, 2):
        fleet.cli("plan", "m.csv", "--shard", f"{at}/2", "--run-id", "p", "--detailed-exitcode", code=10)
    assert fleet.changed() == 0
    assert "not finished" in fleet.cli("merge", *fleet.names(2, "p"), code=7).err
    fleet.cli("apply", "p-1-of-2", BULKIMG_SHARD="2/2")
    fleet.cli("apply", "p-2-of-2")
    assert fleet.changed() == IMAGES
    assert [fleet.summary(name)["pace"]["rate_cap"] for name in fleet.names(2, "p")] == [2000, 2000]


def test_other_commands_do_not_ask_for_an_array(fleet: Fleet) -> None:
    """The machine from which an array was started may have BULKIMG_SHARD=auto in its environment."""
    fleet.shards(2)
    auto = Cli(fleet.place, {**fleet.cli.environment, "BULKIMG_SHARD": "auto"})
    for words in (("runs",), ("status", "s-1-of-2"), ("show", UUID), ("verify", "s-1-of-2")):
        assert "array" not in auto(*words, code=None).err
    auto("merge", *fleet.names(2), "--run-id", "all")
    auto("undo", "all")
    assert "none is set" in auto("run", "m.csv", code=2).err
    assert (
        f"{IMAGES} rows, all valid"
        in Cli(fleet.place, {**auto.environment, "BULKIMG_SHARD": "1/2"})("check", "m.csv").err
    )


def test_a_name_has_room_for_the_shard(fleet: Fleet) -> None:
    assert "too long for a shard" in fleet.cli("run", "m.csv", "--shard", "1/2", "--run-id", "n" * 94, code=2).err
    fleet.cli("run", "m.csv", "--yes", "--shard", "1/2", "--run-id", "n" * 93)
