"""Read the rows of a query, streamed in a transaction that only reads (docs/how-to/sql-and-parquet.md)."""

import hashlib
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from bulkimg.errors import BulkimgError, ManifestRefused, UsageError
from bulkimg.manifest import database
from bulkimg.manifest.database import SqliteWatch
from bulkimg.manifest.source import MAX_LINE, Unreadable
from bulkimg.manifest.statement import Dialect, check
from bulkimg.manifest.tabular import Record
from bulkimg.manifest.typed import HEADER, TypedColumns
from bulkimg.model import Problem
from bulkimg.settings import Settings

BATCH = 200  # rows, which may be long
_READ_ONLY = ("read-only", "read only", "readonly", "not authorized", "data-modifying")
_FIX = "a source only reads; write one SELECT"

# The types whose values have no one text, by the driver's code: PostgreSQL's oids (pg_type.dat), MySQL's field types.
# The driver would turn some into Python's, and JSON's null into NULL.
_REFUSED: Mapping[Dialect, Mapping[int, str]] = {
    "sqlite": {},
    "postgresql": {
        17: "bytea", 114: "json", 3802: "jsonb", 199: "json[]", 3807: "jsonb[]", 700: "real", 701: "double precision",
        790: "money", 1082: "date", 1083: "time", 1114: "timestamp", 1184: "timestamptz", 1186: "interval",
        1266: "timetz", 2249: "record",
    },
    "mysql": {
        4: "float", 5: "double", 7: "timestamp", 10: "date", 11: "time", 12: "datetime", 16: "bit", 245: "json",
        255: "geometry",
    },
}  # fmt: skip


