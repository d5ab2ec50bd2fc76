"""This file answers queries over any table: `q` conditions, limit, start, count, sort, fields (PROTOCOL.md §6)."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bulkimg.sandbox.refusals import PlainRefusal

# In the server's own order; the first found anywhere in the condition splits it.
_OPERATORS = ("!=", ">=", "<=", "!?=", "!~=", "~=", "?=", "=", ">", "<", "is null", "not null")
_DEFAULT_LIMIT = 1000
Row = Mapping[str, Any]


def run_query(rows: Iterable[Row], parameters: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """`{"inventories": […]}`, with `total` when replyWithCount is there; only `{"total": N}` for count=true.

    Parameters that are not known are ignored without a word, as on the real server.
    """
    tests = [parse(text) for text in parameters.get("q", ())]
    found = [row for row in rows if all(test(row) for test in tests)]
    if _first(parameters, "count").lower() == "true":
        return {"total": len(found)}
    answer: dict[str, Any] = {}
    if _first(parameters, "replyWithCount").lower() == "true":
        answer["total"] = len(found)
    if sort := _first(parameters, "sort"):
        name = sort.lstrip("+- ")
        found.sort(key=lambda row: _sortable(row.get(name)), reverse=sort.startswith("-"))
    start, limit = _integer(parameters, "start", 0), _integer(parameters, "limit", _DEFAULT_LIMIT)
    page = found[start : start + limit]
    if fields := _first(parameters, "fields"):
        names = fields.split(",")
        page = [{name: row[name] for name in names if name in row} for row in page]
    return {"inventories": [without_nulls(row) for row in page], **answer}


def without_nulls(row: Row) -> dict[str, Any]:
    """Gson leaves nulls out."""
    return {name: value for name, value in row.items() if value is not None}


def parse(condition: str) -> Callable[[Row], bool]:
    """The test that a condition stands for; 400 where it has no operator."""
    for operator in _OPERATORS:
        if operator in condition:
            name, _, value = condition.partition(operator)
            return _test(name.strip(), operator, value)
    raise PlainRefusal(
        400,
        f"Invalid query parameter. The '{condition}' in the parameter[q] doesn't contain any query operator. Valid query operators are {list(_OPERATORS)}",
    )


def _test(name: str, operator: str, value: str) -> Callable[[Row], bool]:
    values = set(value.split(","))
    like = re.compile(re.escape(value).replace("%", ".*").replace("_", "."), re.IGNORECASE | re.DOTALL)
    tests: dict[str, Callable[[str | None], bool]] = {
        "=": lambda held: held == value,
        "!=": lambda held: held is not None and held != value,
        "?=": lambda held: held in values,
        "!?=": lambda held: held is not None and held not in values,
        "~=": lambda held: held is not None and like.fullmatch(held) is not None,
        "!~=": lambda held: held is not None and like.fullmatch(held) is None,
        ">": lambda held: held is not None and _number(held) > _number(value),
        "<": lambda held: held is not None and _number(held) < _number(value),
        ">=": lambda held: held is not None and _number(held) >= _number(value),
        "<=": lambda held: held is not None and _number(held) <= _number(value),
        "is null": lambda held: held is None,
        "not null": lambda held: held is not None,
    }
    test = tests[operator]
    return lambda row: test(_text(row.get(name)))


def _text(value: Any) -> str | None:
    return None if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _number(text: str) -> tuple[float, str]:
    try:
        return float(text), ""
    except ValueError:
        return 0.0, text


def _sortable(value: Any) -> tuple[bool, float, str]:
    return value is not None, *(_number(str(value)) if value is not None else (0.0, ""))


def _integer(parameters: Mapping[str, Sequence[str]], name: str, default: int) -> int:
    text = _first(parameters, name)
    if not re.fullmatch(r"\d*", text, re.ASCII):
        raise PlainRefusal(400, f"Invalid query parameter. '{name}' must be an integer")
    return int(text) if text else default


def _first(parameters: Mapping[str, Sequence[str]], name: str) -> str:
    values = parameters.get(name)
    return values[0] if values else ""
