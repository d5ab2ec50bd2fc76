"""T62: another user of the machine reads nothing, and traps that he leaves are neither followed nor waited for."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Cli, Server
from tests.security.watching import some_rows_are_settled, watch

NOBODY = 1234  # another user
NOWHERE: dict[str, Any] = {
    "BULKIMG_ENDPOINT": "http://127.0.0.1:9",
    "BULKIMG_SESSION": "5e551017" * 4,
}  # nothing listens there
ROW = f"uuid,name\n{7:032x},x\n"


def modes(place: Path) -> dict[str, str]:
    return {str(path.relative_to(place)): f"{path.stat().st_mode & 0o777:04o}" for path in [place, *place.rglob("*")]}


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_files_are_private_whatever_the_umask(cli: Cli, server: Server, umask: int) -> None:
    """The ledger with its WAL, and the results, during a run and after it: 0600, in a directory of 0700."""
    cli.write("m.csv", "uuid,name\n" + "".join(f"{uuid},mode\n" for uuid in list(server.images())[:60]))
    given: dict[str, Any] = {"BULKIMG_ENDPOINT": server.url, "BULKIMG_SESSION": server.session}
    words = ("run", "m.csv", "--yes", "--results", "copy.csv", "--rate", "20/s")
    assert watch(cli, *words, kill_when=lambda: some_rows_are_settled(cli), umask=umask, **given).code == -9
    in_the_middle = modes(cli.run_dir())
    assert {"run.db", "run.db-wal", "run.db-shm", "results.csv"} <= in_the_middle.keys()
    assert watch(cli, "resume", "last", "--rate", "unlimited", umask=umask, **given).code == 0
    after = modes(cli.run_dir())
    assert {"results.jsonl", "summary.json"} <= after.keys()
    for found in (in_the_middle, after):
        assert found.pop(".") == "0700"
        assert set(found.values()) == {"0600"}, found
    assert modes(cli.place / "copy.csv") == {".": "0600"}


def test_nobody_else_can_write_where_the_runs_are(cli: Cli) -> None:
    """In a runs directory that bulkimg creates, no other user can rename a run and put another in its place."""
    cli.write("m.csv", ROW)
    watch(cli, "run", "m.csv", "--yes", umask=0o000, **NOWHERE)
    assert (cli.place / "runs").stat().st_mode & 0o022 == 0


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that can be resumed: its server was not there."""
    cli = Cli(tmp_path_factory.mktemp("stopped"))
    cli.write("m.csv", ROW)
    cli("run", "m.csv", "--yes", code=5, **NOWHERE)
    return cli.run_dir()


@pytest.fixture
def copy(cli: Cli, stopped: Path) -> Path:
    """Copy the run, to damage the copy."""
    return Path(shutil.copytree(stopped, cli.place / "runs" / stopped.name))


def _symlink(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def _hard_link(path: Path, victim: Path) -> None:
    path.hardlink_to(victim)


def _fifo(path: Path, victim: Path) -> None:
    os.mkfifo(path)


def _directory(path: Path, victim: Path) -> None:
    path.mkdir()


def _others_file(path: Path, victim: Path) -> None:
    path.touch()
    path.chmod(0o666)
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)


Trap = Callable[[Path, Path], None]
TRAPS = {
    "symlink": _symlink,
    "hard link": _hard_link,
    "FIFO": _fifo,
    "directory": _directory,
    "another's file": _others_file,
}


def set_trap(trap: Trap, path: Path) -> Path:
    """Put the trap at the path. Returns the victim's file, which must stay as it is."""
    victim = path.parent.parent / "victim"
    victim.write_text("precious")
    path.unlink(missing_ok=True)
    trap(path, victim)
    return victim


def well(cli: Cli, code: int, words: tuple[str, ...]) -> None:
    """Check that the command ends by itself, with its usual code or one sentence that names the file.

    One that waits for somebody to read or to write the trap does not end: `watch` fails.
    """
    seen = watch(cli, *words, **NOWHERE)
    assert seen.code in (code, 2, 7, 8), seen.err
    assert b"Traceback" not in seen.err


def plain_and_ours(path: Path) -> bool:
    """Check that it is a private plain file of ours with one name, or the unchanged trap."""
    found = path.lstat()
    return path.is_file() and (found.st_nlink, found.st_uid, found.st_mode & 0o077) == (1, os.geteuid(), 0)


@pytest.mark.parametrize("name", ["results.csv", ".results.csv.tmp"])
@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_in_the_run_directory_harms_nothing(cli: Cli, copy: Path, trap: str, name: str) -> None:
    """No file but the run's own is written, whatever is at an output's name when the run is resumed."""
    victim = set_trap(TRAPS[trap], copy / name)
    well(cli, 5, ("resume", "last"))
    assert victim.read_text() == "precious"
    assert plain_and_ours(copy / "results.csv") or (copy / name).lstat()


@pytest.mark.parametrize("name", ["out.csv", ".out.csv.tmp"])
@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_at_the_result_file_harms_nothing(cli: Cli, trap: str, name: str) -> None:
    """`--results` in a directory that others can write in, such as /tmp: the result is ours, or it is not written."""
    shared = cli.place / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    cli.write("m.csv", ROW)
    victim = set_trap(TRAPS[trap], shared / name)
    well(cli, 5, ("run", "m.csv", "--yes", "--results", "shared/out.csv"))
    assert victim.read_text() == "precious"
    result = shared / "out.csv"
    assert not result.is_file() or result.is_symlink() or result.stat().st_size == 0 or plain_and_ours(result)


def written(run: Path) -> dict[str, bytes]:
    """Return the contents of the run's files. -wal and -shm come and go with each reader of the ledger."""
    return {path.name: path.read_bytes() for path in run.iterdir() if not path.name.startswith("run.db-")}


def refused(cli: Cli, copy: Path) -> None:
    """Check that nothing is done with such a run, and that reading about it changes nothing."""
    before = written(copy)
    for command in ("resume", "retry"):
        done = cli(command, "last", code=7, **NOWHERE)
        assert copy.name in done.err
        assert len(done.err.strip().splitlines()) == 1
    assert written(copy) == before
    assert cli("status", code=None).code in (0, 7)


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777, 0o702])
def test_a_run_directory_that_others_write_in_is_refused(cli: Cli, copy: Path, mode: int) -> None:
    copy.chmod(mode)
    refused(cli, copy)


def test_a_run_directory_of_another_user_is_refused(cli: Cli, copy: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    os.chown(copy, NOBODY, NOBODY)
    refused(cli, copy)


@pytest.mark.parametrize("how", ["symlink", "another's file"])
def test_a_ledger_that_is_not_ours_alone_is_refused(cli: Cli, copy: Path, how: str) -> None:
    """run.db must be a plain file of ours that no other user can write. A link could be changed between two checks."""
    ledger = copy / "run.db"
    if how == "symlink":
        elsewhere = cli.place / "elsewhere.db"
        ledger.rename(elsewhere)
        ledger.symlink_to(elsewhere)
    elif os.geteuid() == 0:
        os.chown(ledger, NOBODY, NOBODY)
    else:
        pytest.skip("only root can give a file away")
    refused(cli, copy)
