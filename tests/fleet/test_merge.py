"""One run of the runs of all shards: what is refused, and what works on it as on any other."""

import csv
import fcntl
import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from bulkimg.engine.merge import create_merged
from bulkimg.errors import StorageError
from bulkimg.ledger import RunDirectory
from bulkimg.settings import Settings
from tests.conftest import UUID, Cli, Server, sandbox_process
from tests.fleet.conftest import IMAGES, Fleet
from tests.report.workbooks import texts

ACCOUNT = {"BULKIMG_ACCOUNT": "admin", "BULKIMG_PASSWORD": "password"}
TIMES = ("started_at", "duration_ms", "job_uuid")


@pytest.fixture(scope="module")
def finished(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the finished runs `s-1-of-2` and `s-2-of-2` of one manifest."""
    cli = Cli(tmp_path_factory.mktemp("finished")).at(server)
    fleet = Fleet(cli, server, "finished")
    cli.write("m.csv", fleet.manifest())
    fleet.shards(2, "--rate", "4000/s")
    return fleet.place / "runs"


def test_the_merged_run_is_the_whole_run_of_the_manifest(cli: Cli) -> None:
    """Against a server that nothing was done to: equal results, but for times and random ids."""
    more = [f"{UUID},x", f"no-uuid-{'z' * 10},x"]
    tables = {}
    for kind in ("whole", "shards"):
        with sandbox_process("--images", str(IMAGES), "--dialect", "documented") as server:
            here = cli.at(server)
            fleet = Fleet(
                Cli(here.place, {**here.environment, "BULKIMG_RATE": "4000/s"}),
                server,
                "=new",
            )
            lines = [f"{uuid},{'same' if not at else fleet.text}" for at, uuid in enumerate(sorted(server.images()))]
            server.edit(lines[0][:32], description="same")
            text = "\n".join(["uuid,description", *lines, *more, lines[3]]) + "\n"
            fleet.cli.write("m.csv", text)
            if kind == "whole":
                fleet.cli("run", "m.csv", "--yes", "--skip-invalid", "--run-id", "whole", code=1)
            else:
                for at in (1, 2, 3):
                    given = ("--skip-invalid", "--shard", f"{at}/3", "--run-id", "s")
                    fleet.cli("run", "m.csv", "--yes", *given, code=None)
                fleet.cli("merge", *fleet.names(3), "--run-id", "shards", "--results", "all.csv", code=1)
            tables[kind] = server.table()
    assert tables["whole"] == tables["shards"]
    found = {}
    for kind in tables:
        for name in ("results.csv", "failed.csv", "undo.csv"):
            with (fleet.place / "runs" / kind / name).open(newline="", encoding="utf-8-sig") as file:
                rows = [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(file)]
            found[kind, name] = [json.loads(json.dumps(rows).replace(kind, "RUN"))]
    for name in ("results.csv", "failed.csv", "undo.csv"):
        assert found["whole", name] == found["shards", name]
    assert len(found["whole", "results.csv"][0]) == IMAGES + 3
    whole, shards = fleet.summary("whole"), fleet.summary("shards")
    for key in ("exit_code", "counts", "causes", "rows", "rows_left_out", "manifest", "rows_to_do"):
        assert str(whole[key]).replace("whole", "RUN") == str(shards[key]).replace("shards", "RUN"), key
    assert (fleet.place / "all.csv").read_bytes() == (fleet.place / "runs/shards/results.csv").read_bytes()


def test_all_commands_work_on_the_merged_run(fleet: Fleet) -> None:
    before = fleet.server.table()
    lost = [f"{at:032x}" for at in range(4)]
    fleet.cli.write("m.csv", fleet.manifest(*(f"{uuid},x" for uuid in lost)))
    for at in (1, 2):
        fleet.cli("run", "m.csv", "--yes", "--shard", f"{at}/2", "--run-id", "s", "--note", "N", code=None)
    done = fleet.cli("merge", "runs/s-1-of-2", "runs/s-2-of-2", "--run-id", "all", "--json", code=1).json()
    assert done["counts"]["updated"] == IMAGES
    assert (done["counts"]["failed"], done["next"], done["note"]) == (4, "bulkimg retry all", "N")
    own = [fleet.summary(name) for name in fleet.names(2)]
    assert done["pace"]["requests"] == sum(one["pace"]["requests"] for one in own)
    assert done["pace"]["puts"] == sum(one["pace"]["puts"] for one in own)
    assert done["started_at"] == min(one["started_at"] for one in own)
    assert done["pace"]["rate_cap"] == 4000
    assert fleet.cli("status", "all", "--json", code=None).json()["state"] == "done"
    assert "finished: nothing to resume" in fleet.cli("resume", "all", code=1).err
    page = (fleet.place / "runs/all/report.html").read_text("utf-8")
    assert f"{IMAGES} of {IMAGES + 4}" in page or f"{IMAGES} updated" in page
    fleet.cli("report", "all", "--out", "again.html")
    fleet.cli("verify", "all")
    fleet.cli("results", "all", "--as", "xlsx", "-o", "all.xlsx")
    assert len(texts(fleet.place / "all.xlsx")) == IMAGES + 5
    assert fleet.cli("retry", "all", "--run-id", "again", "--json", code=1).json()["rows"] == 4
    shown = json.loads(fleet.cli("show", sorted(before)[0], "--json").out)
    assert [one["run_id"][:2] for one in shown["history"]] == ["s-"], (
        "the shard's run, and not once more the merged one"
    )
    assert fleet.cli("undo", "all", "--run-id", "back", "--json").json()["undo_of"] == "all"
    after = fleet.server.table()
    for uuid, image in before.items():
        assert (after[uuid].get("description") or "") == (image.get("description") or "")


def test_a_copy_of_the_shards_elsewhere_is_shown_by_the_merged_run(fleet: Fleet) -> None:
    fleet.shards(2, "--runs-dir", "far")
    fleet.cli("merge", *(f"far/{name}" for name in fleet.names(2)), "--run-id", "all")
    image = sorted(fleet.server.images())[0]
    assert [one["run_id"] for one in fleet.cli("show", image, "--json").json()["history"]] == ["all"]


Change = Callable[[Fleet], tuple[str, ...]]  # makes runs in a directory that has those of `finished`, and names some


def missing(fleet: Fleet) -> tuple[str, ...]:
    return ("s-1-of-2",)


def twice(fleet: Fleet) -> tuple[str, ...]:
    return ("s-1-of-2", "runs/s-1-of-2/", "s-2-of-2")


def one_shard_in_two_runs(fleet: Fleet) -> tuple[str, ...]:
    shutil.copytree(fleet.place / "runs/s-1-of-2", fleet.place / "runs/t-1-of-2")
    return ("s-1-of-2", "t-1-of-2", "s-2-of-2")


def another_manifest(fleet: Fleet) -> tuple[str, ...]:
    fleet.cli("run", "m.csv", "--yes", "--shard", "2/2", "--run-id", "o")
    return ("s-1-of-2", "o-2-of-2")


def other_rows(fleet: Fleet) -> tuple[str, ...]:
    fleet.cli.write("m.csv", fleet.manifest().replace(fleet.text, "finished"))
    fleet.cli("run", "m.csv", "--yes", "--shard", "2/2", "--run-id", "o", "--skip-rows", "3")
    return ("s-1-of-2", "o-2-of-2")


def another_account(fleet: Fleet) -> tuple[str, ...]:
    fleet.cli.write("m.csv", fleet.manifest().replace(fleet.text, "finished"))
    other = Cli(fleet.place, {**fleet.cli.environment, "BULKIMG_SESSION": "", **ACCOUNT})
    other("run", "m.csv", "--yes", "--shard", "2/2", "--run-id", "o")
    return ("s-1-of-2", "o-2-of-2")


def killed(fleet: Fleet) -> tuple[str, ...]:
    fleet.cli("run", "m.csv", "--yes", "--shard", "1/2", "--run-id", "k")
    before = len(fleet.server.puts())
    run = fleet.cli.start("run", "m.csv", "--yes", "--shard", "2/2", "--run-id", "k", "--rate", "20/s")
    fleet.server.wait_for_put(before)
    run.send_signal(signal.SIGKILL)
    run.communicate(timeout=60)
    return tuple(fleet.names(2, "k"))


def refused(fleet: Fleet) -> tuple[str, ...]:
    fleet.cli.write("m.csv", fleet.manifest("no-uuid,x"))
    fleet.cli("run", "m.csv", "--yes", "--shard", "2/2", "--run-id", "o", code=3)
    return ("s-1-of-2", *(fleet.run_ids() - {"s-1-of-2", "s-2-of-2"}))


def no_shard(fleet: Fleet) -> tuple[str, ...]:
    fleet.cli("run", "m.csv", "--yes", "--run-id", "w")
    return ("w", "s-2-of-2")


def other_divisions(fleet: Fleet) -> tuple[str, ...]:
    fleet.cli("run", "m.csv", "--yes", "--shard", "2/3", "--run-id", "s")
    return ("s-1-of-2", "s-2-of-3")


def taken_name(fleet: Fleet) -> tuple[str, ...]:
    return (*fleet.names(2), "--run-id", "s-1-of-2")


REFUSED = (
    (missing, "shard 2 of 2 missing; name all runs, or add --partial to merge without them"),
    (twice, "run s-1-of-2 is named twice; name the run of each shard once"),
    (one_shard_in_two_runs, "(shard 1/2) are the same shard; name one of them"),
    (another_manifest, "run o-2-of-2 (shard 2/2) has another manifest than run s-1-of-2 (shard 1/2)"),
    (other_rows, "was made with --skip-rows 3, and run s-1-of-2 (shard 1/2) with its default"),
    (another_account, "has another account than run s-1-of-2"),
    (killed, "run k-2-of-2 (shard 2/2) is not finished; finish it with bulkimg resume k-2-of-2, or add --partial"),
    (refused, "has no sound manifest, so nothing of it was sent"),
    (no_shard, "run w is not the run of a shard; name runs that were made with --shard"),
    (other_divisions, "are shards of different divisions; name runs of one division"),
    (taken_name, "run s-1-of-2 already exists in runs; choose another --run-id"),
)


@pytest.mark.parametrize(("change", "why"), REFUSED, ids=[change.__name__ for change, _ in REFUSED])
def test_what_is_not_one_division_is_refused(fleet: Fleet, finished: Path, change: Change, why: str) -> None:
    fleet.take(finished)
    runs = change(fleet)
    before = fleet.run_ids()
    done = fleet.cli("merge", *runs, code=7)
    assert why in done.err
    assert len(done.err.splitlines()) == 1
    assert fleet.run_ids() == before, "nothing was made"
    if change is missing:
        done = fleet.cli("merge", *runs, "--partial", "--run-id", "part")
        assert {row["status"] for row in fleet.results("part")} == {"updated"}
        assert len(fleet.results("part")) == len(fleet.results(*runs)) < IMAGES
    elif change is killed:
        fleet.cli("merge", *runs, "--partial", "--run-id", "part", "--json", code=1)
        assert len(fleet.results("part")) == IMAGES
        assert fleet.summary("part")["next"] == "bulkimg retry part"
        fleet.cli("retry", "part")
        assert fleet.changed() == IMAGES
        fleet.cli("resume", "k-2-of-2")  # still possible, and it finds that nothing is left to change
        fleet.cli("merge", *runs, "--run-id", "all")
    elif change not in (another_account, no_shard):
        fleet.cli("merge", *runs, "--partial", code=7)


def test_a_run_that_a_process_holds_is_refused(fleet: Fleet, finished: Path) -> None:
    fleet.take(finished)
    lock = os.open(fleet.place / "runs/s-2-of-2", os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for words in ((), ("--partial",)):
            assert (
                "run s-2-of-2 is in use by another process" in fleet.cli("merge", *fleet.names(2), *words, code=7).err
            )
    finally:
        os.close(lock)
    fleet.cli("merge", *fleet.names(2))


def test_pace_guards_and_paths_may_differ(fleet: Fleet) -> None:
    """A shard may have been resumed with another guard, and each machine has paths of its own."""
    fleet.cli("run", "m.csv", "--yes", "--shard", "1/2", "--run-id", "s", "--max-changes", "50", "--note", "a")
    given = ("--rate", "300/s", "--canary", "1", "--max-changes", "none", "--note", "b", "--results", "r.csv")
    fleet.cli("run", "m.csv", "--yes", "--shard", "2/2", "--run-id", "s", *given)
    fleet.cli("merge", *fleet.names(2))


def test_a_job_is_the_job_of_the_merged_run(fleet: Fleet) -> None:
    fleet.cli.write("job.toml", '[job]\nname = "nightly"\nmanifest = "m.csv"\nkeep = { last = 1 }\n')
    fleet.shards(2, source="job.toml")
    fleet.cli("merge", *fleet.names(2), "--run-id", "all")
    with closing(sqlite3.connect(fleet.place / "runs/all/run.db")) as ledger:
        (kept,) = ledger.execute("SELECT value FROM meta WHERE key = 'settings'").fetchone()
    assert json.loads(kept)["job_name"] == "nightly"
    assert "shard" not in json.loads(kept)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE row SET fields = replace(fields, 'finished', 'other')",
        "UPDATE outcome SET status = 'unchanged'",
        "UPDATE plan SET before = NULL",
        "UPDATE meta SET value = '\"done\"' WHERE key = 'note'",
        "DELETE FROM row WHERE ordinal = (SELECT max(ordinal) FROM row)",
    ],
)
def test_a_damaged_shard_is_refused(fleet: Fleet, finished: Path, change: str) -> None:
    fleet.take(finished)
    with closing(sqlite3.connect(fleet.place / "runs/s-2-of-2/run.db")) as ledger, ledger:
        ledger.execute(change)
    before = fleet.run_ids()
    done = fleet.cli("merge", *fleet.names(2), code=8)
    assert "s-2-of-2/run.db: is damaged" in done.err
    assert fleet.run_ids() == before


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file of this process may grow beyond this size: what a full disk does to a file that was begun."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_nothing_half_merged(fleet: Fleet, finished: Path) -> None:
    """Whenever the disk is full: the new run is removed, the shards are whole, and the merge works afterwards."""
    fleet.take(finished)
    runs = fleet.place / "runs"
    settings = Settings(runs_dir=runs, run_id="all", results=fleet.place / "all.csv")
    before = fleet.run_ids()
    failed = {}
    for size in (0, 4096, *range(65_536, 524_288, 24_576)):
        directories = [RunDirectory(runs / name) for name in fleet.names(2)]
        try:
            with files_up_to(size):
                create_merged(directories, settings, time.time, lambda event: None)
            break
        except StorageError as error:
            failed[size] = str(error)
            assert fleet.run_ids() == before, size
    assert len(failed) > 3
    assert len(fleet.results("all")) == IMAGES
    assert (fleet.place / "all.csv").read_bytes() == (runs / "all/results.csv").read_bytes()


def test_a_name_is_free_again_when_a_merge_was_killed(fleet: Fleet, finished: Path) -> None:
    fleet.take(finished)
    fleet.cli("merge", *fleet.names(2), "--run-id", "all")
    assert "run all is finished" in fleet.cli("merge", *fleet.names(2), "--run-id", "all", code=7).err
    with closing(sqlite3.connect(fleet.place / "runs/all/run.db")) as ledger, ledger:
        ledger.execute("DELETE FROM meta WHERE key IN ('schema', 'state')")
        ledger.execute("DELETE FROM checksum")
    fleet.cli("merge", *fleet.names(2), "--run-id", "all")


def test_more_shards_than_files_may_be_open_is_a_sentence(fleet: Fleet, finished: Path) -> None:
    fleet.take(finished)
    script = f"ulimit -n 40; exec {sys.executable} -m bulkimg merge {' '.join(fleet.names(2))}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=fleet.place, env=fleet.cli.env(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == (
        "bulkimg: too few open files: 2 runs need 46, but the system allows 40; raise the limit (ulimit -n)\n"
    )


def test_no_run_and_a_run_that_is_not_there(fleet: Fleet, finished: Path) -> None:
    assert fleet.cli("merge", code=2).err
    fleet.take(finished)
    assert "no-such" in fleet.cli("merge", "no-such", "s-1-of-2", code=2).err
