"""Kill bulkimg, or let its calls fail, at every system call on its run's files.

These are T2, T3, T4 and T7 of docs/dev/reliability.md.

strace counts calls for each thread separately, and two threads write a run's files: the main thread before and after
sending, and the writer thread while sending. So a border is a thread, a system call and its number, and strace follows
only that thread.
"""

import json
import multiprocessing
import random
import re
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.battery.checker import check
from tests.battery.process import NO_LIMITS, Limits, Pause, Ran, Tool, traced
from tests.battery.report import Record
from tests.battery.witness import Witness, witness

ROWS = 60
CONCURRENCY = 8
FILES = ("run.db", "run.db-wal", "run.db-shm", "run.db-journal", "results.csv", "results.jsonl", "failed.csv",
         "unprocessed.csv", "summary.json")  # fmt: skip
LEDGER_FILES = ("run.db", "run.db-wal")
KINDS = ("write", "pwrite64", "fsync", "fdatasync", "rename", "renameat", "renameat2", "ftruncate", "openat", "unlink",
         "unlinkat", "chmod")  # fmt: skip
FAILING = ("write", "pwrite64", "fsync", "fdatasync", "rename", "ftruncate", "openat")
ERRORS = ("ENOSPC", "EIO")
IN_FLIGHT = 0.2  # seconds: requests handed over before an error may still arrive
PROCESSES = 2
PART = 20  # points, where all of them would show the same again
THREADS = (Pause.RUN_DIR, Pause.LEDGER_THREAD)


@dataclass(frozen=True)
class Border:
    """One system call of one thread."""

    thread: Pause
    syscall: str
    at: int

    def __str__(self) -> str:
        return f"{'main' if self.thread is Pause.RUN_DIR else 'ledger thread'} {self.syscall} #{self.at}"


@dataclass(frozen=True)
class Point:
    """What is done at a border: strace's inject= option after the system call's name."""

    border: Border
    what: str  # signal=SIGKILL:when=3, error=EIO:when=3+

    def __str__(self) -> str:
        return f"{self.border} {self.what}"


@dataclass
class Tried:
    """The result of one trial."""

    point: str
    reached: bool = True
    troubles: list[str] = field(default_factory=list)
    late_puts: int = 0  # new rows sent after the error
    unheard: bool = False  # SQLite ignored the error
    syncs_after: int = 0  # on the file whose sync had failed
    code: int = 0  # by the first process
    refused: bool = False  # the run had to be started again


@dataclass
class Ground:
    """A witness and a place for trials. Every trial has its own folder and names."""

    place: Path
    server: Witness
    rows: int = ROWS
    trials: int = 0

    def trial(self, *, rate: str = "unlimited") -> "Trial":
        self.trials += 1
        place = self.place / f"trial-{self.trials}"
        place.mkdir()
        return Trial(place, self.server, f"{self.place.name}-{self.trials}", self.rows, rate)


