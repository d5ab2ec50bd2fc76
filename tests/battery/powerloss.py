"""Simulate a power loss at every moment of one run: T5 of docs/dev/reliability.md.

One run is recorded under strace. For every prefix of its calls, the states are built that a disk may have after a power
loss at that point. What was synced is kept. Every other write is kept, lost or torn, independently of the others, and
so are names. Each such ledger is opened with plain SQLite and compared with what the run had sent and shown until then.
Some are really resumed.
"""

import hashlib
import json
import multiprocessing
import random
import re
import shutil
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.battery.checker import check
from tests.battery.process import Pause, Tool, traced
from tests.battery.report import Record
from tests.battery.syscalls import PROCESSES, Ground, Trial, last_line
from tests.battery.witness import witness

ROWS = 120
CALLS = (
    "openat,write,writev,pwrite64,ftruncate,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,sendto,sendmsg"
)
LEDGER = ("run.db", "run.db-wal", "run.db-journal")
SECTORS = (512, 4096)
RESUMED = 50
IDLE_ROUNDS = 30  # draws without a new state
UNSEEN_STATES = {None, "reading"}


@dataclass(frozen=True, slots=True)
class Op:
    """One call as a disk or the server sees it. `name` is a file of the run's directory, or "" for the directory."""

    kind: str  # create, write, truncate, sync, rename, unlink, send
    name: str
    data: bytes = b""
    at: int | None = None  # offset; None: at the end
    to: str = ""
    size: int = 0


@dataclass(frozen=True, slots=True)
class Unsynced:
    """A change of a file's bytes that is not synced yet."""

    at: int
    data: bytes | None  # None: cut to `at` bytes


@dataclass(frozen=True, slots=True)
class Renamed:
    """A change of the directory that is not synced yet: a file gets a name or loses one."""

    name: str
    file: int | None
    left: str = ""


@dataclass(frozen=True)
class Moment:
    """The disk after some calls, and what was sent and shown until then."""

    names: dict[str, int]  # durable
    renames: tuple[Renamed, ...]
    files: dict[int, tuple[bytes, tuple[Unsynced, ...]]]
    sent: int
    shown: int


# -- the recording ----------------------------------------------------------------------------------------------------------


def record(trial: Trial) -> tuple[Path, Path]:
    """Record one run under strace. Returns (its log, the run's directory)."""
    log = trial.place / "power.txt"
    warm = trial.tool.warm(*trial.run_command, pause=Pause.RUN_DIR)
    with traced(warm, lambda _: ["-f", "-y", "-xx", "-s", "9999999", "-e", f"trace={CALLS}"], log):
        ran = warm.ended()
    assert ran.code == 0, last_line(ran)
    return log, trial.tool.run_dirs()[-1]


def calls(log: Path) -> Iterator[tuple[str, str]]:
    """Return (call, arguments) in the order of their effects: a sync when it returned, the others at once."""
    open_calls: dict[str, str] = {}
    for line in log.read_text("latin-1").splitlines():
        thread, _, text = line.partition(" ")
        text = text.strip()
        if resumed := re.match(r"<\.\.\. (\w+) resumed>", text):
            begun = open_calls.pop(thread, "")
            if resumed[1] in {"fsync", "fdatasync"} and text.endswith("= 0"):
                yield resumed[1], begun
        elif named := re.match(r"(\w+)\((.*)", text):
            if text.endswith("<unfinished ...>"):
                open_calls[thread] = named[2]
                if named[1] not in {"fsync", "fdatasync"}:
                    yield named[1], named[2]
            elif not re.search(r"= -1 \w+ \(", text):
                yield named[1], named[2]


def _bytes(hexed: str) -> bytes:
    return bytes.fromhex(hexed.replace("\\x", ""))


def operations(log: Path, run_dir: Path) -> Iterator[Op]:
    """Return what the calls did to the run's files, and the PUTs that they began to send."""
    inside = f"{run_dir}/"
    for call, arguments in calls(log):
        words = [_bytes(word).decode("latin-1") for word in re.findall(r'[<"]((?:\\x[0-9a-f]{2})*)[>"]', arguments)]
        if call in {"rename", "renameat", "renameat2"}:
            old, new = (word.removeprefix(inside) for word in words if word.startswith(inside))
            yield Op("rename", old, to=new)
        elif call in {"unlink", "unlinkat"}:
            yield from (Op("unlink", word.removeprefix(inside)) for word in words if word.startswith(inside))
        elif call == "openat":
            yield from _opened(words[-2:], arguments, inside)
        elif words and (words[0] == str(run_dir) or words[0].startswith(inside)):
            yield from _changed(call, words[0].removeprefix(inside) if words[0] != str(run_dir) else "", arguments)
        elif call in {"write", "writev", "sendto", "sendmsg"} and words[0].startswith("socket:"):
            yield from (Op("send", "", text.encode("latin-1")) for text in words[1:])


