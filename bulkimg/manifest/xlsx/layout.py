"""What a sheet says about its rows and columns outside their cells: what is hidden, merged, or filled by an array."""

from bulkimg.manifest.xlsx.markup import Attributes
from bulkimg.manifest.xlsx.places import MOST_COLUMNS, Area, area_of
from bulkimg.manifest.xlsx.refusal import DAMAGED, refused
from bulkimg.manifest.xlsx.workbook import is_true

INVISIBLE = 1.0  # points; a lower row cannot be seen
MOST_MERGED = 1 << 16  # areas
MOST_ARRAYS = 1 << 10  # that reach over the same rows


class Layout:
    """The layout of one sheet. `merged` is complete after its last row, `hidden_columns` before its first."""

    def __init__(self, place: str) -> None:
        """`place` is the sheet's name, for messages."""
        self._place = place
        self.merged: list[Area] = []
        self.arrays: list[Area] = []  # where one formula fills several cells; the reader drops those it has passed
        self.hidden_columns: list[tuple[int, int]] = []
        self._rows_are_hidden = False

    def take(self, kind: str | None, found: Attributes) -> None:
        """Take an element from outside the rows."""
        if kind == "col" and (is_true(found.get("hidden")) or _is_below(found.get("width"), 0.05)):
            first, last = found.get("min", ""), found.get("max", "")
            if first.isdecimal() and last.isdecimal() and max(len(first), len(last)) < 8:
                self.hidden_columns.append((int(first) - 1, int(last) - 1))
            if len(self.hidden_columns) > MOST_COLUMNS:
                raise refused(DAMAGED, "the sheet is damaged: it describes too many columns", place=self._place)
        elif kind == "sheetFormatPr":
            is_low = _is_below(found.get("defaultRowHeight"), INVISIBLE)
            self._rows_are_hidden = is_true(found.get("zeroHeight")) or is_low
        elif kind == "mergeCell":
            self._keep(self.merged, MOST_MERGED, found.get("ref", ""))

    def array(self, reference: str) -> None:
        """Take the area of an array formula."""
        self._keep(self.arrays, MOST_ARRAYS, reference)

    def _keep(self, areas: list[Area], most: int, text: str) -> None:
        area = area_of(text)
        if area is None:
            raise refused(DAMAGED, f"the sheet is damaged: it has an area {text[:40]!r}", place=self._place)
        if area.top == area.bottom and area.left == area.right:
            return
        if len(areas) >= most:
            message = f"the sheet has more than {most:,} areas of merged cells or array formulas"
            raise refused(DAMAGED, message, "copy its values into a new sheet", place=self._place)
        areas.append(area)

    def visibility(self, row: Attributes) -> tuple[bool, int]:
        """Return whether a row is hidden, and the level of its group."""
        hidden, height = row.get("hidden"), row.get("ht")
        is_hidden = is_true(hidden) or _is_below(height, INVISIBLE)
        if self._rows_are_hidden and hidden is None and height is None:
            is_hidden = True
        level = row.get("outlineLevel", "0")
        return is_hidden, int(level) if level.isdecimal() and len(level) < 3 else 0


def _is_below(length: str | None, least: float) -> bool:
    """Return whether a height or width is given and hides its row or column."""
    if length is None:
        return False
    try:
        return float(length) < least
    except ValueError:
        return False
