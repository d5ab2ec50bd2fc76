"""Split sound lines: lines without quotes in which every value is plain or was found sound before.

This is the quick way for nearly every line of a table. A doubtful line is left to the general way. A line that both
ways can read gives the same row in both.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from operator import getitem

from pydantic_core import to_json

from bulkimg.manifest.check import Checker
from bulkimg.manifest.doubts import TEXTS, doubts, is_plain
from bulkimg.manifest.tabular import Lines
from bulkimg.model import FIELDS, Fields, SoundRow, normal_uuid

REMEMBERED = 5000  # most values of a column that are kept
LONGEST = 255  # most characters of a value; every text field allows as many


class SoundLines:
    """Split lines of one table. It knows the target of each column, and which of a column's values are sound."""

    def __init__(self, delimiter: str, targets: Sequence[str], checker: Checker, constants: Mapping[str, str]) -> None:
        """Prepare the columns.

        `targets` is the target of each column: a field, "uuid", `if_` and a field, or "". `constants` are set in every
        row.
        """
        self._delimiter = delimiter
        self._width = len(targets)
        self._uuid = targets.index("uuid")
        others = [target if target not in constants else "" for target in targets if target != "uuid"]
        self._fields = [_Memo(_field(target, checker) if target in FIELDS else _nothing) for target in others]
        expecting = any(target.startswith("if_") for target in others)
        self._expects = [_Memo(_expected(target, checker)) for target in others] if expecting else []
        fields, _ = checker.fields(0, constants, cells=True)
        self._constants = _part(fields)
        self._is_sure = not any(doubts(0, fields))  # a doubtful constant is a warning in every row

    def rows(self, lines: Lines) -> Generator[SoundRow, None, int]:
        """Yield rows up to the first line that may not be sound; that line is next in `lines`. Returns their number."""
        if not self._is_sure:
            return 0
        count = 0
        for number, line in lines:
            if line is None or '"' in line or "\\" in line or (row := self._row(number, line)) is None:
                lines.put_back([(number, line)])
                break
            count += 1
            yield row
        return count

    def _row(self, number: int, line: str) -> SoundRow | None:
        """Return the row of a line without quotes and backslashes, or None if the general way must read it."""
        cells = line.rstrip("\r\n").split(self._delimiter)
        if len(cells) != self._width:
            return None
        return self._of_cells(number, cells, '["' + '","'.join(cells) + '"]')

    def row(self, number: int, cells: list[str]) -> SoundRow | None:
        """Return the row of a record's cells, or None if the general way must read it."""
        written = '["' + '","'.join(cells) + '"]'
        if not self._is_sure or written.count('"') != 2 * self._width or "\\" in written:
            return None
        return self._of_cells(number, cells.copy(), written)

    def _of_cells(self, number: int, cells: list[str], written: str) -> SoundRow | None:
        """Return the row, or None. `written` is the cells as JSON, with no mark in them that JSON would escape."""
        uuid = cells.pop(self._uuid)
        try:
            digits = bytes.fromhex(uuid if len(uuid) == 32 else normal_uuid(uuid) or "")
            fields = "".join(map(getitem, self._fields, cells)) + self._constants
            expects = "".join(map(getitem, self._expects, cells)) if self._expects else ""
        except ValueError:
            return None
        if len(digits) != 16:  # no uuid, or one with blanks in it
            return None
        return number, digits, f"{{{fields[1:]}}}", f"{{{expects[1:]}}}" if expects else None, written


class _Memo(dict[str, str]):
    """Keep what `make` returned for the cells of one column, while there are few.

    Raises ValueError for a cell that may not be sound: long, or with a character that is not printable.
    """

    def __init__(self, make: Callable[[str], str]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, cell: str) -> str:
        if len(cell) > LONGEST or not cell.isprintable():
            raise ValueError
        made = self._make(cell)
        if len(self) < REMEMBERED:
            self[cell] = made
        return made


# Returns a cell's part of a JSON object: `,"name":"x"`, or "" if it is blank. Raises ValueError: it may not be sound.


def _field(name: str, checker: Checker) -> Callable[[str], str]:
    is_text, token = name in TEXTS, checker.empty_token

    def make(cell: str) -> str:
        if is_text and is_plain(cell) and token not in cell:
            return f',"{name}":"{cell}"'
        fields, problems = checker.fields(0, {name: cell}, cells=True)
        if problems or any(doubts(0, fields)):
            raise ValueError
        return _part(fields)

    return make


def _expected(target: str, checker: Checker) -> Callable[[str], str]:
    if not target.startswith("if_"):
        return _nothing

    def make(cell: str) -> str:
        expects, problems = checker.expects(0, {target[3:]: cell}, cells=True)
        if problems:
            raise ValueError
        return _part(expects)

    return make


def _nothing(cell: str) -> str:
    return ""


def _part(fields: Fields) -> str:
    return f",{to_json(fields).decode()[1:-1]}" if fields else ""
