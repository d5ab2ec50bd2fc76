"""Measure what durable outcomes cost on a slower disk: `python -m tests.bench.fsync [--rows N] [--runs N] [--keep]`.

A slot is free only when its row's outcome is durable, so a slow fsync delays rows. Here each commit of run.db takes
longer: the program's connections to SQLite are of a subclass that sleeps after COMMIT, in the committing thread and
without Python's lock, as fsync does. Everything else is `bulkimg run` against nginx.
"""

import argparse
import contextlib
import io
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench import nginx
from tests.bench.__main__ import write_rows
from tests.bench.sections import keep, machine
from tests.conftest import ROOT

DELAYS = (0.0, 0.1, 1.0, 5.0)  # milliseconds
CONCURRENCIES = (16, 64, 256)


class Slow(sqlite3.Connection):
    """A connection whose commits take longer."""

    milliseconds = 0.0

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        found = super().execute(sql, *parameters)
        if sql.lstrip()[:6].upper() == "COMMIT":
            self._wait()
        return found

    def commit(self) -> None:
        was_open = self.in_transaction
        super().commit()
        if was_open:
            self._wait()

    def __exit__(self, *error: Any) -> Any:
        was_open = self.in_transaction
        found = super().__exit__(*error)
        if was_open and error[0] is None:
            self._wait()
        return found

    def _wait(self) -> None:
        commits.append(time.monotonic())
        if self.milliseconds:
            time.sleep(self.milliseconds / 1000)


commits: list[float] = []  # when, of this process


def one(milliseconds: float, arguments: Sequence[str]) -> None:
    """Run `bulkimg` with these arguments in a process of its own. Prints its summary with the number of commits."""
    connect = sqlite3.connect
    Slow.milliseconds = milliseconds

    def slowly(*given: Any, **named: Any) -> sqlite3.Connection:
        opened: sqlite3.Connection = connect(*given, **{"factory": Slow, **named})
        return opened

    sqlite3.connect = slowly  # type: ignore[assignment]
    from bulkimg.cli.main import main as bulkimg

    said, sys.argv = io.StringIO(), ["bulkimg", *arguments]
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        bulkimg()
    assert len(commits) > 1, "the program commits in a way that is not seen here"
    print(json.dumps({**json.loads(said.getvalue()), "commits": len(commits)}))


def measure(manifest: Path, url: str, milliseconds: float, concurrency: int) -> tuple[float, float]:
    """Return (rows a second while sending, rows for each commit)."""
    with tempfile.TemporaryDirectory(prefix="bulkimg-fsync-") as runs:
        command = [sys.executable, "-m", "tests.bench.fsync", "one", str(milliseconds), "run", str(manifest), "--yes"]
        command += ["--no-survey", "--no-adaptive", "--rate", "unlimited", "--progress", "none", "-q", "--json"]
        command += ["--concurrency", str(concurrency), "--runs-dir", runs]
        environment = {**os.environ, "BULKIMG_SESSION": "0" * 32, "BULKIMG_ENDPOINT": url}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True, cwd=ROOT)
    summary = json.loads(done.stdout)
    assert summary["counts"]["updated"] == summary["rows"], summary
    rows = int(summary["rows"])
    return rows / float(summary["pace"]["sending_s"]), rows / int(summary["commits"])


Found = Mapping[tuple[float, int], Sequence[tuple[float, float]]]


def turns(rows: int, runs: int) -> Found:
    """Return the results of each delay in each turn, by delay and concurrency."""
    found: dict[tuple[float, int], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="bulkimg-bench-") as where:
        place = Path(where)
        place.chmod(0o755)
        write_rows(place / "rows.csv", rows)
        with nginx.serving(place) as url:
            for turn in range(runs):
                for concurrency in CONCURRENCIES:
                    for delay in DELAYS:
                        now = measure(place / "rows.csv", url, delay, concurrency)
                        found.setdefault((delay, concurrency), []).append(now)
                        sys.stderr.write(f"turn {turn + 1}: {delay:g} ms, concurrency {concurrency}: {now[0]:,.0f}/s\n")
    return found


def report(found: Found, rows: int) -> str:
    number = len(next(iter(found.values())))
    lines = [
        f"{machine()}, nginx on loopback; {rows:,} rows, `--rate unlimited --no-survey --no-adaptive`, {number} alternating turns.",
        "`python -m tests.bench.fsync` prints this. Each commit takes so much longer than on this disk; a ratio is the median of those of",
        "each turn; rows a commit are of the whole run, with reading and the end.",
        "",
        "| ms more a commit | "
        + " | ".join(f"concurrency {n}: rows/s, ratio, rows a commit" for n in CONCURRENCIES)
        + " |",
        "|---|" + "---|" * len(CONCURRENCIES),
    ]
    for delay in DELAYS:
        cells = []
        for concurrency in CONCURRENCIES:
            these, plain = found[delay, concurrency], found[0.0, concurrency]
            ratio = statistics.median(a[0] / b[0] for a, b in zip(these, plain, strict=True))
            speed, group = (statistics.median(one[n] for one in these) for n in (0, 1))
            cells.append(f"{speed:,.0f}, {ratio:.2f}, {group:.0f}")
        lines.append(f"| {delay:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--keep", action="store_true", help="write the section of RESULTS.md")
    asked = parser.parse_args()
    text = report(turns(asked.rows, asked.runs), asked.rows)
    print(text)
    if asked.keep:
        keep("A slower disk", text)


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        one(float(sys.argv[2]), sys.argv[3:])
    else:
        main()
