"""The rows and cells of a sheet as its XML has them."""

from typing import NamedTuple

# A cell: its column from 0, its type (n, s, str, inlineStr, b, e or d), its style, its value (None: it has none), and
# whether it is a formula. A plain tuple, because one is made for every cell.
Cell = tuple[int, str, str, str | None, bool]


class SheetRow(NamedTuple):
    """A row that the sheet mentions. Its cells are those that have a value or a formula, in order."""

    number: int
    is_hidden: bool
    level: int  # of the group it is in; 0 for none
    cells: list[Cell]
