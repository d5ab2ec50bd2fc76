"""Write a run's results as a table of another kind: .xlsx or .parquet. The file is replaced as a whole.

Unlike results.csv such a file cannot be appended to. It is written when a run begins, without rows, and when it ends.
"""

import shutil
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from bulkimg.errors import UsageError, not_installed
from bulkimg.ledger import Ledger, RunDirectory
from bulkimg.ledger.files import replacing_bytes
from bulkimg.ledger.store import storage_errors

KINDS = ("xlsx", "parquet")


def is_table(path: Path) -> bool:
    """Return whether a file of this name is written here, and not line by line."""
    return path.suffix.removeprefix(".") in KINDS


def check_library(option: str, kind: str) -> None:
    """Raise UsageError if the library that writes this kind of file is not installed."""
    if kind != "parquet":
        return
    try:
        import_module("duckdb")  # imported only where Parquet is asked for
    except ImportError:
        raise not_installed(f"{option}: Parquet", "duckdb", "parquet") from None


def check_size(option: str, kind: str, rows: int, columns: Sequence[str] | None) -> None:
    """Raise UsageError if a file of this kind cannot hold so many rows or columns."""
    if kind != "xlsx":
        return
    from bulkimg.report.workbook import too_large  # imported only where a workbook is asked for

    if why := too_large(rows, columns):
        raise UsageError(f"{option}: the manifest has {why}; choose csv, jsonl or parquet")


def write_table(
    ledger: Ledger,
    directory: RunDirectory,
    path: Path,
    kind: str,
    *,
    held: bool,
    rows: bool = True,
    suffix: str = "tmp",
    check: Callable[[], None] = lambda: None,
) -> None:
    """Write the present state of every row. Raises StorageError.

    `held`: a process executes the run. Without `rows` the file has none. `suffix` keeps processes apart. `check` is
    called now and then. What it raises ends the writing, and the file stays as it was.
    """
    if kind == "xlsx":
        from bulkimg.report import workbook  # imported only where a workbook is asked for

        with replacing_bytes(path, suffix) as file:
            workbook.write_run(file, ledger, directory, check, held=held, rows=rows)
        return
    from bulkimg.report import parquet  # imported only where Parquet is asked for

    # DuckDB cannot replace a file safely, so it writes in a private place, and the file is copied.
    place = directory.path / f".parquet-{suffix}"
    with storage_errors(place):
        shutil.rmtree(place, ignore_errors=True)  # left by a killed process
        place.mkdir(mode=0o700)
        try:
            made = parquet.write_run(ledger, place, path, check, rows=rows)
            with replacing_bytes(path, suffix) as file, made.open("rb") as source:
                shutil.copyfileobj(source, file)
        finally:
            shutil.rmtree(place, ignore_errors=True)
