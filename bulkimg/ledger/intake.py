"""Load a manifest's rows into the ledger, and merge the rows that name the same image."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import chain
from sqlite3 import Connection
from typing import Any

from pydantic_core import to_json

from bulkimg.ledger.store import Ledger
from bulkimg.model import Fields, Problem, Row, SoundRow, as_stored

BATCH = 5000  # rows
BATCH_SIZE = 4 << 20  # characters of their cells: long rows must not make a batch too large for memory
TOGETHER = 25  # rows a statement
_INSERT = "INSERT INTO row (ordinal, line, uuid, fields, expects, cells, problems) VALUES (?, ?, ?, ?, ?, ?, ?)"
_INSERT_MANY = _INSERT + ", (?, ?, ?, ?, ?, ?, ?)" * (TOGETHER - 1)


def batches(rows: Iterable[Row | SoundRow]) -> Iterator[list[Row | SoundRow]]:
    """Yield the rows in order, in lists of bounded length and size."""
    batch: list[Row | SoundRow] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += 100 + 2 * len(row[4]) if isinstance(row, tuple) else _size(row)
        if len(batch) >= BATCH or size >= BATCH_SIZE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _size(row: Row) -> int:
    size = 100 + sum(map(len, row.cells)) + sum(len(str(value)) for value in row.fields.values())
    return size + sum(len(problem.value) + len(problem.message) for problem in row.problems)


def add_rows(ledger: Ledger, first: int, rows: Sequence[Row | SoundRow]) -> int:
    """Write a batch of rows with its problems in one transaction. `first` is the ordinal of its first row.

    Returns the number of rows that set no field. `settle_empty` settles these.
    """
    records = [
        (ordinal, *_record(row), len(row.problems)) if isinstance(row, Row) else (ordinal, *row, 0)
        for ordinal, row in enumerate(rows, first)
    ]
    with ledger.transaction() as db:
        _insert(db, records)
        for ordinal, row in enumerate(rows, first):
            if isinstance(row, Row):
                _add_problems(db, ordinal, row.problems)
                _add_warnings(db, row.warnings)
    return sum(record[3] == "{}" for record in records)


def _insert(db: Connection, records: Sequence[tuple[Any, ...]]) -> None:
    """Insert many records with each statement. This is a third cheaper than a statement for each."""
    whole = len(records) - len(records) % TOGETHER
    for at in range(0, whole, TOGETHER):
        db.execute(_INSERT_MANY, list(chain.from_iterable(records[at : at + TOGETHER])))
    db.executemany(_INSERT, records[whole:])


def _record(row: Row) -> tuple[Any, ...]:
    return (
        row.line,
        bytes.fromhex(row.uuid) if row.uuid else storable(row.written),
        _dumps(row.fields),
        _dumps(row.expects) if row.expects else None,
        _dumps(row.cells) if row.cells else None,
    )


def _dumps(value: Any) -> str:
    try:
        return to_json(value).decode()
    except ValueError:  # an invalid row may hold characters that UTF-8 cannot encode; ASCII escapes can
        return json.dumps(value)


def storable(text: str) -> str:
    """Return the text with lone surrogates and NULs escaped. SQLite and every file of the run can hold the result."""
    text = text.replace("\0", "\\x00")
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def add_problems(ledger: Ledger, problems: Iterable[Problem]) -> None:
    """Add problems of the manifest as a whole."""
    with ledger.transaction() as db:
        _add_problems(db, None, problems)


def add_warnings(ledger: Ledger, warnings: Iterable[Problem]) -> None:
    """Add warnings about the manifest as a whole."""
    with ledger.transaction() as db:
        _add_warnings(db, warnings)


def _add_warnings(db: Any, warnings: Iterable[Problem]) -> None:
    for w in warnings:
        texts = (storable(text) for text in (w.column, w.value, w.code, w.message, w.fix, w.cell))
        db.execute("INSERT INTO warning VALUES (?, ?, ?, ?, ?, ?, ?)", (w.line, *texts))


def _add_problems(db: Any, ordinal: int | None, problems: Iterable[Problem]) -> None:
    for p in problems:
        texts = (storable(text) for text in (p.column, p.value, p.code, p.message, p.fix))
        db.execute(
            "INSERT INTO problem VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (ordinal, p.line, *texts, p.fatal, storable(p.cell)),
        )


def merge_duplicates(ledger: Ledger, named: Callable[[Problem], Problem] = lambda problem: problem) -> int:
    """Merge rows that name the same image into the first of them, or mark all of them if they contradict each other.

    `named` adds the name of a cell to a problem.

    Returns the number of rows that were merged into others. The index by uuid is dropped afterwards: it costs space,
    and with it SQLite would read rows in its order, all over the file. The other index leads from an outcome to its
    rows.
    """
    merged = 0
    with ledger.transaction() as db:
        twice = db.execute("SELECT uuid FROM row WHERE problems = 0 GROUP BY uuid HAVING count(*) > 1").fetchall()
        if twice:
            db.execute("CREATE INDEX row_uuid ON row (uuid) WHERE problems = 0")
        for (uuid,) in twice:
            found = db.execute(
                "SELECT ordinal, line, fields, expects FROM row WHERE uuid = ? AND problems = 0 ORDER BY ordinal",
                (uuid,),
            ).fetchall()
            merged += _merge(db, uuid.hex(), found, named)
        db.execute("DROP INDEX IF EXISTS row_uuid")
    index_leaders(ledger)
    return merged


def index_leaders(ledger: Ledger) -> None:
    """Make the index that leads from an outcome to the rows that are merged into its row."""
    with ledger.transaction() as db:
        db.execute("CREATE INDEX row_leader ON row (leader) WHERE leader IS NOT NULL")


def _merge(
    db: Any, uuid: str, found: Sequence[tuple[int, int, str, str | None]], named: Callable[[Problem], Problem]
) -> int:
    lines = [line for _, line, _, _ in found]
    fields, clash = _union([json.loads(text) for _, _, text, _ in found])
    expects, clash_expected = _union([json.loads(text) if text else {} for _, _, _, text in found])
    if clash or clash_expected:
        column = clash or f"if_{clash_expected}"
        for ordinal, line, asked, expected in found:
            others = ", ".join([str(other) for other in lines[:6] if other != line][:5]) + (
                " …" if len(lines) > 6 else ""
            )
            others, verb = (f"line {others}", "sets") if len(lines) == 2 else (f"lines {others}", "set")
            message = f"{others} {verb} another value of {column} for this image"
            value = json.loads(asked).get(clash) if clash else json.loads(expected or "{}").get(clash_expected)
            shown = uuid if value is None else str(value)[:60]
            problem = Problem(line, column, shown, "DUPLICATE_CONFLICT", message, "keep one of these rows")
            _add_problems(db, ordinal, (named(problem),))
            db.execute("UPDATE row SET problems = 1 WHERE ordinal = ?", (ordinal,))
        return 0
    leader, *followers = [ordinal for ordinal, _, _, _ in found]
    texts = (_dumps(fields), _dumps(expects) if expects else None)
    db.execute("UPDATE row SET fields = ?, expects = ? WHERE ordinal = ?", (*texts, leader))
    db.executemany("UPDATE row SET leader = ? WHERE ordinal = ?", [(leader, ordinal) for ordinal in followers])
    return len(followers)


def _union(changes: Sequence[Fields]) -> tuple[Fields, str]:
    """Return all fields of the rows, and the name of a field with two different values as the server stores them."""
    union: Fields = {}
    for change in changes:
        for name, value in change.items():
            if name in union and as_stored(union[name]) != as_stored(value):
                return union, name
            union.setdefault(name, value)
    return union, ""


def rows_digest(ledger: Ledger) -> str:
    """Return the SHA-256 of what all rows ask for, in order. It does not depend on the order of keys or of tags."""
    total = sha256()
    for uuid, *texts in ledger.db.execute("SELECT uuid, fields, expects FROM row ORDER BY ordinal"):
        asked = [{name: as_stored(value) for name, value in json.loads(text or "{}").items()} for text in texts]
        written = uuid.hex() if isinstance(uuid, bytes) else uuid
        total.update(json.dumps([written, *asked], sort_keys=True).encode("ascii") + b"\n")
    return total.hexdigest()


def keep_shard(ledger: Ledger, holds: Callable[[bytes | str], bool]) -> int:
    """Remove the rows of other shards. The others keep their ordinals, so that the shards' runs can be put together.

    `holds` gets a uuid as the table holds it. Returns the number of rows that are merged into others.
    """
    with ledger.transaction() as db:
        ledger.set_meta(rows_of_all=db.execute("SELECT count(*) FROM row").fetchone()[0])
        db.create_function("is_ours", 1, lambda uuid: holds("" if uuid is None else uuid), deterministic=True)
        db.execute("DELETE FROM row WHERE NOT is_ours(uuid)")
        db.execute("DELETE FROM problem WHERE ordinal NOT IN (SELECT ordinal FROM row)")
        merged: int = db.execute("SELECT count(*) FROM row WHERE leader IS NOT NULL").fetchone()[0]
    ledger.compact()
    return merged


def settle_empty(ledger: Ledger) -> None:
    """Settle the rows whose cells are all blank: they are unchanged, and nothing is sent for them."""
    with ledger.transaction() as db:
        db.execute(
            """INSERT INTO outcome (ordinal, status, code, message, hint, attempts)
            SELECT ordinal, 'unchanged', 'NOTHING_ASKED', 'the row names no field to change', '', 0
            FROM row WHERE fields = '{}' AND problems = 0 AND leader IS NULL"""
        )
