"""Read a Parquet file with duckdb, in batches: offline, with one thread and bounded memory."""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from bulkimg.errors import ManifestRefused, UsageError, not_installed
from bulkimg.manifest.formats import PARQUET, other_format
from bulkimg.manifest.source import LONGEST_MAGIC, MAX_LINE, Unreadable
from bulkimg.manifest.tabular import Record
from bulkimg.manifest.typed import HEADER, TypedColumns, too_long
from bulkimg.model import Problem
from bulkimg.settings import Settings

BATCH = 200  # records; each may be as long as MAX_LINE
_MEMORY = "512MB"
_ENCRYPTED = b"PARE"
_TEXTS = frozenset({"varchar", "uuid", "boolean", '"null"'})
_INTEGERS = frozenset(f"{sign}{size}int" for sign in ("", "u") for size in ("tiny", "small", "big", "huge", ""))
_INTEGERS |= {"integer", "uinteger"}
_LIST = "varchar[]"
_COPY = "get a complete copy of the file, or write it again"


class ParquetTable:
    """A Parquet file. It is opened once, so that what is read is what the digest is of."""

    def __init__(self, name: str, settings: Settings) -> None:
        duckdb = _library(name)
        self._name = name
        self._file = _open(name)
        self._errors: type[Exception] = duckdb.Error
        self._seen = os.fstat(self._file)
        self._database: Any = None
        self.sha256 = ""
        try:
            self._check_magic(settings.encoding)
            self._database = _database(duckdb, self._path)
            self.header = self._query(settings)
        except self._errors as error:
            damaged = self._damaged(error)
            self.close()
            raise Unreadable(damaged) from None
        except BaseException:
            self.close()
            raise

    @property
    def _path(self) -> str:
        """The open file. By this name no pattern, address or other file is meant."""
        return f"/dev/fd/{self._file}"

    def _check_magic(self, encoding: str) -> None:
        """Refuse what is no Parquet file, is cut off, or is encrypted, before the library sees it."""
        first, last = os.pread(self._file, LONGEST_MAGIC, 0), os.pread(self._file, 4, max(0, self._seen.st_size - 4))
        if _ENCRYPTED in (first[:4], last):
            raise Unreadable(_whole("OTHER_FORMAT", "is an encrypted Parquet file", "write it without encryption"))
        if not first:
            raise Unreadable(_whole("UNREADABLE", "the file is empty", _COPY))
        if first[:4] != PARQUET:
            foreign = other_format(first, encoding) or ("is not a Parquet file", "give its own format with --format")
            raise Unreadable(_whole("OTHER_FORMAT", *foreign))
        if last != PARQUET or self._seen.st_size < 12:
            raise Unreadable(_whole("UNREADABLE", "the Parquet file is cut off: its end is missing", _COPY))

    def _query(self, settings: Settings) -> Record:
        """Begin to read. Returns the header."""
        source = f"read_parquet('{self._path}', hive_partitioning = false, binary_as_string = false)"
        described = self._database.execute(f"DESCRIBE FROM {source}").fetchall()
        columns = [(str(row[0]), str(row[1]).lower()) for row in described]
        self._typed = TypedColumns(self._written_names([name for name, _ in columns]), settings)
        header = self._typed.header([self._refused(at, kind) for at, (_, kind) in enumerate(columns)])
        if not header.bad:
            self._database.execute(_statement(source, columns))
        return header

    def _written_names(self, names: list[str]) -> list[str]:
        """Return the names as they are in the file. The library renames one that is there twice."""
        tree = self._database.execute("SELECT name, num_children FROM parquet_schema(?)", [self._path]).fetchall()
        written = []
        at = 1  # behind the root
        while at < len(tree):
            written.append(str(tree[at][0]))
            open_nodes = 1
            while open_nodes and at < len(tree):
                open_nodes += int(tree[at][1] or 0) - 1
                at += 1
        return written if len(written) == len(names) else names

    def _refused(self, at: int, kind: str) -> str:
        """Return the type if its values have no one text, else ""."""
        is_whole = kind.startswith("decimal(") and kind.endswith(",0)")
        if kind in _TEXTS or kind in _INTEGERS or is_whole or (kind == _LIST and self._typed.takes_lists(at)):
            return ""
        return kind

    def records(self) -> Iterator[Record]:
        """Yield the records. Raises Unreadable where the file is damaged, and at its end if the file was changed."""
        number = 0
        try:
            while batch := self._database.fetchmany(BATCH):
                for is_too_long, *values in batch:
                    number += 1
                    if is_too_long:
                        yield Record(number, [], too_long(number))
                    else:
                        yield self._typed.record(number, values)
        except self._errors as error:
            raise Unreadable(self._damaged(error)) from None
        self.sha256 = self._digest()

    def _digest(self) -> str:
        with open(self._file, "rb", closefd=False) as file:
            file.seek(0)
            found = hashlib.file_digest(file, "sha256").hexdigest()
        now = os.fstat(self._file)
        if (now.st_size, now.st_mtime_ns) != (self._seen.st_size, self._seen.st_mtime_ns):
            raise Unreadable(_whole("UNREADABLE", "the file was changed while it was read", "run it again"))
        return found

    def _damaged(self, error: Exception) -> Problem:
        said = str(error).replace(self._path, self._name).split("\n")[0][:200]
        if "encrypt" in said.lower():
            return _whole("OTHER_FORMAT", "is an encrypted Parquet file", "write it without encryption")
        return _whole("UNREADABLE", f"the Parquet data cannot be read: {said}", _COPY)

    def close(self) -> None:
        """Close the library's database and the file."""
        if self._database is not None:
            self._database.close()
            self._database = None
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


