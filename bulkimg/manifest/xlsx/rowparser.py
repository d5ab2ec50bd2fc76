"""Read the rows of a sheet with the XML parser: every form that the format allows, and a refusal of all others."""

from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING

from bulkimg.manifest.xlsx.layout import Layout
from bulkimg.manifest.xlsx.markup import DEEPEST, LONGEST_TEXT, Attributes, main_names, too_deep
from bulkimg.manifest.xlsx.places import MOST_ROWS, column_of
from bulkimg.manifest.xlsx.refusal import DAMAGED, refused
from bulkimg.manifest.xlsx.rows import Cell, SheetRow
from bulkimg.manifest.xlsx.strings import as_written, unescaped

if TYPE_CHECKING:
    from xml.parsers.expat import XMLParserType

_NAMES = main_names(
    "worksheet", "sheetData", "row", "c", "v", "f", "is", "r", "t", "rPh", "phoneticPr", "extLst",
    "sheetFormatPr", "col", "mergeCell",
)  # fmt: skip
_WITHOUT_CELLS = frozenset({"extLst", "rPh", "phoneticPr"})


class _In(IntEnum):
    """The element that the parser is inside of."""

    SHEET = 0
    DATA = 1
    ROW = 2
    CELL = 3
    VALUE = 4
    FORMULA = 5
    INLINE = 6
    RUN = 7
    TEXT = 8
    RUN_TEXT = 9


# What may be inside of what.
_CHILDREN = {
    (_In.DATA, "row"): _In.ROW,
    (_In.ROW, "c"): _In.CELL,
    (_In.CELL, "v"): _In.VALUE,
    (_In.CELL, "f"): _In.FORMULA,
    (_In.CELL, "is"): _In.INLINE,
    (_In.INLINE, "t"): _In.TEXT,
    (_In.INLINE, "r"): _In.RUN,
    (_In.RUN, "t"): _In.RUN_TEXT,
}
_PARENTS = {child: parent for (parent, _), child in _CHILDREN.items()} | {_In.DATA: _In.SHEET}


