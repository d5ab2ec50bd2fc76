"""This file is the manifest's reader: source, format, columns and checks in one pass, row by row, in bounded memory."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any, Literal

from bulkimg.errors import UsageError
from bulkimg.manifest.check import Checker
from bulkimg.manifest.columns import Columns
from bulkimg.manifest.jsonl import JsonRecord, read_objects
from bulkimg.manifest.source import Source, Unreadable
from bulkimg.manifest.tabular import Lines, Record, find_delimiter, read_records
from bulkimg.model import Problem, Row
from bulkimg.settings import Settings

Format = Literal["csv", "tsv", "jsonl"]
_SUFFIXES: dict[str, Format] = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}


def find_format(name: str, given: str | None) -> Format:
    """The format an option or the file's name says; CSV for standard input."""
    if given:
        return _SUFFIXES[f".{given}"]
    if name == "-":
        return "csv"
    suffix = PurePath(name.removesuffix(".gz")).suffix.lower()
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    raise UsageError(
        f"{name}: what format is it? Name it .csv, .tsv, .jsonl or .ndjson (or .gz of these), or give --format"
    )


class Manifest:
    """A manifest being read. After the last row: `columns`, `problems` of the whole, `sha256`, `left_out`, `has_expectations`.

    `columns` are the manifest's own, for failed.csv; None for JSONL, whose rows have none.
    """

    def __init__(self, name: str, settings: Settings, changes: Iterable[Mapping[str, Any]] | None = None) -> None:
        """`changes`: objects as JSONL would hold them, instead of a file; their «lines» count from 1."""
        self.name = name
        self._changes = changes
        self.columns: list[str] | None = None
        self.problems: list[Problem] = []
        self.has_expectations = False
        self.left_out = 0
        self.sha256 = ""
        self._settings = settings
        self._checker = Checker(settings.empty_token, settings.allow_value)
        self._columns = Columns(settings, self._checker)
        self.format: Format = "jsonl" if changes is not None else find_format(name, settings.format)
        self._seen = 0

    def rows(self) -> Iterator[Row]:
        """Every row once, in order. What stops the reading is left in `problems` with fatal=True."""
        yield from self._file_rows() if self._changes is None else self._change_rows(self._changes)
        if not self._seen and not self.problems:
            self.problems.append(Problem(1, "", "", "NO_ROWS", "the manifest has no rows", "add one", fatal=True))

    def _change_rows(self, changes: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
        for number, change in enumerate(changes, 1):
            row = self._json_row(JsonRecord(number, dict(change)))
            if row:
                yield row

    def _file_rows(self) -> Iterator[Row]:
        try:
            source = Source(self.name, self._settings.encoding, "\n" if self.format == "jsonl" else "")
        except Unreadable as end:
            self.problems.append(end.problem)
            return
        try:
            yield from self._json_rows(source) if self.format == "jsonl" else self._table_rows(source)
        except Unreadable as end:
            self.problems.append(end.problem)
        finally:
            self.sha256 = source.sha256
            source.close()

    def _sliced_out(self, texts: dict[str, str] | None) -> bool:
        """Whether --skip-rows, --where or --max-rows leaves this record out; None: unreadable, so --where does not."""
        self._seen += 1
        limit = self._settings.max_rows
        out = (
            self._seen <= self._settings.skip_rows
            or (texts is not None and not self._columns.wanted(texts))
            or (limit is not None and self._seen - self.left_out > limit)
        )
        self.left_out += out
        return out

    # -- CSV and TSV ----------------------------------------------------------------------------------------------------

    def _table_rows(self, source: Source) -> Iterator[Row]:
        lines = Lines(source.lines())
        sample = [text for _, text in lines.peek(20) if text is not None]
        if not sample:
            return
        wanted = {"uuid", *(column.casefold() for column, name in self._settings.map if name == "uuid")}
        delimiter = "\t" if self.format == "tsv" else find_delimiter(sample, wanted)
        records = read_records(lines, delimiter)
        header = next(records, None)
        if header is None:
            return
        if header.problem:
            self.problems.append(_fatal(header.problem))
            return
        names = [name.strip() for name in header.cells]
        targets, problems = self._columns.bind(header.line, names)
        self.problems += [_fatal(problem) for problem in problems]
        self.columns = names
        self.has_expectations = any(target.startswith("if_") for target in targets)
        if any(problem.code in {"NO_UUID_COLUMN", "EMPTY_COLUMN", "COLUMN_TWICE"} for problem in problems):
            return  # without sound columns every row would be blamed for the header
        for record in records:
            row = self._table_row(record, names, targets)
            if row:
                yield row

    def _table_row(self, record: Record, names: list[str], targets: list[str]) -> Row | None:
        cells, problem = record.cells, record.problem
        if problem is None and len(cells) != len(names):
            message = f"has {len(cells)} cells, the header has {len(names)}"
            problem = Problem(record.line, "", "", "CELL_COUNT", message, "quote cells that hold the delimiter")
        if problem:
            return None if self._sliced_out(None) else Row(record.line, None, {}, {}, tuple(cells), (problem,))
        texts = dict(zip(names, cells, strict=True))
        if self._sliced_out(texts):
            return None
        asked = {target: cell for target, cell in zip(targets, cells, strict=True) if target}
        return self._checked(record.line, asked, texts, tuple(cells))

    # -- JSONL ----------------------------------------------------------------------------------------------------------

    def _json_rows(self, source: Source) -> Iterator[Row]:
        for record in read_objects(source.lines()):
            row = self._json_row(record)
            if row:
                yield row

    def _json_row(self, record: JsonRecord) -> Row | None:
        if record.problem:
            return None if self._sliced_out(None) else Row(record.line, None, {}, {}, (), (record.problem,))
        texts = {key: _as_text(value) for key, value in record.keys.items()}
        if self._sliced_out(texts):
            return None
        asked: dict[str, Any] = {}
        unknown = []
        for key, value in record.keys.items():
            target = self._columns.target(key)
            if target is None:
                unknown.append(self._columns.unknown(record.line, key))
            elif target:
                asked[target] = value
        row = self._checked(record.line, asked, texts, None)
        return replace(row, problems=(*row.problems, *unknown)) if unknown else row

    # -- both -----------------------------------------------------------------------------------------------------------

    def _checked(self, line: int, asked: dict[str, Any], texts: dict[str, str], cells: tuple[str, ...] | None) -> Row:
        is_cells = cells is not None
        written = asked.pop("uuid", None)
        uuid, problems = self._checker.uuid(line, written)
        expected = {name[3:]: asked.pop(name) for name in list(asked) if name.startswith("if_")}
        set_texts: dict[str, Any] = {}
        problems += self._columns.apply_templates(line, texts, set_texts)
        for name in set_texts:
            asked.pop(name, None)
        fields, wrong = self._checker.fields(line, asked, cells=is_cells)
        problems += wrong
        if set_texts:
            more, wrong = self._checker.fields(line, set_texts, cells=True)
            fields |= more
            problems += wrong
        expects, wrong = self._checker.expects(line, expected, cells=is_cells) if expected else ({}, [])
        self.has_expectations |= bool(expects)
        return Row(
            line, uuid, fields, expects, cells or (), (*problems, *wrong), written if isinstance(written, str) else ""
        )


def _as_text(value: Any) -> str:
    """A JSON value as a template or a condition sees it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return (
        ""
        if value is None
        else value
        if isinstance(value, str)
        else ";".join(map(str, value))
        if isinstance(value, list)
        else str(value)
    )


def _fatal(problem: Problem) -> Problem:
    return replace(problem, fatal=True)


def read_manifest(name: str, settings: Settings) -> Manifest:
    """A reader for the file (`-` for standard input). UsageError for options that make no sense with any manifest."""
    return Manifest(name, settings)
