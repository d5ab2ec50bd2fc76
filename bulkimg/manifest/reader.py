"""Read a manifest in one pass, row by row, in bounded memory: source, format, columns, checks."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from bulkimg.blank import is_blank, trim
from bulkimg.manifest.check import Checker
from bulkimg.manifest.columns import Columns
from bulkimg.manifest.damaged import cell_count, with_bad_cells
from bulkimg.manifest.header import Bound, above_the_header, bind_header, fatal
from bulkimg.manifest.jsonl import JsonRecord, read_objects
from bulkimg.manifest.keys import as_text, said_by
from bulkimg.manifest.kinds import Format, format_of, refuse_what_cannot_apply
from bulkimg.manifest.rowcheck import Alter, RowCheck
from bulkimg.manifest.slicing import Slice
from bulkimg.manifest.sound import SoundLines
from bulkimg.manifest.source import Source, Unreadable
from bulkimg.manifest.tables import LIBRARIES, CellNames, CellTable, Table, open_table
from bulkimg.manifest.tabular import Lines, Record, find_delimiter, read_records, skip_preamble
from bulkimg.model import Problem, Row, SoundRow
from bulkimg.settings import Settings

_NO_TEXTS: dict[str, str] = {}


class Manifest:
    """A manifest that is read once.

    After the last row it has `columns`, `problems` and `warnings` of the whole, `remarks` about it, `sha256`,
    `left_out`, `has_expectations`, and `blank_records` with the number of skipped ones and the line of the first.
    `columns` are the manifest's own, for failed.csv; None for JSONL, whose rows have none.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        changes: Iterable[Mapping[str, Any]] | None = None,
        alter: Alter | None = None,
    ) -> None:
        """Open the manifest. `changes` are objects as in JSONL that replace the file; their "lines" count from 1.

        `alter` may change or refuse each row that has an image. What it makes is checked like the manifest's own values.
        """
        self.name = name
        self._changes = changes
        self._alter = alter
        self.columns: list[str] | None = None
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.remarks: list[str] = []
        self.named: Callable[[Problem], Problem] = lambda problem: problem  # adds the cell's name, where it has one
        self.has_expectations = False
        self.blank_records = 0
        self.first_blank = 0
        self.sha256 = ""
        self._settings = settings
        no_tags = settings.tags_mode == "replace"
        self._checker = Checker(settings.empty_token, settings.allow_value, no_tags=no_tags)
        self._columns = Columns(settings, self._checker)
        self._check = RowCheck(self._checker, self._columns, alter, strict=settings.strict)
        self._slice = Slice(settings, self._columns)
        self.format: Format = format_of(name, settings, changes)
        self._table: Table | None = None
        self._query = settings.source if self.format == "sql" else None
        if changes is None:
            refuse_what_cannot_apply(name, settings, self.format)
        self._keys: set[str] = set()  # for JSONL

    @property
    def left_out(self) -> int:
        """Return how many records the options have left out so far."""
        return self._slice.left_out

    def rows(self) -> Iterator[Row]:
        """Yield every row once, in order. A problem that stops the reading is added to `problems` with fatal=True."""
        for row in self._read(quickly=False):
            assert isinstance(row, Row)
            yield row

    def stored_rows(self) -> Iterator[Row | SoundRow]:
        """Yield the same rows for the ledger. Most sound rows of a table skip the Row type."""
        return self._read(quickly=True)

    def _read(self, *, quickly: bool) -> Iterator[Row | SoundRow]:
        if self._changes is None:
            yield from self._file_rows(quickly=quickly)
        else:
            yield from self._change_rows(self._changes)
        if self.format == "jsonl" and self._keys:
            self.problems += self._columns.never_seen(1, self._keys)
        if not self._slice.seen and not self.problems and not (self._query and self._query.allow_empty):
            what, fix = "the manifest has no rows", "add a row"
            if self._query:
                what, fix = "the query returned no rows", "correct it, or write allow_empty = true in [source]"
            self.problems.append(Problem(1, "", "", "NO_ROWS", what, fix, fatal=True))

    def _is_blank_record(self, line: int, values: Iterable[Any]) -> bool:
        """Return whether a record is blank, and count it."""
        if not all(
            value is None or value in ([], {}) or (isinstance(value, str) and is_blank(value)) for value in values
        ):
            return False
        self.first_blank = self.first_blank or line
        self.blank_records += 1
        return True

    def _change_rows(self, changes: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
        for number, change in enumerate(changes, 1):
            row = self._json_row(JsonRecord(number, dict(change)))
            if row:
                yield row

    def _file_rows(self, *, quickly: bool) -> Iterator[Row | SoundRow]:
        if self.format in LIBRARIES:
            yield from self._library_rows(quickly=quickly)
            return
        try:
            source = Source(self.name, self._settings, "\n" if self.format == "jsonl" else "")
        except Unreadable as end:
            self.problems.append(end.problem)
            return
        try:
            if self.format == "jsonl":
                yield from self._json_rows(source)
            else:
                yield from self._table_rows(source, quickly=quickly)
            if found := source.contradiction():
                self.problems.insert(0, found)
        except Unreadable as end:
            self.problems.append(end.problem)
        finally:
            self.sha256 = source.sha256
            source.close()

    # -- tables ---------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Open a table that a library reads, before a run is made. Raises UsageError and ManifestRefused.

        The other formats are opened when their rows are read.
        """
        if self.format in LIBRARIES and self._table is None and not self.problems:
            try:
                self._table = open_table(self.format, self.name, self._settings)
            except Unreadable as end:
                self.problems.append(end.problem)

    def close(self) -> None:
        """Close what `open` opened. The last row closes it too."""
        if self._table is not None:
            self._table.close()

    def _library_rows(self, *, quickly: bool) -> Iterator[Row | SoundRow]:
        """Yield the rows of a table that a library reads."""
        self.open()
        if self._table is None:
            return
        table = self._table
        try:
            if isinstance(table, CellTable):
                yield from self._cell_rows(table, quickly=quickly)
            elif bound := self._bind(table.header):
                yield from self._records_rows(table, bound, self._sound_lines(",", bound.targets) if quickly else None)
        except Unreadable as end:
            self.problems.append(end.problem)
        finally:
            self.sha256 = table.sha256
            table.close()

    def _records_rows(self, table: Table, bound: Bound, sound: SoundLines | None) -> Iterator[Row | SoundRow]:
        for record in table.records():
            quick = sound.row(record.line, record.cells) if sound and not record.bad else None
            if quick:
                self._slice.seen += 1
                yield quick
            elif row := self._table_row(record, bound):
                yield row

    def _cell_rows(self, table: CellTable, *, quickly: bool) -> Iterator[Row | SoundRow]:
        """Yield the rows of a table whose cells have names. Every problem names its cell."""
        bound = self._bind(table.header)
        names = [trim(name) for name in table.header.cells]
        targets = bound.targets if bound else [self._columns.target(name) or "" for name in names]
        place = CellNames(table, names, targets)
        self.named = place.named
        self.problems = [place.named(problem) for problem in self.problems]
        if bound is None:
            return
        self.problems += map(fatal, table.bind(targets, self._columns.mentioned))
        sound = self._sound_lines(",", targets) if quickly else None
        for record in table.records():
            if sound and not record.bad and (quick := sound.row(record.line, record.cells)):
                self._slice.seen += 1
                yield quick
            elif row := self._table_row(record, bound):
                if row.problems or row.warnings:
                    row.problems = tuple(map(place.named, row.problems))
                    row.warnings = tuple(map(place.named, row.warnings))
                yield row
        self._slice.left_out += table.skipped
        self.remarks = table.remarks()
        self.problems += map(fatal, table.problems())
        if self._settings.strict:
            self.problems += map(fatal, table.warnings())
        else:
            self.warnings = table.warnings()

    def _bind(self, header: Record, above: Callable[[list[str]], Problem | None] = lambda names: None) -> Bound | None:
        """Take over what the header says. Returns None if no row can be read; `problems` then say why."""
        found = bind_header(header, self._columns, above)
        self.problems += found.problems
        if found.names is not None:
            self.columns, self.has_expectations = found.names, found.has_expectations
        return found.bound

    def _table_rows(self, source: Source, *, quickly: bool) -> Iterator[Row | SoundRow]:
        lines = Lines(source.lines())
        named = skip_preamble(lines)
        ahead = [text for _, text in lines.peek(20) if text is not None]
        wanted = {"uuid", *(column.casefold() for column, name in self._settings.map if name == "uuid")}
        found = find_delimiter(next(iter(ahead), ""), wanted)
        delimiter = "\t" if self.format == "tsv" else named if named and named in ahead[0] else found
        records = read_records(lines, delimiter)
        header = next(records, None)
        if header is None:
            return
        bound = self._bind(header, lambda names: above_the_header(header.line, names, ahead, delimiter, wanted))
        if bound is None:
            return
        sound = self._sound_lines(delimiter, bound.targets) if quickly else None
        while True:
            if sound:
                self._slice.seen += yield from sound.rows(lines)
            if (record := next(records, None)) is None:
                return
            if row := self._table_row(record, bound):
                yield row

    def _sound_lines(self, delimiter: str, targets: list[str]) -> SoundLines | None:
        """Return the quick way to read lines, or None if an option must see every record."""
        if self._slice.counts_rows or self._columns.look_at_texts or self._alter:
            return None
        constants: dict[str, str] = {}
        self._columns.apply_templates(0, {}, constants)
        return SoundLines(delimiter, targets, self._checker, constants)

    def _table_row(self, record: Record, bound: Bound) -> Row | None:
        cells, problem = record.cells, record.problem
        if problem is None and not record.bad and self._is_blank_record(record.line, cells):
            return None
        if problem is None and len(cells) != len(bound.names):
            problem = cell_count(record.line, cells, len(bound.names))
        if problem:
            return None if self._slice.leaves_out(None) else Row(record.line, None, {}, {}, tuple(cells), (problem,))
        need = self._columns.look_at_texts or self._alter is not None
        texts = dict(zip(bound.names, cells, strict=True)) if need else _NO_TEXTS
        if self._slice.leaves_out(texts if not record.bad or self._can_decide(record, bound) else None):
            return None
        asked = {name: cells[at] for name, at in bound.fields}
        expected = {name: cells[at] for name, at in bound.expects} if bound.expects else None
        row = self._check.row(record.line, (cells[bound.uuid], asked, expected), texts, tuple(cells))
        return with_bad_cells(row, record, bound) if record.bad else row

    def _can_decide(self, record: Record, bound: Bound) -> bool:
        """Return whether --where can decide about a record with bad cells."""
        asked = {column for column, _ in self._columns.conditions}
        return not any(at >= 0 and bound.names[at] in asked for at, _ in record.bad)

    # -- JSONL ----------------------------------------------------------------------------------------------------------

    def _json_rows(self, source: Source) -> Iterator[Row]:
        for at, record in enumerate(read_objects(source.lines())):
            if at == 0 and (found := self._columns.file_of_a_run(record.line, record.keys)):
                raise Unreadable(found)
            row = self._json_row(record)
            if row:
                yield row

    def _json_row(self, record: JsonRecord) -> Row | None:
        if record.problem:
            return None if self._slice.leaves_out(None) else Row(record.line, None, {}, {}, (), (record.problem,))
        if self._is_blank_record(record.line, record.keys.values()):
            return None
        self._keys.update(record.keys)
        texts = {key: as_text(value) for key, value in record.keys.items()}
        if self._slice.leaves_out(texts):
            return None
        said, unknown = said_by(record, self._columns)
        row = self._check.row(record.line, said, texts, None)
        self.has_expectations |= bool(row.expects)
        return replace(row, problems=(*row.problems, *unknown)) if unknown else row
