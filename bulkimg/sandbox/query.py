"""This file answers queries over any table: `q` conditions, limit, start, count, sort, fields (PROTOCOL.md §6)."""

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

from bulkimg.sandbox.refusals import PlainRefusal

# In the server's own order; the first found anywhere in the condition splits it.
_OPERATORS = ("!=", ">=", "<=", "!?=", "!~=", "~=", "?=", "=", ">", "<", "is null", "not null")
_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}
_DEFAULT_LIMIT = 1000
Row = Mapping[str, Any]


class Table(Protocol):
    """Rows with an index on one column, as a database has one; they come in its order."""

    indexed: str

    def all(self, beyond: str = "") -> Iterable[Row]: ...
    def having(self, values: Iterable[str]) -> Iterable[Row]: ...


def run_query(table: Table, parameters: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """`{"inventories": […]}`, with `total` when replyWithCount is there; only `{"total": N}` for count=true.

    Parameters that are not known are ignored without a word, as on the real server.
    """
    conditions = parameters.get("q", ())
    tests = [parse(text) for text in conditions]
    start, limit = _integer(parameters, "start", 0), _integer(parameters, "limit", _DEFAULT_LIMIT)
    fitting = (row for row in _candidates(table, conditions) if all(test(row) for test in tests))
    in_order = _first(parameters, "sort").lstrip("+ ") == table.indexed  # as the table gives them
    counted = any(_first(parameters, name).lower() == "true" for name in ("count", "replyWithCount"))
    found = list(islice(fitting, start + limit) if in_order and not counted else fitting)
    if _first(parameters, "count").lower() == "true":
        return {"total": len(found)}
    answer: dict[str, Any] = {}
    if _first(parameters, "replyWithCount").lower() == "true":
        answer["total"] = len(found)
    if (sort := _first(parameters, "sort")) and not in_order:
        name = sort.lstrip("+- ")
        found.sort(key=lambda row: _sortable(row.get(name)), reverse=sort.startswith("-"))
    page = found[start : start + limit]
    if fields := _first(parameters, "fields"):
        names = fields.split(",")
        page = [{name: row[name] for name in names if name in row} for row in page]
    return {"inventories": [without_nulls(row) for row in page], **answer}


def _candidates(table: Table, conditions: Sequence[str]) -> Iterable[Row]:
    """By the index where a condition allows it: `uuid?=a,b`, `uuid=a` or `uuid>a`; else every row."""
    for condition in conditions:
        for sign in ("?=", "="):
            name, found, values = condition.partition(sign)
            if found and name.strip() == table.indexed:
                return table.having(sorted(values.split(",")))
    beyond = [text[len(table.indexed) + 1 :] for text in conditions if re.match(rf"{table.indexed}>(?!=)", text)]
    return table.all(max(beyond, default=""))


def without_nulls(row: Row) -> dict[str, Any]:
    """Gson leaves nulls out."""
    return {name: value for name, value in row.items() if value is not None}


def parse(condition: str) -> Callable[[Row], bool]:
    """The test that a condition stands for; 400 where it has no operator."""
    for sign in _OPERATORS:
        if sign in condition:
            name, _, value = condition.partition(sign)
            return _test(name.strip(), sign, value)
    raise PlainRefusal(
        400,
        f"Invalid query parameter. The '{condition}' in the parameter[q] doesn't contain any query operator. Valid query operators are {list(_OPERATORS)}",
    )


def _test(name: str, sign: str, value: str) -> Callable[[Row], bool]:
    values = set(value.split(","))
    like = _like(value) if sign.endswith("~=") else lambda held: False  # a pattern of 200 uuids takes 10 ms to make
    tests: dict[str, Callable[[str | None], bool]] = {
        "=": lambda held: held == value,
        "!=": lambda held: held is not None and held != value,
        "?=": lambda held: held in values,
        "!?=": lambda held: held is not None and held not in values,
        "~=": lambda held: held is not None and like(held),
        "!~=": lambda held: held is not None and not like(held),
        "is null": lambda held: held is None,
        "not null": lambda held: held is not None,
    }
    if sign in _ORDERS:
        return lambda row: _in_order(row.get(name), sign, value)
    test = tests[sign]
    return lambda row: test(_text(row.get(name)))


def _like(pattern: str) -> Callable[[str], bool]:
    """SQL's LIKE, as the server has it: % and _ stand for any text and any character."""
    made = re.compile(re.escape(pattern).replace("%", ".*").replace("_", "."), re.IGNORECASE | re.DOTALL)
    return lambda held: made.fullmatch(held) is not None


def _in_order(held: Any, sign: str, value: str) -> bool:
    """Numbers are compared as numbers, texts as texts: a uuid of digits only is a text."""
    if held is None:
        return False
    if isinstance(held, int | float) and not isinstance(held, bool):
        return _ORDERS[sign](_number(str(held)), _number(value))
    return _ORDERS[sign](str(_text(held)), value)


def _text(value: Any) -> str | None:
    return None if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _number(text: str) -> tuple[float, str]:
    try:
        return float(text), ""
    except ValueError:
        return 0.0, text


def _sortable(value: Any) -> tuple[bool, float, str]:
    """Nulls first, then numbers by size, texts by their letters."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return True, float(value), ""
    return value is not None, 0.0, str(_text(value))


def _integer(parameters: Mapping[str, Sequence[str]], name: str, default: int) -> int:
    text = _first(parameters, name)
    if not re.fullmatch(r"\d*", text, re.ASCII):
        raise PlainRefusal(400, f"Invalid query parameter. '{name}' must be an integer")
    return int(text) if text else default


def _first(parameters: Mapping[str, Sequence[str]], name: str) -> str:
    values = parameters.get(name)
    return values[0] if values else ""
