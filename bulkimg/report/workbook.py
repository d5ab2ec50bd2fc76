"""Write a run as a workbook: the manifest's own columns, ours next to them, and a sheet with the summary.

The sheet is a manifest again: our columns begin with `_`, and a manifest's own cells come back as the same texts. What
cannot come back is written so that the row is refused, never so that another value is set. A manifest that was refused
as a whole gets a column more, which is refused until a person deletes it.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from bulkimg.cells import REFUSED_CELL, REFUSED_MANIFEST, write_cell
from bulkimg.ledger import Ledger, RunDirectory, insight, stats
from bulkimg.ledger.insight import TableRow
from bulkimg.model import FIELDS, Status, Value, iso_utc
from bulkimg.report.xlsx import MOST_COLUMNS, MOST_ROWS, Line, Sheet, Style, fitted, write_workbook
from bulkimg.settings import Settings
from bulkimg.words import count

SHEET = "results"
CHECK_EVERY = 500  # rows
Check = Callable[[], None]
# Our columns → the columns of the ledger's view `row_text`, and their widths.
OURS: Mapping[str, tuple[str, float]] = {
    "_status": ("status", 13), "_code": ("code", 18), "_message": ("message", 50), "_hint": ("hint", 40),
    "_http_status": ("http_status", 13), "_attempts": ("attempts", 11), "_job_uuid": ("job_uuid", 35),
    "_started_at": ("started", 26), "_duration_ms": ("duration_ms", 14), "_changed": ("changed", 20),
    "_before": ("before", 40), "_after": ("after", 40), "_name": ("name", 30), "_line": ("line", 8),
}  # fmt: skip
_WIDTHS = {"uuid": 35.0, "name": 30.0, "description": 40.0}
_WIDTH = 16.0
# The words in `_status` say the same as the colours, and what is not fine is bold.
_STYLES: Mapping[str, Style] = {
    "": Style(),
    "header": Style("1F2328", "FFFFFF", bold=True),
    Status.UPDATED: Style("DAFBE1"),
    Status.UNCHANGED: Style(),
    Status.CONFLICT: Style("FFF8C5", bold=True),
    Status.INVALID: Style("FFE2C2", bold=True),
    Status.FAILED: Style("FFCECB", bold=True),
    Status.DRIFTED: Style("FFD8B5", bold=True),
    Status.UNKNOWN: Style("E6D9FF", bold=True),
    Status.UNPROCESSED: Style("DDF4FF"),
}
_NUMBERS = {name: number for number, name in enumerate(_STYLES, 1)}


def too_large(rows: int, columns: Sequence[str] | None) -> str:
    """Return why rows with these own columns are too many for a sheet, or ""."""
    if rows >= MOST_ROWS:
        return f"{count(rows, 'row')}, and a sheet holds at most {MOST_ROWS - 1:,} below its header"
    if columns is not None and len(columns) + len(OURS) >= MOST_COLUMNS:
        most = MOST_COLUMNS - len(OURS) - 1  # one is for REFUSED_MANIFEST
        return f"{count(len(columns), 'column')}, and a sheet holds at most {most:,} with ours next to them"
    return ""


def write_run(
    file: BinaryIO, ledger: Ledger, directory: RunDirectory, check: Check, *, held: bool, rows: bool = True
) -> None:
    """Write a run into an empty file. Without `rows` the sheet has only its header.

    `check` is called now and then. What it raises ends the writing.
    """
    table = _Table(ledger, check)
    summary = [*_summary(ledger, directory, held=held)]
    sheets = [
        Sheet(SHEET, lambda: table.lines(rows=rows), table.widths, is_table=True),
        Sheet("summary", lambda: iter(summary), (20.0, 30.0, 12.0, 12.0, 50.0, 50.0)),
    ]
    write_workbook(file, sheets, list(_STYLES.values()))


class _Table:
    """The rows of a run as lines of a sheet."""

    def __init__(self, ledger: Ledger, check: Check) -> None:
        self._ledger = ledger
        self._check = check
        self._token = ledger.meta("settings", {}).get("empty_token", Settings().empty_token)
        given: list[str] | None = ledger.meta("columns")
        self._given = given
        why = stats.problem_of_the_whole(ledger)
        self._more = {REFUSED_MANIFEST: fitted(why)} if why else {}
        # The columns of an earlier run are replaced.
        self._kept = [at for at, name in enumerate(given or ()) if name not in (*OURS, REFUSED_MANIFEST)]
        self._names = _names_of_fields(insight.names_used(ledger)) if given is None else []
        self._own = ["uuid", *self._names] if given is None else [given[at] for at in self._kept]

    @property
    def widths(self) -> list[float]:
        own = [_WIDTHS.get(name.removeprefix("if_"), _WIDTH) for name in (*self._own, *self._more)]
        return [*own, *(width for _, width in OURS.values())]

    def lines(self, *, rows: bool) -> Iterator[Line]:
        yield _NUMBERS["header"], [*map(_exact, self._own), *self._more, *OURS]
        if not rows:
            return
        for number, row in enumerate(insight.table_rows(self._ledger, [column for column, _ in OURS.values()])):
            if number % CHECK_EVERY == 0:
                self._check()
            shown = ["" if value is None else fitted(str(value)) for value in row.shown]
            yield _NUMBERS[row.status], [*map(_exact, self._cells(row)), *self._more.values(), *shown]

    def _cells(self, row: TableRow) -> list[str]:
        if self._given is None:
            return self._fields(row)
        cells: list[str] = json.loads(row.cells) if row.cells else []
        if len(cells) == len(self._given):
            return cells if len(self._kept) == len(cells) else [cells[at] for at in self._kept]
        # It is not known which cell belongs to which column. As one text they are no uuid, so the row stays refused.
        joined = f"{count(len(cells), 'cell')}: {' | '.join(cells)}" if cells else ""
        return [joined, *[""] * (len(self._own) - 1)]

    def _fields(self, row: TableRow) -> list[str]:
        """Return the cells of a row from JSONL. A refused one lacks what could not be read, so it must stay refused."""
        uuid = f"line {row.line}: {row.uuid}" if row.status == Status.INVALID else row.uuid
        expected = {f"if_{name}": value for name, value in json.loads(row.expects).items()}
        values: dict[str, Value] = {**json.loads(row.fields), **expected}
        return [uuid, *(write_cell(values.get(name), self._token) for name in self._names)]


def _names_of_fields(used: set[str]) -> list[str]:
    return [name for name in (*FIELDS, *(f"if_{name}" for name in FIELDS)) if name in used]


def _exact(text: str) -> str:
    """Return a cell of the manifest. One that a sheet cannot hold as it is gets a character that is refused."""
    cell = fitted(text)
    return text if cell is text else cell + REFUSED_CELL


def _summary(ledger: Ledger, directory: RunDirectory, *, held: bool) -> Iterator[Line]:
    """Yield the summary's lines: six cells each."""
    for name, value in _facts(ledger, directory, held=held):
        yield _line("", name, fitted(str(value)))
    yield _line("")
    yield _line("header", "status", "rows")
    counts = stats.counts(ledger)
    for status, number in counts.items():
        if number:
            yield _line(status, status, str(number))
    yield _line("", "all", str(sum(counts.values())))
    yield _line("")
    yield _line("header", "status", "code", "rows", "first line", "message", "hint")
    for cause in insight.causes(ledger):
        texts = (cause.code, str(cause.rows), str(cause.examples[0][0]), cause.message, cause.hint)
        yield _line(cause.status, cause.status, *map(fitted, texts))


