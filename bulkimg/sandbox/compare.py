"""Compare values as the server's MySQL does: texts without case, dates as timestamps, numbers as numbers."""

import operator
import re
from collections.abc import Callable
from typing import Any

from bulkimg.sandbox import refusals
from bulkimg.sandbox.dates import read_java_date, read_sql_date, sql_date
from bulkimg.sandbox.inventory import Kind

_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}
_NUMBER = re.compile(r"\s*[+-]?\d+(\.\d*)?", re.ASCII)
_FLAGS = {"true": True, "1": True, "false": False, "0": False}
Holds = Callable[[Any], bool]


def fold(text: str) -> str:
    """Return the form of a text that MySQL compares: without case and final blanks (`V0.6__schema.sql:319`).

    It is upper case, because `utf8_general_ci` orders that way: `_` comes after the letters.
    """
    return text.rstrip(" ").upper()


def canonical(uuid: str) -> str:
    """Return a uuid as the tables' keys have it."""
    return uuid.rstrip(" ").lower()


def holds(kind: Kind, sign: str, value: str) -> Holds:
    """Return the test of one column's value. Null fulfils only `is null`, as in SQL."""
    if sign in ("is null", "not null"):
        return lambda held: (held is None) == (sign == "is null")
    test = _positive(kind, sign.removeprefix("!"), value)
    if sign.startswith("!"):
        return lambda held: held is not None and not test(held)
    return lambda held: held is not None and test(held)


def sort_key(kind: Kind, held: Any) -> tuple[Any, ...]:
    """Return the key of a value. Nulls come first."""
    return (False,) if held is None else (True, _of_row(kind, held))


def _positive(kind: Kind, sign: str, value: str) -> Holds:
    if sign == "~=":
        like = _like(value)
        return lambda held: like(_shown(kind, held))
    if sign == "?=":
        keys = {_of_condition(kind, one) for one in value.split(",")}
        return lambda held: _of_row(kind, held) in keys
    key, compare = _of_condition(kind, value), _COMPARISONS[sign]
    return lambda held: compare(_of_row(kind, held), key)


def _of_row(kind: Kind, held: Any) -> Any:
    if kind == "text":
        return fold(str(held))
    return read_java_date(held) if kind == "date" else held


def _of_condition(kind: Kind, value: str) -> Any:
    """Return the value of a condition's text. Raises SYS.1000 if MySQL or Hibernate cannot read it."""
    if kind == "text":
        return fold(value)
    if kind == "number":
        found = _NUMBER.match(value)
        return float(found[0]) if found else 0.0  # MySQL takes what looks like a number at the beginning
    try:
        return read_sql_date(value) if kind == "date" else _FLAGS[value.strip().lower()]
    except (ValueError, KeyError):
        raise refusals.internal(f"could not execute query: incorrect value: '{value}'") from None


def _shown(kind: Kind, held: Any) -> str:
    """Return a value as LIKE compares it."""
    if kind == "date":
        return sql_date(read_java_date(held))
    return str(int(held)) if kind == "flag" else str(held)


def _like(pattern: str) -> Callable[[str], bool]:
    """Compare with SQL's LIKE as the server does: % and _ stand for any text and any character."""
    made = re.compile(re.escape(pattern).replace("%", ".*").replace("_", "."), re.IGNORECASE | re.DOTALL)
    return lambda held: made.fullmatch(held) is not None
