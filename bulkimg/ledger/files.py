"""Make the run's other files from the ledger: results, failed, unprocessed, summary. CSV is spreadsheet-safe."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal, TextIO, TypeVar

from pydantic_core import to_json

from bulkimg.blank import is_blank
from bulkimg.cells import REFUSED_MANIFEST, csv_text, harmless, write_cell, write_csv
from bulkimg.ledger import plans, stats
from bulkimg.ledger.lines import result_lines
from bulkimg.ledger.store import Ledger, storage_errors
from bulkimg.model import FIELDS, Outcome, Row, Status, Value

COLUMNS = (
    "line", "uuid", "status", "code", "message", "hint", "http_status", "attempts", "job_uuid",
    "started_at", "duration_ms", "changed", "before", "after", "name",
)  # fmt: skip
OURS = ("_status", "_code", "_message", "_hint")
FED_BACK = {"failed.csv": (Status.FAILED, Status.UNKNOWN, Status.DRIFTED, Status.CONFLICT),
            "unprocessed.csv": (Status.UNPROCESSED,)}  # fmt: skip


def _kind(path: Path) -> str:
    """Return the column of the view that holds a result file's lines, from the file's suffix."""
    return "jsonl" if path.suffix == ".jsonl" else "csv"


_File = TypeVar("_File", bound=IO[Any])
MOST_HELD = 2000  # most rows that wait for an earlier row


class LiveResults:
    """Append rows to the result files while the run sends, as whole lines.

    A new run appends in manifest order (`in_order`): a row waits for the rows before it. When more than MOST_HELD rows
    wait, and in a resumed run, rows are appended as they are settled. `write_results` then sorts them at the end.
    """

    def __init__(self, paths: Sequence[Path], *, in_order: bool = False) -> None:
        self.in_order = in_order
        self._files: list[tuple[int, Path]] = []
        self._written = 0  # last ordinal in the files, while they are in order
        self._held: dict[int, tuple[str, str]] = {}  # lines of rows that wait for an earlier row
        for path in paths:
            with storage_errors(path):
                self._files.append((_private_descriptor(path, os.O_APPEND), path))

    def append(self, ledger: Ledger, outcomes: Sequence[Outcome], complete: int) -> None:
        """Append rows that were just settled. Raises StorageError.

        Every row up to the ordinal `complete` has its outcome.
        """
        lines = {outcome.ordinal: result_lines(outcome) for outcome in outcomes}
        if self.in_order:
            self._held |= lines
            lines = self._up_to(ledger, complete)
            if len(self._held) > MOST_HELD:
                self.in_order = False
                lines, self._held = {**lines, **self._held}, {}
        self._write([text for _, text in sorted(lines.items())])

    def _up_to(self, ledger: Ledger, complete: int) -> dict[int, tuple[str, str]]:
        """Return the lines of all rows up to the ordinal `complete`.

        Rows that were not sent are read from the ledger.
        """
        found, missing = {}, []
        for ordinal in range(self._written + 1, complete + 1):
            if line := self._held.pop(ordinal, None):
                found[ordinal] = line
            else:
                missing.append(ordinal)
        self._written = max(self._written, complete)
        if missing:
            query = "SELECT ordinal, jsonl, csv FROM json_each(?) CROSS JOIN result ON result.ordinal = json_each.value"
            for ordinal, exact, cells in ledger.db.execute(query, (to_json(missing).decode(),)):
                found[ordinal] = (exact, cells)
        return found

    def complete(self, ledger: Ledger) -> bool:
        """Append every row that is not in the files yet, and make the files durable.

        Returns False if the files are not in order, so that `write_results` must write them.
        """
        if not self.in_order:
            return False
        query = "SELECT jsonl, csv FROM result WHERE ordinal > ? ORDER BY ordinal"
        rows = ledger.db.execute(query, (self._written,))
        while batch := rows.fetchmany(256):
            self._write(batch)
        for descriptor, path in self._files:
            with storage_errors(path):
                os.fsync(descriptor)
        return True

    def _write(self, lines: Sequence[tuple[str, str]]) -> None:
        """Append the text with one write for each file."""
        for descriptor, path in self._files:
            at = 0 if path.suffix == ".jsonl" else 1
            with storage_errors(path):
                _write_all(descriptor, "".join([line[at] for line in lines]).encode())

    def close(self) -> None:
        for descriptor, _ in self._files:
            os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    """Write without a buffer: closing the file must not write later what a full disk refused."""
    while data:
        data = data[os.write(descriptor, data) :]


def write_results(
    ledger: Ledger,
    paths: Sequence[Path],
    which: Literal["all", "settled", "none"] = "all",
    kind: Literal["csv", "jsonl", ""] = "",
    suffix: str = "tmp",
) -> None:
    """Write every row's outcome in manifest order. Each file is replaced as a whole.

    `kind` is the format if the names do not say it. `suffix` keeps processes apart. `settled` writes only the rows with an outcome, for a run that is resumed. `none` writes no row, for a new run.
    """
    where = {"all": "", "settled": "WHERE settled", "none": "WHERE 0"}[which]
    for path in paths:
        column = kind or _kind(path)
        with replacing(path, suffix) as file:
            file.write(csv_text([COLUMNS]) if column == "csv" else "")
            lines = ledger.db.execute(f"SELECT {column} FROM result {where} ORDER BY ordinal")  # noqa: S608 - constant texts
            while batch := lines.fetchmany(100):
                file.write("".join(line for (line,) in batch))


def write_joined_results(
    ledgers: Mapping[str, Ledger], path: Path, kind: Literal["csv", "jsonl"], suffix: str = "tmp"
) -> None:
    """Write the outcomes of several runs into one file, each row with its target as the last column."""
    with replacing(path, suffix) as file:
        file.write(csv_text([(*COLUMNS, "target")]) if kind == "csv" else "")
        for target, ledger in ledgers.items():  # a target's name needs no quotes
            end, more = ("\n", f",{target}\n") if kind == "csv" else ("}\n", f',"target":"{target}"}}\n')
            lines = ledger.db.execute(f"SELECT {kind} FROM result ORDER BY ordinal")  # noqa: S608 - constant texts
            while batch := lines.fetchmany(100):
                file.write("".join(line.removesuffix(end) + more for (line,) in batch))


def write_fed_back(ledger: Ledger, directory: Path, empty_token: str) -> dict[str, int]:
    """Write failed.csv and unprocessed.csv as manifests with the manifest's own columns. Returns rows by file name.

    Of a manifest that was refused as a whole they have a column more, which is refused until a person deletes it.
    """
    written: dict[str, int] = {}
    own = ledger.meta("columns")
    why = stats.problem_of_the_whole(ledger)
    more = {REFUSED_MANIFEST: harmless(why)} if why else {}
    for name, statuses in FED_BACK.items():
        columns, row_of = _own_columns(own) if own is not None else _field_columns(ledger, statuses, empty_token)
        rows = _fed_back(row_of, stats.row_texts(ledger, *statuses), [*more.values()])
        written[name] = _write_manifest(directory / name, [*columns, *more, *OURS], rows)
    return written


def _write_manifest(path: Path, header: Sequence[Any], rows: Iterator[Sequence[Any]]) -> int:
    """Write rows as a CSV manifest, or no file if there are no rows. Returns the number of rows.

    The file begins with a byte order mark. Without it, spreadsheets would read it in the local code page, and so would
    bulkimg if an encoding is configured.
    """
    first = next(rows, None)
    if first is None:
        with storage_errors(path), suppress(FileNotFoundError):
            path.unlink()  # from an earlier process of this run
        return 0
    with replacing(path) as file:
        file.write("\ufeff")
        write_csv(file, [header, first])
        return 1 + write_csv(file, rows)


def _fed_back(
    row_of: Callable[[stats.RowText], list[str]], row_texts: Iterable[stats.RowText], more: Sequence[str]
) -> Iterator[list[str]]:
    for fate in row_texts:
        o = fate.outcome
        yield [*row_of(fate), *more, o.status.value, o.code, harmless(o.message), harmless(o.hint)]


def _own_columns(own: list[str]) -> tuple[list[str], Callable[[stats.RowText], list[str]]]:
    """Return the manifest's columns without the columns that an earlier failed.csv added."""
    kept = [at for at, name in enumerate(own) if name not in (*OURS, REFUSED_MANIFEST)]
    return [own[at] for at in kept], lambda fate: [(fate.cells or [])[at] for at in kept]


