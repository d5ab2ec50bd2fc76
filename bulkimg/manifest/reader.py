"""Read a manifest in one pass, row by row, in bounded memory: source, format, columns, checks."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from bulkimg.blank import is_blank, trim
from bulkimg.cells import REFUSED_CELL
from bulkimg.manifest.check import Checker
from bulkimg.manifest.columns import Columns
from bulkimg.manifest.doubts import doubts
from bulkimg.manifest.jsonl import JsonRecord, read_objects
from bulkimg.manifest.kinds import Format, format_of, refuse_what_cannot_apply
from bulkimg.manifest.sound import SoundLines
from bulkimg.manifest.source import Source, Unreadable
from bulkimg.manifest.tables import LIBRARIES, CellTable, Table, open_table
from bulkimg.manifest.tabular import DELIMITERS, Lines, Record, find_delimiter, read_records, skip_preamble
from bulkimg.model import FIELDS, Fields, Problem, Row, SoundRow
from bulkimg.settings import Settings

_NO_ROW_IS_READ = frozenset({"EMPTY_COLUMN", "COLUMN_TWICE", "BAD_TYPE"})
_NO_TEXTS: dict[str, str] = {}


class Altered(Protocol):
    """What plugins made of a row: its fields as in JSONL, which plugin set each changed one, why the row is refused."""

    @property
    def fields(self) -> Mapping[str, Any]: ...
    @property
    def by(self) -> Mapping[str, str]: ...
    @property
    def problems(self) -> Sequence[Problem]: ...


# Takes line, uuid, fields, expectations and cells by column. Returns None for a row that stays as it is.
Alter = Callable[[int, str, Fields, Fields, Mapping[str, str]], Altered | None]
_Said = tuple[Any, dict[str, Any], dict[str, Any] | None]  # the uuid as written, the fields to set, the expectations


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
        self.left_out = 0
        self.blank_records = 0
        self.first_blank = 0
        self.sha256 = ""
        self._settings = settings
        no_tags = settings.tags_mode == "replace"
        self._checker = Checker(settings.empty_token, settings.allow_value, no_tags=no_tags)
        self._columns = Columns(settings, self._checker)
        self.format: Format = format_of(name, settings, changes)
        self._table: Table | None = None
        self._query = settings.source if self.format == "sql" else None
        if changes is None:
            refuse_what_cannot_apply(name, settings, self.format)
        self._seen = 0
        self._keys: set[str] = set()  # for JSONL

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
        if not self._seen and not self.problems and not (self._query and self._query.allow_empty):
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

    def _sliced_out(self, texts: dict[str, str] | None) -> bool:
        """Return whether --skip-rows, --where or --max-rows leaves this record out.

        None is an unreadable record, which --where does not leave out.
        """
        self._seen += 1
        limit = self._settings.max_rows
        out = (
            self._seen <= self._settings.skip_rows
            or (texts is not None and not self._columns.wanted(texts))
            or (limit is not None and self._seen - self.left_out > limit)
        )
        self.left_out += out
        return out

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

    def _records_rows(self, table: Table, bound: "_Bound", sound: SoundLines | None) -> Iterator[Row | SoundRow]:
        for record in table.records():
            quick = sound.row(record.line, record.cells) if sound and not record.bad else None
            if quick:
                self._seen += 1
                yield quick
            elif row := self._table_row(record, bound):
                yield row

    def _cell_rows(self, table: CellTable, *, quickly: bool) -> Iterator[Row | SoundRow]:
        """Yield the rows of a table whose cells have names. Every problem names its cell."""
        bound = self._bind(table.header)
        names = [trim(name) for name in table.header.cells]
        targets = bound.targets if bound else [self._columns.target(name) or "" for name in names]
        place = _Places(table, names, targets)
        self.named = place.named
        self.problems = [place.named(problem) for problem in self.problems]
        if bound is None:
            return
        self.problems += map(_fatal, table.bind(targets, self._columns.mentioned))
        sound = self._sound_lines(",", targets) if quickly else None
        for record in table.records():
            if sound and not record.bad and (quick := sound.row(record.line, record.cells)):
                self._seen += 1
                yield quick
            elif row := self._table_row(record, bound):
                if row.problems or row.warnings:
                    row.problems = tuple(map(place.named, row.problems))
                    row.warnings = tuple(map(place.named, row.warnings))
                yield row
        self.left_out += table.skipped
        self.remarks = table.remarks()
        self.problems += map(_fatal, table.problems())
        if self._settings.strict:
            self.problems += map(_fatal, table.warnings())
        else:
            self.warnings = table.warnings()

    def _bind(
        self, header: Record, above: Callable[[list[str]], Problem | None] = lambda names: None
    ) -> "_Bound | None":
        """Decide what each column is for. Returns None if no row can be read; `problems` then say why.

        `above` gets the names, and may know a better reason for a header without known names.
        """
        if header.problem:
            self.problems.append(_fatal(header.problem))
            return None
        names = [trim(name) for name in header.cells]
        if found := self._columns.file_of_a_run(header.line, names):
            self.problems.append(found)
            return None
        targets, problems = self._columns.bind(header.line, names)
        if problems and (advice := above(names)):
            problems = [advice]
        problems += [problem for _, problem in header.bad]
        self.problems += [_fatal(problem) for problem in problems]
        self.columns = names
        self.has_expectations = any(target.startswith("if_") for target in targets)
        if "uuid" not in targets or any(problem.code in _NO_ROW_IS_READ for problem in problems):
            return None  # without a valid header, every row would have its problem
        return _Bound(names, targets)

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
        bound = self._bind(header, lambda names: _above_the_header(header.line, names, ahead, delimiter, wanted))
        if bound is None:
            return
        sound = self._sound_lines(delimiter, bound.targets) if quickly else None
        while True:
            if sound:
                self._seen += yield from sound.rows(lines)
            if (record := next(records, None)) is None:
                return
            if row := self._table_row(record, bound):
                yield row

    def _sound_lines(self, delimiter: str, targets: list[str]) -> SoundLines | None:
        """Return the quick way to read lines, or None if an option must see every record."""
        is_sliced = self._settings.skip_rows or self._settings.max_rows is not None
        if is_sliced or self._columns.look_at_texts or self._alter:
            return None
        constants: dict[str, str] = {}
        self._columns.apply_templates(0, {}, constants)
        return SoundLines(delimiter, targets, self._checker, constants)

    def _table_row(self, record: Record, bound: "_Bound") -> Row | None:
        cells, problem = record.cells, record.problem
        if problem is None and not record.bad and self._is_blank_record(record.line, cells):
            return None
        if problem is None and len(cells) != len(bound.names):
            problem = _cell_count(record.line, cells, len(bound.names))
        if problem:
            return None if self._sliced_out(None) else Row(record.line, None, {}, {}, tuple(cells), (problem,))
        need = self._columns.look_at_texts or self._alter is not None
        texts = dict(zip(bound.names, cells, strict=True)) if need else _NO_TEXTS
        if self._sliced_out(texts if not record.bad or self._can_decide(record, bound) else None):
            return None
        asked = {name: cells[at] for name, at in bound.fields}
        expected = {name: cells[at] for name, at in bound.expects} if bound.expects else None
        row = self._checked(record.line, (cells[bound.uuid], asked, expected), texts, tuple(cells))
        return _with_bad_cells(row, record, bound) if record.bad else row

    def _can_decide(self, record: Record, bound: "_Bound") -> bool:
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
            return None if self._sliced_out(None) else Row(record.line, None, {}, {}, (), (record.problem,))
        if self._is_blank_record(record.line, record.keys.values()):
            return None
        self._keys.update(record.keys)
        texts = {key: _as_text(value) for key, value in record.keys.items()}
        if self._sliced_out(texts):
            return None
        asked: dict[str, Any] = {}
        unknown = []
        for key, value in record.keys.items():
            target = self._columns.target(key)
            if target is None:
                unknown.append(self._columns.unknown(record.line, key))
            elif target in asked:
                unknown.append(
                    Problem(
                        record.line, key, "", "KEY_TWICE", f"sets {target}, as another key does", "keep one of them"
                    )
                )
            elif target:
                asked[target] = value
        written = asked.pop("uuid", None)
        expected = {name[3:]: asked.pop(name) for name in list(asked) if name.startswith("if_")}
        row = self._checked(record.line, (written, asked, expected), texts, None)
        return replace(row, problems=(*row.problems, *unknown)) if unknown else row

    # -- both -----------------------------------------------------------------------------------------------------------

    def _checked(self, line: int, said: _Said, texts: dict[str, str], cells: tuple[str, ...] | None) -> Row:
        """Return a Row of the record with its values checked. `cells` is None for JSONL."""
        written, asked, expected = said
        is_cells = cells is not None
        uuid, problems = self._checker.uuid(line, written, cells=is_cells)
        expects: Fields = {}
        if expected:
            expects, wrong = self._checker.expects(line, expected, cells=is_cells)
            self.has_expectations |= bool(expects)
            problems += wrong
        constants: dict[str, Any] = {}
        if self._columns.templates:
            problems += self._columns.apply_templates(line, texts, constants)
            asked = {name: value for name, value in asked.items() if name not in constants}
        fields, refused = self._checker.fields(line, asked, cells=is_cells)
        if constants:
            more, wrong = self._checker.fields(line, constants, cells=True)
            fields |= more
            refused += wrong
        if self._alter and uuid and (found := self._alter(line, uuid, fields, expects, texts)):
            fields, refused = self._after_plugins(line, found, fields, refused)
        problems += refused
        target, wrong = self._columns.target_of(line, texts)
        problems += wrong
        kept = "" if uuid or not isinstance(written, str) else written
        warnings = tuple(doubts(line, fields))
        if self._settings.strict:
            problems, warnings = [*problems, *warnings], ()
        return Row(line, uuid, fields, expects, cells or (), tuple(problems), kept, warnings, target)

    def _after_plugins(
        self, line: int, found: Altered, fields: Fields, refused: list[Problem]
    ) -> tuple[Fields, list[Problem]]:
        """Return the fields and their problems after the plugins, checked like values of JSONL.

        Plugins may correct a value that was refused. It stays refused if they leave its field out.
        """
        if found.problems:
            return fields, [*refused, *found.problems]
        made, wrong = self._checker.fields(line, found.fields, cells=False)
        still = [problem for problem in refused if problem.column not in found.fields]
        return made, [*still, *(_set_by(found.by.get(problem.column, ""), problem) for problem in wrong)]


class _Bound:
    """A header's targets by position, so that the meaning of each column is decided only once."""

    def __init__(self, names: list[str], targets: list[str]) -> None:
        self.names = names
        self.targets = targets
        self.uuid = targets.index("uuid")
        self.fields = [(name, at) for at, name in enumerate(targets) if name in FIELDS]
        self.expects = [(name[3:], at) for at, name in enumerate(targets) if name.startswith("if_")]