class SqlTable:
    """The rows of a query. Its digest is of the header and the rows, so it is the same whatever database they are in.

    The digest is the sha256 of one line for the header and one for each row: a JSON array of texts in UTF-8 without
    blanks, where null stands for NULL, and a line feed.
    """

    def __init__(self, name: str, settings: Settings) -> None:
        """Connect and begin the query. Raises UsageError, and ManifestRefused if the query cannot be read."""
        assert settings.source
        self._name, self._source = name, settings.source
        self._address = database.read_address(self._source)
        statement = check(_read(name), self._address.dialect, name)
        self._digest = hashlib.sha256()
        self._opened = database.connect(self._address, self._source)
        self._watch: SqliteWatch | None = None
        self._result: Any = None
        self._is_done = False
        try:
            if self._address.dialect == "sqlite":
                self._watch = SqliteWatch(self._opened.driver, self._source.timeout)
            self._result = self._begin(statement)
            self.header = self._header(settings)
        except BaseException:
            self.close()
            raise

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def _begin(self, statement: str) -> Any:
        from sqlalchemy.exc import DBAPIError, SQLAlchemyError

        # No parameters: % and :name are what the text says.
        options = {"stream_results": True, "yield_per": BATCH, "no_parameters": True}
        try:
            result = self._opened.connection.exec_driver_sql(statement, execution_options=options)
        except (DBAPIError, SQLAlchemyError, UnicodeError) as error:
            if self._watch:
                self._watch.raise_interrupt(self._address.reason(error))
            raise self._refused(error) from None
        if not result.returns_rows:
            raise UsageError(f"{self._name}: the statement returns no rows; {_FIX}")
        return result

    def _refused(self, error: Exception) -> BulkimgError:
        """Return UsageError if the query is wrong, and ManifestRefused if the database cannot be read now."""
        if why := self._cannot_be_read(error):
            return ManifestRefused(f"{self._name}: {why}")
        reason = self._address.reason(error)
        if any(word in reason.lower() for word in _READ_ONLY):
            why = f"the database refused the query, because it does not only read: {reason}; {_FIX}"
        else:
            why = f"the database refused the query: {reason}; correct it"
        return UsageError(f"{self._name}: {why}")

    def _cannot_be_read(self, error: Exception) -> str:
        """Return why the database cannot be read now, whatever the query is, or ""."""
        reason = self._address.reason(error)
        found = getattr(error, "orig", None)
        if getattr(found, "sqlite_errorcode", 0) in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return f"{reason}; get a complete copy of the database"
        if getattr(found, "sqlite_errorname", "").startswith("SQLITE_READONLY_"):
            return (
                "a program that wrote in the database did not end well, and reading does not repair it; "
                "open the database once with a program that may write"
            )
        if why := self._time_is_over(error):
            return why
        if getattr(error, "connection_invalidated", False):
            return f"the database closed the connection: {reason}; run it again"
        if "locked" in reason:
            return f"another program writes in the database: {reason}; run it again when it has ended"
        return ""

    def _time_is_over(self, error: Exception) -> str:
        """Return the sentence of a query that took too long, or ""."""
        reason = self._address.reason(error).lower()
        if "timeout" in reason or "timed out" in reason or reason == "interrupted":
            return f"no rows came in {self._source.timeout:g} s; make the query quicker, or raise timeout in [source]"
        return ""

    def _header(self, settings: Settings) -> Record:
        described = self._result.cursor.description
        names = [str(column[0]) for column in described]
        refused = _REFUSED[self._address.dialect]
        self._digest.update(to_json(names) + b"\n")
        self._typed = TypedColumns(names, settings)
        return self._typed.header([refused.get(column[1], "") for column in described])

    def records(self) -> Iterator[Record]:
        """Yield the rows, which count from 1. Raises Unreadable where the database does not give the rest."""
        count = 0
        batches = self._result.partitions(BATCH)
        while (rows := self._next(batches, count)) is not None:
            lines = bytearray()
            for values in rows:
                count += 1
                record = self._typed.record(count, values)
                texts = record.cells or [str(value) for value in values]
                known = [None if value is None else text for value, text in zip(values, texts, strict=True)]
                lines += to_json(known) + b"\n"
                yield record
            self._digest.update(lines)
        self._is_done = True

    def _next(self, batches: Iterator[Any], number: int) -> Any:
        """Return the next rows, or None at the end."""
        from sqlalchemy.exc import SQLAlchemyError

        if self._watch:
            self._watch.restart()
        try:
            return next(batches, None)
        except (SQLAlchemyError, OSError, UnicodeError, ValueError) as error:
            if self._watch:
                self._watch.raise_interrupt(self._address.reason(error))
            raise Unreadable(self._lost(error, number)) from None

    def _lost(self, error: Exception, number: int) -> Problem:
        if why := self._time_is_over(error):
            message, _, fix = why.partition("; ")
        elif any(word in (reason := self._address.reason(error)).lower() for word in _READ_ONLY):
            message, fix = f"the database refused the query, because it does not only read: {reason}", _FIX
        else:
            message, fix = (
                f"the database did not return the rest of the rows: {reason}",
                "run it again, or correct the row",
            )
        return Problem(number or HEADER, "", "", "UNREADABLE", message, fix, fatal=True)

    def close(self) -> None:
        """Close the connection. What the query has left is not read."""
        self._opened.close(self._result, is_running=not self._is_done)
        self._is_done = True


open_table = SqlTable


def _read(name: str) -> str:
    """Return the text of a query. Raises ManifestRefused and UsageError."""
    try:
        with Path(name).open("rb") as file:
            raw = file.read(MAX_LINE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ManifestRefused(f"{name}: cannot be read: {reason}; check the path") from None
    if len(raw) > MAX_LINE:
        raise UsageError(f"{name}: the query is longer than {MAX_LINE:,} bytes; shorten it")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{name}: the query is not UTF-8; save it as UTF-8") from None
    if (at := text.find("\0")) >= 0:
        raise UsageError(f"{name}:{text.count(chr(10), 0, at) + 1}: the query contains a NUL character; remove it")
    return text
