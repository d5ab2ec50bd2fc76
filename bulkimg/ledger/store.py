"""Open run.db and keep its header: the options, the server, and the run's state."""

import json
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from bulkimg.errors import RunRefused, StorageError
from bulkimg.ledger import checksums
from bulkimg.ledger.rundir import RunDirectory

SCHEMA = 7
_IN_THE_WAY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_PRAGMAS = "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-16384; PRAGMA temp_store=FILE;"


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Raise the errors of SQLite and the disk as StorageError with the file's name."""
    try:
        yield
    except sqlite3.Error as error:
        raise _failed(path, error) from error
    except OSError as error:
        raise StorageError(
            f"{error.filename or path}: {error.strerror}; free space or fix the disk, then resume the run"
        ) from error


def _failed(path: Path, error: sqlite3.Error) -> StorageError:
    return StorageError(f"{path}: the ledger failed: {error}; free space or fix the disk, then resume the run")


class Prepared(NamedTuple):
    """A group of outcomes for the ledger: JSON records, and their part of the log digest."""

    outcomes: str
    digest: int


class Ledger:
    """One connection to one run's ledger. Threads may use it in turn, but not at the same time.

    `witness` is a second connection that only reads. While it is open, closing the first one writes nothing. After a
    failed write or fsync the content of the disk is not known, and a second fsync could report a false success.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, witness: sqlite3.Connection | None = None) -> None:
        self.path = path
        self.db = connection
        self.log_digest = 0  # the log digest, with the present transaction's changes
        self._witness = witness
        self._failure: StorageError | None = None

    @classmethod
    def create(cls, path: Path) -> "Ledger":
        """Create a new ledger. Raises StorageError if the disk does not allow it."""
        with storage_errors(path):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            ledger = cls(path, _connect(path, "rw"))
            ledger.db.executescript(_PRAGMAS)
            ledger.db.executescript(resources.files("bulkimg.ledger").joinpath("schema.sql").read_text("utf-8"))
            ledger.set_meta(schema=SCHEMA)
            ledger._witness = _witness(path)
        return ledger

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> "Ledger":
        """Open an existing ledger.

        Raises RunRefused if the file is no ledger or has another version (NotBegun if its process was ended before it
        had made it), and StorageError if it is damaged.
        """
        _refuse_strange_file(path)
        try:
            ledger = cls(path, _connect(path, "ro" if read_only else "rw"))
            if not read_only:
                ledger.db.executescript(_PRAGMAS)
                ledger._witness = _witness(path)
            schema = ledger.meta("schema")
        except (sqlite3.Error, ValueError, TypeError) as error:
            if str(error) == "no such table: meta" or _is_half_made(path):
                raise _not_begun(path, may_be_held=read_only) from None
            raise StorageError(f"{path}: is not a readable ledger: {error}; {_START_AGAIN}") from None
        if schema is None:
            raise _not_begun(path, may_be_held=read_only)
        if schema != SCHEMA:
            raise RunRefused(
                f"{path}: was written by another version of bulkimg (schema {schema}, this one reads {SCHEMA}); use that version"
            )
        with storage_errors(path):
            if not checksums.header_is_whole(ledger.db):
                ledger.close()
                raise StorageError(f"{path}: is damaged: the checksum of its header is wrong; {_START_AGAIN}")
        return ledger

    @property
    def is_fresh(self) -> bool:
        """Return whether no row was ever claimed."""
        return not self.db.execute("SELECT EXISTS (SELECT 1 FROM attempt)").fetchone()[0]

    def verify(self) -> None:
        """Raise StorageError unless the whole content is as it was written. Call it before a run is resumed."""
        try:
            found = checksums.damage(self.db)
            if not found:
                self.log_digest = checksums.kept_log_digest(self.db)  # reading all records once is slow enough
        except (sqlite3.Error, ValueError) as error:
            found = str(error)
        if found:
            raise StorageError(f"{self.path}: is damaged: {found}; {_START_AGAIN}")

    def keep_checksums(self) -> None:
        """Write the checksums after the manifest is loaded. From now on its rows do not change."""
        with self.transaction() as db:
            self.log_digest = checksums.keep(db)

    def insert_outcomes(self, group: Prepared) -> None:
        """Write a group with one statement. It is durable when this returns, unless a transaction is open.

        After a failure nothing is written.
        """
        if self._failure:
            raise self._failure
        log_digest = self.log_digest ^ group.digest
        try:
            self.db.execute("INSERT INTO inbox VALUES (?, ?)", (group.outcomes, log_digest))
        except sqlite3.Error as error:
            self._failure = _failed(self.path, error)
            raise self._failure from error
        self.log_digest = log_digest

    def toggle(self, kind: str, *record: Any) -> None:
        """Add a record of an attempt to the log digest, or remove it.

        Call it in the transaction that changes the record.
        """
        self.log_digest ^= checksums.digest(kind, record)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write everything in the block, durable at its end, or nothing.

        After a failure no other transaction begins.
        """
        if self._failure:
            raise self._failure
        before = self.log_digest
        try:
            with storage_errors(self.path):
                self.db.execute("BEGIN IMMEDIATE")
                yield self.db
                if self.log_digest != before:
                    checksums.write(self.db, log_digest=self.log_digest)
                self.db.execute("COMMIT")
        except BaseException as error:
            self.log_digest = before
            if isinstance(error, StorageError):
                self._failure = error
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        """Roll back. The first error is reported; if the rollback fails too, no other transaction begins."""
        if self.db.in_transaction:
            try:
                with storage_errors(self.path):
                    self.db.execute("ROLLBACK")
            except StorageError as error:
                self._failure = self._failure or error

    def relax(self) -> None:
        """Let commits return before they reach the disk, for data that can be read again from the manifest."""
        self.db.execute("PRAGMA synchronous=NORMAL")

    def compact(self) -> None:
        """Give the space of deleted rows back to the disk."""
        self._do("VACUUM")

    def strict(self) -> None:
        """Make every commit durable when it returns, with what was written since `relax`."""
        self._do("PRAGMA synchronous=FULL", "PRAGMA wal_checkpoint(TRUNCATE)")

    def checkpoint(self) -> None:
        """Move all commits into run.db itself, unless a reader prevents it.

        Then run.db without its -wal is still a run.
        """
        try:
            with storage_errors(self.path):
                self.db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except StorageError as error:
            if getattr(error.__cause__, "sqlite_errorcode", 0) & 0xFF not in _IN_THE_WAY:  # the low byte is the kind
                self._failure = error
                raise

    def _do(self, *statements: str) -> None:
        try:
            with storage_errors(self.path):
                for statement in statements:
                    self.db.execute(statement)
        except StorageError as error:
            self._failure = error
            raise

    def meta(self, key: str, default: Any = None) -> Any:
        """Return one value of the header."""
        found = self.db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return json.loads(found[0]) if found else default

    def set_meta(self, **values: Any) -> None:
        """Write values of the header. In a transaction they are a part of it."""
        if not self.db.in_transaction:
            with self.transaction():
                self.set_meta(**values)
            return
        rows = [(key, json.dumps(value)) for key, value in values.items()]
        self.db.executemany("INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", rows)
        checksums.write(self.db, meta=checksums.in_order(self.db, "meta"))

    def close(self) -> None:
        """Checkpoint and close, unless writing has failed: then the files stay as they are.

        Raises StorageError if the checkpoint fails. SQLite would hide such an error.
        """
        try:
            if self._witness and not self._failure:
                self.checkpoint()
                self._witness.close()
        finally:
            self.db.close()


