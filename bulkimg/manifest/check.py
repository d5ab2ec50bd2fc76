"""Check one record: turn a manifest's texts into a normalised uuid, fields and expectations, or into problems."""

import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from bulkimg.blank import is_blank, trim, trim_in_line
from bulkimg.cells import REFUSED_CELL, read_cell, read_flag
from bulkimg.model import (
    CHOICES,
    FLAGS,
    MAY_BE_EMPTY,
    ONLY_THESE,
    TAGS,
    Change,
    Fields,
    Problem,
    Value,
    normal_uuid,
    refuse_unfit,
)
from bulkimg.values import Pairs, nearest

_UUID_FIX = "write 32 hexadecimal digits, with or without dashes"


class Checker:
    """Check records.

    It knows the token that empties a field, the values that `--allow-value` allows, and whether an image may lose all
    its tags. It may where tags are replaced.
    """

    def __init__(self, empty_token: str = "<empty>", allow_value: Pairs = (), *, no_tags: bool = False) -> None:  # noqa: S107 - not a password
        self.empty_token = empty_token
        self.admitted: dict[str, list[str]] = {kind: [""] for kind in TAGS if no_tags}
        for name, value in allow_value:
            self.admitted.setdefault(name, []).append(value)

    def uuid(self, line: int, value: Any, *, cells: bool) -> tuple[str | None, list[Problem]]:
        """Return the normalised uuid, or a problem.

        Blanks at the ends of cells are ignored, because people type them.
        """
        if cells and _is_marked(value):
            return None, [_marked(line, "uuid", value)]
        text = trim_in_line(value) if cells and isinstance(value, str) else value
        uuid = normal_uuid(text) if isinstance(text, str) else None
        if uuid:
            return uuid, []
        shown = "" if value is None or (isinstance(value, str) and is_blank(value)) else shorten(value)
        message, fix = "is not an image uuid" if shown else "is missing", _UUID_FIX
        if _is_a_spreadsheets_number(value):
            fix = (
                "a spreadsheet or program turned it into a number; format the column as text and paste the uuids again"
            )
        return None, [Problem(line, "uuid", shown, "BAD_UUID", message, fix)]

    def fields(self, line: int, asked: Mapping[str, Any], *, cells: bool) -> tuple[Fields, list[Problem]]:
        """Return the validated fields.

        With `cells` the values are texts of CSV cells, where blank means "leave as it is".
        """
        fields, problems = self._values(line, asked, cells=cells)
        try:
            Change.model_validate(fields, context=self.admitted)
        except ValidationError as error:
            problems += [_problem(line, item, asked) for item in error.errors()]
        return fields, problems

    def expects(self, line: int, asked: Mapping[str, Any], *, cells: bool) -> tuple[Fields, list[Problem]]:
        """Return the values of `if_` columns. Only their form is checked: an image may hold any text now."""
        fields, problems = self._values(line, asked, cells=cells, expectation=True)
        return fields, [_renamed(problem) for problem in problems]

    def _values(
        self, line: int, asked: Mapping[str, Any], *, cells: bool, expectation: bool = False
    ) -> tuple[Fields, list[Problem]]:
        fields: Fields = {}
        problems: list[Problem] = []
        for name, raw in asked.items():
            if cells and _is_marked(raw):
                problems.append(_marked(line, name, raw))
                continue
            try:
                value = read_cell(name, raw, self.empty_token) if cells else self._from_json(name, raw)
                if value == "" and name not in MAY_BE_EMPTY and not expectation:
                    keep = "leave the cell blank" if cells else "write null"
                    raise ValueError(f"cannot be empty; {keep} to keep the present value ({ONLY_THESE})")
                if expectation and isinstance(value, str):
                    refuse_unfit(value)
            except ValueError as error:
                message, _, fix = str(error).partition("; ")
                code = "EMPTY_VALUE" if message == "cannot be empty" else "BAD_VALUE"
                problems.append(Problem(line, name, shorten(raw), code, message, fix))
            else:
                if value is not None:
                    fields[name] = value
        return fields, problems

    def _from_json(self, name: str, value: Any) -> Value | None:
        if value is None:
            return None
        if name in FLAGS:
            if isinstance(value, bool):
                return value
            if isinstance(value, (str, int)):
                return read_flag(str(value))
            raise ValueError("is not a boolean; write true or false")
        if name in TAGS:
            if isinstance(value, list) and all(isinstance(tag, str) for tag in value):
                return list(value)
            raise ValueError('is not a list of strings; write ["…", "…"]')
        if not isinstance(value, str):
            raise ValueError("is not a string; put it in quotes")
        if value and is_blank(value):  # as in a cell; in JSON, "" says so
            return None
        if trim(value) == self.empty_token:
            return ""
        return trim(value) if name in CHOICES else value


def _is_marked(value: Any) -> bool:
    return isinstance(value, str) and value.endswith(REFUSED_CELL)


def _marked(line: int, name: str, text: str) -> Problem:
    """Return the problem of a cell that ends with the mark of our own workbooks."""
    message = "was refused in an earlier run, and the NUL character at its end marks that"
    return Problem(line, name, shorten(text.rstrip(REFUSED_CELL)), "UNFIT_TEXT", message, "type the right value again")


_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d*)?(?:[eE][+-]?\d+)?|#+")


def _is_a_spreadsheets_number(value: Any) -> bool:
    """Return whether the text is like `1.23E+31`, digits without their zeros, or the hashes of a narrow column."""
    if isinstance(value, str):
        return _NUMBER.fullmatch(trim(value)) is not None
    return isinstance(value, int | float) and not isinstance(value, bool)


def _problem(line: int, error: Any, asked: Mapping[str, Any]) -> Problem:
    name = str(error["loc"][0])
    ctx = error.get("ctx", {})
    fix = ctx.get("fix")
    if fix is None and "nearest" in ctx:
        word, known = ctx["nearest"]
        found = nearest(word, known)
        guess = found.removeprefix("; did you mean ").removesuffix("?") if "did you mean" in found else ""
        fix = f"did you mean {guess}? Otherwise {ctx['else']}" if guess else f"write one of them, or {ctx['else']}"
    return Problem(line, name, shorten(asked.get(name)), error["type"].upper(), error["msg"], fix or "")


def _renamed(problem: Problem) -> Problem:
    return Problem(problem.line, f"if_{problem.column}", problem.value, problem.code, problem.message, problem.fix)


def shorten(value: Any, limit: int = 60) -> str:
    """Return the value, shortened for a message."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
