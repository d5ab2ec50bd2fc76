"""Define what a row hook gets and returns. These shapes are public: a field is never renamed or removed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Value = str | bool | Sequence[str]  # tags are sequences of texts


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the manifest as a row hook gets it. Nothing of it can be changed in place.

    `line` is where it begins in the manifest, `uuid` the image. `fields` are the values that it sets, after --map and
    --set: texts, booleans, and tuples of tags. `expects` are those of its `if_` columns. `cells` are its own cells as
    texts, by column, also of columns that begin with `_`.
    """

    line: int
    uuid: str
    fields: Mapping[str, Value]
    expects: Mapping[str, Value]
    cells: Mapping[str, str]

    def with_fields(self, **values: Value | None) -> "Row":
        """Return the row with these values. None removes a field: the image keeps its present value."""
        merged = {**self.fields, **values}
        fields = {name: value for name, value in merged.items() if value is not None}
        return Row(self.line, self.uuid, fields, self.expects, self.cells)


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a row is refused, in words that follow the name of the field, such as "is a reserved name"."""

    message: str
    field: str = ""
    fix: str = ""
