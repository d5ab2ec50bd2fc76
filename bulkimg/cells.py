"""Read a table's cell as a field's value, and write a value so that it reads back the same."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from bulkimg.blank import is_blank, trim
from bulkimg.model import CHOICES, FLAGS, SERVER_TRIMS, TAGS, Value

# Results may be fed back as a manifest. What was refused stays refused there until a person corrects it:
REFUSED_CELL = "\0"  # ends a cell whose text alone does not say why it was refused; no field accepts it
REFUSED_MANIFEST = "refused_manifest"  # the column of a manifest that was refused as a whole; no option ignores it

_TRUE = frozenset({"true", "yes", "1"})
_FALSE = frozenset({"false", "no", "0"})

# What a spreadsheet takes for the beginning of a formula, with full-width forms (OWASP, "CSV injection"), also behind
# blanks and quotes. The ledger's view `result` has the same two lists.
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
_PASSED_OVER = "\t\n\r \"'"


def read_cell(name: str, text: str, empty_token: str) -> Value | None:
    """Return the value of a cell, or None if it is blank and the field stays as it is.

    Raises ValueError with the text `what is wrong; what to do`.
    """
    if is_blank(text):
        return None
    if text == empty_token or trim(text) == empty_token:
        return [] if name in TAGS else ""
    if name in FLAGS:
        return read_flag(text)
    if name in TAGS:
        return _read_tags(text)
    return trim(text) if name in CHOICES else text


def read_flag(text: str) -> bool:
    """Return the flag of true, yes, 1, false, no or 0, in any case. Raises ValueError for other texts."""
    folded = trim(text).lower()
    if folded in _TRUE:
        return True
    if folded in _FALSE:
        return False
    raise ValueError("is not a boolean; write true or false (or yes, no, 1, 0)")


def _read_tags(text: str) -> list[str]:
    """Return the tags of a text separated by `;`, or of a JSON array if a tag contains `;`."""
    if trim(text).startswith("["):
        try:
            value = json.loads(trim(text))
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, list) and all(isinstance(tag, str) for tag in value):
            return value
    return [trim(tag) for tag in text.split(";") if not is_blank(tag)]


def write_cell(value: Value | None, empty_token: str) -> str:
    """Return the cell that `read_cell` reads back as this value."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        if not value:
            return empty_token
        plain = value != [empty_token] and all(
            ";" not in tag and tag == trim(tag) and not is_blank(tag) and not tag.startswith("[") for tag in value
        )
        return ";".join(value) if plain else json.dumps(value, ensure_ascii=False)
    return value if value.strip(SERVER_TRIMS) else empty_token


def write_csv(file: TextIO, records: Iterable[Sequence[Any]], delimiter: str = ",") -> int:
    """Write records as CSV that every strict reader reads back the same. Returns their number."""
    count = 0
    plain = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    quoted = csv.writer(file, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for count, cells in enumerate(records, 1):  # noqa: B007 - returned
        # Before Python 3.13 a bare CR is not quoted, and every reader takes it for the end of the record.
        (quoted if any(isinstance(cell, str) and "\r" in cell for cell in cells) else plain).writerow(cells)
    return count


def csv_text(records: Iterable[Sequence[Any]], delimiter: str = ",") -> str:
    """Return the same CSV as a text."""
    buffer = io.StringIO()
    write_csv(buffer, records, delimiter)
    return buffer.getvalue()


def harmless(text: str) -> str:
    """Return the text with an apostrophe if it begins like a formula, so that a spreadsheet does not run it."""
    return f"'{text}" if text.lstrip(_PASSED_OVER).startswith(_FORMULA) else text