class RowParser:
    """Follow the parser through a sheet. `number` is that of the last row."""

    def __init__(self, part: str, place: str, layout: Layout, rows: list[SheetRow]) -> None:
        """Prepare. Finished rows are appended to `rows`; `place` is the sheet's name, for messages."""
        self._part, self._place, self._layout, self._rows = part, place, layout, rows
        self.number = 0
        self._inside = _In.SHEET
        self._depth = self._skipped = 0  # elements in each other, outside the rows and in what is passed over
        self._had_data = False
        self._visibility = (False, 0)
        self._cells: list[Cell] = []
        self._column, self._kind, self._style = -1, "n", ""
        self._raw: str | None = None
        self._is_formula = False
        self._pieces: list[str] = []
        self._size = 0
        self._written: Attributes = {}  # of the present text
        self._begin: dict[_In, Callable[[Attributes], None]] = {
            _In.ROW: self._row,
            _In.CELL: self._cell,
            _In.VALUE: self._value,
            _In.INLINE: self._value,
            _In.FORMULA: self._formula,
            _In.TEXT: self._text,
            _In.RUN_TEXT: self._text,
        }
        self._finish: dict[_In, Callable[[], None]] = {
            _In.ROW: self._end_of_row,
            _In.CELL: self._end_of_cell,
            _In.VALUE: self._end_of_value,
            _In.TEXT: self._end_of_text,
            _In.RUN_TEXT: self._end_of_text,
        }

    def follow(self, parser: "XMLParserType") -> None:
        """Set the parser's handlers."""
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._data

    def is_between(self) -> bool:
        """Return whether the parser is between two rows."""
        return self._inside is _In.DATA and not self._skipped

    def _damaged(self, why: str) -> Exception:
        return refused(DAMAGED, f"the sheet is damaged: {why}", place=self._place, line=self.number or 1)

    def _start(self, element: str, found: Attributes) -> None:
        name = _NAMES.get(element)
        if self._skipped:
            self._skip()
        elif self._inside is _In.SHEET:
            self._outside(name, found)
        elif (child := _CHILDREN.get((self._inside, name or ""))) is not None:
            self._inside = child
            if begin := self._begin.get(child):
                begin(found)
        elif name in _WITHOUT_CELLS or self._inside is _In.RUN:
            self._skip()
        else:
            what = f"<{element.rpartition(' ')[2][:40]}>"
            raise self._damaged(f"{what} is not expected in or after row {self.number}")

    def _skip(self) -> None:
        self._skipped += 1
        if self._skipped > DEEPEST:
            raise too_deep(self._part)

    def _outside(self, name: str | None, found: Attributes) -> None:
        if self._depth == 0 and name != "worksheet":
            raise self._damaged("its part is not a worksheet")
        if self._depth == 1 and name == "sheetData":
            if self._had_data:
                raise self._damaged("it has its rows twice")
            self._had_data = True
            self._inside = _In.DATA
            return
        self._depth += 1
        if self._depth > DEEPEST:
            raise too_deep(self._part)
        self._layout.take(name, found)

    def _row(self, found: Attributes) -> None:
        text, last = found.get("r"), self.number
        number = last + 1 if text is None else int(text) if text.isdecimal() and len(text) < 8 else 0
        if not last < number <= MOST_ROWS:
            raise self._damaged(f"row {(text or '')[:20]!r} follows row {last}")
        self.number = number
        self._visibility = self._layout.visibility(found)
        self._cells, self._column = [], -1

    def _cell(self, found: Attributes) -> None:
        reference = found.get("r")
        last = self._column
        self._column = last + 1 if reference is None else self._column_in(reference)
        if self._column <= last:
            raise self._damaged(f"cell {(reference or '')[:20]!r} is there twice or in the wrong order")
        self._kind, self._style = found.get("t", "n"), found.get("s", "")
        self._raw, self._is_formula = None, False

    def _column_in(self, reference: str) -> int:
        """Return the column of a cell, which must be of the present row."""
        word = reference.rstrip("0123456789")
        column = column_of(word)
        if column is None:
            more = "; a sheet has 16,384 columns at most" if word.isalpha() and word.isupper() else ""
            raise self._damaged(f"it has a cell {reference[:20]!r}{more}")
        if reference[len(word) :] != str(self.number):
            raise self._damaged(f"cell {reference[:20]!r} is in row {self.number}")
        return column

    def _value(self, found: Attributes) -> None:
        if self._raw is not None:
            raise self._damaged(f"a cell of row {self.number} has two values")
        self._raw, self._size = "", 0

    def _formula(self, found: Attributes) -> None:
        self._is_formula = True
        if found.get("t") in ("array", "dataTable") and "ref" in found:
            self._layout.array(found["ref"])

    def _text(self, found: Attributes) -> None:
        self._written = found

    def _data(self, data: str) -> None:
        if self._inside in (_In.VALUE, _In.TEXT, _In.RUN_TEXT) and not self._skipped:
            self._pieces.append(data)
            self._size += len(data)
            if self._size > LONGEST_TEXT:
                raise self._damaged(f"a text in row {self.number} is longer than a cell can be")

    def _end(self, element: str) -> None:
        if self._skipped:
            self._skipped -= 1
        elif self._inside is _In.SHEET:
            self._depth -= 1
        else:
            if finish := self._finish.get(self._inside):
                finish()
            self._inside = _PARENTS[self._inside]

    def _end_of_value(self) -> None:
        self._raw = "".join(self._pieces)
        self._pieces.clear()

    def _end_of_text(self) -> None:
        self._raw = (self._raw or "") + unescaped(as_written("".join(self._pieces), self._written))
        self._pieces.clear()

    def _end_of_cell(self) -> None:
        if self._raw is not None or self._is_formula:
            self._cells.append((self._column, self._kind, self._style, self._raw, self._is_formula))

    def _end_of_row(self) -> None:
        self._rows.append(SheetRow(self.number, *self._visibility, self._cells))
