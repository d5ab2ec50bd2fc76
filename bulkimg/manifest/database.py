"""Connect to the database of `[source]` so that it can only be read. No message shows the URL or its password."""

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from bulkimg.credentials import CREDENTIAL_VARIABLES, read_private, run_command
from bulkimg.errors import ManifestRefused, UsageError, not_installed
from bulkimg.manifest.statement import Dialect
from bulkimg.query import SqlSource
from bulkimg.values import expanded

if TYPE_CHECKING:
    import sqlalchemy
    from sqlalchemy import Connection, CursorResult

NAMES: dict[Dialect, str] = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "mysql": "MySQL or MariaDB"}
CONNECT = 10.0  # seconds for a connection
_SCHEMES: dict[str, tuple[Dialect, str]] = {  # → the dialect, and the name of its driver in SQLAlchemy
    "sqlite": ("sqlite", "sqlite"),
    "postgres": ("postgresql", "postgresql+psycopg"),
    "postgresql": ("postgresql", "postgresql+psycopg"),
    "postgresql+psycopg": ("postgresql", "postgresql+psycopg"),
    "mysql": ("mysql", "mysql+pymysql"),
    "mysql+pymysql": ("mysql", "mysql+pymysql"),
    "mariadb": ("mysql", "mariadb+pymysql"),
    "mariadb+pymysql": ("mysql", "mariadb+pymysql"),
}
# What a URL may say behind its `?`. Other parameters could make the connection write, or read other files.
_PARAMETERS: dict[Dialect, tuple[str, ...]] = {
    "sqlite": (),
    "postgresql": (
        "host", "port", "sslmode", "sslrootcert", "sslcert", "sslkey", "target_session_attrs", "channel_binding",
        "gssencmode",
    ),
    "mysql": ("unix_socket", "ssl_ca", "ssl_cert", "ssl_key", "ssl_check_hostname"),
}  # fmt: skip
_SHAPE = (
    "write one line such as postgresql://user:password@host/database, with @ : / ? in a password as %40 %3A %2F %3F"
)
_SQLITE = b"sqlite:"
MAX_PATH = 4096  # bytes
_STEPS = 10_000  # of SQLite's machine between two looks at the clock
_READING = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE})


class Address(NamedTuple):
    """The URL of a database, checked. It is a secret, and so is its text."""

    dialect: Dialect
    url: "sqlalchemy.URL"
    secrets: tuple[str, ...]

    def reason(self, error: BaseException) -> str:
        """Return the first line of an error without its prefix, or its type where it would show a secret."""
        found = getattr(error, "orig", None) or error
        words = found.args[1] if len(found.args) > 1 and isinstance(found.args[1], str) else str(found)
        line = " ".join(next((line for line in words.splitlines() if line.strip()), "").split())
        if not line or any(secret in words for secret in self.secrets):
            return type(found).__name__
        return line[:300].rstrip(".")


def read_address(source: SqlSource) -> Address:
    """Read and check the URL that `[source]` names. Raises UsageError, which does not quote it."""
    where = f"[source] {source.place}"
    if source.url_file:
        text = read_private(source.url_file, "[source] url_file", os.environ.get("CREDENTIALS_DIRECTORY", ""))
    else:
        text = run_command(list(source.url_command), "[source] url_command", _without_credentials())
    text = text.removeprefix("\ufeff").strip()
    if not text or not text.isprintable() or " " in text:
        raise UsageError(f"{where} does not hold the URL of a database; {_SHAPE}")
    return parse_address(text, where)


def _without_credentials() -> dict[str, str]:
    """Return our environment without bulkimg's own credentials: the command needs others."""
    ours = {name for variable in CREDENTIAL_VARIABLES for name in (variable, f"{variable}_FILE")}
    return {name: value for name, value in os.environ.items() if name not in ours}


