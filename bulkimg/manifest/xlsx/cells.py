"""Turn a stored cell into the text that a CSV would hold, or say why it cannot be. Nothing is guessed. Pure."""

import re
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from bulkimg.manifest.xlsx.refusal import DAMAGED, refused
from bulkimg.manifest.xlsx.rows import Cell
from bulkimg.manifest.xlsx.shown import Shown
from bulkimg.manifest.xlsx.strings import LONGEST, SharedStrings, unescaped
from bulkimg.model import FLAGS

MOST_DIGITS = 10**15  # from here on a spreadsheet does not keep every digit
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_AS_TEXT = "format the cell as text and type the value again"


class Role(Enum):
    """What a column is for."""

    IGNORED = "nothing"  # its texts are kept for failed.csv only
    USED = "an option"  # --where or --set reads its texts
    TEXT = "a field"
    FLAG = "a field that is true or false"
    UUID = "the image"


def role_of(target: str, *, is_used: bool) -> Role:
    """Return the role of a column by what it sets ("" for nothing)."""
    if target == "uuid":
        return Role.UUID
    if target.removeprefix("if_") in FLAGS:
        return Role.FLAG
    if target:
        return Role.TEXT
    return Role.USED if is_used else Role.IGNORED


class Trap(NamedTuple):
    """Why a cell cannot be read, and what to do."""

    code: str
    message: str
    fix: str


class CellReader:
    """Read the cells of one sheet."""

    def __init__(self, strings: SharedStrings, styles: Sequence[Shown], *, is_stale: bool) -> None:
        self._strings, self._styles, self._is_stale = strings, styles, is_stale

    def read(self, cell: Cell, role: Role) -> tuple[str, Trap | None]:
        """Return the cell's text, or its stored value and why it cannot be read."""
        _, kind, style, raw, is_formula = cell
        if is_formula and role is not Role.IGNORED and kind != "e" and (trap := self._formula_trap(kind, raw)):
            return raw or "", trap
        if raw is None or (raw == "" and kind != "e"):
            return "", None
        if kind in ("s", "str", "inlineStr"):
            return self._text(kind, raw)
        if role is Role.IGNORED:
            return raw, None
        if kind == "e":
            return raw, Trap("ERROR_CELL", f"holds the error {raw[:20] or '#'}", "correct the cell, or clear it")
        if kind == "b":
            return _truth(raw, role)
        if kind == "d":
            return raw, _date()
        if kind != "n":
            raise refused(DAMAGED, f"the sheet is damaged: it has a cell of the type {kind[:20]!r}")
        return _number(raw, self._shown(style), role)

    def _formula_trap(self, kind: str, raw: str | None) -> Trap | None:
        fix = "open the workbook in a spreadsheet program and save it, or replace the formula with its value"
        if raw is None or (raw == "" and kind == "n"):
            return Trap("FORMULA_WITHOUT_VALUE", "holds a formula without a stored value", fix)
        if self._is_stale:
            message = "holds a formula that was not calculated when the workbook was saved"
            return Trap("FORMULA_NOT_CALCULATED", message, fix)
        return None

    def _text(self, kind: str, raw: str) -> tuple[str, Trap | None]:
        text = self._strings.find(raw) if kind == "s" else unescaped(raw) if kind == "str" else raw
        if len(text) > LONGEST:
            return text[:LONGEST], Trap("TOO_LONG", f"is longer than {LONGEST:,} characters", "shorten it")
        return text, None

    def _shown(self, style: str) -> Shown:
        if not style:
            return self._styles[0] if self._styles else Shown.PLAIN
        at = int(style) if style.isdecimal() and len(style) < 8 else len(self._styles)
        return self._styles[at] if at < len(self._styles) else Shown.OTHER


def _truth(raw: str, role: Role) -> tuple[str, Trap | None]:
    text = {"1": "true", "0": "false", "true": "true", "false": "false"}.get(raw.strip())
    if text is None:
        return raw, Trap("ERROR_CELL", "holds a truth value that is neither TRUE nor FALSE", _AS_TEXT)
    if role in (Role.FLAG, Role.USED):
        return text, None
    return text.upper(), Trap("TRUTH_VALUE", f"holds the truth value {text.upper()}, not a text", _AS_TEXT)


def _date() -> Trap:
    return Trap("DATE_CELL", "holds a date or a time, which is stored as a number", _AS_TEXT)


def _number(raw: str, shown: Shown, role: Role) -> tuple[str, Trap | None]:
    """Return the digits of a whole number that the sheet shows as they are, else why they are not certain."""
    raw = raw.strip()
    if not _NUMBER.fullmatch(raw):
        return raw, Trap("ERROR_CELL", "holds a number that cannot be read", _AS_TEXT)
    if role is Role.UUID:
        fix = "format the column as text and paste the uuids again"
        return raw, Trap("NUMBER_AS_UUID", "is a number, which cannot hold all digits of a uuid", fix)
    value = float(raw)
    if shown is Shown.DATE:
        return raw, _date()
    if abs(value) >= MOST_DIGITS:
        return raw, Trap("DIGITS_LOST", "is a number with more than 15 digits, and the further ones are lost", _AS_TEXT)
    if shown is Shown.PERCENT:
        return raw, Trap("NUMBER_FORMAT", "is shown as a percentage, but stored without the sign", _AS_TEXT)
    if not value.is_integer():
        return raw, Trap("FRACTION", "is a number with a fraction, which can be shown in several ways", _AS_TEXT)
    if shown is Shown.OTHER or (shown is Shown.GROUPED and abs(value) >= 1000):
        return raw, Trap("NUMBER_FORMAT", f"is stored as {int(value)}, but its format shows it otherwise", _AS_TEXT)
    return str(int(value)), None
