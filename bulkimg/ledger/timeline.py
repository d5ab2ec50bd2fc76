"""Remember what went on in every second of a run, and what happened to it, so that it can be drawn later.

Nothing is decided from these records. Seconds older than two to three hours are merged into minutes: a run of ten
million rows keeps a few thousand records.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bulkimg.ledger.store import Ledger
from bulkimg.model import RunEvent, Sample

KEPT = 3 * 3600  # most seconds that are kept as seconds
MERGED = 3600  # oldest seconds that are merged at a time
MINUTE = 60
MOST_EVENTS = 5000  # a server that fails and recovers for weeks adds no more than these


def add(ledger: Ledger, samples: Sequence[Sample], events: Sequence[RunEvent] = ()) -> None:
    """Add samples and events, in a transaction of the caller or their own."""
    if not ledger.db.in_transaction:
        with ledger.transaction():
            add(ledger, samples, events)
        return
    _insert(ledger, samples)
    room = MOST_EVENTS - ledger.db.execute("SELECT count(*) FROM event").fetchone()[0] if events else 0
    for event in events[: max(0, room)]:
        ledger.db.execute("INSERT INTO event VALUES (?, ?, ?)", event)
        ledger.toggle("event", *event)
    if samples:
        _merge_old(ledger)


def samples(ledger: Ledger) -> Iterable[Sample]:
    """Yield the samples in order."""
    for record in ledger.db.execute("SELECT * FROM sample ORDER BY at"):
        yield _sample(record)


def newest(ledger: Ledger, limit: int) -> list[Sample]:
    """Return the newest samples in order."""
    found = ledger.db.execute("SELECT * FROM sample ORDER BY rowid DESC LIMIT ?", (limit,)).fetchall()
    return sorted(map(_sample, found), key=lambda sample: sample.at)


def newest_events(ledger: Ledger, limit: int) -> list[RunEvent]:
    """Return the newest events in order."""
    found = ledger.db.execute("SELECT at, kind, text FROM event ORDER BY rowid DESC LIMIT ?", (limit,)).fetchall()
    return [RunEvent(*record) for record in reversed(found)]


def events(ledger: Ledger) -> list[RunEvent]:
    """Return the events in order."""
    return [RunEvent(*record) for record in ledger.db.execute("SELECT at, kind, text FROM event ORDER BY at, rowid")]


def last_sign_of_life(ledger: Ledger) -> float:
    """Return when the run last wrote something with a time, in seconds since the epoch; 0 if it never did."""
    query = """SELECT max(at) FROM (SELECT max(at + seconds) AS at FROM sample UNION ALL SELECT max(at) FROM event
    UNION ALL SELECT max(claimed_at) FROM attempt)"""
    return float(ledger.db.execute(query).fetchone()[0] or 0.0)


def _insert(ledger: Ledger, samples: Sequence[Sample]) -> None:
    for sample in samples:
        record = _record(sample)
        ledger.db.execute("INSERT INTO sample VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", record)
        ledger.toggle("sample", *record)


def _record(sample: Sample) -> tuple[Any, ...]:
    return (
        sample.at, sample.seconds, _json(sample.requests), _json(sample.outcomes), _json(sample.latency),
        sample.in_flight, sample.concurrency, sample.rate, sample.waiting,
    )  # fmt: skip


def _json(counts: Mapping[Any, int]) -> str:
    return json.dumps({str(key): number for key, number in counts.items() if number}, separators=(",", ":"))


def _sample(record: Sequence[Any]) -> Sample:
    at, seconds, requests, outcomes, latency, *rest = record
    buckets = {int(bucket): number for bucket, number in json.loads(latency).items()}
    return Sample(at, seconds, json.loads(requests), json.loads(outcomes), buckets, *rest)


def _merge_old(ledger: Ledger) -> None:
    """Merge the oldest seconds into minutes when there are too many."""
    (kept,) = ledger.db.execute("SELECT count(*) FROM sample WHERE seconds = 1").fetchone()
    if kept <= KEPT:
        return
    query = "SELECT * FROM sample WHERE seconds = 1 ORDER BY rowid LIMIT ?"
    records = ledger.db.execute(query, (MERGED,)).fetchall()
    for record in records:
        ledger.toggle("sample", *record)
    ledger.db.execute(
        "DELETE FROM sample WHERE rowid IN (SELECT rowid FROM sample WHERE seconds = 1 ORDER BY rowid LIMIT ?)",
        (MERGED,),
    )
    minutes: dict[float, list[Sample]] = {}
    for sample in map(_sample, records):
        minutes.setdefault(sample.at // MINUTE * MINUTE, []).append(sample)
    _insert(ledger, [merged(at, MINUTE, parts) for at, parts in minutes.items()])


def merged(at: float, seconds: int, parts: Sequence[Sample]) -> Sample:
    """Return one sample for several: sums of counts, and the largest or latest of the other values."""
    last = parts[-1]
    return Sample(
        at,
        seconds,
        _sum(part.requests for part in parts),
        _sum(part.outcomes for part in parts),
        _sum(part.latency for part in parts),
        max(part.in_flight for part in parts),
        max(part.concurrency for part in parts),
        last.rate,
        last.waiting,
    )


def _sum(counts: Iterable[Mapping[Any, int]]) -> Mapping[Any, int]:
    total: Counter[Any] = Counter()
    for one in counts:
        total.update(one)
    return total