def _field_columns(
    ledger: Ledger, statuses: Sequence[Status], empty_token: str
) -> tuple[list[str], Callable[[stats.RowText], list[str]]]:
    """Return the columns for rows that came from JSONL: the fields in use."""
    used: set[str] = set()
    for fate in stats.row_texts(ledger, *statuses):
        used.update(fate.fields, (f"if_{name}" for name in fate.expects))
    columns = [name for name in (*FIELDS, *(f"if_{name}" for name in FIELDS)) if name in used]

    def row_of(fate: stats.RowText) -> list[str]:
        values: dict[str, Value] = {**fate.fields, **{f"if_{name}": value for name, value in fate.expects.items()}}
        return [fate.outcome.uuid, *(write_cell(values.get(name), empty_token) for name in columns)]

    return ["uuid", *columns], row_of


def write_plan(ledger: Ledger, path: Path) -> None:
    """Write plan.csv: one line for each field that changes, and one for each row that sends nothing."""
    with replacing(path) as file:
        write_csv(file, [("line", "uuid", "plan", "field", "before", "after", "message")])
        write_csv(file, _planned(ledger))


def _planned(ledger: Ledger) -> Iterator[tuple[Any, ...]]:
    for row in plans.rows(ledger):
        begin = (row.line, row.uuid, row.action)
        for name, value in row.send.items():
            yield (*begin, name, harmless(write_cell(row.before.get(name), "")), harmless(write_cell(value, "")), "")
        if not row.send:
            yield (*begin, "", "", "", harmless(row.message))