class Trial:
    """One manifest against the witness: a first process that something ends, a second one, and the check."""

    def __init__(self, place: Path, server: Witness, mark: str, rows: int, rate: str) -> None:
        self.place = place
        self.server = server
        self.rows = rows
        self.tool = Tool(place, server.environment)
        self.manifest = place / "m.csv"
        uuids = sorted(server.table())[:rows]
        self.manifest.write_text("uuid,name\n" + "".join(f"{uuid},{mark}-{n}\n" for n, uuid in enumerate(uuids)))
        self._seen = server.path.stat().st_size
        self.rate = rate

    @property
    def run_command(self) -> list[str]:
        how = ["--yes", "--rate", self.rate, "--concurrency", str(CONCURRENCY), "--runs-dir", str(self.tool.runs_dir)]
        return ["run", "m.csv", *how]

    @property
    def log(self) -> list[dict[str, Any]]:
        """Return what the witness received since the trial began."""
        with self.server.path.open("rb") as file:
            file.seek(self._seen)
            return [json.loads(line) for line in file.read().rpartition(b"\n")[0].splitlines()]

    @property
    def puts(self) -> list[dict[str, Any]]:
        return [line for line in self.log if line["kind"] == "request" and line["path"].endswith("/actions")]

    def second_life(self, tried: Tried) -> None:
        """Resume, or run again if there is nothing to resume, and check."""
        if not self.tool.run_dirs():
            done = self._again(tried)
        else:
            done = self.tool.warm_run("resume", "last", "--rate", "unlimited", "--runs-dir", str(self.tool.runs_dir))
            if done.code in {2, 7, 8}:
                self._judge_refusal(done, tried)
                done = self._again(tried)
        if done.traceback or done.code not in {0, 1}:
            tried.troubles.append(f"second life: exit {done.code}: {last_line(done)}")
        self.check(tried)

    def check(self, tried: Tried) -> None:
        """Check that every row has one true outcome by the witness and the ledger."""
        dirs = self.tool.run_dirs()
        if not dirs:
            tried.troubles.append("no run directory at the end")
            return
        try:
            found = check(self.manifest, dirs[-1], self.log, self.server.table())
        except Exception as error:  # a file that the checker cannot read is a finding
            tried.troubles.append(f"check: {error!r}")
            return
        if not found.ok:
            tried.troubles.append(f"check: {'; '.join(str(problem) for problem in found.problems[:3])}")

    def _judge_refusal(self, done: Ran, tried: Tried) -> None:
        tried.refused = True
        if done.traceback or not done.sentence:
            tried.troubles.append(f"resume refused without a sentence: exit {done.code}: {last_line(done)}")
        if self.puts:
            tried.troubles.append(f"resume refused a run that had sent {len(self.puts)} PUTs: {last_line(done)}")
        listed = self.tool.warm_run("runs", "--json", "--runs-dir", str(self.tool.runs_dir))
        if listed.traceback or listed.code:
            tried.troubles.append(f"bulkimg runs: exit {listed.code}: {last_line(listed)}")

    def _again(self, tried: Tried) -> Ran:
        tried.refused = True
        return self.tool.warm_run(*self.run_command)


def last_line(ran: Ran) -> str:
    return (ran.err.strip().splitlines() or ["(nothing on standard error)"])[-1][:300]


def frame(ran: Ran) -> str:
    """Return the place in bulkimg that a traceback comes from."""
    found = re.findall(r'File "[^"]*/(bulkimg/[^"]*)", line (\d+), in (\w+)', ran.err)
    return "in " + " < ".join(f"{path}:{line} {name}" for path, line, name in found[:-4:-1]) if found else ""


# -- strace ---------------------------------------------------------------------------------------------------------------


def watched(run_dir: str, names: Sequence[str] = FILES) -> list[str]:
    """Return strace's options that limit it to files of the run."""
    paths = [run_dir] if names is FILES else []
    for name in names:
        paths += [f"{run_dir}/{name}", *([f"{run_dir}/.{name}.tmp"] if name not in LEDGER_FILES else [])]
    return [word for path in paths for word in ("-P", path)]


def count(ground: Ground, thread: Pause, kinds: Sequence[str], names: Sequence[str] = FILES) -> Counter[str]:
    """Count the thread's calls of each kind on the run's files, in an undisturbed run."""
    trial = ground.trial()
    log = trial.place / "strace.txt"
    warm = trial.tool.warm(*trial.run_command, pause=thread)
    with traced(warm, lambda made: ["-e", f"trace={','.join(kinds)}", *watched(made, names)], log):
        warm.ended()
    return Counter(re.findall(r"^(\w+)\(", log.read_text(), re.MULTILINE))


def all_borders(ground: Ground, kinds: Sequence[str], names: Sequence[str] = FILES) -> list[Border]:
    """Return every border of an undisturbed run."""
    return [
        Border(thread, kind, at)
        for thread in THREADS
        for kind, calls in sorted(count(ground, thread, kinds, names).items())
        for at in range(1, calls + 1)
    ]


def first_life(trial: Trial, point: Point, more: Sequence[str] = (), names: Sequence[str] = FILES) -> tuple[Ran, str]:
    """Run with the point's injection. Returns how it ended and what strace saw."""
    log = trial.place / "strace.txt"
    inject = ["-ttt", "-y", "-s", "0", *more, "-e", f"trace={','.join(KINDS)}"]
    inject += ["-e", f"inject={point.border.syscall}:{point.what}"]
    warm = trial.tool.warm(*trial.run_command, pause=point.border.thread)
    with traced(warm, lambda made: [*inject, *watched(made, names)], log):
        ran = warm.ended(60)
    return ran, log.read_text() if log.exists() else ""


