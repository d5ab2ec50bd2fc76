"""This file opens run.db and keeps its header: what was asked, of whom, in which state the run is."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from bulkimg.errors import RunRefused, StorageError

SCHEMA = 1
_PRAGMAS = "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-16384; PRAGMA temp_store=FILE;"


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """SQLite's and the disk's errors as StorageError, with the file's name."""
    try:
        yield
    except sqlite3.Error as error:
        raise StorageError(
            f"{path}: the ledger failed: {error}; free space or mend the disk, then bulkimg resume"
        ) from error
    except OSError as error:
        raise StorageError(
            f"{error.filename or path}: {error.strerror}; free space or mend the disk, then bulkimg resume"
        ) from error


class Ledger:
    """One connection to one run's ledger. A connection may change threads, but only one at a time uses it."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self.db = connection

    @classmethod
    def create(cls, path: Path) -> "Ledger":
        """A new ledger; StorageError where the disk does not let us."""
        with storage_errors(path):
            ledger = cls(path, _connect(path, "rwc"))
            path.chmod(0o600)
            ledger.db.executescript(_PRAGMAS)
            ledger.db.executescript(resources.files("bulkimg.ledger").joinpath("schema.sql").read_text("utf-8"))
            ledger.set_meta(schema=SCHEMA)
        return ledger

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> "Ledger":
        """An existing ledger; RunRefused when it is not one, or one of another version."""
        if not path.is_file():
            raise RunRefused(f"{path}: there is no ledger; `bulkimg runs` lists the runs")
        try:
            ledger = cls(path, _connect(path, "ro" if read_only else "rw"))
            if not read_only:
                ledger.db.executescript(_PRAGMAS)
            schema = ledger.meta("schema")
        except sqlite3.Error as error:
            raise StorageError(f"{path}: is not a readable ledger: {error}") from None
        if schema != SCHEMA:
            raise RunRefused(
                f"{path}: was written by another version of bulkimg (schema {schema}, this one reads {SCHEMA})"
            )
        return ledger

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of the block's writes, durable at its end, or none of them."""
        with storage_errors(self.path):
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield self.db
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise

    def relax(self) -> None:
        """Commits need not reach the disk, for what can be read again from the manifest."""
        self.db.execute("PRAGMA synchronous=NORMAL")

    def strict(self) -> None:
        """Every commit is durable when it returns, what was relaxed included."""
        with storage_errors(self.path):
            self.db.execute("PRAGMA synchronous=FULL")
            self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def meta(self, key: str, default: Any = None) -> Any:
        """One value of the header."""
        found = self.db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return json.loads(found[0]) if found else default

    def set_meta(self, **values: Any) -> None:
        """Write values of the header; inside a transaction they are part of it."""
        rows = [(key, json.dumps(value)) for key, value in values.items()]
        self.db.executemany("INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", rows)

    def close(self) -> None:
        self.db.close()


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=10)
