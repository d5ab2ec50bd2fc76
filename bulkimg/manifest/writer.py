"""Write images as a manifest that reads back the same: CSV, TSV or JSONL."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from bulkimg.cells import csv_text, write_cell
from bulkimg.errors import UsageError
from bulkimg.model import MAY_BE_EMPTY, TAGS, Change, Value


class ManifestWriter:
    """Write one image after the other through `write`.

    `left_out` counts values, by field, that a manifest cannot ask for.
    """

    def __init__(
        self,
        write: Callable[[str], object],
        kind: str,
        names: Sequence[str],
        empty_token: str,
        *,
        expectations: bool,
    ) -> None:
        self._write = write
        self._kind = kind
        self._names = list(names)
        self._empty_token = empty_token
        self._expectations = expectations
        self.left_out: Counter[str] = Counter()
        self.count = 0
        self._begun = False

    def _begin(self) -> None:
        """Write the header with the first image: nothing is written before the server has answered."""
        self._begun = True
        if self._kind != "jsonl":
            expected = [f"if_{name}" for name in self._names] if self._expectations else []
            self._record(["uuid", *self._names, *expected])

    def close(self) -> None:
        """Write the header if there were no rows."""
        if not self._begun:
            self._begin()

    def write(self, image: Mapping[str, Any]) -> None:
        """Write one image.

        Raises UsageError if a value is the token that empties a field: a manifest cannot express it.
        """
        if not self._begun:
            self._begin()
        shown = {name: image.get(name) for name in self._names}
        asked = {name: self._asked(name, value) for name, value in shown.items()}
        expected = (
            {f"if_{name}": self._expected(name, value) for name, value in shown.items()} if self._expectations else {}
        )
        for value in shown.values():
            if value == self._empty_token:
                raise UsageError(
                    f"image {image['uuid']}: one of its values is {value!r}, which empties a field; "
                    "choose another --empty-token for export and for run"
                )
        if self._kind == "jsonl":
            values = {name: value for name, value in {**asked, **expected}.items() if value is not None}
            self._write(json.dumps({"uuid": image["uuid"], **values}, ensure_ascii=False) + "\n")
        else:
            cells = (write_cell(value, self._empty_token) for value in (*asked.values(), *expected.values()))
            self._record([image["uuid"], *cells])
        self.count += 1

    def _asked(self, name: str, value: Any) -> Value | None:
        """Return what the row sets: nothing if the image has no value, or one that UpdateImage would refuse."""
        if value is None or value in ("", []):
            return None
        try:
            Change.model_validate({name: value})
        except ValidationError:
            self.left_out[name] += 1
            return None
        return value  # type: ignore[no-any-return] # as the model has just checked

    @staticmethod
    def _expected(name: str, value: Any) -> Value | None:
        """Return what the row expects. An empty text and no text are the same here."""
        if value is None:
            return "" if name in MAY_BE_EMPTY else [] if name in TAGS else None
        return value  # type: ignore[no-any-return] # an image may hold any text or flag

    def _record(self, cells: Sequence[str]) -> None:
        self._write(csv_text([cells], "\t" if self._kind == "tsv" else ","))