def _set_by(plugin: str, problem: Problem) -> Problem:
    """Return the problem, naming the plugin that set the value."""
    return replace(problem, message=f"{problem.message} (set by plugin {plugin})") if plugin else problem


class _Places:
    """Add the names of cells to problems."""

    def __init__(self, table: CellTable, names: list[str], targets: list[str]) -> None:
        self._table = table
        self._at = {name: at for at, name in reversed(list(enumerate(names))) if name}
        self._at |= {target: at for at, target in reversed(list(enumerate(targets))) if target}
        self._nameless = {f"column {at}": at - 1 for at, name in enumerate(names, 1) if not name}

    def named(self, problem: Problem) -> Problem:
        """Return the problem with its cell, where it has one."""
        if (at := self._nameless.get(problem.column)) is not None:
            return replace(problem, column="", cell=self._table.place(problem.line, at))
        if problem.cell or (at := self._at.get(problem.column)) is None:
            return problem
        return replace(problem, cell=self._table.place(problem.line, at))


def _with_bad_cells(row: Row, record: Record, bound: _Bound) -> Row:
    """Return the row with the problems of its cells in place of what the checks say about their texts."""
    bad = {bound.targets[at] or bound.names[at] for at, _ in record.bad if at >= 0}
    is_blank_otherwise = all(map(is_blank, record.cells))
    others = () if is_blank_otherwise else [problem for problem in row.problems if problem.column not in bad]
    row.problems = (*(problem for _, problem in record.bad), *others)
    row.warnings = tuple(warning for warning in row.warnings if warning.column not in bad)
    row.cells = _still_refused(record, bound)
    return row


