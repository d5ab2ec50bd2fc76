"""Turn the typed values of a record (Parquet, SQL) into the texts of cells, or into problems that name the column.

NULL is a blank cell. A value that has more than one text, such as a date, is refused: nothing is guessed.
"""

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

from bulkimg.blank import is_blank, trim
from bulkimg.manifest.check import Checker, shorten
from bulkimg.manifest.columns import Columns
from bulkimg.manifest.source import MAX_LINE
from bulkimg.manifest.tabular import Record
from bulkimg.model import MAY_BE_EMPTY, TAGS, Problem
from bulkimg.settings import Settings

HEADER = 0  # the header's "line"; records count from 1
_AS_TEXT = "make it text where the rows come from, such as CAST(… AS VARCHAR)"
_KINDS = {
    "float": "a floating-point number",
    "Decimal": "a fraction",
    "date": "a date",
    "datetime": "a time",
    "time": "a time",
    "timedelta": "an interval",
    "bytes": "binary",
    "bytearray": "binary",
    "memoryview": "binary",
    "dict": "an object",
    "list": "a list",
    "tuple": "a list",
}


class TypedColumns:
    """The columns of a table with types. It knows what each column is for."""

    def __init__(self, names: Sequence[str], settings: Settings) -> None:
        self._names = list(names)
        self._empty_token = settings.empty_token
        checker = Checker(settings.empty_token, settings.allow_value, no_tags=settings.tags_mode == "replace")
        columns = Columns(settings, checker)
        constants = {field for field, _ in settings.set}
        targets = [columns.target(trim(name)) for name in names]
        self._targets = ["" if target in constants else target or "" for target in targets]
        self._ignored = [
            target == "" and trim(name) not in columns.mentioned for name, target in zip(names, targets, strict=True)
        ]

    def is_used(self, at: int) -> bool:
        """Return whether the column is a field, or an option uses it."""
        return not self._ignored[at]

    def takes_lists(self, at: int) -> bool:
        """Return whether the column holds tags."""
        return self._targets[at].removeprefix("if_") in TAGS

    def header(self, types: Sequence[str]) -> Record:
        """Return the header. `types` says for each column why its type cannot be read, or "" if it can."""
        bad = tuple(
            (
                at,
                Problem(
                    HEADER, trim(name), "", "BAD_TYPE", f"has the type {shorten(kind)}, which is not read", _AS_TEXT
                ),
            )
            for at, (name, kind) in enumerate(zip(self._names, types, strict=True))
            if kind and self.is_used(at)
        )
        return Record(HEADER, self._names, None, bad)

    def record(self, number: int, values: Sequence[Any]) -> Record:
        """Return the record of this number with the texts of its values, and a problem for each that has none."""
        cells: list[str] = []
        bad: list[tuple[int, Problem]] = []
        for at, value in enumerate(values):
            if value is None:
                cells.append("")
            elif type(value) is str and value and "!" <= value[0] <= "~" and value.isprintable():
                cells.append(value)
            else:
                text, problems = self._text(number, at, value)
                cells.append(text)
                bad += [(at, problem) for problem in problems]
        if sum(map(len, cells)) > MAX_LINE:
            return Record(number, [], too_long(number))
        return Record(number, cells, None, tuple(bad))

    def _text(self, number: int, at: int, value: Any) -> tuple[str, list[Problem]]:
        """Return the text of a value that is not plain, or its problem with a blank cell."""
        found = _text_of(value)
        if isinstance(value, list | tuple) and self.takes_lists(at):
            found, why = _tags_of(value)
            if why:
                fix = "remove NULL and other values from the list" if value else self._how_to_empty(at)
                return "", [self._problem(number, at, value, why, fix)]
        if found is None and not self.is_used(at):
            found = value.hex() if isinstance(value, bytes) else str(value)
        if found is None:
            kind = _KINDS.get(type(value).__name__, f"of type {type(value).__name__}")
            return "", [self._problem(number, at, value, f"is {kind}, not a text", _AS_TEXT)]
        if (place := found.find("\0")) >= 0:
            problem = Problem(
                number, self._names[at], "", "UNFIT_TEXT", f"has a NUL as character {place + 1}", "remove it"
            )
            return found.replace("\0", ""), [problem]
        if self._targets[at] not in {"", "uuid"} and is_blank(found):
            why = "is a text without characters, which is not NULL"
            return "", [self._problem(number, at, value, why, self._how_to_empty(at))]
        return found, []

    def _problem(self, number: int, at: int, value: Any, why: str, fix: str) -> Problem:
        code = "BLANK_TEXT" if "not NULL" in why else "BAD_TYPE"
        shown = "" if isinstance(value, bytes | bytearray | memoryview) else shorten(str(value))
        return Problem(number, self._names[at], shown, code, why, fix)

    def _how_to_empty(self, at: int) -> str:
        """Return what to write instead of a blank text or an empty list."""
        field = self._targets[at].removeprefix("if_")
        keep = "leave the present value" if not self._targets[at].startswith("if_") else "expect nothing"
        may = field in MAY_BE_EMPTY or field in TAGS
        return f"write NULL to {keep}{f', or {self._empty_token} for the empty one' if may else ''}"


def _text_of(value: Any) -> str | None:
    """Return the one text of a value, or None if it has none or several."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | UUID):
        return str(value)
    if isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value():
        return str(int(value))
    return None


def _tags_of(value: Sequence[Any]) -> tuple[str | None, str]:
    """Return a list of tags as the JSON array that a cell takes, or None with what is wrong."""
    if not value:
        return None, "is an empty list, which is not NULL"
    if not all(isinstance(tag, str) for tag in value):
        return None, "is a list that does not hold texts only"
    return json.dumps(list(value), ensure_ascii=False), ""


def too_long(number: int) -> Problem:
    """Return the problem of a record that no change can need."""
    message = f"the record is longer than {MAX_LINE:,} characters"
    return Problem(number, "", "", "LINE_TOO_LONG", message, "shorten its texts")
