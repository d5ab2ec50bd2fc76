"""Read a sheet as a table: a header and records, with a problem at every cell that cannot be trusted."""

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from itertools import chain

from bulkimg.blank import is_blank, trim
from bulkimg.manifest.source import MAX_LINE
from bulkimg.manifest.tabular import Record
from bulkimg.manifest.xlsx.cells import CellReader, Role, Trap, role_of
from bulkimg.manifest.xlsx.layout import Layout
from bulkimg.manifest.xlsx.package import Package
from bulkimg.manifest.xlsx.places import Area, letters, sheet_prefix
from bulkimg.manifest.xlsx.refusal import refused
from bulkimg.manifest.xlsx.rows import Cell, SheetRow
from bulkimg.manifest.xlsx.sheet import read_rows
from bulkimg.manifest.xlsx.shown import read_styles
from bulkimg.manifest.xlsx.strings import LONGEST, SharedStrings, read_strings
from bulkimg.manifest.xlsx.workbook import Sheet, Workbook, choose_sheet, read_workbook
from bulkimg.model import Problem
from bulkimg.settings import Settings
from bulkimg.words import count

_AHEAD = 20  # rows that are searched for a header below the first row
_WIDE = MAX_LINE // LONGEST  # columns from which a row may be too long
_TOO_LONG = Trap("LINE_TOO_LONG", f"the row is longer than {MAX_LINE:,} characters", "split it")


def open_table(name: str, settings: Settings) -> "SheetTable":
    """Open the sheet that the settings name. Raises UsageError, ManifestRefused, StorageError and Unreadable."""
    package = Package(name)
    try:
        workbook = read_workbook(package)
        return SheetTable(package, workbook, choose_sheet(name, workbook.sheets, settings.sheet), settings)
    except BaseException:
        package.close()
        raise


