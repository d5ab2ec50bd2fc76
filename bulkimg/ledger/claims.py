"""Write what sending adds to the ledger: claims before any byte is sent, the ends of attempts, outcomes.

Many rows go to and from SQLite as one JSON text. Each return from SQLite waits for Python's lock, which the event loop
holds most of the time: one statement for each row was three times slower.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from pydantic_core import from_json, to_json

from bulkimg.ledger import checksums
from bulkimg.ledger.store import Ledger, Prepared
from bulkimg.model import Claim, Outcome

# A row without an outcome is to be sent. Its last attempt, if there is one, says how to continue.
_NEXT = """
SELECT json_group_array(json_array(ordinal, line, uuid, fields, n, job_uuid, fate, doubtful, json(before), name)) FROM (
  SELECT row.ordinal, row.line, lower(hex(row.uuid)) AS uuid, coalesce(plan.send, row.fields) AS fields, plan.before,
    coalesce(plan.before ->> '$.name', plan.aside ->> '$.name') AS name,
    attempt.n, attempt.job_uuid, attempt.fate,
    EXISTS (SELECT 1 FROM attempt AS any WHERE any.ordinal = row.ordinal AND coalesce(any.fate, 'unclear') = 'unclear') AS doubtful
  FROM row
  LEFT JOIN outcome ON outcome.ordinal = row.ordinal
  LEFT JOIN plan ON plan.ordinal = row.ordinal
  LEFT JOIN attempt ON attempt.ordinal = row.ordinal
    AND attempt.n = (SELECT max(n) FROM attempt AS last WHERE last.ordinal = row.ordinal)
  WHERE row.ordinal > ? AND row.leader IS NULL AND row.problems = 0 AND outcome.ordinal IS NULL {only}
  ORDER BY row.ordinal LIMIT ?)
"""
_ONLY = "AND row.ordinal IN (SELECT value FROM json_each(?))"
_ATTEMPTS = """
INSERT INTO attempt (ordinal, n, job_uuid, claimed_at)
SELECT value ->> 0, value ->> 1, value ->> 2, ? FROM json_each(?)
"""


def claim(
    ledger: Ledger, after: int, limit: int, new_job: Callable[[], str], now: float, only: Sequence[int] | None = None
) -> list[Claim]:
    """Claim the next rows in manifest order after the ordinal `after`: write an attempt for each. Needs a transaction.

    `only` limits the rows to these ordinals.
    """
    claims = []
    values: tuple[Any, ...]
    query, values = _NEXT.format(only=""), (after, limit)
    if only is not None:
        query, values = _NEXT.format(only=_ONLY), (after, to_json(only).decode(), limit)
    found = from_json(ledger.db.execute(query, values).fetchone()[0])
    for ordinal, line, uuid, text, n, job, fate, doubtful, before, name in found:
        row = Claim(ordinal, line, uuid, from_json(text), n or 0, job or "", before=before, text=text, name=name or "")
        if n is not None and fate in (None, "unclear"):
            claims.append(row._replace(interrupted=True, doubtful=True))
        else:
            claims.append(row._replace(attempt=row.attempt + 1, job_uuid=new_job(), doubtful=bool(doubtful)))
    add_attempts(ledger, [item for item in claims if not item.interrupted], now)
    return claims


def add_attempts(ledger: Ledger, items: Sequence[Claim], now: float) -> None:
    """Write one more attempt for each claim."""
    if items:
        records = [(item.ordinal, item.attempt, item.job_uuid) for item in items]
        ledger.db.execute(_ATTEMPTS, (now, to_json(records).decode()))
        for record in records:
            ledger.toggle("opened", *record)


def close_attempt(ledger: Ledger, item: Claim, fate: str, code: str, http_status: int | None) -> None:
    """Record how an attempt ended that did not settle its row: unsent, refused or unclear.

    An attempt that an earlier process left unclear may be closed again after the server was asked about it.
    """
    before = ledger.db.execute(
        "SELECT fate, code, http_status FROM attempt WHERE ordinal = ? AND n = ? AND fate IS NOT NULL",
        (item.ordinal, item.attempt),
    ).fetchone()
    if before:
        ledger.toggle("closed", item.ordinal, item.attempt, *before)
    ledger.db.execute(
        "UPDATE attempt SET fate = ?, code = ?, http_status = ? WHERE ordinal = ? AND n = ?",
        (fate, code, http_status, item.ordinal, item.attempt),
    )
    ledger.toggle("closed", item.ordinal, item.attempt, fate, code, http_status)


def release(ledger: Ledger, items: Sequence[Claim]) -> None:
    """Delete claims that sent no byte."""
    for item in items:
        taken_back = ledger.db.execute(
            "DELETE FROM attempt WHERE ordinal = ? AND n = ? AND fate IS NULL", (item.ordinal, item.attempt)
        )
        if taken_back.rowcount:
            ledger.toggle("opened", item.ordinal, item.attempt, item.job_uuid)


def settle(ledger: Ledger, outcomes: Sequence[Outcome]) -> None:
    """Write outcomes. A second outcome for a row breaks a constraint and stops the run."""
    if outcomes:
        ledger.insert_outcomes(prepare(outcomes))


def prepare(outcomes: Sequence[Outcome], as_sent: Collection[int] = ()) -> Prepared:
    """Prepare outcomes for `Ledger.insert_outcomes`. It needs no connection, so the event loop can do it.

    `as_sent` are ordinals of `updated` rows whose image shows just the fields that the ledger says were sent: the record
    leaves them out, and the view `row_state` puts them back.
    """
    digest, records = 0, []
    for outcome in outcomes:
        record = _record(outcome, as_sent=outcome.ordinal in as_sent)
        digest ^= checksums.digest("outcome", record)
        records.append(record)
    return Prepared(to_json(records).decode(), digest)


def _record(o: Outcome, *, as_sent: bool) -> tuple[Any, ...]:
    started = None if o.started_at is None else round(o.started_at * 1000)
    return (
        o.ordinal, o.status.value, o.code, o.message, o.hint, o.http_status, o.attempts, started, o.duration_ms,
        None if as_sent else ",".join(o.changed),
        None if o.before is None else to_json(o.before).decode(),
        None if o.after is None or as_sent else to_json(o.after).decode(),
    )  # fmt: skip


def followers(ledger: Ledger, leaders: Sequence[int]) -> dict[int, list[tuple[int, int]]]:
    """Return the (ordinal, line) of the rows that are merged into these leaders, by leader."""
    found: dict[int, list[tuple[int, int]]] = {}
    query = "SELECT leader, ordinal, line FROM row WHERE leader IN (SELECT value FROM json_each(?)) ORDER BY ordinal"
    for leader, ordinal, line in ledger.db.execute(query, (to_json(leaders).decode(),)):
        found.setdefault(leader, []).append((ordinal, line))
    return found