def _still_refused(record: Record, bound: _Bound) -> tuple[str, ...]:
    """Return the cells as a workbook of results keeps them: the bad ones end with a mark that no field accepts.

    Their texts alone do not say why they were refused: "46327" was a date, and would be taken as a name.
    """
    places = {at if at >= 0 else bound.uuid for at, _ in record.bad}
    # The mark alone would be blank.
    marked = (("?" if is_blank(cell) else cell.rstrip(REFUSED_CELL)) + REFUSED_CELL for cell in record.cells)
    return tuple(
        mark if at in places else cell for at, (cell, mark) in enumerate(zip(record.cells, marked, strict=True))
    )


def _as_text(value: Any) -> str:
    """Return a JSON value as the text that templates and conditions use."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ";".join(map(str, value))
    return "" if value is None else str(value)


_FULL_WIDTH = "\uff0c\uff1b\u3001\uff5c"  # what a Chinese keyboard types for , ; and |


def _cell_count(line: int, cells: list[str], wanted: int) -> Problem:
    """Return the problem of a record with too few or too many cells, with the fix for this mistake."""
    message = f"has {len(cells)} {'cell' if len(cells) == 1 else 'cells'}, but the header has {wanted}"
    missing, more = wanted - len(cells), len(cells) - wanted
    if any(char in cells[0] for char in _FULL_WIDTH) and missing > 0:
        fix = "replace the full-width commas or semicolons with plain ones"
    elif missing > 0 and any(mark in cells[0] and cells[0].count(mark) + 1 >= wanted for mark in DELIMITERS):
        fix = "use the same delimiter as the header"
    elif missing > 0:
        fix = f"add {_delimiters(missing)} at the end of the line (a blank cell leaves the field unchanged)"
    elif all(is_blank(cell) for cell in cells[wanted:]):
        fix = f"remove the {_delimiters(more)} at the end of the line"
    else:
        fix = "quote cells that contain the delimiter"
    return Problem(line, "", "", "CELL_COUNT", message, fix)


def _delimiters(count: int) -> str:
    return f"{count} {'delimiter' if count == 1 else 'delimiters'}"


def _above_the_header(
    line: int, names: list[str], ahead: list[str], delimiter: str, wanted: set[str]
) -> Problem | None:
    """Return the one problem of a file whose header is below a title or a comment, else None."""
    if wanted & {name.casefold() for name in names}:
        return None
    for further, text in enumerate(ahead[1:], 1):
        found = find_delimiter(text, wanted)
        if wanted & {trim(trim(name).strip('"')).casefold() for name in text.split(found)}:
            shown = delimiter.join(names)[:40]
            message = f"this line is not the header, but line {line + further} looks like it"
            return Problem(line, "", shown, "NO_UUID_COLUMN", message, "remove the lines above the header")
    return None


def _fatal(problem: Problem) -> Problem:
    return replace(problem, fatal=True)
