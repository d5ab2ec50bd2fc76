"""T6: a ledger whose bytes are cut, flipped or exchanged is in a state that it had at some commit, or it is refused.

The ledger is left as kill -9 leaves it: part of it in run.db, the rest in run.db-wal.
"""

import random
import shutil
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bulkimg.errors import RunRefused, StorageError
from bulkimg.ledger import Ledger, claims
from bulkimg.ledger.intake import add_rows, merge_duplicates
from bulkimg.model import Outcome, Row, Status
from tests.battery.report import Record
from tests.battery.shares import in_processes

ROWS = 100
FILES = ("run.db", "run.db-wal")
State = tuple[frozenset[tuple[object, ...]], frozenset[tuple[object, ...]]]


@dataclass(frozen=True)
class Good:
    """A ledger's bytes, and every state that it had, by what resuming reads."""

    files: dict[str, bytes]
    history: frozenset[State]
    header: frozenset[tuple[object, ...]]


@dataclass
class Found:
    """The result of opening a damaged ledger."""

    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def state_of(db: sqlite3.Connection) -> State:
    attempts = db.execute("SELECT ordinal, n, job_uuid, fate, code, http_status FROM attempt").fetchall()
    return frozenset(attempts), frozenset(db.execute("SELECT * FROM outcome").fetchall())


def rows_of(db: sqlite3.Connection) -> frozenset[tuple[object, ...]]:
    header = db.execute("SELECT key, value FROM meta WHERE key <> 'state'").fetchall()
    return frozenset([*header, *db.execute("SELECT * FROM row").fetchall()])


def make(place: Path, seed: int) -> Good:
    """Run 100 rows and kill the process in the middle."""
    rng = random.Random(seed)
    ledger = Ledger.create(place / "run.db")
    rows = [Row(n + 2, f"{n:032x}", {"name": f"näme-{n}", "virtio": True}, {}, (f"{n:032x}", "x")) for n in range(ROWS)]
    add_rows(ledger, 1, rows)
    ledger.set_meta(
        settings={"endpoint": "http://node:8080"}, manifest="m.csv", run_id=str(seed), merged=merge_duplicates(ledger)
    )
    ledger.keep_checksums()
    ledger.set_meta(state="running")
    ledger.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    history = {state_of(ledger.db)}
    cursor = 0
    while cursor < 80:
        with ledger.transaction():
            found = claims.claim(ledger, cursor, 8, lambda: f"{rng.getrandbits(128):032x}", 1.0)
        history.add(state_of(ledger.db))
        cursor = found[-1].ordinal
        with ledger.transaction():
            for item in found:
                if (fate := rng.random()) < 0.1:
                    claims.close_attempt(ledger, item, "unclear", "TIMEOUT", None)
                elif fate < 0.9:
                    status = rng.choice((Status.UPDATED, Status.FAILED))
                    claims.settle(
                        ledger, [Outcome(item.ordinal, item.line, item.uuid, status, "C", "text", "h", 200, 1)]
                    )
        history.add(state_of(ledger.db))
        if rng.random() < 0.2:
            ledger.db.execute("PRAGMA wal_checkpoint(PASSIVE)")
    files = {name: (place / name).read_bytes() for name in FILES}
    good = Good(files, frozenset(history), rows_of(ledger.db))
    ledger.close()
    return good


def look(place: Path, good: Good, files: dict[str, bytes]) -> str:
    """Return `as it was`, `an earlier state`, `refused`, or what is silently wrong."""
    for path in place.iterdir():
        path.unlink()
    for name, data in files.items():
        (place / name).write_bytes(data)
        (place / name).chmod(0o600)
    try:
        ledger = Ledger.open(place / "run.db")
        try:
            ledger.verify()
            state, rows = state_of(ledger.db), rows_of(ledger.db)
        finally:
            ledger.close()
    except (StorageError, RunRefused):
        return "refused"
    except Exception as error:  # a traceback is no refusal
        return f"{type(error).__name__}: {error}"
    if rows != good.header:
        return "other rows"
    return "recovered" if state in good.history else "a state that never was"


def cuts(good: Good) -> Iterator[tuple[str, dict[str, bytes]]]:
    for name in FILES:
        for at in range(len(good.files[name])):
            yield f"{name} cut at {at}", good.files | {name: good.files[name][:at]}


