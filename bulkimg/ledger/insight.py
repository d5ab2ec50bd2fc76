"""Read from the ledger what a report shows of rows: examples of causes, differences, the slowest rows."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from pydantic_core import from_json

from bulkimg.ledger.rundir import RunDirectory
from bulkimg.ledger.store import Ledger
from bulkimg.model import Seen

EXAMPLES = 3  # rows named for each cause


class CauseRow(NamedTuple):
    """A cause of rows that are not fine, with the first of them as (line, uuid)."""

    status: str
    code: str
    rows: int
    message: str
    hint: str
    examples: list[tuple[int, str]]

    def as_document(self) -> dict[str, Any]:
        """Return the cause as documents show it, with its first line."""
        named = {name: getattr(self, name) for name in ("status", "code", "rows", "message", "hint")}
        return named | {"first_line": self.examples[0][0]}


class Changed(NamedTuple):
    """A row that changed its image. `before` is {} in a run without a survey."""

    line: int
    uuid: str
    name: str
    status: str
    before: Seen
    after: Seen


class TableRow(NamedTuple):
    """A row for a table: its own cells (None for JSONL), what it asks for as JSON, and its state as texts."""

    cells: str | None
    fields: str
    expects: str
    uuid: str
    line: int
    status: str
    shown: Sequence[Any]  # the columns that were asked for


class Slow(NamedTuple):
    """A row with its seconds from its first byte to its outcome."""

    line: int
    uuid: str
    status: str
    attempts: int
    seconds: float


def state(ledger: Ledger, *, held: bool) -> str:
    """Return the state of a run: reading, ready, planned, running, stopped, done or refused.

    `held`: a process executes it. A dead process leaves interrupted (it can be resumed) or abandoned (its manifest was
    not read to the end).
    """
    found = str(ledger.meta("state", "reading"))
    return found if held else {"reading": "abandoned", "running": "interrupted"}.get(found, found)


def kind(ledger: Ledger) -> str:
    """Return run, retry or undo."""
    return "undo" if ledger.meta("undo_of") else "retry" if ledger.meta("retry_of") else "run"


def causes(ledger: Ledger, limit: int = 20, *, settled_only: bool = False) -> list[CauseRow]:
    """Return the causes of rows that are not fine, most frequent first. `settled_only`: only rows with an outcome."""
    only = "AND (settled OR status = 'invalid')" if settled_only else ""
    query = f"""WITH bad AS (
        SELECT status, code, line, uuid, message, hint, count(*) OVER (PARTITION BY status, code) AS rows,
          row_number() OVER (PARTITION BY status, code ORDER BY ordinal) AS n
        FROM row_text WHERE status NOT IN ('updated', 'unchanged') {only})
      SELECT status, code, rows, line, uuid, message, hint FROM bad WHERE n <= ?
      ORDER BY rows DESC, status, code, n LIMIT ?"""  # noqa: S608 - constant texts
    found: list[CauseRow] = []
    for status, code, rows, line, uuid, message, hint in ledger.db.execute(query, (EXAMPLES, limit * EXAMPLES)):
        if not found or (found[-1].status, found[-1].code) != (status, code):
            found.append(CauseRow(status, code or "", rows, message or "", hint or "", []))
        found[-1].examples.append((line, uuid))
    return found[:limit]


def changed(ledger: Ledger, limit: int) -> Iterator[Changed]:
    """Yield the first rows that changed their image, in manifest order."""
    query = """SELECT line, uuid, name, status, coalesce(before, '{}'), coalesce(after, '{}'), changed FROM row_text
      WHERE status IN ('updated', 'drifted') AND changed <> '' ORDER BY ordinal LIMIT ?"""
    for line, uuid, name, status, before, after, fields in ledger.db.execute(query, (limit,)):
        values: dict[str, Any] = from_json(after)
        yield Changed(line, uuid, name, status, from_json(before), {key: values.get(key) for key in fields.split(",")})


def table_rows(ledger: Ledger, columns: Sequence[str]) -> Iterator[TableRow]:
    """Yield every row in manifest order, with these columns of `row_text`."""
    query = f"""SELECT cells, fields, coalesce(expects, '{{}}'), uuid, line, status, {", ".join(columns)}
      FROM row_text ORDER BY ordinal"""  # noqa: S608 - constant texts
    for cells, fields, expects, uuid, line, status, *shown in ledger.db.execute(query):
        yield TableRow(cells, fields, expects, uuid, line, status, shown)


def names_used(ledger: Ledger) -> set[str]:
    """Return the fields that rows set, and `if_` names of the fields that they expect."""
    query = """SELECT DISTINCT key FROM row, json_each(row.fields)
      UNION SELECT DISTINCT 'if_' || key FROM row, json_each(row.expects) WHERE row.expects IS NOT NULL"""
    return {name for (name,) in ledger.db.execute(query)}


def slowest(ledger: Ledger, limit: int) -> list[Slow]:
    """Return the rows that took longest, slowest first."""
    query = """SELECT row.line, lower(hex(row.uuid)), outcome.status, outcome.attempts, outcome.duration_ms / 1000.0
      FROM outcome JOIN row USING (ordinal) WHERE outcome.duration_ms IS NOT NULL
      ORDER BY outcome.duration_ms DESC, outcome.ordinal LIMIT ?"""
    return [Slow(*found) for found in ledger.db.execute(query, (limit,))]


_NEXT = {"interrupted": "resume", "stopped": "resume", "ready": "resume", "planned": "apply"}


def following(ledger: Ledger, directory: RunDirectory) -> str | None:
    """Return the next command of a run that no process executes, as its end named it or would have named it."""
    now = state(ledger, held=False)
    if now in ("ready", "planned", "stopped", "done") and ledger.meta("exit_code") is not None:
        said: str | None = ledger.meta("next")
        return said
    return f"bulkimg {_NEXT[now]} {directory.words}" if now in _NEXT else None
