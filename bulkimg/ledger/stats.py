"""Read statistics from the ledger: the state of every row, counts by status and cause, the problems."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bulkimg.ledger.store import Ledger
from bulkimg.model import Fields, Outcome, Problem, Status


@dataclass(frozen=True, slots=True)
class RowText:
    """A row with its state and texts as they are now."""

    outcome: Outcome
    fields: Fields
    expects: Fields
    cells: list[str] | None


def row_texts(ledger: Ledger, *statuses: Status) -> Iterator[RowText]:
    """Yield every row in manifest order, or those with one of the statuses."""
    where = f"WHERE status IN ({','.join('?' * len(statuses))})" if statuses else ""
    yield from _said(ledger, where, [str(status) for status in statuses])


def row_texts_of(ledger: Ledger, uuid: str) -> Iterator[RowText]:
    """Return the rows of one image."""
    place = "WHERE ordinal IN (SELECT ordinal FROM row WHERE row.uuid = ?)"
    yield from _said(ledger, place, [bytes.fromhex(uuid)])


def _said(ledger: Ledger, where: str, values: Sequence[Any]) -> Iterator[RowText]:
    query = f"SELECT * FROM row_text {where} ORDER BY ordinal"  # noqa: S608 - constant texts and question marks
    cursor = ledger.db.execute(query, values)
    names = [column[0] for column in cursor.description]
    for row in cursor:
        yield _fate(dict(zip(names, row, strict=True)))


def _fate(row: dict[str, Any]) -> RowText:
    outcome = Outcome(
        **{name: row[name] for name in _AS_THEY_ARE},
        status=Status(row["status"]),
        changed=tuple(row["changed"].split(",")) if row["changed"] else (),
        before=json.loads(row["before"]) if row["before"] else None,
        after=json.loads(row["after"]) if row["after"] else None,
    )
    cells = json.loads(row["cells"]) if row["cells"] else None
    return RowText(outcome, json.loads(row["fields"]), json.loads(row["expects"] or "{}"), cells)


_AS_THEY_ARE = tuple(name for name in Outcome._fields if name not in {"status", "changed", "before", "after"})


def problems(ledger: Ledger, limit: int = -1) -> Iterator[Problem]:
    """Return all problems in the order of their lines, or the first `limit`."""
    query = "SELECT line, column, value, code, message, fix, fatal, cell FROM problem ORDER BY line, rowid LIMIT ?"
    for line, column, value, code, message, fix, fatal, cell in ledger.db.execute(query, (limit,)):
        yield Problem(line, column, value, code, message, fix, bool(fatal), cell)


def warnings(ledger: Ledger, limit: int = -1) -> Iterator[Problem]:
    """Return all warnings in the order of their lines, or the first `limit`."""
    query = "SELECT line, column, value, code, message, fix, cell FROM warning ORDER BY line, rowid LIMIT ?"
    for line, column, value, code, message, fix, cell in ledger.db.execute(query, (limit,)):
        yield Problem(line, column, value, code, message, fix, cell=cell)


def warning_count(ledger: Ledger) -> int:
    """Return the number of the manifest's warnings."""
    found: int = ledger.db.execute("SELECT count(*) FROM warning").fetchone()[0]
    return found


def problem_counts(ledger: Ledger) -> tuple[int, int, int]:
    """Return (problems, rows with problems, problems that --skip-invalid cannot skip)."""
    return (
        ledger.db.execute("SELECT count(*) FROM problem").fetchone()[0],
        ledger.db.execute("SELECT count(*) FROM row WHERE problems").fetchone()[0],
        ledger.db.execute("SELECT count(*) FROM problem WHERE fatal").fetchone()[0],
    )


def problem_of_the_whole(ledger: Ledger) -> str:
    """Return the first problem that refuses the manifest as a whole, with its fix, or ""."""
    found = next((problem for problem in problems(ledger) if problem.fatal), None)
    return f"{found.text}; {found.fix}" if found else ""


def rows_in_all(ledger: Ledger) -> int:
    """Return the number of rows of the manifest."""
    found: int = ledger.db.execute("SELECT count(*) FROM row").fetchone()[0]
    return found


def rows_to_do(ledger: Ledger) -> int:
    """Return the number of rows without an outcome, merged rows included."""
    query = """SELECT count(*) FROM row LEFT JOIN outcome ON outcome.ordinal = coalesce(row.leader, row.ordinal)
    WHERE row.problems = 0 AND outcome.ordinal IS NULL"""
    found: int = ledger.db.execute(query).fetchone()[0]
    return found


def images_to_do(ledger: Ledger) -> int:
    """Return the number of images of the rows without an outcome. Merged rows count as one."""
    query = """SELECT count(*) FROM row LEFT JOIN outcome USING (ordinal)
    WHERE row.leader IS NULL AND row.problems = 0 AND outcome.ordinal IS NULL"""
    found: int = ledger.db.execute(query).fetchone()[0]
    return found


def counts(ledger: Ledger) -> dict[str, int]:
    """Return the number of rows by status, with all eight statuses. The sum is the rows of the manifest."""
    found = dict(ledger.db.execute("SELECT status, count(*) FROM row_state GROUP BY status"))
    return {status.value: found.get(status.value, 0) for status in Status}


def settled_counts(ledger: Ledger) -> dict[str, int]:
    """Return the number of rows with an outcome by status, with all eight statuses. Refused rows are `invalid`."""
    query = """SELECT status, sum(rows) FROM (
        SELECT status, count(*) AS rows FROM outcome GROUP BY status
        UNION ALL SELECT status, count(*) FROM row JOIN outcome ON outcome.ordinal = row.leader
          WHERE row.leader IS NOT NULL AND NOT row.problems GROUP BY status
        UNION ALL SELECT 'invalid', count(*) FROM row WHERE problems)
      GROUP BY status"""
    found = dict(ledger.db.execute(query))
    return {status.value: found.get(status.value, 0) for status in Status}


def in_flight(ledger: Ledger) -> int:
    """Return the number of rows whose last attempt is open: sent, or about to be sent."""
    query = """SELECT count(DISTINCT attempt.ordinal) FROM attempt LEFT JOIN outcome USING (ordinal)
    WHERE attempt.fate IS NULL AND outcome.ordinal IS NULL"""
    found: int = ledger.db.execute(query).fetchone()[0]
    return found


def puts_made(ledger: Ledger) -> int:
    """Return the number of attempts that may have sent bytes."""
    query = "SELECT count(*) FROM attempt WHERE coalesce(fate, '') <> 'unsent'"
    found: int = ledger.db.execute(query).fetchone()[0]
    return found


def recent_pace(ledger: Ledger) -> tuple[int, float]:
    """Return (rows settled by sending, rows a second in the last 60 s before the last of them)."""
    settled, last = ledger.db.execute(
        "SELECT count(*), max(started_at) / 1000.0 FROM outcome WHERE started_at IS NOT NULL"
    ).fetchone()
    if not settled:
        return 0, 0.0
    query = "SELECT count(*), min(started_at) / 1000.0 FROM outcome WHERE started_at > 1000 * ?"
    recent, first = ledger.db.execute(query, (last - 60,)).fetchone()
    return settled, round(recent / max(last - first, 0.001), 1) if recent > 1 else 0.0