open_table = ParquetTable


def _library(name: str) -> ModuleType:
    try:
        import duckdb
    except ImportError:
        raise not_installed(f"{name}: Parquet", "duckdb", "parquet") from None
    return duckdb


def _open(name: str) -> int:
    if name == "-":
        raise UsageError("-: Parquet is not read from standard input; name the file")
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ManifestRefused(f"{name}: cannot be read: {reason}; check the path") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ManifestRefused(f"{name}: is not a regular file, which Parquet needs; name the file itself")
    return descriptor


def _database(duckdb: ModuleType, path: str) -> Any:
    """Open a database in memory that reads this one file, and neither loads an extension nor writes a file."""
    config = {
        "threads": 1,
        "memory_limit": _MEMORY,
        "temp_directory": "",
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "python_enable_replacements": False,
    }
    database = duckdb.connect(":memory:", config=config)
    database.execute(f"SET allowed_paths = ['{path}']")
    database.execute("SET enable_external_access = false")
    database.execute("SET lock_configuration = true")
    return database


def _statement(source: str, columns: Sequence[tuple[str, str]]) -> str:
    """Return a query for the texts of all columns, behind whether the record is too long to be read."""
    quoted = [f'"{name.replace(chr(34), chr(34) * 2)}"' for name, _ in columns]
    texts = [
        name if kind in {"varchar", _LIST} else f"CAST({name} AS VARCHAR)"
        for name, (_, kind) in zip(quoted, columns, strict=True)
    ]
    size = " + ".join(f"coalesce(strlen(CAST({name} AS VARCHAR)), 0)" for name in quoted)
    names = [f"c{at}" for at in range(len(columns))]
    inner = ", ".join(f"{text} AS {name}" for text, name in zip(texts, names, strict=True))
    outer = ", ".join(f"CASE WHEN size > {MAX_LINE} THEN NULL ELSE {name} END" for name in names)
    # S608: every name is quoted, and the source is our own.
    return f"SELECT size > {MAX_LINE}, {outer} FROM (SELECT {size} AS size, {inner} FROM {source})"  # noqa: S608


def _whole(code: str, message: str, fix: str) -> Problem:
    return Problem(HEADER, "", "", code, message, fix, fatal=True)