def _line(style: str, *texts: str) -> Line:
    return _NUMBERS[style], [*texts, *[""] * (6 - len(texts))]


def _facts(ledger: Ledger, directory: RunDirectory, *, held: bool) -> Iterator[tuple[str, Any]]:
    settings = ledger.meta("settings", {})
    facts: dict[str, Callable[[], Any]] = {
        "run": lambda: directory.run_id,
        "kind": lambda: insight.kind(ledger),
        "state": lambda: insight.state(ledger, held=held),
        "reason": lambda: ledger.meta("reason"),
        "exit code": lambda: ledger.meta("exit_code"),
        "target": lambda: f"{settings['endpoint']}{settings.get('base_path', '')}" if "endpoint" in settings else "",
        "manifest": lambda: ledger.meta("manifest"),
        "manifest sha256": lambda: ledger.meta("sha256"),
        "undo of": lambda: ledger.meta("undo_of"),
        "retry of": lambda: ledger.meta("retry_of"),
        "started": lambda: _moment(ledger.meta("started_at")),
        "ended": lambda: _moment(ledger.meta("ended_at")),
        "note": lambda: ledger.meta("note"),
        "next": lambda: ledger.meta("next") if held else insight.following(ledger, directory),
    }
    for name, found in facts.items():
        if (value := found()) not in (None, ""):
            yield name, value


def _moment(seconds: float | None) -> str:
    return "" if seconds is None else iso_utc(seconds)
