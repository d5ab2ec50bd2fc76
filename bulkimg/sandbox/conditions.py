"""Read the conditions of `q`: own columns, tags (`__userTag__`), and linked rows (`backupStorage.name`)."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bulkimg.sandbox import inventory as columns
from bulkimg.sandbox import refusals
from bulkimg.sandbox.compare import holds
from bulkimg.sandbox.inventory import Inventory
from bulkimg.sandbox.storages import storage_of

# In the server's own order. The first one that occurs anywhere in the condition splits it (RestServer.java:1052-1072).
_OPERATORS = ("!=", ">=", "<=", "!?=", "!~=", "~=", "?=", "=", ">", "<", "is null", "not null")
_TAGS = {"__userTag__": "User", "__systemTag__": "System"}  # ZQLMetadata.java:23-24
Row = Mapping[str, Any]
TagsOf = Callable[[str, str], Iterable[str]]  # the kind of the tags, the uuid of the tagged resource


@dataclass(frozen=True, slots=True)
class Condition:
    """`name`, operator, value."""

    name: str
    sign: str
    value: str


def split(text: str) -> Condition:
    """Split a condition into its parts. Raises 400 if it has no operator."""
    for sign in _OPERATORS:
        if sign in text:
            name, _, value = text.partition(sign)
            return Condition(name.strip(), sign, value)
    raise refusals.PlainRefusal(
        400,
        f"Invalid query parameter. The '{text}' in the parameter[q] doesn't contain any query operator. Valid query operators are {list(_OPERATORS)}",
    )


def test_of(inventory: Inventory, condition: Condition, tags_of: TagsOf) -> Callable[[Row], bool]:
    """Return a test whether a row meets the condition. Raises SYS.1000 for names that the inventory does not have."""
    if "'" in condition.name + condition.value:
        # The server writes \', which its own query language does not know (QueryFacadeImpl.java:397-425,
        # ZQL.g4:320-322).
        raise refusals.broken_text(condition.value)
    return _along(inventory, condition.name.split("."), condition, tags_of)


def _along(inventory: Inventory, names: list[str], condition: Condition, tags_of: TagsOf) -> Callable[[Row], bool]:
    """Return whether one of the linked rows meets a condition such as `backupStorageRef.status=Ready`."""
    name = names[0]
    if len(names) == 1:
        if name in _TAGS:
            return _tagged(_TAGS[name], condition, tags_of)
        if name not in inventory.fields:
            raise refusals.no_column(inventory.java, name)
        test = holds(inventory.fields[name], condition.sign, condition.value)
        return lambda row: test(row.get(name))
    if (step := _STEPS.get((inventory, name))) is None:
        raise refusals.no_step(inventory.java, ".".join(names[1:-1]), name)
    target, rows_of = step
    inner = _along(target, names[1:], condition, tags_of)
    return lambda row: any(map(inner, rows_of(row)))


def _tagged(kind: str, condition: Condition, tags_of: TagsOf) -> Callable[[Row], bool]:
    """Test tags.

    A negative condition must hold for all tags: no tags fulfil `!=` (SQLConditionBuilder.java, TAG_FALSE_OP).
    """
    negative = condition.sign.startswith("!")
    test = holds("text", condition.sign.removeprefix("!"), condition.value)
    return lambda row: any(map(test, tags_of(kind, row.get("uuid", "")))) is not negative


def _refs(image: Row) -> Iterable[Row]:
    return image["backupStorageRefs"]  # type: ignore[no-any-return]


def _storages(image: Row) -> Iterable[Row]:
    return [storage_of(ref) for ref in _refs(image)]


# ImageInventory.java:16-26 and ImageBackupStorageRefInventory.java:15-20. There are no volumes here.
_STEPS: dict[tuple[Inventory, str], tuple[Inventory, Callable[[Row], Iterable[Row]]]] = {
    (columns.IMAGE, "backupStorageRef"): (columns.IMAGE_REF, _refs),
    (columns.IMAGE, "backupStorageRefs"): (columns.IMAGE_REF, _refs),
    (columns.IMAGE, "backupStorage"): (columns.STORAGE, _storages),
    (columns.IMAGE, "volume"): (columns.VOLUME, lambda _: ()),
    (columns.IMAGE_REF, "backupStorage"): (columns.STORAGE, lambda ref: [storage_of(ref)]),
}