def _opened(words: Sequence[str], arguments: str, inside: str) -> Iterator[Op]:
    path = next((word for word in words if word.startswith(inside)), None)
    if path is None:
        return
    if "O_CREAT" in arguments:
        yield Op("create", path.removeprefix(inside))
    if "O_TRUNC" in arguments:
        yield Op("truncate", path.removeprefix(inside), size=0)


def _changed(call: str, name: str, arguments: str) -> Iterator[Op]:
    if call in {"fsync", "fdatasync"}:
        yield Op("sync", name)
    elif call == "ftruncate":
        size = re.search(r", (\d+)", arguments)
        assert size is not None, arguments
        yield Op("truncate", name, size=int(size[1]))
    elif call in {"write", "pwrite64"}:
        found = re.search(r'"([^"]*)", \d+(?:, (\d+))?', arguments)
        assert found is not None, arguments[:200]
        yield Op("write", name, _bytes(found[1]), int(found[2]) if found[2] else None)


# -- the disk ---------------------------------------------------------------------------------------------------------------


@dataclass
class Disk:
    """What is durable, what is not yet, and what the server and the user have received."""

    names: dict[str, int] = field(default_factory=dict)  # durable
    seen: dict[str, int] = field(default_factory=dict)  # as processes see them
    renames: list[Renamed] = field(default_factory=list)
    durable: dict[int, bytes] = field(default_factory=dict)
    unsynced: dict[int, list[Unsynced]] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)  # job uuids, in order
    shown: list[tuple[str, str]] = field(default_factory=list)  # (uuid, status) of lines in results.jsonl

    def apply(self, op: Op) -> None:
        getattr(self, f"_{op.kind}")(op)

    def moment(self) -> Moment:
        files = {file: (self.durable[file], tuple(self.unsynced[file])) for file in self.durable}
        return Moment(dict(self.names), tuple(self.renames), files, len(self.sent), len(self.shown))

    def _create(self, op: Op) -> None:
        if op.name not in self.seen:
            file = len(self.durable)
            self.durable[file], self.unsynced[file], self.sizes[file] = b"", [], 0
            self.seen[op.name] = file
            self.renames.append(Renamed(op.name, file))

    def _write(self, op: Op) -> None:
        file = self.seen.get(op.name)
        if file is None or op.name.endswith("-shm"):
            return
        at = self.sizes[file] if op.at is None else op.at
        self.unsynced[file].append(Unsynced(at, op.data))
        self.sizes[file] = max(self.sizes[file], at + len(op.data))
        if "results.jsonl" in op.name:
            lines = [json.loads(line) for line in op.data.splitlines(keepends=True) if line.endswith(b"\n")]
            self.shown += [(line["uuid"], line["status"]) for line in lines]

    def _truncate(self, op: Op) -> None:
        file = self.seen[op.name]
        if self.sizes[file] != op.size:
            self.unsynced[file].append(Unsynced(op.size, None))
            self.sizes[file] = op.size

    def _sync(self, op: Op) -> None:
        if not op.name:
            self.names = dict(self.seen)
            self.renames.clear()
        elif (file := self.seen.get(op.name)) is not None:
            self.durable[file] = written(self.durable[file], self.unsynced[file])
            self.unsynced[file] = []

    def _rename(self, op: Op) -> None:
        file = self.seen.pop(op.name)
        self.seen[op.to] = file
        self.renames.append(Renamed(op.to, file, left=op.name))

    def _unlink(self, op: Op) -> None:
        if self.seen.pop(op.name, None) is not None:
            self.renames.append(Renamed(op.name, None))

    def _send(self, op: Op) -> None:
        if op.data.startswith(b"PUT ") and (job := re.search(rb"(?i)x-job-uuid: *([0-9a-f]{32})", op.data)):
            self.sent.append(job[1].decode())


def written(durable: bytes, changes: Iterable[Unsynced]) -> bytes:
    """Return the bytes after the changes. A hole reads as zeros."""
    content = bytearray(durable)
    for change in changes:
        if change.data is None:
            content = content[: change.at].ljust(change.at, b"\0")
        else:
            if len(content) < change.at:
                content.extend(bytes(change.at - len(content)))
            content[change.at : change.at + len(change.data)] = change.data
    return bytes(content)


def history(log: Path, run_dir: Path) -> tuple[list[Moment], Disk]:
    """Return the moment after each call, and the disk at the end with everything sent and shown."""
    disk, moments = Disk(), []
    for op in operations(log, run_dir):
        disk.apply(op)
        moments.append(disk.moment())
    return moments, disk


