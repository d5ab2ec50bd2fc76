"""Read rows as nearly all programs write them by patterns. The parser reads the others (skim.py)."""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

from bulkimg.manifest.xlsx.layout import Layout
from bulkimg.manifest.xlsx.places import MOST_ROWS, column_of
from bulkimg.manifest.xlsx.rows import Cell, SheetRow
from bulkimg.manifest.xlsx.skim import PLAIN_TEXT
from bulkimg.manifest.xlsx.strings import PRESERVE, WHITE, unescaped

_NAME = "[A-Za-z][A-Za-z0-9]*+(?::[A-Za-z][A-Za-z0-9]*+)?"
_PLAIN = '[^"<>&\x00-\x1f\ufffe\uffff]*+'
# A cell with a style only, one with a formula or a value or both, or one with its own text.
_CELL = (
    r'<c r="{ref}"(?: s="{style}")?(?:(?: t="n")? ?/>'
    r'|(?: t="{kind}")?>{formula}<v>{text}</v></c>'
    r'|(?: t="{inline}")><is><t{preserve}>{text}</t></is></c>)'
)
_FORMULA = rf'<f(?: t="shared")?(?: ref="[A-Z0-9:]+")?(?: (?:si|ca)="[0-9]+")*+(?:/>|(?: xml:space="preserve")?>{PLAIN_TEXT}</f>)'
_ROW = re.compile(
    rf'<row r="([1-9][0-9]{{0,6}})"((?: {_NAME}="{_PLAIN}")*+)>((?:'
    + _CELL.format(
        ref=r"[A-Z]{1,3}\1",
        style="[0-9]{1,6}",
        kind="(?:n|s|str|b|e)",
        formula=f"(?:{_FORMULA})?",
        text=PLAIN_TEXT,
        inline="inlineStr",
        preserve=f"(?:{PRESERVE})?",
    )
    + ")*+)</row>"
)
_CELLS = re.compile(
    _CELL.format(
        ref="([A-Z]+)[0-9]+",
        style="([0-9]+)",
        kind="([a-z]+)",
        formula="(<f[^>]*+>(?:[^<]*+</f>)?)?",
        text=f"({PLAIN_TEXT})",
        inline="(inlineStr)",
        preserve=f"({PRESERVE})?",
    )
)
_ATTRIBUTE = re.compile(rf' ({_NAME})="({_PLAIN})"')
_MOST_KEPT = 4096  # different attributes, or different sets of columns
_LONGEST_KEPT = 512  # characters or columns
_K = TypeVar("_K", str, tuple[str, ...])
_V = TypeVar("_V")


class PlainRows:
    """Read plain rows. Rows that look like an earlier one cost little."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._looks: dict[str, tuple[bool, int]] = {}
        self._columns: dict[tuple[str, ...], list[int]] = {}

    def take(self, text: str, at: int, last: int, rows: list[SheetRow]) -> tuple[int, int]:
        """Append the rows from a place on, as far as they are plain.

        `last` is the number of the row before. Returns the place behind them, and the number of the last row.
        """
        while found := _ROW.match(text, at):
            digits, more, inner = found.groups()
            number = int(digits)
            stored = _CELLS.findall(inner)
            words = tuple([cell[0] for cell in stored])
            looks = self._looks.get(more) or _kept(self._looks, more, self._look(more))
            columns = self._columns.get(words)
            if columns is None:
                columns = _kept(self._columns, words, _ascending(words))
            if looks is None or columns is None or not last < number <= MOST_ROWS:
                break  # the parser reads this row, and says what is wrong with it
            last, at = number, found.end()
            rows.append(SheetRow(number, *looks, _cells(columns, stored)))
        return at, last

    def _look(self, attributes: str) -> tuple[bool, int] | None:
        """Return whether a row is hidden, and the level of its group. None: its attributes are not certain."""
        found = dict(_ATTRIBUTE.findall(attributes))
        is_odd = "r" in found or "xmlns" in attributes or len(found) != attributes.count("=")
        return None if is_odd else self._layout.visibility(found)


def _kept(known: dict[_K, _V], key: _K, value: _V | None) -> _V | None:
    """Keep a value for the next row that looks like this one."""
    if value is not None and len(known) < _MOST_KEPT and len(key) <= _LONGEST_KEPT:
        known[key] = value
    return value


def _ascending(words: Sequence[str]) -> list[int] | None:
    """Return the columns of a row, or None if they do not ascend."""
    columns = [column_of(word) for word in words]
    known = [column for column in columns if column is not None]
    return known if len(known) == len(columns) and all(left < right for left, right in pairwise(known)) else None


def _cells(columns: Sequence[int], stored: Sequence[tuple[str, ...]]) -> list[Cell]:
    return [
        (column, kind, style, raw, bool(formula))
        if kind
        else (column, "n", style, raw, bool(formula))
        if not inline
        else (column, inline, style, unescaped(text if preserve else text.strip(WHITE)), False)
        for column, (_, style, kind, formula, raw, inline, preserve, text) in zip(columns, stored, strict=True)
        if raw or kind or inline or formula
    ]
