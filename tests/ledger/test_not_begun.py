"""A run whose process was killed while it made the ledger: every command says that it was never begun, and what to do."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bulkimg.errors import RunRefused, StorageError
from bulkimg.ledger import Ledger, RunDirectory, new_run
from bulkimg.ledger.store import NotBegun
from tests.conftest import ROOT, Cli, Server

# Makes a run and kills itself before the statement of this number.
MAKE = """
import os, signal, sys, time
from pathlib import Path
from bulkimg.ledger import Ledger, new_run, store
steps, real = int(sys.argv[1]), store._connect

def connect(path, mode):
    connection = real(path, mode)
    def step(_):
        global steps
        steps -= 1
        if steps <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
    connection.set_trace_callback(step)
    return connection

store._connect = connect
Ledger.create(new_run(Path(sys.argv[2]), time.time(), sys.argv[3]).ledger)
"""
# Kills itself while the first page is written: the journal goes back to an empty file, and only a writer plays it back.
JOURNAL = """
import os, signal, sqlite3, sys, time
from pathlib import Path
from bulkimg.ledger import new_run
path = new_run(Path(sys.argv[1]), time.time(), sys.argv[2]).ledger
db = sqlite3.connect(path, isolation_level=None)
db.executescript("PRAGMA cache_size=1; BEGIN; CREATE TABLE t (x)")
for n in range(60):
    db.execute("INSERT INTO t VALUES (?)", ("x" * 1000,))
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(code: str, *words: str) -> None:
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.fixture(params=["empty", "1", "3", "8", "20", "journal"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> RunDirectory:
    runs = tmp_path / "runs"
    if request.param == "empty":
        directory = new_run(runs, time.time(), "r")
        directory.ledger.touch(0o600)
        directory.release()
    elif request.param == "journal":
        killed(JOURNAL, str(runs), "r")
        assert (runs / "r" / "run.db-journal").stat().st_size
    else:
        killed(MAKE, request.param, str(runs), "r")
    return RunDirectory(runs / "r")


def test_it_was_never_begun_and_this_is_said(run: RunDirectory) -> None:
    for read_only in (True, False):
        with pytest.raises(NotBegun, match=r"the run was never begun, .* so nothing was sent; run the manifest again"):
            Ledger.open(run.ledger, read_only=read_only)


def test_while_it_is_made_it_is_just_beginning(run: RunDirectory) -> None:
    run.hold()
    with pytest.raises(NotBegun, match="the run is just beginning; try again in a moment"):
        Ledger.open(run.ledger, read_only=True)


def test_a_journal_of_a_ledger_that_was_begun_is_no_reason_to_call_it_new(tmp_path: Path) -> None:
    directory = new_run(tmp_path, time.time(), "r")
    Ledger.create(directory.ledger).close()
    with sqlite3.connect(directory.ledger, isolation_level=None) as db:
        db.execute("PRAGMA journal_mode=DELETE")
        db.executescript("PRAGMA cache_size=1; BEGIN; CREATE TABLE t (x)")
        for _ in range(60):
            db.execute("INSERT INTO t VALUES (?)", ("x" * 1000,))
        copy = tmp_path / "copy"
        shutil.copytree(directory.path, copy)
    db.close()
    with pytest.raises(StorageError, match="is not a readable ledger"):  # a reader cannot play it back
        Ledger.open(copy / "run.db", read_only=True)


COMMANDS = (
    "status r", "report r", "watch r", "verify r", "undo r", "retry r", "resume r", "apply r",
)  # fmt: skip


def test_every_command_says_it(cli: Cli, server: Server, tmp_path: Path) -> None:
    killed(JOURNAL, str(cli.place / "runs"), "r")
    kept = tmp_path / "kept"
    shutil.copytree(cli.place / "runs" / "r", kept)
    at = cli.at(server)
    for words in COMMANDS:
        done = at(*words.split(), code=None)
        assert (done.code, done.err.count("never begun")) == (7, 1), (words, done.err)
        assert "run the manifest again, and remove runs/r" in done.err
        assert "Traceback" not in done.err
        shutil.rmtree(cli.place / "runs" / "r")  # a command that writes plays the journal back
        shutil.copytree(kept, cli.place / "runs" / "r")
    assert "never begun" in at("runs").err
    image = sorted(server.images())[0]
    assert "Traceback" not in at("show", image, code=None).err


@pytest.mark.parametrize("code", [JOURNAL, MAKE])
def test_its_name_can_be_used_again(cli: Cli, server: Server, code: str) -> None:
    killed(code, *(["8"] if code is MAKE else []), str(cli.place / "runs"), "r")
    cli.write("m.csv", f"uuid,name\n{sorted(server.images())[0]},again {os.getpid()} {time.time_ns()}\n")
    assert "1 updated" in cli.at(server)("run", "m.csv", "--yes", "--run-id", "r").err


def test_it_is_a_refusal() -> None:
    assert issubclass(NotBegun, RunRefused)
