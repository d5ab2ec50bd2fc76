"""`[job] keep` and `runs --prune`: which runs go, and which stay whatever their age."""

import os
import time
from pathlib import Path

import pytest

from bulkimg.engine.keeping import Known, removable
from bulkimg.ledger import Ledger, RunDirectory, list_runs
from bulkimg.ledger.rundir import clear_remains
from bulkimg.values import Keep
from tests.cli.test_commands import manifest, some_images
from tests.conftest import UUID, Cli, Server

DAY = 86400.0
NOW = 1_800_000_000.0
JOB = ("nightly", "http://x/zstack")
FAST = ("--yes", "--rate", "unlimited", "-q")


def known(
    days: float,
    state: str = "done",
    *,
    held: bool = False,
    success: bool = False,
    needs: str = "",
    job: tuple[str, str] = JOB,
) -> Known:
    """Return a run of so many days ago; its id says when."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(NOW - days * DAY))
    directory = RunDirectory(Path(f"runs/{stamp}.000-aaaa"))
    return Known(directory, job, state, held, success, frozenset([needs] if needs else []))


def gone(runs: list[Known], keep: Keep) -> list[int]:
    """Return the places of the runs that may be removed."""
    chosen = {run.directory.run_id for run in runs}
    ids = [run.directory.run_id for run in runs]
    return [ids.index(directory.run_id) for directory in removable(runs, chosen, keep, NOW)]


def test_a_run_stays_while_it_is_new_enough_or_one_of_the_last() -> None:
    runs = [known(days) for days in (0, 1, 10, 100, 200)]
    assert gone(runs, Keep(2, 30)) == [3, 4]
    assert gone(runs, Keep(4, 30)) == [4]
    assert gone(runs, Keep(2)) == [2, 3, 4]
    assert gone(runs, Keep(0, 5)) == [2, 3, 4]


@pytest.mark.parametrize("state", ["stopped", "planned", "ready", "interrupted", "running"])
def test_what_can_be_resumed_stays(state: str) -> None:
    assert gone([known(0), known(100, state), known(200)], Keep(1)) == [2]


def test_the_last_success_stays_and_an_older_one_goes() -> None:
    runs = [known(0), known(1), known(50, success=True), known(60, success=True)]
    assert gone(runs, Keep(1)) == [1, 3]


def test_a_held_run_and_what_an_unfinished_run_needs_stay() -> None:
    old = known(90)
    undo = known(1, "stopped", needs=old.directory.run_id)
    assert gone([known(0), undo, known(80, held=True), old, known(95)], Keep(1)) == [4]
    done = known(1, "done", needs=old.directory.run_id)
    assert 2 in gone([known(0), done, old], Keep(1))


def test_a_run_without_a_job_has_no_last_success() -> None:
    assert gone([known(1, success=True, job=("", "x"))], Keep(0, 0.5)) == [0]


def nightly(cli: Cli, server: Server, keep: str = "last = 2") -> Cli:
    cli.write("m.csv", manifest(some_images(server, 2)))
    cli.write("job.toml", f'[job]\nname = "nightly"\nmanifest = "m.csv"\nkeep = {{ {keep} }}\n')
    return cli.at(server)


def test_old_runs_of_the_job_go_after_a_run_and_others_stay(cli: Cli, server: Server) -> None:
    here = nightly(cli, server)
    here("run", "m.csv", *FAST)
    others = cli.runs()
    for _ in range(4):
        here("run", "job.toml", *FAST)
    assert len(cli.runs()) == 3
    assert others[0] in cli.runs()
    assert sorted(path.name for path in (cli.place / "runs").iterdir()) == sorted(cli.runs()), "nothing is left of them"


def test_the_last_success_and_unknown_rows_stay(cli: Cli, server: Server) -> None:
    here = nightly(cli, server, "last = 1")
    here("run", "job.toml", *FAST)
    good = cli.runs()[0]
    cli.write("m.csv", f"uuid,name\n{UUID},x\n")
    for _ in range(3):
        here("run", "job.toml", *FAST, code=1)
    assert len(cli.runs()) == 2
    assert cli.runs()[0] == good
    failed = cli.runs()[1]
    ledger = Ledger.open(cli.place / "runs" / failed / "run.db")
    with ledger.transaction():
        ledger.db.execute("UPDATE outcome SET status = 'unknown'")
    ledger.close()
    here("run", "job.toml", *FAST, code=1)
    assert cli.runs()[:2] == [good, failed]


def test_runs_of_a_refused_manifest_go_too(cli: Cli, server: Server) -> None:
    here = nightly(cli, server)
    cli.write("m.csv", "uuid,name\nnonsense,x\n")
    for _ in range(4):
        here("run", "job.toml", *FAST, code=3)
    assert len(cli.runs()) == 2


def test_links_and_foreign_directories_are_left(cli: Cli, server: Server, tmp_path: Path) -> None:
    here = nightly(cli, server, "last = 1")
    here("run", "job.toml", *FAST)
    runs = cli.place / "runs"
    elsewhere = tmp_path / "elsewhere"
    (runs / cli.runs()[0]).rename(elsewhere)
    (runs / "20200101-000000.000-aaaa").symlink_to(elsewhere)
    (runs / "notes").mkdir()
    (runs / "notes" / "important.txt").write_text("x")
    (runs / ".removing-link").symlink_to(elsewhere)
    for _ in range(2):
        here("run", "job.toml", *FAST)
    here("runs", "--prune", "--keep", "0")
    assert (elsewhere / "run.db").exists()
    assert (runs / "notes" / "important.txt").exists()
    assert (runs / "20200101-000000.000-aaaa").is_symlink()


def test_what_is_left_of_a_removal_is_no_run_and_is_removed_later(cli: Cli, server: Server) -> None:
    here = nightly(cli, server, "last = 1")
    here("run", "job.toml", *FAST)
    (name,) = cli.runs()
    runs = cli.place / "runs"
    (runs / name).rename(runs / f".removing-{name}")  # as a process leaves it that was killed while removing
    assert list_runs(runs) == []
    assert "no runs" in here("runs").err
    held = RunDirectory(runs / f".removing-{name}").hold()
    clear_remains(runs)
    assert (runs / f".removing-{name}").exists(), "another process is at it"
    held.release()
    here("run", "job.toml", *FAST)
    assert not (runs / f".removing-{name}").exists()


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/usr/bin/chattr").exists(), reason="root may remove everything")
def test_a_run_that_cannot_be_removed_is_said_and_changes_no_exit_code(cli: Cli, server: Server) -> None:
    here = nightly(cli, server, "last = 1")
    here("run", "job.toml", *FAST)
    old = cli.place / "runs" / cli.runs()[0]
    old.chmod(0o777)  # another user could have changed it: it is not trusted
    done = here("run", "job.toml", "--yes", "--rate", "unlimited")
    assert "keep:" in done.err
    assert "the run and its exit code are not affected" in done.err
    assert old.exists()


def test_prune_lists_first_and_keeps_what_keep_keeps(cli: Cli, server: Server) -> None:
    here = nightly(cli, server, "last = 100")
    for _ in range(3):
        here("run", "job.toml", *FAST)
    names = cli.runs()
    done = cli("runs", "--prune", "--keep", "1", "--dry-run")
    assert done.out.split() == ["would", "remove", names[1], "would", "remove", names[0]]
    assert cli.runs() == names
    assert cli("runs", "--prune", "--keep", "0", "-n", "--json").json()["would_remove"] == [names[1], names[0]]
    cli("runs", "--prune", "--keep", "0")
    assert cli.runs() == names[2:], "the last success of a job stays"
    assert "belong to --prune" in cli("runs", "--dry-run", code=2).err


@pytest.mark.parametrize(
    ("keep", "why"),
    [("{}", "last, days"), ("{ lst = 3 }", "'last'"), ("{ last = 0 }", "from 1"), ("{ last = 1.5 }", "whole"), ("30", "table"),
     ('{ days = "x" }', "from 1"), ("{ last = true }", "from 1")],
)  # fmt: skip
def test_a_wrong_keep_is_refused_with_its_line(cli: Cli, keep: str, why: str) -> None:
    cli.write("m.csv", f"uuid,name\n{UUID},x\n")
    cli.write("job.toml", f'[job]\nname = "n"\nmanifest = "m.csv"\nkeep = {keep}\n')
    err = cli("run", "job.toml", "--dry-run", code=2).err
    assert "job.toml:4: [job] keep =" in err
    assert why in err
    cli.write("job.toml", '[job]\nmanifest = "m.csv"\nkeep = { last = 3 }\n')
    assert 'add name = "NAME"' in cli("run", "job.toml", "--dry-run", code=2).err