# -- the crash --------------------------------------------------------------------------------------------------------------


def crash(moment: Moment, rng: random.Random | None, *, keep: bool = False) -> dict[str, bytes]:
    """Return what a power loss leaves: by chance, or without `rng` all or nothing of what was not synced."""
    style = rng.choice((0.2, 0.5, 0.8, 0.95)) if rng else 0.0
    names = dict(moment.names)
    for change in moment.renames:
        if rng.random() < max(style, 0.5) if rng else keep:
            names.pop(change.left, None)
            if change.file is None:
                names.pop(change.name, None)
            else:
                names[change.name] = change.file
    left = {}
    for name, file in names.items():
        durable, unsynced = moment.files[file]
        kept = _by_chance(unsynced, style, rng) if rng else (unsynced if keep else ())
        left[name] = written(durable, kept)
    return left


def _by_chance(unsynced: Sequence[Unsynced], style: float, rng: random.Random) -> Iterator[Unsynced]:
    """Keep, lose or tear each change, independently of the others."""
    for change in unsynced:
        if rng.random() < style:
            yield change
        elif change.data and rng.random() < 0.5:
            sector = rng.choice(SECTORS)
            begin = rng.choice((0, 0, rng.randrange(0, len(change.data), sector)))
            end = min(len(change.data), begin + sector * rng.randint(1, 1 + len(change.data) // sector))
            yield Unsynced(change.at + begin, change.data[begin:end])


def ledger_hash(left: dict[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name in LEDGER:
        if name in left:
            digest.update(f"{name} {len(left[name])} ".encode() + left[name])
    return digest.hexdigest()


def states(
    moments: Sequence[Moment], wanted: int, rng: random.Random
) -> Iterator[tuple[str, Moment, dict[str, bytes]]]:
    """Return so many crash states with distinct ledgers, or all that are found, with everything sent until then."""
    known: set[tuple[str, int, int]] = set()
    distinct: set[str] = set()
    idle = number = 0
    while len(distinct) < wanted and idle < IDLE_ROUNDS:
        before = len(distinct)
        for moment in moments:
            left = crash(moment, rng if number > 1 else None, keep=number == 1)
            name = ledger_hash(left)
            if (name, moment.sent, moment.shown) not in known:
                known.add((name, moment.sent, moment.shown))
                distinct.add(name)
                yield name, moment, left
        idle = idle + 1 if len(distinct) == before else 0
        number += 1


# -- the judgement ----------------------------------------------------------------------------------------------------------


@dataclass
class Judged:
    """Counts over crash states."""

    pairs: int = 0  # of a ledger and a moment
    distinct: set[str] = field(default_factory=set)
    before_first: int = 0  # nothing had been sent, and there was nothing to resume
    bad: int = 0
    problems: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Judged") -> None:
        self.pairs += other.pairs
        self.distinct |= other.distinct
        self.before_first += other.before_first
        self.bad += other.bad
        self.problems += other.problems


def judge(ledger: Path, sent: Sequence[str], shown: Sequence[tuple[str, str]], rows: int) -> tuple[list[str], bool]:
    """Return what is wrong with a ledger, and whether it can be resumed."""
    try:
        with closing(sqlite3.connect(f"file:{ledger}?mode=rw", uri=True, isolation_level=None)) as db:
            state = dict(db.execute("SELECT key, value FROM meta")).get("state", "null")
            if json.loads(state) in UNSEEN_STATES:
                return (["sent, and the run's state says that it is not"] if sent else []), False
            return _wrong(db, sent, shown, rows), True
    except sqlite3.Error as error:
        return ([f"sent, and the ledger cannot be read: {error}"] if sent else []), False


def _wrong(db: sqlite3.Connection, sent: Sequence[str], shown: Sequence[tuple[str, str]], rows: int) -> list[str]:
    wrong = []
    if (word := db.execute("PRAGMA integrity_check").fetchone()[0]) != "ok":
        wrong.append(f"integrity_check: {word}")
    if lost := set(sent) - {job for (job,) in db.execute("SELECT job_uuid FROM attempt")}:
        wrong.append(f"sent but unknown: {len(lost)}")
    query = "SELECT lower(hex(uuid)), status FROM outcome JOIN row USING (ordinal)"
    if lost_outcomes := set(shown) - set(db.execute(query)):
        wrong.append(f"acknowledged outcomes lost: {len(lost_outcomes)}")
    if (there := db.execute("SELECT count(*) FROM row").fetchone()[0]) != rows:
        wrong.append(f"{there} rows of {rows}")
    return wrong


def put_down(left: dict[str, bytes], directory: Path, names: Iterable[str] | None = None) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for name in left if names is None else names:
        if name in left:
            (directory / name).write_bytes(left[name])


def _share(given: tuple[Path, Path, int, int, int]) -> Judged:
    """Judge one process's share of the moments."""
    log, run_dir, number, wanted, seed = given
    moments, end = history(log, run_dir)
    found = Judged()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as place:
        directory = Path(place) / "state"
        mine = moments[number::PROCESSES]
        for name, moment, left in states(mine, wanted, random.Random(f"{seed} {number}")):
            put_down(left, directory, LEDGER)
            wrong, usable = judge(directory / "run.db", end.sent[: moment.sent], end.shown[: moment.shown], ROWS)
            found.pairs += 1
            found.distinct.add(name)
            found.before_first += not usable and not wrong
            found.bad += bool(wrong)
            found.problems.update(wrong)
    return found


# -- resumed for real -------------------------------------------------------------------------------------------------------


def resume_one(trial: Trial, place: Path, moment: Moment, left: dict[str, bytes], end: Disk) -> str:
    """Resume a crash state. Returns what is wrong with the result, or ""."""
    run_dir = place / "runs" / "20200101-000000.000-aaaa"
    put_down(left, run_dir)
    before = len(trial.log)
    sent = Counter(end.sent[: moment.sent])
    tool = Tool(place, trial.server.environment)
    ran = tool.warm_run("resume", "last", "--rate", "unlimited", "--runs-dir", str(tool.runs_dir))
    if ran.traceback or (ran.code and not ran.sentence):
        return f"exit {ran.code}: {last_line(ran)}"
    if ran.code in {2, 7, 8}:
        return f"refused, and {sent.total()} PUTs had been sent: {last_line(ran)}" if sent else ""
    with closing(sqlite3.connect(run_dir / "run.db")) as db:
        known = {job for (job,) in db.execute("SELECT job_uuid FROM attempt")}
    whole = trial.log
    log = list(_happened(whole[:before], Counter({**Counter(known), **sent}))) + whole[before:]
    found = check(trial.manifest, run_dir, log, trial.server.table())
    return "" if found.ok and ran.code in {0, 1} else f"exit {ran.code}: {'; '.join(found.problems[:3])}"


def _happened(log: Iterable[dict[str, Any]], sent: Counter[str]) -> Iterator[dict[str, Any]]:
    """Return the recorded run's log as it would be for the shortened history: for each job, the PUTs sent until then.

    A job that the ledger knows counts as sent once: the server executed it at any moment of the power loss.
    """
    left = sent.copy()
    for line in log:
        if line["kind"] != "request" or not line["path"].endswith("/actions"):
            yield line
        elif left[line["job"]] > 0:
            left[line["job"]] -= 1
            yield line


def resume_some(trial: Trial, moments: Sequence[Moment], end: Disk, count: int, seed: int) -> list[str]:
    rng = random.Random(f"resume {seed}")
    wrong = []
    for number in range(count):
        moment = rng.choice(moments)
        left = crash(moment, rng)
        if trouble := resume_one(trial, trial.place / f"state-{number}", moment, left, end):
            wrong.append(trouble)
    return wrong


def power_loss(place: Path, states: int, seed: int) -> list[Record]:
    """T5 of one recorded run: so many crash states with distinct ledgers are judged, and some of them are resumed."""
    begun = time.monotonic()
    with witness(place, images=ROWS, dialect="zstack", service_ms=20, workers=4) as server:
        trial = Ground(place, server, rows=ROWS).trial()
        log, run_dir = record(trial)
        moments, end = history(log, run_dir)
        found = Judged()
        wanted = states * 6 // 5 // PROCESSES  # both find some of them
        shares = [(log, run_dir, n, wanted, seed) for n in range(PROCESSES)]
        with multiprocessing.get_context("fork").Pool(PROCESSES) as pool:
            for part in pool.map(_share, shares, chunksize=1):
                found.add(part)
            pool.close()
            pool.join()
        judged = time.monotonic()
        resumed_count = min(RESUMED, max(10, states // 20))
        wrong = resume_some(trial, moments, end, resumed_count, seed)
    notes = f"{len(moments)} calls, {len(end.sent)} PUTs, {found.pairs} judgements, {found.before_first} before the first PUT"
    notes += "".join(f"; {times} × {problem}" for problem, times in found.problems.most_common(5))
    resumed = "; ".join(wrong[:5])
    return [
        Record(
            "T5", "power loss, ledgers judged", len(found.distinct), found.bad, "crash states", notes, judged - begun
        ),
        Record(
            "T5", "power loss, resumed", resumed_count, len(wrong), "crash states", resumed, time.monotonic() - judged
        ),
    ]
