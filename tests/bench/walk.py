"""Count what one row costs, from its claim to its durable outcome: `make walk`, or `python -m tests.bench.walk [-v]`.

The program itself (`bulkimg run`, in this process) sends rows to a server on loopback, one at a time: `--concurrency 1
--no-survey --no-adaptive --rate unlimited`. Every row is clean: its first PUT is answered 200 with the values that were
sent, or 202 and then its first poll is answered so.

**One cycle.** The server delays its answer to the PUT of row n until the outcome of row n - 1 is committed in run.db,
as another connection sees it, and bulkimg is idle. Then it answers, and that moment is the cut. Between two cuts there
is one answer, one decision, one commit of an outcome, and the next row's PUT: a whole row, in whatever order. The walk
is the most frequent cycle. The number of cycles exactly like it is printed; others have a claim, or something that a
clock started. The first and the last rows are not counted.

**The claim.** If many rows are claimed at a time, the usual cycle has no claim. The cycles in which run.db got new
attempts have more calls. These, divided by the claimed rows, are added to the walk as the row's share. The most
frequent of these cycles is taken, too.

**To the durable outcome.** The walk without the share of the claim, and without what follows the commit until the row's
slot is free: result lines are appended, and observers get an outcome that is durable already.

**Among others.** With one row in flight each commit has one outcome, so the walk has the whole cost of its group. The
last line is the average at `--concurrency 64` while the server answers at once: entries between the PUT at one quarter
of the rows and that at three quarters, divided by the rows between. It varies a little, as the groups do; the walk does
not.

**What is counted**, by sys.setprofile, in all threads:

- a *call* is the start of a Python function whose globals are those of a module of bulkimg, so also methods of
  dataclasses, lambdas, comprehensions and the first run of a coroutine or generator; not what Python, SQLite or aiohttp
  call among themselves;
- a *resumption* is a coroutine or generator of bulkimg that continues after it has waited or yielded; it is no call;
- an *entry from outside* is a call or a resumption whose caller is a frame outside bulkimg: the event loop, a thread or
  a library;
- *callbacks* are the different functions that are entered from outside, *functions* the different ones that are called;
- a *file* is a module with at least one call or resumption in the usual cycle or in a claim.
"""

import argparse
import contextlib
import io
import os
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from typing import TypeVar

from bulkimg.cli.main import main as bulkimg
from tests.bench.answers import answering
from tests.bench.sections import keep, machine
from tests.bench.walked import Cycle, Notes, Walk

ROWS = 40
MANY = 1_600  # where claims are so large that few rows have one, and for the average
CROWD = 64
RESTS = 0.001, 10  # seconds between two checks of the notes, and how many checks must be equal
TOO_LONG = 20.0
# The output of this command at commit 04ad8e4, before the send path was rewritten.
G = TypeVar("G", bound="Gate")
BEFORE: dict[str, dict[str, float]] = {
    "200": {
        "files to the durable outcome": 24,
        "calls to the durable outcome": 111,
        "callbacks to the durable outcome": 6,
        "files": 31,
        "calls": 146,
        "of it the claim": 14,
        "functions": 116,
        "callbacks": 9,
        "entries from outside": 21,
        "resumptions": 22,
        "calls of a row among 64": 98.1,
        "resumptions of a row among 64": 19.2,
        "entries from outside of a row among 64": 6.5,
    },
    "202": {
        "files to the durable outcome": 25,
        "calls to the durable outcome": 145,
        "callbacks to the durable outcome": 6,
        "files": 31,
        "calls": 180,
        "of it the claim": 14,
        "functions": 123,
        "callbacks": 9,
        "entries from outside": 26,
        "resumptions": 41,
        "calls of a row among 64": 138.9,
        "resumptions of a row among 64": 37.3,
        "entries from outside of a row among 64": 11.8,
    },
}
AIMS = {f"{what} to the durable outcome": most for what, most in {"files": 20, "calls": 45, "callbacks": 3}.items()}