# -- T2: killed -----------------------------------------------------------------------------------------------------------


def try_kill(ground: Ground, point: Point) -> Tried:
    trial, tried = ground.trial(), Tried(str(point))
    ran, _ = first_life(trial, point)
    tried.code, tried.reached = ran.code, ran.code == -9
    if not tried.reached and ran.code not in {0, 1}:
        tried.troubles.append(f"exit {ran.code}: {last_line(ran)}")
    trial.second_life(tried)
    return tried


# -- T3: errors -----------------------------------------------------------------------------------------------------------


def try_error(ground: Ground, point: Point) -> Tried:
    trial, tried = ground.trial(rate="100/s"), Tried(str(point))
    ran, seen = first_life(trial, point)
    failed_at = first_injected(seen)
    tried.code, tried.reached = ran.code, failed_at is not None
    judge_end(ran, tried)
    if failed_at is not None:
        _note_late_puts(trial, seen, failed_at, tried)
    if ran.code in {0, 1} and not ran.traceback:
        trial.check(tried)
    else:
        trial.second_life(tried)
    return tried


def _note_late_puts(trial: Trial, seen: str, failed_at: float, tried: Tried) -> None:
    """Note PUTs after an error.

    SQLite ignores a directory that cannot be opened or synced; bulkimg syncs it before it sends.
    """
    failed = re.search(r"(openat|f(?:data)?sync)\((\d*)(?:<([^>]*)>)?.*\(INJECTED\)", seen)
    of_directory = failed is not None and (failed[1] == "openat" or failed[3] == str(trial.tool.run_dirs()[-1]))
    if of_directory and tried.code == 0:
        tried.unheard = True
        return
    tried.late_puts = late_puts(trial.puts, failed_at)
    if tried.late_puts:
        tried.troubles.append(f"{tried.late_puts} new rows sent after the error")


def judge_end(ran: Ran, tried: Tried) -> None:
    """Check that a disk error ends in exit 8 and one sentence, unless it had no effect."""
    if ran.traceback:
        tried.troubles.append(f"traceback, exit {ran.code}: {last_line(ran)} {frame(ran)}")
    elif ran.code == 8 and not ran.sentence:
        tried.troubles.append("exit 8 without a sentence")
    elif ran.code not in {0, 1, 8}:
        tried.troubles.append(f"exit {ran.code}: {last_line(ran)}")


def first_injected(seen: str) -> float | None:
    """Return when strace made the first call fail, in seconds since the epoch."""
    found = re.search(r"^([\d.]+) .*\(INJECTED\)", seen, re.MULTILINE)
    return float(found[1]) if found else None


def late_puts(puts: Sequence[Mapping[str, Any]], failed_at: float) -> int:
    """Return the rows whose first PUT came after an error and was not in flight before."""
    first: dict[str, float] = {}
    for put in puts:
        first.setdefault(put["path"], put["at"])
    return sum(at > failed_at + IN_FLIGHT for at in first.values())


# -- T4: a failed sync is final ---------------------------------------------------------------------------------------------


def try_sync(ground: Ground, point: Point) -> Tried:
    trial, tried = ground.trial(rate="100/s"), Tried(str(point))
    ran, seen = first_life(trial, point, more=["-f"], names=LEDGER_FILES)
    tried.code, tried.reached = ran.code, first_injected(seen) is not None
    tried.syncs_after = syncs_after_failure(seen)
    judge_end(ran, tried)
    if tried.reached and ran.code != 8:
        tried.troubles.append(f"a failed sync of the ledger ended in exit {ran.code}")
    trial.second_life(tried)
    if (
        tried.syncs_after and not tried.refused
    ):  # SQLite rolls back a ledger that it could not create, and nobody resumes it
        tried.troubles.append(f"{tried.syncs_after} more syncs of the file")
    return tried


def syncs_after_failure(seen: str) -> int:
    """Return the calls of fsync and fdatasync on the file of the first failed sync, after that failure."""
    calls = [
        (found[1], "INJECTED" in line)
        for line in seen.splitlines()
        if (found := re.search(r"f(?:data)?sync\(\d+<([^>]*)>", line))
    ]
    failed = next((at for at, (_, injected) in enumerate(calls) if injected), None)
    return 0 if failed is None else sum(path == calls[failed][0] for path, _ in calls[failed + 1 :])