def flips(good: Good, seed: int) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield the ledger with one bit of every byte flipped."""
    rng = random.Random(seed)
    for name in FILES:
        data = good.files[name]
        for at in range(len(data)):
            bit = 1 << rng.randrange(8)
            yield (
                f"{name}, bit {bit} of byte {at}",
                good.files | {name: data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]},
            )


def mixtures(good: Good, other: Good, seed: int) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield ledgers with garbage at the end, with pages doubled and exchanged, and two runs' ledgers joined."""
    rng = random.Random(seed)
    for name in FILES:
        data = good.files[name]
        for length in (1, 100, 4096, 24 + 4096):
            yield f"{name} with {length} bytes behind", good.files | {name: data + rng.randbytes(length)}
        pages = [data[at : at + 4096] for at in range(0, len(data), 4096)]
        for _ in range(300):
            a, b = rng.randrange(len(pages)), rng.randrange(len(pages))
            swapped = pages.copy()
            swapped[a], swapped[b] = pages[b], pages[a]
            if swapped != pages:
                yield f"{name}, pages {a} and {b} swapped", good.files | {name: b"".join(swapped)}
            if pages[a] != pages[b]:
                yield (
                    f"{name}, page {a} in the place of {b}",
                    good.files | {name: b"".join([*pages[:b], pages[a], *pages[b + 1 :]])},
                )
        yield f"{name} of another run", good.files | {name: other.files[name]}
    yield "without run.db-wal", {"run.db": good.files["run.db"]}


def edits(good: Good, seed: int) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield the same change in two records, and values of two records exchanged: no single checksum would notice."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        for number in range(400):
            place = Path(name) / str(number)
            place.mkdir()
            for file, data in good.files.items():
                (place / file).write_bytes(data)
            db = sqlite3.connect(place / "run.db")
            a, b = rng.sample([ordinal for (ordinal,) in db.execute("SELECT ordinal FROM outcome")], 2)
            if number % 2:
                db.execute("UPDATE outcome SET code = code || 'x' WHERE ordinal IN (?, ?)", (a, b))
            else:
                jobs = dict(db.execute("SELECT ordinal, job_uuid FROM attempt WHERE ordinal IN (?, ?)", (a, b)))
                db.executemany("UPDATE attempt SET job_uuid = ? WHERE ordinal = ?", [(jobs[b], a), (jobs[a], b)])
            db.commit()
            db.close()
            yield f"records {a} and {b} edited", {"run.db": (place / "run.db").read_bytes()}


Kind = Callable[[Good, int], Iterator[tuple[str, dict[str, bytes]]]]


def _mixed(good: Good, seed: int) -> Iterator[tuple[str, dict[str, bytes]]]:
    with tempfile.TemporaryDirectory() as place:
        yield from mixtures(good, make(Path(place), seed + 1), seed)


_KINDS: dict[str, Kind] = {"cut": lambda good, _: cuts(good), "flipped": flips, "mixed": _mixed, "edited": edits}
_TESTS = {
    "cut": "a ledger cut at every byte",
    "flipped": "a ledger with one bit of every byte flipped",
    "edited": "two records changed alike, or exchanged",
    "mixed": "garbage behind, pages doubled and swapped, two ledgers glued",
}


def _share(given: tuple[str, int, int, int]) -> Found:
    """Try every `step`-th case beginning with the `first`."""
    kind, seed, first, step = given
    found = Found()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        place = Path(name)
        good = make(place, seed)
        for number, (what, files) in enumerate(_KINDS[kind](good, seed)):
            if number % step == first:
                end = look(place, good, files)
                found.ends[end if end in ("recovered", "refused") else "wrong"] += 1
                if end not in ("recovered", "refused"):
                    found.wrong.append(f"{what}: {end}")
        for path in place.iterdir():
            path.unlink()
    shutil.rmtree(name, ignore_errors=True)
    return found


def damage(sample: int = 1, seed: int = 1, workers: int = 2) -> list[Record]:
    """Try every case, or every `sample`-th."""
    records = []
    for kind, test in _TESTS.items():
        begun = time.monotonic()
        every = 1 if kind in ("mixed", "edited") and sample < 100 else sample  # there are few of these
        shares = [(kind, seed, worker * every, workers * every) for worker in range(workers)]
        found = in_processes(_share, shares, workers)
        ends = sum((one.ends for one in found), Counter())
        wrong = [text for one in found for text in one.wrong]
        notes = f"refused {ends['refused']:,}, an earlier or the same state {ends['recovered']:,}, silently wrong {len(wrong)}"
        notes += f" ({'; '.join(wrong[:3])})" if wrong else ""
        records.append(Record("T6", test, ends.total(), len(wrong), "states", notes, time.monotonic() - begun))
    return records