def write_undo(rows: Callable[[], Iterator[Row]], path: Path, empty_token: str) -> None:
    """Write undo.csv: a manifest that restores the old values, with `if_` columns of the values that the run wrote.

    Each call of `rows` yields all rows again: once for the columns, once for the lines.
    """
    used = {name for row in rows() for name in (*row.fields, *(f"if_{name}" for name in row.expects))}
    columns = [name for name in (*FIELDS, *(f"if_{name}" for name in FIELDS)) if name in used]
    lines = (_undoing(row, columns, empty_token) for row in rows())
    _write_manifest(path, ("uuid", *columns, "_line", "_message"), lines)


def _undoing(row: Row, columns: Sequence[str], empty_token: str) -> tuple[Any, ...]:
    values: dict[str, Value] = {**row.fields, **{f"if_{name}": value for name, value in row.expects.items()}}
    values = {name: value for name, value in values.items() if value != empty_token}
    cells = (write_cell(values.get(name), empty_token) for name in columns)
    said = harmless(
        "; ".join([*(problem.text for problem in (*row.problems, *row.warnings)), *_unsayable(row, empty_token)])
    )
    return (row.uuid, *cells, row.line, said)


def _unsayable(row: Row, empty_token: str) -> list[str]:
    """Return the old values that a manifest cannot express; `bulkimg undo` can restore them."""
    return [
        f"the old {name} cannot be written as a cell, so it is left out here; bulkimg undo restores it"
        for name, value in row.fields.items()
        if value == empty_token or (isinstance(value, str) and value and is_blank(value))
    ]


def write_json(path: Path, document: Any) -> None:
    """Write a small JSON document. The file is replaced as a whole."""
    with replacing(path) as file:
        file.write(json.dumps(document, indent=2) + "\n")


@contextmanager
def replacing(path: Path, suffix: str = "tmp") -> Iterator[TextIO]:
    """Write a temporary file, make it durable, then rename it. A reader sees the old file or the new one.

    `suffix` keeps processes apart that may write the same file.
    """
    with _replacing(path, suffix, lambda descriptor: os.fdopen(descriptor, "w", encoding="utf-8", newline="")) as file:
        yield file


@contextmanager
def replacing_bytes(path: Path, suffix: str = "tmp") -> Iterator[BinaryIO]:
    """Replace a file like `replacing`, with bytes."""
    with _replacing(path, suffix, lambda descriptor: os.fdopen(descriptor, "wb")) as file:
        yield file


@contextmanager
def _replacing(path: Path, suffix: str, opened: Callable[[int], AbstractContextManager[_File]]) -> Iterator[_File]:
    temporary = path.with_name(f".{path.name}.{suffix}")
    with storage_errors(path):
        with suppress(FileNotFoundError):
            temporary.unlink()  # left by a killed process, or a link that another user put there
        descriptor = _private_descriptor(temporary, os.O_EXCL)
        try:
            with opened(descriptor) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):  # the first error is the one to report
                temporary.unlink()
            raise
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _private_descriptor(path: Path, flags: int) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | flags, 0o600)