# -- T7: a disk that is full ------------------------------------------------------------------------------------------------


def try_file_size(ground: Ground, most: int) -> Tried:
    """Allow no file more than `most` bytes."""
    trial, tried = ground.trial(rate="200/s"), Tried(f"RLIMIT_FSIZE {most}")
    _full_life(trial, tried, limits={resource.RLIMIT_FSIZE: most})
    return tried


def try_small_disk(ground: Ground, most: int, *, results_only: bool) -> Tried:
    """Put the runs, or only --results, on a file system of `most` bytes that grows before the second process."""
    what = "--results" if results_only else "runs"
    trial, tried = ground.trial(rate="200/s"), Tried(f"tmpfs of {most} bytes for {what}")
    at = trial.place / ("out" if results_only else "runs")
    with small_disk(at, most) as grow:
        more = ["--results", str(at / "out.jsonl")] if results_only else []
        _full_life(trial, tried, more=more, lift=grow)
    return tried


def _full_life(
    trial: Trial,
    tried: Tried,
    *,
    limits: Limits = NO_LIMITS,
    more: Sequence[str] = (),
    lift: Callable[[], None] = lambda: None,
) -> None:
    ran = trial.tool.warm_run(*trial.run_command, *more, limits=limits, timeout=60)
    tried.code, tried.reached = ran.code, ran.code not in {0, 1}
    judge_end(ran, tried)
    lift()
    trial.second_life(tried)


@contextmanager
def small_disk(at: Path, most: int) -> Iterator[Callable[[], None]]:
    """Make a small file system; the callable makes it large. Raises PermissionError if we may not mount."""
    at.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={most}", "tmpfs", str(at)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        raise PermissionError("mounting is not allowed here")
    try:
        yield lambda: _run_quietly("mount", "-o", "remount,size=64m", str(at))
    finally:
        _run_quietly("umount", "-l", str(at))


def _run_quietly(*command: str) -> None:
    subprocess.run(command, capture_output=True, check=True)


# -- all of them ------------------------------------------------------------------------------------------------------------

Work = Callable[[Ground, Any], Tried]


def _share(given: tuple[Path, int, str, Work, Sequence[Any]]) -> list[Tried]:
    """Try one process's share of the points, with a witness of its own."""
    place, number, dialect, work, points = given
    here = place / f"p{number}"
    here.mkdir(parents=True)
    with witness(here, images=ROWS, dialect=dialect) as server:
        ground = Ground(here, server)
        return [_told(ground, work(ground, point)) for point in points]


def _told(ground: Ground, tried: Tried) -> Tried:
    """Print what went wrong, and keep a trial's files only then."""
    for trouble in tried.troubles:
        sys.stderr.write(f"{tried.point}: {trouble}\n")
    if not tried.troubles:
        shutil.rmtree(ground.place / f"trial-{ground.trials}", ignore_errors=True)
    return tried


def spread(place: Path, dialect: str, work: Work, points: Sequence[Any]) -> list[Tried]:
    """Try all points in a few processes."""
    shares = [(place, n, dialect, work, points[n::PROCESSES]) for n in range(PROCESSES)]
    with multiprocessing.get_context("fork").Pool(PROCESSES) as pool:
        found = [tried for part in pool.map(_share, shares, chunksize=1) for tried in part]
        pool.close()
        pool.join()
    return found


def sampled(points: Sequence[Any], sample: int | None, seed: int) -> list[Any]:
    """Return all points, or so many of them in a seeded order."""
    chosen = list(points)
    random.Random(seed).shuffle(chosen)
    return chosen[:sample]


def _record(test: str, name: str, every: int, tried: Sequence[Tried], seconds: float, unit: str, also: str) -> Record:
    reached = [one for one in tried if one.reached]
    bad = [one for one in tried if one.troubles]
    notes = f"{len(tried)} of {every} points chosen, {len(tried) - len(reached)} not come to; {also}"
    if bad:
        notes += "; " + " | ".join(f"{one.point}: {one.troubles[0]}" for one in bad[:5])
    return Record(test, name, len(reached), len(bad), unit, notes, seconds)


def _codes(tried: Sequence[Tried]) -> str:
    found = Counter(one.code for one in tried if one.reached)
    return "exit codes " + ", ".join(f"{code}: {times}" for code, times in sorted(found.items()))