class Ledger:
    """run.db as another process sees it: the committed records."""

    def __init__(self, runs: Path) -> None:
        self._runs = runs

    def count(self, table: str) -> int:
        """Return the number of rows in the table, 0 before the run has a ledger."""
        path = next(self._runs.glob("*/run.db"), None)
        if path is None:
            return 0
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


class Gate:
    """Let answers go one by one, and keep the place in the notes where each of them went."""

    def __init__(self, notes: Notes, ledger: Ledger) -> None:
        self._notes, self._ledger = notes, ledger
        self.cuts: list[tuple[int, int]] = []  # (entries, attempts in the ledger) at each answer to a PUT

    def wait(self) -> None:
        """Return when every row before the present one has a durable outcome and bulkimg is idle."""
        deadline = time.monotonic() + TOO_LONG
        while self._ledger.count("outcome") < len(self.cuts):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the outcome of row {len(self.cuts)} did not become durable")
            time.sleep(RESTS[0])
        self._rest()
        self.cuts.append((len(self._notes.entries), self._ledger.count("attempt")))

    def _rest(self) -> None:
        seen, same = -1, 0
        while same < RESTS[1]:
            now = len(self._notes.entries)
            seen, same = now, same + 1 if now == seen else 0
            time.sleep(RESTS[0])

    def cycles(self) -> list[Cycle]:
        """Return the cycles without those of the first and the last rows."""
        pairs = list(zip(self.cuts, self.cuts[1:], strict=False))[2:-2]
        return [self._cycle(a, b, claimed - before) for (a, before), (b, claimed) in pairs]

    def _cycle(self, begin: int, end: int, claimed: int) -> Cycle:
        durable = max((at for at in self._notes.commits if begin <= at <= end), default=end)
        return Cycle(self._notes.entries[begin:end], claimed, durable - begin)


class Open(Gate):
    """Let all answers go at once."""

    def wait(self) -> None:
        self.cuts.append((len(self._notes.entries), 0))

    def average(self) -> dict[str, float]:
        """Return the average of a row, from the first quarter of the rows to the last."""
        first, last = len(self.cuts) // 4, len(self.cuts) * 3 // 4
        cycle = Cycle(self._notes.entries[self.cuts[first][0] : self.cuts[last][0]], 0)
        per_row = {
            "calls": cycle.calls,
            "resumptions": cycle.resumptions,
            "entries from outside": cycle.callbacks.total(),
        }
        return {what: round(number / (last - first), 1) for what, number in per_row.items()}


def walk(*, with_jobs: bool, rows: int = ROWS) -> Walk:
    """Measure the walk of the program in this process."""
    gate = _run(Gate, rows, 1, with_jobs=with_jobs)
    found = Walk(gate.cycles())
    is_claimed = found.usual.claimed or len(found.claims) > 1
    return found if is_claimed or rows == MANY else walk(with_jobs=with_jobs, rows=MANY)


def average(*, with_jobs: bool) -> dict[str, float]:
    """Measure the average of a row among others."""
    return _run(Open, MANY, CROWD, with_jobs=with_jobs).average()


def _run(kind: type[G], rows: int, concurrency: int, *, with_jobs: bool) -> G:
    """Execute `bulkimg run` with so many rows."""
    with tempfile.TemporaryDirectory(prefix="bulkimg-walk-") as place:
        notes, runs = Notes(), Path(place) / "runs"
        gate = kind(notes, Ledger(runs))
        manifest = Path(place) / "m.csv"
        manifest.write_text("uuid,name,platform\n" + "".join(f"{n:032x},new-{n},Linux\n" for n in range(1, rows + 1)))
        with answering(gate.wait, with_jobs=with_jobs) as url, notes.taken():
            _main(str(manifest), "--runs-dir", str(runs), "--endpoint", url, "--concurrency", str(concurrency))
    return gate


