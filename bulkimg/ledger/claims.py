"""This file writes what sending adds to the ledger: claims before any byte goes out, attempts' fates, outcomes."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from bulkimg.ledger.store import Ledger
from bulkimg.model import Claim, Outcome

# A row is to be sent when nothing has settled it; its last attempt, if any, tells how to go on.
_NEXT = """
SELECT row.ordinal, row.line, row.uuid, row.fields, attempt.n, attempt.job_uuid, attempt.fate
FROM row
LEFT JOIN outcome ON outcome.ordinal = row.ordinal
LEFT JOIN attempt ON attempt.ordinal = row.ordinal
  AND attempt.n = (SELECT max(n) FROM attempt AS last WHERE last.ordinal = row.ordinal)
WHERE row.ordinal > ? AND row.leader IS NULL AND row.problems = 0 AND outcome.ordinal IS NULL
ORDER BY row.ordinal LIMIT ?
"""


def claim(ledger: Ledger, after: int, limit: int, new_job: Callable[[], str], now: float) -> list[Claim]:
    """The next rows in manifest order after the ordinal `after`, each with its attempt written. Within a transaction."""
    claims = []
    attempts = []
    for ordinal, line, uuid, fields, n, job, fate in ledger.db.execute(_NEXT, (after, limit)):
        if n is not None and fate in (None, "unclear"):
            claims.append(Claim(ordinal, line, uuid.hex(), json.loads(fields), n, job.hex(), interrupted=True))
            continue
        fresh = Claim(ordinal, line, uuid.hex(), json.loads(fields), (n or 0) + 1, new_job())
        attempts.append((ordinal, fresh.attempt, bytes.fromhex(fresh.job_uuid), now))
        claims.append(fresh)
    ledger.db.executemany("INSERT INTO attempt (ordinal, n, job_uuid, claimed_at) VALUES (?, ?, ?, ?)", attempts)
    return claims


def close_attempt(ledger: Ledger, item: Claim, fate: str, code: str, http_status: int | None) -> None:
    """What became of an attempt that did not settle its row: unsent, refused or unclear."""
    ledger.db.execute(
        "UPDATE attempt SET fate = ?, code = ?, http_status = ? WHERE ordinal = ? AND n = ?",
        (fate, code, http_status, item.ordinal, item.attempt),
    )


def next_attempt(ledger: Ledger, item: Claim, now: float) -> None:
    """The claim of one more attempt at a row."""
    ledger.db.execute(
        "INSERT INTO attempt (ordinal, n, job_uuid, claimed_at) VALUES (?, ?, ?, ?)",
        (item.ordinal, item.attempt, bytes.fromhex(item.job_uuid), now),
    )


def release(ledger: Ledger, items: Sequence[Claim]) -> None:
    """Take back claims of which no byte was sent."""
    ledger.db.executemany(
        "DELETE FROM attempt WHERE ordinal = ? AND n = ? AND fate IS NULL",
        [(item.ordinal, item.attempt) for item in items],
    )


def settle(ledger: Ledger, outcomes: Sequence[Outcome]) -> None:
    """Write outcomes, once and for all: a second outcome for a row breaks a constraint and stops the run."""
    ledger.db.executemany("INSERT INTO outcome VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", map(_record, outcomes))


def _record(o: Outcome) -> tuple[Any, ...]:
    return (
        o.ordinal,
        o.status.value,
        o.code,
        o.message,
        o.hint,
        o.http_status,
        o.attempts,
        o.started_at,
        o.duration_ms,
        ",".join(o.changed),
        json.dumps(o.before) if o.before is not None else None,
        json.dumps(o.after) if o.after is not None else None,
    )


def followers(ledger: Ledger, leader: int) -> list[tuple[int, int]]:
    """(ordinal, line) of the rows that the leader's PUT carries too."""
    return ledger.db.execute("SELECT ordinal, line FROM row WHERE leader = ? ORDER BY ordinal", (leader,)).fetchall()