def _points_here(place: Path, kinds: Sequence[str], dialect: str, names: Sequence[str] = FILES) -> list[Border]:
    place.mkdir(parents=True)
    with witness(place, images=ROWS, dialect=dialect) as server:
        return all_borders(Ground(place, server), kinds, names)


def kill_borders(place: Path, dialect: str, sample: int | None, seed: int) -> Record:
    """T2: kill at every border."""
    begun = time.monotonic()
    every = _points_here(place / "count", KINDS, dialect)
    points = [Point(border, f"signal=SIGKILL:when={border.at}") for border in sampled(every, sample, seed)]
    tried = spread(place, dialect, try_kill, points)
    also = f"{sum(one.refused for one in tried)} begun again because nothing was there to resume"
    name = f"kill -9 at system calls, {dialect}"
    return _record("T2", name, len(every), tried, time.monotonic() - begun, "borders", also)


def error_borders(place: Path, dialect: str, sample: int | None, seed: int) -> list[Record]:
    """T3: each error from every border on, and only once at a share of them."""
    begun = time.monotonic()
    every = _points_here(place / "count", FAILING, dialect)
    records = []
    for number, (error, times) in enumerate([(error, times) for error in ERRORS for times in ("", "+")]):
        chosen = sampled(every, sample or (None if times else PART), seed + number)
        points = [Point(border, f"error={error}:when={border.at}{times}") for border in chosen]
        tried = spread(place / f"{error}{len(times)}", dialect, try_error, points)
        late, unheard = sum(one.late_puts for one in tried), sum(one.unheard for one in tried)
        also = f"new rows sent later than the error: {late}; {_codes(tried)}; SQLite did not mind {unheard}"
        name = f"{error} {'from a call on' if times else 'once'}, {dialect}"
        records.append(_record("T3", name, len(every), tried, time.monotonic() - begun, "points", also))
        begun = time.monotonic()
    return records


def failed_syncs(place: Path, dialect: str, sample: int | None, seed: int) -> Record:
    """T4: a sync of the ledger fails once."""
    begun = time.monotonic()
    every = _points_here(place / "count", ("fsync", "fdatasync"), dialect, LEDGER_FILES)
    points = [Point(border, f"error=EIO:when={border.at}") for border in sampled(every, sample, seed)]
    tried = spread(place, dialect, try_sync, points)
    also = f"syncs of that file afterwards: {sum(one.syncs_after for one in tried if not one.refused)}; {_codes(tried)}"
    also += f"; given up before anything was sent: {sum(one.refused for one in tried)}"
    name = f"a sync of the ledger fails once, {dialect}"
    return _record("T4", name, len(every), tried, time.monotonic() - begun, "syncs", also)


def try_full(ground: Ground, case: tuple[str, int]) -> Tried:
    what, most = case
    if what == "limit":
        return try_file_size(ground, most)
    try:
        return try_small_disk(ground, most, results_only=what == "results")
    except PermissionError as error:
        return Tried(f"tmpfs: {error}", reached=False)


def full_disks(place: Path, dialect: str, sample: int | None, seed: int) -> Record:
    """T7: limits on file sizes, and small disks."""
    begun = time.monotonic()
    cases = [("limit", 1024 * size) for size in (1, 4, 12, 20, 32, 48, 64, 96, 128, 160, 200, 240)]
    cases += [("runs", 1024 * size) for size in (4, 16, 64, 96, 128, 160, 192, 224, 256, 288, 320)]
    cases += [("results", 4096 * size) for size in (1, 2, 3, 4)]
    tried = spread(place, dialect, try_full, sampled(cases, sample, seed))
    return _record("T7", f"disk full, {dialect}", len(cases), tried, time.monotonic() - begun, "sizes", _codes(tried))


def borders(place: Path, sample: int | None, seed: int) -> list[Record]:
    """T2, T3, T4 and T7: all points in one dialect and a share in the other, or `sample` points in the first alone."""
    records = []
    for dialect, most in (("zstack", sample),) if sample else (("zstack", None), ("documented", PART)):
        here = place / dialect
        records += [
            kill_borders(here / "kill", dialect, most, seed),
            *error_borders(here / "error", dialect, most, seed),
            failed_syncs(here / "sync", dialect, most, seed),
            full_disks(here / "full", dialect, most, seed),
        ]
    return records
