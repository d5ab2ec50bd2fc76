"""Write a run as a Parquet file with DuckDB: the columns of results.jsonl, with types.

DuckDB reads the lines of a JSONL file and writes a file in the same directory. It may do nothing else: no network, no
extension, no other path.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bulkimg.errors import StorageError
from bulkimg.ledger import Ledger

if TYPE_CHECKING:
    import duckdb

Check = Callable[[], None]

# Column → DuckDB's type. Times are UTC; `before` and `after` are JSON, because their values have several types.
COLUMNS: Mapping[str, str] = {
    "line": "BIGINT", "uuid": "VARCHAR", "status": "VARCHAR", "code": "VARCHAR", "message": "VARCHAR", "hint": "VARCHAR",
    "http_status": "INTEGER", "attempts": "INTEGER", "job_uuid": "VARCHAR", "started_at": "TIMESTAMPTZ",
    "duration_ms": "BIGINT", "changed": "VARCHAR[]", "before": "JSON", "after": "JSON", "name": "VARCHAR",
}  # fmt: skip
MEMORY = "256MB"
THREADS = 2
_LONGEST_LINE = 1 << 24  # bytes. A row of a manifest has at most 1 MiB, and an answer of the server 2 MiB
_ROWS_A_GROUP = 50_000


def write_run(ledger: Ledger, place: Path, shown: Path, check: Check, *, rows: bool = True) -> Path:
    """Write a run as a file in the empty directory `place`. Returns its path. Raises StorageError, which names `shown`.

    Without `rows` it has only its columns. `check` is called now and then. What it raises ends the writing.
    """
    lines, made = place / "results.jsonl", place / "results.parquet"
    with lines.open("w", encoding="utf-8", newline="") as file:
        found = ledger.db.execute(f"SELECT jsonl FROM result {'' if rows else 'WHERE 0'} ORDER BY ordinal")  # noqa: S608 - constant texts
        while batch := found.fetchmany(500):
            check()
            file.write("".join(line for (line,) in batch))
    check()
    _convert(lines, made, shown)
    check()
    return made


def _convert(lines: Path, made: Path, shown: Path) -> None:
    import duckdb  # imported only now: it is large, and an extra

    types = ", ".join(f"{name}: '{kind}'" for name, kind in COLUMNS.items())
    read = f"""read_json({_text(lines)}, format = 'newline_delimited', compression = 'none',
      maximum_object_size = {_LONGEST_LINE}, columns = {{{types}}})"""
    try:
        with _connected(made.parent) as connection:
            connection.execute(
                f"COPY (SELECT * FROM {read}) TO {_text(made)} "  # noqa: S608 - constants and quoted paths
                f"(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {_ROWS_A_GROUP})"
            )
    except duckdb.Error as error:
        why = str(error).partition("\n")[0].strip()
        raise StorageError(f"{shown}: DuckDB: {why}; free space or fix the disk, then resume the run") from error


def _connected(place: Path) -> "duckdb.DuckDBPyConnection":
    """Return a DuckDB that reads and writes in this directory only, in bounded memory, and loads nothing."""
    import duckdb

    config: dict[str, Any] = {
        "threads": THREADS,
        "memory_limit": MEMORY,
        "temp_directory": str(place / "spilled"),
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "allow_community_extensions": False,
        "python_enable_replacements": False,
    }
    connection = duckdb.connect(":memory:", config=config)
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"SET allowed_directories = [{_text(place)}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _text(path: Path) -> str:
    return "'" + str(path.absolute()).replace("'", "''") + "'"
