"""Name cells as spreadsheet programs do: `Sheet1!B7`. Pure. Columns count from 0."""

import re
from functools import lru_cache
from typing import NamedTuple

MOST_COLUMNS = 16_384
MOST_ROWS = 1_048_576
_PLAIN_NAME = re.compile(r"[^\W\d]\w*")
_RANGE = re.compile(r"\$?([A-Z]{1,3})\$?([0-9]{1,7})(?::\$?([A-Z]{1,3})\$?([0-9]{1,7}))?")


class Area(NamedTuple):
    """A rectangle of cells. Its ends belong to it."""

    top: int
    left: int
    bottom: int
    right: int
    text: str  # as it is written: B2:B4

    def covers(self, row: int, column: int) -> bool:
        """Return whether the cell lies in the area."""
        return self.top <= row <= self.bottom and self.left <= column <= self.right


@lru_cache(maxsize=MOST_COLUMNS)
def letters(column: int) -> str:
    """Return the letters of a column: A, …, Z, AA, …, XFD."""
    text, left = "", column + 1
    while left:
        left, at = divmod(left - 1, 26)
        text = chr(65 + at) + text
    return text


def column_of(text: str) -> int | None:
    """Return the column of letters, or None if a sheet has no such column."""
    column = 0
    for char in text:
        if not "A" <= char <= "Z":
            return None
        column = column * 26 + ord(char) - 64
    return column - 1 if 0 < column <= MOST_COLUMNS else None


def area_of(text: str) -> Area | None:
    """Return the area of `B2:C7` or `B2`, or None if it is none."""
    found = _RANGE.fullmatch(text)
    if not found:
        return None
    left, right = column_of(found[1]), column_of(found[3] or found[1])
    top, bottom = int(found[2]), int(found[4] or found[2])
    if left is None or right is None or not (0 < top <= bottom <= MOST_ROWS and left <= right):
        return None
    return Area(top, left, bottom, right, text)


def sheet_prefix(name: str) -> str:
    """Return `Sheet1!`, with quotes where a formula needs them."""
    return f"{name}!" if _PLAIN_NAME.fullmatch(name) else "'{}'!".format(name.replace("'", "''"))