class SheetTable:
    """The table of one sheet: below and right of the first cell of its first row that is not blank."""

    def __init__(self, package: Package, workbook: Workbook, sheet: Sheet, settings: Settings) -> None:
        self._package = package
        self._prefix = sheet_prefix(sheet.name)
        self._hidden_rows = settings.hidden_rows
        self.sha256 = package.sha256
        self.skipped = 0  # hidden rows that --hidden-rows skip left out
        self._first_skipped = 0
        part = workbook.strings
        self._strings = read_strings(part, package.chunks(part)) if part else SharedStrings()
        styles = read_styles(package.elements(workbook.styles)) if workbook.styles else ()
        self._cells = CellReader(self._strings, styles, is_stale=workbook.is_stale)
        self._layout = Layout(sheet.name)
        rows = read_rows(sheet.part, sheet.name, package.chunks(sheet.part), self._layout)
        first = next((row for row in rows if self._has_text(row)), None)
        if first is None:
            fix = "fill it, or choose another sheet with --sheet NAME"
            raise refused("NO_ROWS", "the sheet has no cells", fix, place=sheet.name)
        self._formulas: dict[int, list[int]] = {}  # by column: how many, and the row of the first
        self._row = self._last = first.number
        self._left, names, trap = self._header(first)
        self._width = len(names)
        self._roles: list[Role] = [Role.TEXT] * self._width
        ahead = deque(self._ahead(rows))
        if trap is None:
            trap = self._hidden_header(first) or self._header_below(settings, names, ahead)
        self.header = Record(first.number, names, trap)
        self._rows = chain(ahead, rows)

    # -- the header -----------------------------------------------------------------------------------------------------

    def _has_text(self, row: SheetRow) -> bool:
        return any(
            trap or not is_blank(text) for text, trap in (self._cells.read(cell, Role.TEXT) for cell in row.cells)
        )

    def _header(self, row: SheetRow) -> tuple[int, list[str], Problem | None]:
        """Return the first column, the names up to the last one, and the first thing that is wrong with them."""
        names: dict[int, str] = {}
        problem = None
        for cell in row.cells:
            text, trap = self._cells.read(cell, Role.TEXT)
            if trap and problem is None:
                problem = self._problem(row.number, cell[0], "", text, trap)
            if trap or not is_blank(text):
                names[cell[0]] = text
                self._count_formula(cell, row.number)
        left = min(names)
        return left, [names.get(column, "") for column in range(left, max(names) + 1)], problem

    def _hidden_header(self, row: SheetRow) -> Problem | None:
        if not row.is_hidden or self._hidden_rows == "include":
            return None
        trap = Trap("HIDDEN_ROW", "the row of the header is hidden", "show it, or add --hidden-rows include")
        return self._row_problem(row.number, trap)

    @staticmethod
    def _ahead(rows: Iterator[SheetRow]) -> Iterator[SheetRow]:
        """Yield the next rows that have cells, and no more than are needed to look for a header."""
        found = 0
        while found < _AHEAD and (row := next(rows, None)) is not None:
            if row.cells:
                found += 1
                yield row

    def _header_below(self, settings: Settings, names: Sequence[str], ahead: Collection[SheetRow]) -> Problem | None:
        """Return the one problem of a table whose header is below a title, else None."""
        wanted = {"uuid", *(column.casefold() for column, name in settings.map if name == "uuid")}
        if wanted & {trim(name).casefold() for name in names}:
            return None
        for row in ahead:
            texts = {trim(self._cells.read(cell, Role.IGNORED)[0]).casefold() for cell in row.cells}
            if wanted & texts:
                message = f"this row is not the header, but row {row.number} looks like it"
                fix = "delete the rows above the header"
                place = self.place(self._row, 0)
                return Problem(self._row, "", names[0][:40], "NO_UUID_COLUMN", message, fix, cell=place)
        return None

    def bind(self, targets: Sequence[str], used: Collection[str]) -> list[Problem]:
        """Say what each column sets ("" for nothing), and which other names the options use.

        Returns a problem for each hidden column that matters. Call it before `records`.
        """
        names = [trim(name) for name in self.header.cells]
        self._roles = [role_of(target, is_used=name in used) for target, name in zip(targets, names, strict=True)]
        trap = Trap("HIDDEN_COLUMN", "the column is hidden", "show it and check its values, or delete it")
        return [
            self._problem(self._row, self._left + at, name, "", trap)
            for at, (name, role) in enumerate(zip(names, self._roles, strict=True))
            if role is not Role.IGNORED
            and any(first <= self._left + at <= last for first, last in self._layout.hidden_columns)
        ]

    # -- the records ----------------------------------------------------------------------------------------------------

    def records(self) -> Iterator[Record]:
        """Yield the rows that have values. A row with traps has them in `bad`."""
        left, width, arrays, shared = self._left, self._width, self._layout.arrays, self._strings.find
        blank = [""] * width
        bad: list[tuple[int, Problem]]
        for number, is_hidden, level, stored in self._rows:
            if not stored:
                continue
            texts, bad = blank.copy(), []
            for cell in self._with_arrays(number, stored) if arrays else stored:
                column, kind, _, raw, is_formula = cell
                at = column - left
                if kind == "s" and not is_formula and raw and 0 <= at < width and len(text := shared(raw)) <= LONGEST:
                    texts[at] = text  # nearly every cell
                else:
                    bad += self._odd(cell, number, texts)
            if not bad and all(map(is_blank, texts)):
                if any(texts):
                    yield Record(number, texts)  # the reader counts it
                continue
            self._last = number
            if is_hidden and self._hidden_rows != "include":
                if self._hidden_rows == "skip":
                    self.skipped += 1
                    self._first_skipped = self._first_skipped or number
                    continue
                bad.insert(0, (-1, self._hidden(number, level)))
            yield self._record(number, texts, bad)

    def _record(self, number: int, texts: list[str], bad: list[tuple[int, Problem]]) -> Record:
        if self._width > _WIDE and sum(map(len, texts)) > MAX_LINE:
            return Record(number, [], self._row_problem(number, _TOO_LONG))
        return Record(number, texts, bad=tuple(bad))

    def _odd(self, cell: Cell, number: int, texts: list[str]) -> list[tuple[int, Problem]]:
        """Read a cell that is no shared text into the texts of its row. Returns its problem, if it has one."""
        at = cell[0] - self._left
        if not 0 <= at < self._width:
            return self._outside(cell, number)
        texts[at], trap = self._cells.read(cell, self._roles[at])
        if trap:
            return [(at, self._problem(number, cell[0], trim(self.header.cells[at]), texts[at], trap))]
        if self._roles[at] is not Role.IGNORED:
            self._count_formula(cell, number)
        return []

    def _with_arrays(self, number: int, stored: list[Cell]) -> list[Cell]:
        """Mark the cells that the array formula of another cell fills."""
        arrays = self._layout.arrays
        arrays[:] = [area for area in arrays if area.bottom >= number]
        return [(*cell[:4], cell[4] or any(area.covers(number, cell[0]) for area in arrays)) for cell in stored]

    def _outside(self, cell: Cell, number: int) -> list[tuple[int, Problem]]:
        text, trap = self._cells.read(cell, Role.TEXT)
        if trap is None and is_blank(text):
            return []
        message = "is outside the table: the header has no name for this column"
        trap = Trap("OUTSIDE_TABLE", message, "clear the cell, or name the column (a name with _ is ignored)")
        return [(-1, self._problem(number, cell[0], "", text, trap))]

    def _hidden(self, number: int, level: int) -> Problem:
        how = "in a closed group or filtered out" if level else "or filtered out"
        message = f"the row is hidden {how}"
        fix = "show it, or add --hidden-rows include or --hidden-rows skip"
        return self._row_problem(number, Trap("HIDDEN_ROW", message, fix))

    def _count_formula(self, cell: Cell, number: int) -> None:
        if cell[4]:
            self._formulas.setdefault(cell[0], [0, number])[0] += 1

    # -- after the last record ------------------------------------------------------------------------------------------

    def problems(self) -> list[Problem]:
        """Return what is wrong with the table as a whole. A sheet says it only at its end."""
        found = []
        for area in self._layout.merged:
            if self._matters(area):
                row, column = max(area.top, self._row), max(area.left, self._left)
                name = trim(self.header.cells[column - self._left])
                message = f"the cells {area.text} are merged, so only the first of them has a value"
                trap = Trap("MERGED_CELLS", message, "unmerge them, and fill each cell")
                found.append(self._problem(row, column, name, "", trap, is_fatal=True))
        return found

    def _matters(self, area: Area) -> bool:
        """Return whether an area covers a cell of the table that has a meaning."""
        if area.bottom < self._row or area.top > self._last:
            return False
        columns = range(max(area.left, self._left), min(area.right, self._left + self._width - 1) + 1)
        return any(self._roles[column - self._left] is not Role.IGNORED for column in columns)

    def warnings(self) -> list[Problem]:
        """Return a warning for each column that has formulas."""
        found = []
        for column, (number, first) in sorted(self._formulas.items()):
            message = f"{count(number, 'cell')} of this column {'holds a formula' if number == 1 else 'hold formulas'}"
            trap = Trap("FORMULA", f"{message}; what was stored for {'it' if number == 1 else 'them'} is taken", "")
            trap = trap._replace(fix="replace formulas with their values to be certain")
            found.append(self._problem(first, column, trim(self.header.cells[column - self._left]), "", trap))
        return found

    def remarks(self) -> list[str]:
        """Return what else there is to say, one sentence each."""
        if not self.skipped:
            return []
        return [f"{count(self.skipped, 'hidden row')} skipped (first in row {self._first_skipped})"]

    # -- places ---------------------------------------------------------------------------------------------------------

    def place(self, row: int, at: int) -> str:
        """Return the name of a cell by its row and its column in the table, from 0."""
        return f"{self._prefix}{letters(self._left + at)}{row}"

    def _problem(self, row: int, column: int, name: str, text: str, trap: Trap, *, is_fatal: bool = False) -> Problem:
        place = f"{self._prefix}{letters(column)}{row}"
        shown = text if len(text) <= 60 else f"{text[:59]}…"
        return Problem(row, name, shown, *trap, fatal=is_fatal, cell=place)

    def _row_problem(self, row: int, trap: Trap) -> Problem:
        return Problem(row, "", "", *trap, cell=f"{self._prefix}{row}:{row}")

    def close(self) -> None:
        """Close the copy of the workbook."""
        with suppress(OSError):
            self._package.close()
