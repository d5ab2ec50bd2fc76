"""`python -m samples.workbooks`: make the sample workbooks again, byte for byte. It needs the extra xlsx.

relabel.xlsx holds the rows of relabel.csv. traps.xlsx holds what spreadsheets do to a table, one trap a row.
"""

import csv
import io
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PLACE = Path(__file__).parent
MADE = datetime(2026, 11, 1, tzinfo=UTC).replace(tzinfo=None)
_BEGAN_AT = (1980, 1, 1, 0, 0, 0)  # the date of every part, so that the bytes are the same each time


def main() -> None:
    """Write both workbooks."""
    for name, content in workbooks().items():
        (PLACE / name).write_bytes(content)


def workbooks() -> Mapping[str, bytes]:
    """Return the workbooks by name."""
    return {"relabel.xlsx": relabel(), "traps.xlsx": traps()}


def relabel() -> bytes:
    """Return relabel.csv as a sheet of texts."""
    book, content = _new()
    sheet = book.add_worksheet("Images")
    with (PLACE / "relabel.csv").open(newline="", encoding="utf-8") as file:
        for number, record in enumerate(csv.reader(file)):
            for column, text in enumerate(record):
                sheet.write_string(number, column, text) if text else None
    sheet.freeze_panes(1, 0)
    sheet.autofilter(0, 0, number, 4)
    book.close()
    return content.getvalue()


def traps() -> bytes:
    """Return a sheet with every trap."""
    book, content = _new()
    date, share, text = (book.add_format({"num_format": code}) for code in ("yyyy-mm-dd", "0%", "@"))
    sheet = book.add_worksheet("Images")
    book.add_worksheet("Notes").write_string(0, 0, "Ask the platform team before you change an image.")
    old = book.add_worksheet("Last year")
    old.hide()
    with (PLACE / "relabel.csv").open(newline="", encoding="utf-8") as file:
        ids = [record["uuid"] for record in csv.DictReader(file)]
    sheet.write_row(2, 0, ["uuid", "name", "system", "guestOsType", "_note"], text)
    cells: list[tuple[str, Any, Any]] = [  # what the note says, the name, its format
        ("12.0 is taken as 12", 12.0, None),
        ("a formula with its value", "=B4&B4", None),
        ("a formula without a value", "=B5", None),
        ("an error", "#N/A", None),
        ("a fraction", 12.5, None),
        ("too many digits", 12345678901234567890, None),
        ("a date", MADE, date),
        ("a percentage", 0.5, share),
        ("a share of one", 1, share),
        ("a truth value", True, None),
        ("a hidden row", "db-1", None),
        ("merged cells", None, None),
        ("merged cells too", None, None),
        ("a cell outside the table", "db-2", None),
        ("a uuid that became a number", "db-3", None),
    ]
    for number, (note, value, form) in enumerate(cells, 3):
        sheet.write_string(number, 0, ids[number], text)
        sheet.write_boolean(number, 2, False)
        sheet.write_string(number, 4, note)
        if isinstance(value, str) and value.startswith("#"):
            sheet.write_formula(number, 1, "=NA()", form, value)
        elif isinstance(value, str) and value.startswith("="):
            sheet.write_formula(number, 1, value, form, "1212")
        elif value is not None:
            sheet.write(number, 1, value, form)
    sheet.set_row(13, None, None, {"hidden": True})
    sheet.merge_range(14, 1, 15, 1, "both")
    sheet.write_string(16, 6, "ask first")
    sheet.write_number(17, 0, 1.23e31)
    book.close()
    return _patched(
        content.getvalue(),
        {
            "xl/workbook.xml": {' fullCalcOnLoad="1"': ""},  # the values are those of the formulas
            "xl/worksheets/sheet1.xml": {"<f>B5</f><v>1212</v>": "<f>B5</f>"},
        },
    )


def _new() -> tuple[Any, io.BytesIO]:
    import xlsxwriter  # type: ignore[import-untyped]

    content = io.BytesIO()
    book = xlsxwriter.Workbook(content, {"in_memory": True})
    book.set_properties({"created": MADE})
    return book, content


def _patched(content: bytes, changes: Mapping[str, Mapping[str, str]]) -> bytes:
    """Return the workbook with texts of its parts replaced. Each must be there."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            part = old.read(info).decode() if info.filename in changes else old.read(info)
            for before, after in changes.get(info.filename, {}).items():
                assert isinstance(part, str)
                assert before in part, before
                part = part.replace(before, after)
            entry = zipfile.ZipInfo(info.filename, _BEGAN_AT)
            entry.compress_type = zipfile.ZIP_DEFLATED
            new.writestr(entry, part)
    return made.getvalue()


if __name__ == "__main__":
    main()
