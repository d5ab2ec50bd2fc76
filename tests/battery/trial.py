"""One trial of the battery: a witness, a manifest, bulkimg as a process with a time limit, the checker."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tests.battery.checker import Findings, check
from tests.battery.checker_reading import UnreadableError, read_run
from tests.battery.witness import ROOT, Witness, witness

PACE = ("--rate", "unlimited", "--concurrency", "16", "--retries", "3", "--timeout", "2s", "--job-timeout", "5s")
QUIET = ("--max-errors", "none", "--progress", "none")
LIMIT = 180.0  # seconds for one command; longer is a hang
HUNG = -1  # the exit code of a command that was stopped at the limit


@dataclass(frozen=True)
class Done:
    """A finished command."""

    code: int
    seconds: float
    err: str

    @property
    def hung(self) -> bool:
        return self.code == HUNG

    @property
    def crashed(self) -> bool:
        return "Traceback" in self.err


@cache
def within(outage: str) -> tuple[str, ...]:
    """Return the option that lets a total fault end the run instead of making it wait."""
    return ("--max-outage", outage)


@dataclass
class Bench:
    """A witness, and a folder to run bulkimg in."""

    place: Path
    witness: Witness
    account: bool = False  # log in instead of using a session
    uuids: list[str] = field(default_factory=list)

    @property
    def manifest(self) -> Path:
        return self.place / "m.csv"

    def write_manifest(self, mark: str = "new") -> None:
        self.uuids = list(self.witness.table())
        self.manifest.write_text("uuid,name\n" + "".join(f"{u},{mark}-{n}\n" for n, u in enumerate(self.uuids)))

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        credentials = self.witness.account if self.account else self.witness.environment
        return subprocess.Popen(
            [sys.executable, "-m", "bulkimg", *arguments],
            cwd=self.place,
            env={
                **kept,
                "PYTHONPATH": str(ROOT),
                "XDG_CONFIG_HOME": str(self.place / "config"),
                "BULKIMG_SURVEY": "false",
                **credentials,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def command(self, *arguments: str, limit: float = LIMIT) -> Done:
        """Run a command to its end, or stop it at the limit."""
        begun = time.monotonic()
        process = self.start(*arguments)
        try:
            _, err = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            _, err = process.communicate()
            return Done(HUNG, time.monotonic() - begun, err)
        return Done(process.returncode, time.monotonic() - begun, err)

    def run(self, *options: str, limit: float = LIMIT) -> Done:
        """Run `bulkimg run` with the manifest. The last of several options of one name counts."""
        self.witness.mark("run")
        return self.command("run", "m.csv", "--yes", *last_of_each((*PACE, *QUIET, *options)), limit=limit)

    def run_dir(self) -> Path:
        return max((self.place / "runs").iterdir())

    def check(self, *, since: str = "run", only: Sequence[str] | None = None, lies: bool = False) -> Findings:
        found, runs = self.witness, self.place / "runs"
        if not runs.is_dir() or not any(runs.iterdir()):
            broken = Findings(rows=len(self.uuids))
            broken.found("unreadable", "there is no run")
            return broken
        return check(self.manifest, self.run_dir(), found.log(since), found.table(), only=only, lies=lies)

    def results(self) -> list[dict[str, Any]]:
        try:
            return read_run(self.run_dir()).results
        except (UnreadableError, OSError, ValueError):
            return []

    def summary(self) -> dict[str, Any]:
        try:
            return read_run(self.run_dir()).summary
        except (UnreadableError, OSError, ValueError):
            return {}

    def settle(self) -> tuple[Done | None, Findings]:
        """With a healthy server, resume what is left or retry what failed, and check again."""
        self.witness.set_script([])
        if self.summary().get("rows_to_do", 1):  # 1: there is no summary, so it did not end
            done = self.command("resume", "last", *last_of_each((*PACE, *QUIET)))
            return done, self.check()
        again = [one["uuid"] for one in self.results() if one["status"] in ("failed", "unknown", "unprocessed")]
        if not again:
            return None, self.check()
        self.witness.mark("retry")
        done = self.command("retry", "last", *last_of_each((*PACE, *QUIET)))
        return done, self.check(since="retry", only=again)


def last_of_each(options: Sequence[str]) -> list[str]:
    """Return options and values in turn. The last of a name counts, and an empty value removes the option."""
    chosen = dict(zip(options[::2], options[1::2], strict=True))
    return [part for pair in chosen.items() if pair[1] for part in pair]


def tell(name: str, done: Done, found: str, bad: int, problems: list[str]) -> None:
    """Print one trial in a line on standard error, with its first problems."""
    sys.stderr.write(f"{'FAILED ' if bad else ''}{name}: exit {done.code}, {done.seconds:.1f} s: {found}\n")
    sys.stderr.write("".join(f"    {problem}\n" for problem in problems[:3]))
    if done.crashed:
        sys.stderr.write(done.err[-1500:])


@contextlib.contextmanager
def bench(rows: int, dialect: str, *, account: bool = False, **more: Any) -> Iterator[Bench]:
    """Start a witness with so many images, and a manifest with a new name for each."""
    with tempfile.TemporaryDirectory(prefix="battery-") as name:
        place = Path(name)
        with witness(place, images=rows, dialect=dialect, **more) as found:
            ready = Bench(place, found, account)
            ready.write_manifest()
            yield ready
