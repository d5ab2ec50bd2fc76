"""Answer queries over any table: `q` conditions, limit, start, count, sort, fields (docs/dev/protocol.md §6)."""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

from bulkimg.sandbox import refusals
from bulkimg.sandbox.compare import canonical, sort_key
from bulkimg.sandbox.conditions import Condition, Row, split, test_of
from bulkimg.sandbox.inventory import Inventory

_DEFAULT_LIMIT = 1000
Parameters = Mapping[str, Sequence[str]]


class Table(Protocol):
    """Rows with an index on one column of uuids, like a database table. They come in the index's order."""

    indexed: str

    @property
    def inventory(self) -> Inventory: ...
    def all(self, beyond: str = "") -> Iterable[Row]: ...
    def having(self, values: Iterable[str]) -> Iterable[Row]: ...
    def tags_of(self, kind: str, uuid: str) -> Iterable[str]: ...


def run_query(table: Table, parameters: Parameters) -> dict[str, Any]:
    """Return `{"inventories": […]}`, with `total` for replyWithCount, or only `{"total": N}` for count=true.

    Unknown parameters are ignored, as on the real server. Unknown names of columns are errors.
    """
    conditions = [split(text) for text in parameters.get("q", ())]
    start, limit = _integer(parameters, "start", 0), _integer(parameters, "limit", _DEFAULT_LIMIT)
    tests = [test_of(table.inventory, condition, table.tags_of) for condition in conditions]
    names, sort = _fields(table.inventory, parameters), _sort(table.inventory, parameters)
    fitting = (row for row in _candidates(table, conditions) if all(test(row) for test in tests))
    counted = any(_says_true(parameters, name) for name in ("count", "replyWithCount"))
    in_order = sort == (table.indexed, False)  # in the table's order
    found = list(islice(fitting, start + limit) if in_order and not counted else fitting)
    if _says_true(parameters, "count"):
        return {"total": len(found)}
    if sort and not in_order:
        name, down = sort
        found.sort(key=lambda row: sort_key(table.inventory.fields[name], row.get(name)), reverse=down)
    page = _shown(table.inventory, found[start : start + limit], names)
    return {"inventories": page, **({"total": len(found)} if _says_true(parameters, "replyWithCount") else {})}


def one_row(table: Table, uuid: str) -> dict[str, Any]:
    """Answer a GET with the uuid in its path. Its parameters are ignored (RestServer.java:1084-1097)."""
    condition = Condition("uuid", "=", uuid)
    test = test_of(table.inventory, condition, table.tags_of)
    return {"inventories": [without_nulls(row) for row in _candidates(table, [condition]) if test(row)]}


def without_nulls(row: Row) -> dict[str, Any]:
    """Return the row without nulls, as Gson writes it."""
    return {name: value for name, value in row.items() if value is not None}


def _shown(inventory: Inventory, page: list[Row], names: Sequence[str]) -> list[dict[str, Any]]:
    if not names:
        return [without_nulls(row) for row in page]
    for name in inventory.enumerations.intersection(names):
        if any(row.get(name) is None for row in page):
            # toString() on the null of an enumeration (ZQLMetadata.java:96-97, ZQL.java:122-139); whole rows are checked.
            raise refusals.internal("java.lang.NullPointerException")
    return [without_nulls({name: row.get(name) for name in names}) for row in page]


def _fields(inventory: Inventory, parameters: Parameters) -> list[str]:
    if not (given := _first(parameters, "fields")):
        return []
    names = [name.strip() for name in given.split(",")]
    for name in names:
        if name in inventory.joined:
            raise refusals.not_converted(name)  # ZQLMetadata.java:100
        if name not in inventory.fields:
            raise refusals.no_column(inventory.java, name)
    return names


def _sort(inventory: Inventory, parameters: Parameters) -> tuple[str, bool] | None:
    """Return the column, and whether the order is descending."""
    if not (given := _first(parameters, "sort").strip()):
        return None
    if (name := given.lstrip("+-")) not in inventory.fields:
        raise refusals.no_column(inventory.java, name)
    return name, given.startswith("-")


def _candidates(table: Table, conditions: Sequence[Condition]) -> Iterable[Row]:
    """Return the rows by the index if a condition allows it (`uuid?=a,b`, `uuid=a` or `uuid>a`), else every row."""
    ours = [condition for condition in conditions if condition.name == table.indexed]
    for condition in ours:
        if condition.sign in ("?=", "="):
            values = condition.value.split(",") if condition.sign == "?=" else [condition.value]
            return table.having(sorted(set(map(canonical, values))))
    return table.all(max((canonical(one.value) for one in ours if one.sign == ">"), default=""))


def _integer(parameters: Parameters, name: str, default: int) -> int:
    text = _first(parameters, name)
    if not re.fullmatch(r"\d*", text, re.ASCII):
        raise refusals.PlainRefusal(400, f"Invalid query parameter. '{name}' must be an integer")
    return int(text) if text else default


def _says_true(parameters: Parameters, name: str) -> bool:
    return _first(parameters, name).lower() == "true"


def _first(parameters: Parameters, name: str) -> str:
    values = parameters.get(name)
    return values[0] if values else ""