def parse_address(text: str, where: str) -> Address:
    """Check a URL. Raises UsageError; `where` says in messages what holds it."""
    library(where)
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise UsageError(f"{where} does not hold the URL of a database; {_SHAPE}") from None
    if url.drivername not in _SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in _SCHEMES if "+" not in scheme)
        raise UsageError(f"{where} is of a database that is not read; supported are {known}")
    dialect, driver = _SCHEMES[url.drivername]
    if any("@" in part for part in (url.host or "", url.database or "")) or (dialect == "sqlite" and url.host):
        raise UsageError(f"{where} does not hold the URL of a database; {_SHAPE}")
    if not set(url.query) <= set(_PARAMETERS[dialect]):
        allowed = ", ".join(_PARAMETERS[dialect])
        fix = f"allowed behind ? are {allowed}" if allowed else "write nothing behind ?"
        raise UsageError(f"{where} holds a parameter that is not allowed; {fix}")
    password = str(url.password or "")
    secrets = tuple(dict.fromkeys(part for part in (text, password, quote(password, safe="")) if part))
    return Address(dialect, url.set(drivername=driver), secrets)


def library(where: str) -> Any:
    """Return SQLAlchemy. Raises UsageError where it is not installed."""
    try:
        import sqlalchemy
    except ImportError:
        raise not_installed(where, "SQLAlchemy", "sql") from None
    return sqlalchemy


class ReadOnly(NamedTuple):
    """A connection in a transaction that only reads. `driver` is the driver's own connection."""

    connection: "Connection"
    driver: Any

    def close(self, result: "CursorResult[Any] | None" = None, *, is_running: bool = False) -> None:
        """Close at once, also in the middle of the rows of `result`. `is_running`: the server may still work on them."""
        if left := getattr(self.driver, "_result", None):  # PyMySQL would first read all the rows that are left
            left.unbuffered_active = False
        for close in (*([result.close] if result else []), self.driver.close, self.connection.detach):
            # The server may be gone, and every driver says that in its own way.
            with suppress(Exception):
                close()
        if is_running and (number := getattr(self.driver, "thread_id", None)):
            with suppress(Exception):  # MariaDB and MySQL do not notice by themselves that the client has left
                _kill_query(self.connection.engine, int(number()))


def _kill_query(engine: "sqlalchemy.Engine", number: int) -> None:
    with engine.connect() as other:
        other.exec_driver_sql(f"KILL QUERY {number}")


def connect(address: Address, source: SqlSource) -> ReadOnly:
    """Connect and begin a transaction that only reads.

    Raises UsageError for a wrong address, and ManifestRefused where the database does not answer or refuses the login:
    its rows cannot be read, as a file that cannot be read.
    """
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    where = f"[source] {source.place}"
    if address.dialect == "sqlite":
        path = _sqlite_path(address, source, where)
        make: dict[str, Any] = {"creator": lambda: _open_sqlite(path, min(CONNECT, source.timeout))}
    else:
        make = {"connect_args": _CONNECT_ARGUMENTS[address.dialect](source.timeout)}
    try:
        engine = create_engine(address.url, poolclass=NullPool, hide_parameters=True, **make)
        connection = engine.connect()
    except ImportError:
        raise not_installed(where, "PyMySQL" if address.dialect == "mysql" else "psycopg", "sql") from None
    except (SQLAlchemyError, OSError, ValueError, TypeError, RuntimeError) as error:
        name, why = NAMES[address.dialect], address.reason(error)
        fix = "check that it is up, and the address, user and password, then run it again"
        if address.dialect == "sqlite":
            name, fix = f"the SQLite database {path}", "check the path and its rights"
        raise ManifestRefused(f"{where}: cannot connect to {name}: {why}; {fix}") from None
    opened = ReadOnly(connection, connection.connection.dbapi_connection)
    try:
        _begin(opened, address, source)
    except BaseException:
        opened.close()
        raise
    return opened


def _begin(opened: ReadOnly, address: Address, source: SqlSource) -> None:
    """Begin a transaction in which the database itself refuses to write."""
    from sqlalchemy.exc import SQLAlchemyError

    connection = opened.connection
    try:
        if address.dialect == "postgresql":
            connection.execution_options(postgresql_readonly=True)
            connection.exec_driver_sql(f"SET LOCAL statement_timeout = {max(1, round(source.timeout * 1000))}")
        elif address.dialect == "mysql":
            connection.exec_driver_sql("SET SESSION TRANSACTION READ ONLY")
            connection.exec_driver_sql("START TRANSACTION READ ONLY")
        else:
            opened.driver.set_authorizer(_authorize)
    except SQLAlchemyError as error:
        name = NAMES[address.dialect]
        raise UsageError(
            f"[source] {source.place}: {name} begins no transaction that only reads: {address.reason(error)}; "
            "use another server"
        ) from None