_START_AGAIN = "restore it from a backup, or run the manifest again (sending the same values twice is harmless)"


class NotBegun(RunRefused):
    """The process of a run ended before it had made the ledger, or is just making it. Nothing was sent."""


def _not_begun(path: Path, *, may_be_held: bool) -> NotBegun:
    """Return the error. A process that opens the ledger to write holds the run itself."""
    directory = RunDirectory(path.parent)
    if may_be_held and directory.is_held():
        return NotBegun(f"{path}: has no header yet: the run is just beginning; try again in a moment")
    return NotBegun(
        f"{path}: has no header: the run was never begun, because its process ended before that, so nothing was sent; "
        f"run the manifest again, and remove {path.parent}"
    )


_JOURNAL = bytes.fromhex(
    "d9d505f920a163d7"
)  # how a rollback journal begins (sqlite.org/fileformat2.html#the_rollback_journal)


def _is_half_made(path: Path) -> bool:
    """Return whether the ledger was killed before it had a page: its journal goes back to an empty file.

    Only a process that may write plays the journal back. Later there is none, because a ledger has a write-ahead log.
    """
    try:
        with path.with_name(f"{path.name}-journal").open("rb") as file:
            head = file.read(20)
    except OSError:
        return False
    return head.startswith(_JOURNAL) and head[16:20] == bytes(4)


def _refuse_strange_file(path: Path) -> None:
    """Refuse a file that is not a regular file of this user: a link, or another user's file."""
    try:
        found = path.lstat()
    except OSError:
        raise RunRefused(f"{path}: there is no ledger; list the runs with bulkimg runs") from None
    if not stat.S_ISREG(found.st_mode):
        raise RunRefused(
            f"{path}: is a link or a special file, but a ledger must be a regular file; name the run's own directory"
        )
    if found.st_uid != os.geteuid():
        raise RunRefused(f"{path}: belongs to another user (uid {found.st_uid}); resume the run as that user")


def _witness(path: Path) -> sqlite3.Connection:
    connection = _connect(path, "ro")
    connection.execute("SELECT count(*) FROM meta").fetchone()  # SQLite opens the file only now
    return connection


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=10)