def _main(*arguments: str) -> None:
    """Run the command. Raises RuntimeError if its exit code is not 0."""
    options = ["--yes", "--no-survey", "--no-adaptive", "--rate", "unlimited", "--progress", "none", "-q", "--json"]
    os.environ["BULKIMG_SESSION"] = "0" * 32
    said, sys.argv = io.StringIO(), ["bulkimg", "run", *options, *arguments]
    code: object = None
    with contextlib.redirect_stdout(said):
        try:
            bulkimg()
        except SystemExit as end:
            code = end.code
    if code:
        raise RuntimeError(f"bulkimg exited {code}: {said.getvalue()}")


def figures(found: Walk, among: dict[str, float]) -> dict[str, float]:
    """Return the figures of a walk for RESULTS.md."""
    callbacks = found.usual.callbacks
    durable = found.usual.to_durable()
    return {
        "files to the durable outcome": len(durable.modules),
        "calls to the durable outcome": durable.calls,
        "callbacks to the durable outcome": len(durable.callbacks),
        "files": len(found.modules),
        "calls": round(found.usual.calls + found.calls_of_claim, 1),
        "of it the claim": round(found.calls_of_claim, 1),
        "functions": len({entry.name for entry in found.usual.entries if entry.begins}),
        "callbacks": len(callbacks),
        "entries from outside": round(callbacks.total() + found.entries_of_claim, 1),
        "resumptions": found.usual.resumptions,
        **{f"{what} of a row among {CROWD}": number for what, number in among.items()},
    }


def report(name: str, found: Walk, figures: dict[str, float], *, verbose: bool) -> str:
    text = [
        f"{name}: {', '.join(f'{what} {number:g}' for what, number in figures.items())}",
        "  calls of the usual cycle: "
        + ", ".join(
            f"{sum(e.begins and e.thread == where for e in found.usual.entries)} in the {where}"
            for where in ("loop", "thread")
        ),
        f"  {found.alike} of {len(found.cycles)} cycles alike; {found.claim.claimed if found.claim else found.usual.claimed} rows a claim",
        f"  files: {', '.join(found.modules)}",
        "  callbacks: " + ", ".join(f"{name} x{n}" if n > 1 else name for name, n in found.usual.callbacks.items()),
    ]
    if verbose:
        kinds = {(True, True): ">>", (True, False): "  ", (False, True): "=>", (False, False): " -"}
        text += ["  in order (>> callback that begins a function, => that resumes one, - another resumption):"]
        text += [f"  {kinds[e.begins, e.from_outside]} {e.name}  [{e.thread}]" for e in found.usual.entries]
    return "\n".join(text)


def section(found: dict[str, dict[str, float]]) -> str:
    lines = [
        f"{machine()}. `python -m tests.bench.walk` (`make walk`) prints this, with `-v` every call in order; its docstring says",
        "what a call and a callback are, and how one row is cut out. «Before» is what it printed at commit 04ad8e4.",
        "",
        "| | aim | 200: before | 200: now | 202 and one poll: before | now |",
        "|---|---|---|---|---|---|",
    ]
    for what in next(iter(found.values())):
        cells = [
            f"{one[what]:g}" if what in one else "" for name in found for one in (BEFORE.get(name, {}), found[name])
        ]
        aim = f"≤ {AIMS[what]}" if what in AIMS else ""
        lines.append(f"| {what} | {aim} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-v", "--verbose", action="store_true", help="print every call in order")
    parser.add_argument("--keep", action="store_true", help="write the section of RESULTS.md")
    asked = parser.parse_args()
    found = {}
    for name, with_jobs in (("200", False), ("202", True)):
        walked = walk(with_jobs=with_jobs)
        found[name] = figures(walked, average(with_jobs=with_jobs))
        print(report(name, walked, found[name], verbose=asked.verbose))
    if asked.keep:
        keep("The walk of one row", section(found))


if __name__ == "__main__":
    main()