def _postgresql_arguments(timeout: float) -> dict[str, Any]:
    """Return the parameters for libpq. A server that vanishes is noticed after 30 s."""
    return {
        "connect_timeout": max(2, round(min(CONNECT, timeout))),  # libpq waits for no less
        "client_encoding": "utf8",
        "application_name": "bulkimg",
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 4,
        "tcp_user_timeout": 30_000,
    }


def _mysql_arguments(timeout: float) -> dict[str, Any]:
    return {
        "connect_timeout": max(1, round(min(CONNECT, timeout))),
        "read_timeout": max(1, round(timeout)),
        "charset": "utf8mb4",
    }


_CONNECT_ARGUMENTS: dict[Dialect, Callable[[float], dict[str, Any]]] = {
    "postgresql": _postgresql_arguments,
    "mysql": _mysql_arguments,
}


def sqlite_file(source: SqlSource) -> Path | None:
    """Return the file of a SQLite database whose address is in a file, else None.

    Of any other address only the beginning is read: it is a secret.
    """
    if source.url_file is None or not source.url_file.is_file():
        return None
    try:
        with source.url_file.open("rb", buffering=0) as file:
            text = file.read(len(_SQLITE))
            if text.lower() != _SQLITE:
                return None
            name = file.read(MAX_PATH).decode("utf-8").strip()
        return _beside_the_query(name.removeprefix("///"), source) if name.startswith("///") else None
    except (OSError, ValueError):
        return None  # who may read it, and what is wrong with it, are other checks


def _beside_the_query(name: str, source: SqlSource) -> Path:
    return source.sql_file.parent / expanded(name)


def _sqlite_path(address: Address, source: SqlSource, where: str) -> Path:
    """Return the file of a SQLite database. A relative one is in the folder of the query."""
    name = address.url.database or ""
    if not name or name == ":memory:" or name.startswith("file:"):
        raise UsageError(
            f"{where} names no file of SQLite; write sqlite:///FILE, or sqlite:////FILE for an absolute path"
        )
    try:
        path = _beside_the_query(name, source)
    except ValueError as error:
        raise UsageError(f"{where} names a file that cannot be found: the path {error}") from None
    if not path.is_file():
        raise ManifestRefused(f"{where}: there is no SQLite database {path}; check the path")
    return path


def _open_sqlite(path: Path, busy: float = CONNECT) -> sqlite3.Connection:
    """Open a database that is there, for reading only. `busy`: how many seconds to wait for a program that writes."""
    return sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=busy, isolation_level=None)


def _authorize(action: int, first: str | None, second: str | None, *where: str | None) -> int:
    """Let SQLite read tables and call functions. ATTACH, PRAGMA and all that writes are refused."""
    is_reading = (
        action in _READING
        or (action == sqlite3.SQLITE_UPDATE and first == "sqlite_master")  # how json_each() declares its columns
        or (action == sqlite3.SQLITE_PRAGMA and first == "data_version" and second is None)  # a search in full texts
    )
    return sqlite3.SQLITE_OK if is_reading else sqlite3.SQLITE_DENY


class SqliteWatch:
    """End a query of SQLite when its time is over or a person interrupts it. SQLite itself does neither."""

    def __init__(self, raw: Any, timeout: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout, self._clock = timeout, clock
        self._is_over = False
        self.restart()
        raw.set_progress_handler(self._look, _STEPS)

    def restart(self) -> None:
        """Count the time anew: rows have come."""
        self._due = self._clock() + self._timeout

    def _look(self) -> bool:
        """Return whether the query must end. A KeyboardInterrupt in here ends it too, and SQLite's module drops it."""
        self._is_over = self._clock() > self._due
        return self._is_over

    def raise_interrupt(self, reason: str) -> None:
        """Raise the KeyboardInterrupt that ended the query, if that is the reason."""
        if reason == "interrupted" and not self._is_over:
            raise KeyboardInterrupt
