"""Workbooks: the same rows as a CSV, and a problem at the cell for everything that a sheet hides or shows otherwise."""

import csv
import io
import json
import struct
import tempfile
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import xlsxwriter  # type: ignore[import-untyped]
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from python_calamine import CalamineWorkbook

from bulkimg.errors import BulkimgError, ManifestRefused, StorageError, UsageError
from bulkimg.layers import environment_layer, flags_layer, merge
from bulkimg.manifest import Manifest
from bulkimg.manifest.kinds import find_format
from bulkimg.manifest.xlsx import package, spool
from bulkimg.manifest.xlsx import strings as shared_strings
from bulkimg.manifest.xlsx.places import column_of, letters, sheet_prefix
from bulkimg.manifest.xlsx.shown import Shown, shown_as
from bulkimg.model import Problem, Row
from bulkimg.settings import Settings
from samples.workbooks import workbooks
from tests.conftest import ROOT, Cli
from tests.manifest import books
from tests.manifest.books import parts, row, sheet, strings, styles, text, zipped
from tests.manifest.test_tabular import read, uuid, write

U1, U2, U3 = uuid(1), uuid(2), uuid(3)
HEADER = row(1, "uuid", "name")


def book(tmp_path: Path, made: books.Parts | str, **more: Any) -> Path:
    """Write a workbook of these parts, or of one sheet."""
    return write(tmp_path / "m.xlsx", zipped(parts(made, **more) if isinstance(made, str) else made))


def one_cell(tmp_path: Path, cell: str, column: str = "name", **more: Any) -> tuple[Row, list[Problem]]:
    """Return the row of a sheet whose cell B2 is this one, and the problems of the whole."""
    made = sheet(row(1, "uuid", column), row(2, U1, cell))
    rows, problems, _ = read(book(tmp_path, made, **more))
    return rows[0], problems


def codes(rows: list[Row], problems: list[Problem]) -> list[tuple[str, str]]:
    """Return where each problem is, and its code."""
    found = [problem for item in rows for problem in item.problems] + problems
    return [(place(problem), problem.code) for problem in found]


def place(problem: Problem) -> str:
    """Return the cell and the column of a problem."""
    return f"{problem.cell} {problem.column}".strip()


# -- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "shared", "value"),
    [
        ('<c r="B2" t="s"><v>0</v></c>', "plain", "plain"),
        ('<c r="B2" t="s"><v>0</v></c>', "a &amp; <b>", "a &amp; <b>"),
        ('<c r="B2" t="s"><v>0</v></c>', "<si><r><rPr><b/></rPr><t>rich</t></r><r><t xml:space='preserve'> text</t></r></si>", "rich text"),
        ('<c r="B2" t="s"><v>0</v></c>', "<si><t>東京</t><rPh sb='0' eb='2'><t>トウキョウ</t></rPh><phoneticPr fontId='1'/></si>", "東京"),
        ('<c r="B2" t="s"><v>0</v></c>', "<si><t>\n two </t></si>", "two"),
        ('<c r="B2" t="s"><v>0</v></c>', '<si><t xml:space="preserve"> two</t></si>', " two"),
        ('<c r="B2" t="s"><v>0</v></c>', "a_x000A_b _x005F_x0041_ _x00e9_", "a\nb _x0041_ é"),
        ('<c r="B2" t="s"><v>0</v></c>', "<si><t><![CDATA[<raw> & ]]>x</t></si>", "<raw> & x"),
        ('<c r="B2" t="inlineStr"><is><t>inline</t></is></c>', "", "inline"),
        ('<c r="B2" t="inlineStr"><is><r><t>in</t></r><r><rPr/><t>line</t></r><rPh sb="0" eb="1"><t>x</t></rPh></is></c>', "", "inline"),
        ('<c r="B2" t="str"><v>text of a formula</v></c>', "", "text of a formula"),
        ('<c r="B2"><v>12</v></c>', "", "12"),
        ('<c r="B2"><v>12.0</v></c>', "", "12"),
        ('<c r="B2" t="n"><v>1.2E1</v></c>', "", "12"),
        ('<c r="B2"><v>-3</v></c>', "", "-3"),
        ('<c r="B2"><v>999999999999999</v></c>', "", "999999999999999"),
        ('<c r="B2" t="inlineStr"><is><t>007</t></is></c>', "", "007"),
        ('<c r="B2" t="s" s="0" quotePrefix="1"><v>0</v></c>', "=1+1", "=1+1"),
    ],
)  # fmt: skip
def test_a_cell_is_read_as_the_text_it_shows(tmp_path: Path, cell: str, shared: str, value: str) -> None:
    found, problems = one_cell(tmp_path, cell, shared=strings(shared) if shared else "")
    assert (codes([found], problems), found.fields) == ([], {"name": value})


@pytest.mark.parametrize(
    ("cell", "column", "code"),
    [
        ('<c r="B2"><v>12.5</v></c>', "name", "FRACTION"),
        ('<c r="B2"><v>0.1</v></c>', "guestOsType", "FRACTION"),
        ('<c r="B2"><v>1000000000000000</v></c>', "name", "DIGITS_LOST"),
        ('<c r="B2"><v>1.23E+31</v></c>', "userTags", "DIGITS_LOST"),
        ('<c r="B2"><v>1E+999</v></c>', "name", "DIGITS_LOST"),
        ('<c r="B2"><v>nan</v></c>', "name", "ERROR_CELL"),
        ('<c r="B2"><v>1_0</v></c>', "name", "ERROR_CELL"),
        ('<c r="B2" t="b"><v>1</v></c>', "name", "TRUTH_VALUE"),
        ('<c r="B2" t="b"><v>0</v></c>', "platform", "TRUTH_VALUE"),
        ('<c r="B2" t="b"><v>2</v></c>', "system", "ERROR_CELL"),
        ('<c r="B2" t="e"><v>#DIV/0!</v></c>', "name", "ERROR_CELL"),
        ('<c r="B2" t="e"><v></v></c>', "name", "ERROR_CELL"),
        ('<c r="B2" t="e"><f>1/0</f><v>#DIV/0!</v></c>', "name", "ERROR_CELL"),
        ('<c r="B2" t="d"><v>2026-11-01T00:00:00</v></c>', "name", "DATE_CELL"),
        ('<c r="B2"><f>A1</f></c>', "name", "FORMULA_WITHOUT_VALUE"),
        ('<c r="B2"><f>A1</f><v></v></c>', "name", "FORMULA_WITHOUT_VALUE"),
        ('<c r="B2"><f>A1</f><v/></c>', "system", "FORMULA_WITHOUT_VALUE"),
        ('<c r="B2" t="inlineStr"><is><t>' + "x" * 32_768 + "</t></is></c>", "name", "TOO_LONG"),
    ],
)
def test_a_cell_that_is_not_certain_is_a_problem_at_the_cell(tmp_path: Path, cell: str, column: str, code: str) -> None:
    found, problems = one_cell(tmp_path, cell, column)
    assert codes([found], problems) == [(f"Sheet1!B2 {column}", code)]
    assert found.problems[0].fix


@pytest.mark.parametrize("cell", ["<v>1</v>", "<v>123456</v>", "<v>1.23E+31</v>"])
def test_a_uuid_that_is_a_number_is_one_problem_with_its_fix(tmp_path: Path, cell: str) -> None:
    rows, problems, _ = read(book(tmp_path, sheet(HEADER, row(2, f'<c r="A2">{cell}</c>', "x"))))
    assert codes(rows, problems) == [("Sheet1!A2 uuid", "NUMBER_AS_UUID")]
    assert rows[0].problems[0].fix == "format the column as text and paste the uuids again"


@pytest.mark.parametrize(
    ("kind", "raw", "value"), [("b", "1", True), ("b", "0", False), ("n", "1", True), ("n", "0.0", False)]
)
def test_truth_values_and_their_numbers_are_flags(tmp_path: Path, kind: str, raw: str, value: bool) -> None:
    found, problems = one_cell(tmp_path, f'<c r="B2" t="{kind}"><v>{raw}</v></c>', "system")
    assert (codes([found], problems), found.fields) == ([], {"system": value})


@pytest.mark.parametrize(
    ("code", "raw", "problem"),
    [
        ("General", "12", ""), ("@", "12", ""), ("0", "12", ""), ("#", "12", ""), (49, "12", ""), (1, "12", ""),
        ("#,##0", "999", ""), ("#,##0", "1000", "NUMBER_FORMAT"), (3, "12345", "NUMBER_FORMAT"),
        ("0%", "1", "NUMBER_FORMAT"), (9, "0.5", "NUMBER_FORMAT"), (10, "1", "NUMBER_FORMAT"),
        ("000", "7", "NUMBER_FORMAT"), ("0.00", "12", "NUMBER_FORMAT"), (2, "12", "NUMBER_FORMAT"),
        ('0 "GB"', "12", "NUMBER_FORMAT"), ("0.00E+00", "12", "NUMBER_FORMAT"), ("# ?/?", "12", "NUMBER_FORMAT"),
        ('#,##0.00 "€"', "12", "NUMBER_FORMAT"), ("[$€-407]#,##0", "12", "NUMBER_FORMAT"), (44, "12", "NUMBER_FORMAT"),
        ("0;[Red]-0", "12", "NUMBER_FORMAT"), (";;;", "12", "NUMBER_FORMAT"), ('"yes";"no"', "1", "NUMBER_FORMAT"),
        ("yyyy-mm-dd", "46000", "DATE_CELL"), ("d.m.yy", "46000", "DATE_CELL"), ("[h]:mm", "1", "DATE_CELL"),
        ("[$-409]h:mm AM/PM", "1", "DATE_CELL"), ("mm:ss.0", "1", "DATE_CELL"), ("[ss]", "1", "DATE_CELL"),
        ("yyyy\u5e74m\u6708d\u65e5", "46000", "DATE_CELL"), (14, "46000", "DATE_CELL"), (22, "46000.5", "DATE_CELL"),
        (31, "46000", "DATE_CELL"), (46, "1", "DATE_CELL"),
    ],
)  # fmt: skip
def test_a_number_is_taken_only_where_its_format_shows_its_digits(
    tmp_path: Path, code: str | int, raw: str, problem: str
) -> None:
    found, _ = one_cell(tmp_path, f'<c r="B2" s="1"><v>{raw}</v></c>', style=styles(code))
    assert [item.code for item in found.problems] == ([problem] if problem else [])
    assert problem or found.fields == {"name": raw}


def test_words_in_a_format_are_no_date() -> None:
    assert shown_as('"days" 0') is Shown.OTHER
    assert shown_as("\\d0") is Shown.OTHER
    assert shown_as("[Red]0") is Shown.OTHER


def test_a_style_that_does_not_exist_is_not_guessed(tmp_path: Path) -> None:
    found, _ = one_cell(tmp_path, '<c r="B2" s="9"><v>1</v></c>', style=styles())
    assert [item.code for item in found.problems] == ["NUMBER_FORMAT"]


def test_uuids_that_are_formatted_as_text_are_uuids(tmp_path: Path) -> None:
    texts = (U1.upper(), str(UUID(int=2)), f" {U3} ")
    made = sheet(HEADER, *(row(n, text(f"A{n}", value, ' s="1"'), "x") for n, value in enumerate(texts, 2)))
    rows, problems, _ = read(book(tmp_path, made, style=styles("@")))
    assert ([item.uuid for item in rows], codes(rows, problems)) == ([U1, U2, U3], [])


# -- formulas -------------------------------------------------------------------------------------------------------


def test_values_of_formulas_are_taken_and_counted_in_one_warning_a_column(tmp_path: Path) -> None:
    cells = [f'<c r="B{n}" t="str"><f t="shared" si="0"/><v>name {n}</v></c>' for n in range(2, 5)]
    made = sheet(HEADER, *(row(n, uuid(n), cell) for n, cell in enumerate(cells, 2)))
    rows, problems, manifest = read(book(tmp_path, made))
    assert ([item.fields["name"] for item in rows], problems) == (["name 2", "name 3", "name 4"], [])
    assert [(place(item), item.code) for item in manifest.warnings] == [("Sheet1!B2 name", "FORMULA")]
    assert "3 cells of this column hold formulas" in manifest.warnings[0].message


def test_a_formula_that_shows_nothing_leaves_the_field(tmp_path: Path) -> None:
    found, problems = one_cell(tmp_path, '<c r="B2" t="str"><f>IF(A1="","",A1)</f><v></v></c>')
    assert (codes([found], problems), found.fields) == ([], {})


def test_strict_refuses_formulas(tmp_path: Path) -> None:
    made = sheet(HEADER, row(2, U1, '<c r="B2" t="str"><f>A1</f><v>x</v></c>'))
    _, problems, manifest = read(book(tmp_path, made), strict=True)
    assert [(item.code, item.fatal) for item in problems] == [("FORMULA", True)]
    assert manifest.warnings == []


@pytest.mark.parametrize(
    "calculation",
    ['<calcPr fullCalcOnLoad="1"/>', '<calcPr calcCompleted="0"/>', '<calcPr calcMode="manual" calcOnSave="0"/>'],
)
def test_values_of_formulas_that_were_not_calculated_are_refused(tmp_path: Path, calculation: str) -> None:
    """XlsxWriter and others store 0 for a formula, and leave the calculation to the next program."""
    found, _ = one_cell(tmp_path, '<c r="B2"><f>A1</f><v>0</v></c>', calculation=calculation)
    assert [item.code for item in found.problems] == ["FORMULA_NOT_CALCULATED"]
    plain, _ = one_cell(tmp_path, "a text", calculation=calculation)
    assert plain.fields == {"name": "a text"}


def test_cells_that_an_array_formula_fills_are_formulas_too(tmp_path: Path) -> None:
    array = '<c r="B2" t="str"><f t="array" ref="B2:B3">X1:X2</f><v>a</v></c>'
    made = sheet(HEADER, row(2, U1, array), row(3, U2, '<c r="B3" t="str"><v>b</v></c>'), row(4, U3, "c"))
    rows, _, manifest = read(book(tmp_path, made))
    assert [item.fields["name"] for item in rows] == ["a", "b", "c"]
    assert "2 cells" in manifest.warnings[0].message
    rows, _, _ = read(book(tmp_path, made, calculation='<calcPr fullCalcOnLoad="1"/>'))
    assert [bool(item.problems) for item in rows] == [True, True, False]


# -- what is hidden -------------------------------------------------------------------------------------------------

HIDDEN_ROWS = {
    "hidden": (' hidden="1"', ""),
    "hidden, another writer": (' hidden="true"', ""),
    "zero height": (' ht="0" customHeight="1"', ""),
    "hardly any height": (' ht="0.4"', ""),
    "closed group": (' outlineLevel="1" hidden="1"', ""),
    "all rows": ("", '<sheetFormatPr defaultRowHeight="15" zeroHeight="1"/>'),
}


@pytest.mark.parametrize("how", HIDDEN_ROWS)
def test_a_hidden_row_is_refused_with_its_number_until_an_option_decides(tmp_path: Path, how: str) -> None:
    attributes, before = HIDDEN_ROWS[how]
    shown = ' ht="15"'
    made = sheet(
        row(1, "uuid", "name", attributes=shown), row(2, U1, "seen", attributes=shown),
        row(3, U2, "unseen", attributes=attributes), row(4, U3, "seen too", attributes=shown), before=before,
    )  # fmt: skip
    path = book(tmp_path, made)
    rows, problems, _ = read(path)
    assert codes(rows, problems) == [("Sheet1!3:3", "HIDDEN_ROW")]
    assert rows[1].uuid == U2, "the row is in the results with its image"
    rows, problems, manifest = read(path, hidden_rows="include")
    assert ([item.uuid for item in rows], codes(rows, problems), manifest.remarks) == ([U1, U2, U3], [], [])
    rows, problems, manifest = read(path, hidden_rows="skip")
    assert ([item.uuid for item in rows], codes(rows, problems)) == ([U1, U3], [])
    assert (manifest.left_out, manifest.remarks) == (1, ["1 hidden row skipped (first in row 3)"])


def test_a_hidden_row_without_values_is_nothing(tmp_path: Path) -> None:
    made = sheet(HEADER, row(2, U1, "x"), row(3, '<c r="A3" s="0"/>', attributes=' hidden="1"'))
    rows, problems, _ = read(book(tmp_path, made))
    assert (len(rows), codes(rows, problems)) == (1, [])


@pytest.mark.parametrize("how", ["include", "skip", None])
def test_a_hidden_header_is_taken_only_where_hidden_rows_are(tmp_path: Path, how: str | None) -> None:
    made = sheet(row(1, "uuid", "name", attributes=' hidden="1"'), row(2, U1, "x"))
    rows, problems, _ = read(book(tmp_path, made), hidden_rows=how)
    assert codes(rows, problems) == ([] if how == "include" else [("Sheet1!1:1", "HIDDEN_ROW")])


@pytest.mark.parametrize(
    "column", ['<col min="2" max="2" hidden="1"/>', '<col min="1" max="3" width="0" customWidth="1"/>']
)
def test_a_hidden_column_that_matters_is_refused(tmp_path: Path, column: str) -> None:
    made = sheet(row(1, "uuid", "name", "_note"), row(2, U1, "x", "y"), before=f"<cols>{column}</cols>")
    rows, problems, _ = read(book(tmp_path, made))
    assert ("Sheet1!B1 name", "HIDDEN_COLUMN") in codes(rows, problems)
    assert all(item.fatal for item in problems)
    ignored = made.replace('min="2" max="2"', 'min="3" max="3"')
    assert 'max="3" hidden' not in ignored or codes(*read(book(tmp_path, ignored))[:2]) == []


STATES = {"One": "visible", "Two": "hidden", "Three": "veryHidden"}


def test_the_only_visible_sheet_is_read_and_a_hidden_one_never(tmp_path: Path) -> None:
    made = sheet(HEADER, row(2, U1, "x"))
    path = book(tmp_path, parts({"Two": "<broken", "One": made, "Three": "<broken"}, states=STATES))
    assert read(path)[0][0].uuid == U1
    assert read(path, sheet="one")[0][0].uuid == U1, "as in Excel, case does not matter"
    for name in ("Two", "Three"):
        _, problems, _ = read(path, sheet=name)
        assert [(place(item), item.code, item.fatal) for item in problems] == [(name, "HIDDEN_SHEET", True)]


def test_of_several_visible_sheets_one_has_to_be_named(tmp_path: Path) -> None:
    path = book(
        tmp_path, parts({"A": sheet(HEADER, row(2, U1, "x")), "It's B": sheet(HEADER, row(2, U2, "")), "C": sheet()})
    )
    with pytest.raises(UsageError, match=r"3 visible sheets \('A', \"It's B\", 'C'\); choose one with --sheet NAME"):
        read(path)
    assert read(path, sheet="A")[0][0].uuid == U1
    with pytest.raises(UsageError, match="has no such sheet"):
        read(path, sheet="D")
    rows, problems, _ = read(path, sheet="It's B")
    assert (rows[0].uuid, problems) == (U2, [])
    rows, _, _ = read(book(tmp_path, parts({"It's B": sheet(HEADER, row(2, "x", "y"))})))
    assert place(rows[0].problems[0]) == "'It''s B'!A2 uuid"


def test_a_chart_is_no_table(tmp_path: Path) -> None:
    made = {"Chart": "<chartsheet/>", "Data": sheet(HEADER, row(2, U1, "x"))}
    path = book(tmp_path, parts(made, kinds={"Chart": "chartsheet"}))
    assert read(path)[0][0].uuid == U1
    with pytest.raises(UsageError, match="chartsheet"):
        read(path, sheet="Chart")
    _, problems, _ = read(book(tmp_path, parts({"Chart": "<x/>"}, kinds={"Chart": "chartsheet"})))
    assert problems[0].code == "NO_ROWS"


def test_a_workbook_of_hidden_sheets_is_refused(tmp_path: Path) -> None:
    _, problems, _ = read(book(tmp_path, parts({"S": sheet(HEADER)}, states={"S": "hidden"})))
    assert problems[0].code == "HIDDEN_SHEET"


# -- the form of the table ------------------------------------------------------------------------------------------


def test_blank_rows_and_columns_around_the_table_are_passed_over(tmp_path: Path) -> None:
    """Formatted rows down to the last one of the sheet cost nothing and are no rows."""
    made = sheet(
        row(4, "", "", text("C4", "uuid"), text("D4", "name")), row(6, "", "", text("C6", U1), text("D6", "a")),
        '<row r="7"><c r="C7" s="1"/></row>', row(9, "", "", text("C9", U2), text("D9", "b")),
        '<row r="1048576" s="1" customFormat="1"><c r="XFD1048576" s="1"/></row>',
    )  # fmt: skip
    rows, problems, manifest = read(book(tmp_path, made))
    assert [(item.line, item.uuid) for item in rows] == [(6, U1), (9, U2)]
    assert (codes(rows, problems), manifest.columns, manifest.blank_records) == ([], ["uuid", "name"], 0)


@pytest.mark.parametrize("cell", [text("D2", "x"), '<c r="D2"><v>0</v></c>', '<c r="D2" t="e"><v>#N/A</v></c>'])
def test_a_value_outside_the_table_is_refused(tmp_path: Path, cell: str) -> None:
    made = sheet(HEADER, row(2, U1, "a", "", cell), row(3, U2, "b", "", '<c r="D3" s="0"/>'))
    rows, problems, _ = read(book(tmp_path, made))
    assert codes(rows, problems) == [("Sheet1!D2", "OUTSIDE_TABLE")]


def test_merged_cells_over_the_table_are_refused_with_their_range(tmp_path: Path) -> None:
    merged = "<mergeCells>{}</mergeCells>"
    made = sheet(row(1, "uuid", "name", "_note"), row(2, U1, "a", "n"), row(3, U2, "", "m"), after=merged)
    path = book(tmp_path, made.format('<mergeCell ref="B2:B3"/><mergeCell ref="C2:C3"/><mergeCell ref="F9:G9"/>'))
    rows, problems, _ = read(path, skip_invalid=True)
    assert codes(rows, problems) == [("Sheet1!B2 name", "MERGED_CELLS")]
    assert problems[0].fatal
    assert "B2:B3" in problems[0].message
    rows, problems, _ = read(book(tmp_path, made.format('<mergeCell ref="A1:B1"/>')))
    assert ("Sheet1!A1 uuid", "MERGED_CELLS") in codes(rows, problems)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (row(1, "uuid", "name", "name"), [("Sheet1!B1 name", "COLUMN_TWICE")]),
        (row(1, "uuid", "", text("C1", "name")), [("Sheet1!B1", "EMPTY_COLUMN")]),
        (row(1, "uuid", "nmae"), [("Sheet1!B1 nmae", "UNKNOWN_COLUMN"), ("", "NO_FIELD_COLUMN")][:1]),
        (row(1, "uuid", '<c r="B1"><v>2026</v></c>'), [("Sheet1!B1 2026", "UNKNOWN_COLUMN")]),
        (row(1, "uuid", '<c r="B1" s="1"><v>46000</v></c>'), [("Sheet1!B1", "DATE_CELL")]),
        (row(1, "uuid", '<c r="B1" t="e"><v>#REF!</v></c>'), [("Sheet1!B1", "ERROR_CELL")]),
        (row(1, "uuid", '<c r="B1"><f>A1</f></c>'), [("Sheet1!B1", "FORMULA_WITHOUT_VALUE")]),
        (row(1, "Images of the year 2026"), [("Sheet1!A1", "NO_UUID_COLUMN")]),
    ],
)
def test_a_wrong_header_is_named_at_its_cell(tmp_path: Path, header: str, found: list[tuple[str, str]]) -> None:
    made = sheet(header, row(2, "uuid", "name"), row(3, U1, "x"))
    _, problems, _ = read(book(tmp_path, made, style=styles(14)))
    assert codes([], [item for item in problems if item.code != "NO_FIELD_COLUMN"]) == found
    assert all(item.fatal for item in problems)


def test_a_formula_in_the_header_is_a_warning(tmp_path: Path) -> None:
    made = sheet(row(1, "uuid", '<c r="B1" t="str"><f>"na"&amp;"me"</f><v>name</v></c>'), row(2, U1, "x"))
    rows, problems, manifest = read(book(tmp_path, made))
    assert (rows[0].fields, problems) == ({"name": "x"}, [])
    assert [place(item) for item in manifest.warnings] == ["Sheet1!B1 name"]


def test_zero_rows_are_refused(tmp_path: Path) -> None:
    for made in (sheet(HEADER), sheet(), sheet(HEADER, '<row r="2"><c r="A2" s="1"/></row>')):
        rows, problems, _ = read(book(tmp_path, made))
        assert ([item.code for item in problems], rows) == (["NO_ROWS"], [])


def test_every_problem_of_a_row_is_listed(tmp_path: Path) -> None:
    cells = ['<c r="B2" t="e"><v>#N/A</v></c>', '<c r="C2"><v>1.5</v></c>', text("D2", "Linx"), text("E2", "null")]
    made = sheet(row(1, "uuid", "name", "guestOsType", "platform", "description"), row(2, U1, *cells))
    rows, problems, _ = read(book(tmp_path, made))
    places = [
        ("Sheet1!B2 name", "ERROR_CELL"),
        ("Sheet1!C2 guestOsType", "FRACTION"),
        ("Sheet1!D2 platform", "BAD_VALUE"),
    ]
    assert (codes(rows, problems), rows[0].uuid) == (places, U1)
    assert [(place(item), item.code) for item in rows[0].warnings] == [("Sheet1!E2 description", "FOREIGN_WORD")]


def test_columns_without_a_meaning_may_hold_anything(tmp_path: Path) -> None:
    odd = ['<c r="C2" t="e"><v>#N/A</v></c>', '<c r="D2" s="1"><v>46000</v></c>', '<c r="E2"><f>A1</f></c>']
    made = sheet(row(1, "uuid", "name", "_a", "_b", "_c"), row(2, U1, "x", *odd))
    rows, problems, manifest = read(book(tmp_path, made, style=styles(14)))
    assert (codes(rows, problems), manifest.warnings) == ([], [])
    assert rows[0].cells == (U1, "x", "#N/A", "46000", "")


# -- options --------------------------------------------------------------------------------------------------------

OPTIONS: list[dict[str, Any]] = [
    {},
    {"skip_rows": 1},
    {"max_rows": 2},
    {"where": ["name~=web%"]},
    {"where": ["region=eu", "name!=web 1"]},
    {"set": ["description={name}-{region}"]},
    {"set": ["platform=Linux"], "strict": True},
    {"map": ["region=guestOsType"]},
    {"empty_token": "x"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=repr)
def test_options_mean_what_they_mean_for_a_csv(tmp_path: Path, options: dict[str, Any]) -> None:
    table = [
        ["uuid", "name", "region", "if_name", "system", "description"],
        [U1, "web 1", "eu", "old", "true", "<empty>"],
        [U2, "web 2", "us", "", "no", ""],
        [U3, "db", "eu", "", "", " a "],
        ["x", "db", "", "", "maybe", "NULL"],
    ]
    if not any("region" in str(value) for value in options.values()):
        table[0][2] = "_region"
    assert as_rows(xlsx_of(tmp_path, table), options) == as_rows(csv_of(tmp_path, table), options)


def test_where_leaves_out_rows_with_traps_only_if_it_can_decide(tmp_path: Path) -> None:
    error = '<c r="{}" t="e"><v>#N/A</v></c>'
    made = sheet(
        row(1, "uuid", "name", "region"), row(2, U1, error.format("B2"), "us"), row(3, U2, "x", error.format("C3"))
    )
    rows, problems, manifest = read(book(tmp_path, made), where=["region=eu"])
    assert codes(rows, problems) == [("Sheet1!C3 region", "ERROR_CELL")]
    assert manifest.left_out == 1


@pytest.mark.parametrize(
    ("name", "options", "what"),
    [
        ("m.csv", {"sheet": "A"}, "--sheet A: .*m.csv is not a spreadsheet"),
        ("m.csv", {"hidden_rows": "skip"}, "--hidden-rows skip: .*m.csv is not a spreadsheet"),
        ("m.jsonl", {"hidden_rows": "include"}, "--hidden-rows include: .*is not a spreadsheet"),
        ("m.csv", {"format": "parquet", "sheet": "A"}, "--sheet A: .*is not a spreadsheet"),
        ("m.xlsx", {"encoding": "utf-8"}, "--encoding utf-8: .*is a workbook, whose texts have no other encoding"),
        ("m.csv", {"format": "xlsx", "encoding": "gbk"}, "--encoding gbk: .*is a workbook"),
        ("m.parquet", {"encoding": "gbk"}, "--encoding gbk: .*is a Parquet file"),
    ],
)
def test_an_option_that_cannot_apply_is_refused(name: str, options: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError, match=f"{what}.*; leave the option out"):
        Manifest(name, merge(flags_layer(options)))


def test_an_encoding_that_is_configured_for_other_manifests_leaves_a_workbook_alone(tmp_path: Path) -> None:
    path = book(tmp_path, sheet(HEADER, row(2, U1, "x")))
    environment = environment_layer({"BULKIMG_ENCODING": "gbk"})
    assert len(list(Manifest(str(path), merge(environment)).rows())) == 1


# -- the same as a CSV ----------------------------------------------------------------------------------------------


def csv_of(tmp_path: Path, table: list[list[str]]) -> Path:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(table)
    return write(tmp_path / "m.csv", buffer.getvalue().encode())


def xlsx_of(tmp_path: Path, table: list[list[str]], **options: Any) -> Path:
    """Write a table of texts with XlsxWriter."""
    path = tmp_path / "m.xlsx"
    with xlsxwriter.Workbook(path, options) as made:
        target = made.add_worksheet()
        for number, record in enumerate(table):
            for column, value in enumerate(record):
                if value:
                    target.write_string(number, column, value)
    return path


def as_rows(path: Path, options: dict[str, Any], *, quickly: bool = False) -> tuple[list[Any], list[Any], Any]:
    """Return the rows and problems without the names of cells, and what else the manifest has."""
    manifest = Manifest(str(path), merge(flags_layer(options)))
    found = manifest.stored_rows() if quickly else manifest.rows()
    rows = [
        (item.uuid, item.fields, item.expects, item.cells, bare(item.problems), bare(item.warnings), item.line)
        if isinstance(item, Row)
        else (
            item[1].hex(),
            json.loads(item[2]),
            json.loads(item[3] or "{}"),
            tuple(json.loads(item[4])),
            [],
            [],
            item[0],
        )
        for item in found
    ]
    more = (manifest.columns, manifest.left_out, manifest.has_expectations, manifest.blank_records)
    return rows, bare(manifest.problems), more


def bare(problems: Any) -> list[Any]:
    return [(item.line, item.column, item.value, item.code, item.message) for item in problems]


CELLS = st.text(st.sampled_from("aZ0 .;<>&'\"=_x\n\té镜😀\u00a0"), max_size=6) | st.sampled_from(
    ["", "Linux", "true", "<empty>", "web 1", "NULL", "_x0041_", "_x005F_", "12", "]]>"]
)


@given(
    st.lists(st.tuples(st.integers(1, 3).map(uuid) | st.just("x"), CELLS, CELLS, CELLS, CELLS), min_size=1, max_size=6),
    st.booleans(),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_table_gives_the_same_rows_as_csv_and_as_a_sheet(
    tmp_path: Path, records: list[tuple[str, ...]], inline: bool
) -> None:
    """Also quickly, and calamine reads the same texts from the sheet."""
    table = [["uuid", "name", "platform", "system", "_note"], *map(list, records)]
    path = xlsx_of(tmp_path, table, constant_memory=inline)
    wanted = as_rows(csv_of(tmp_path, table), {})
    lines = [at for at, record in enumerate(records, 2)]
    assert [entry[-1] for entry in wanted[0]] == lines or any("\n" in cell for record in records for cell in record)
    for quickly in (False, True):
        found = as_rows(path, {}, quickly=quickly)
        assert [entry[:4] for entry in found[0]] == [entry[:4] for entry in wanted[0]]
        assert [[item[1:] for item in entry[4]] for entry in found[0]] == [
            [item[1:] for item in entry[4]] for entry in wanted[0]
        ]
        assert [entry[-1] for entry in found[0]] == lines
        assert found[1:] == wanted[1:]
    calamine = CalamineWorkbook.from_path(path).get_sheet_by_index(0).to_python()
    assert [[str(cell) for cell in record] for record in calamine[1:]] == [
        [*entry[3], *[""] * (len(calamine[0]) - len(entry[3]))] for entry in as_rows(path, {})[0]
    ]


def plain_and_parsed(tmp_path: Path, made: str, **more: Any) -> list[Any]:
    """Read a sheet as it is, and with a comment above its rows, which leaves all of them to the parser."""
    found: list[Any] = []
    for part in (made, made.replace("<sheetData>", "<!-- --><sheetData>")):
        path = book(tmp_path, part, **more)
        try:
            rows, problems, manifest = read(path)
        except BulkimgError as error:
            found.append(str(error))
        else:
            found.append((rows, problems, manifest.warnings))
    return found


ODD_ROWS = st.lists(
    st.sampled_from([
        '<c r="B{n}" t="s"><v>0</v></c>', '<c r="B{n}" s="1"/>', '<c r="B{n}"><v>12</v></c>', '<c r="B{n}" t="b"><v>1</v></c>',
        '<c r="B{n}" t="str"><f>A1</f><v>a</v></c>', '<c r="B{n}" t="e"><v>#N/A</v></c>', '<c r="B{n}" s="1"><v>12</v></c>',
        '<c r="B{n}" t="inlineStr"><is><t> in </t></is></c>', '<c r="B{n}" t="str"><v></v></c>', '<c r="B{n}"><v></v></c>',
        '<c r="B{n}"><f t="shared" ref="B2:B9" si="0">A1</f><v>1</v></c>', '<c r="B{n}"><f t="shared" si="0"/></c>',
        '<c r="B{n}" t="s"><v>9</v></c>', '<c r="B9"><v>1</v></c>', '<c r="AAAA{n}"><v>1</v></c>', '<c r="A{n}"><v>1</v></c>',
        '<c r="B{n}"><v>1</v></c><c r="B{n}"><v>2</v></c>', '<c r="B{n}" t="z"><v>1</v></c>', "<c><v>1</v></c>", "<x/>",
        '<c r="B{n}"><v>1</v><v>2</v></c>', '<c r="B{n}" t="str"><v>]]></v></c>', '<c r="B{n}" t="inlineStr"><is><t>_x0041_&amp;</t></is></c>', "",
    ]),
    max_size=4,
)  # fmt: skip


@given(
    ODD_ROWS,
    st.sampled_from(["", ' hidden="1"', ' ht="0"', ' spans="1:2" x="1"', ' r="7"', ' xmlns="urn:x"', ' x="1" x="2"']),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_plain_rows_are_read_as_the_parser_reads_them(tmp_path: Path, cells: list[str], attributes: str) -> None:
    rows = [
        f'<row r="{n}"{attributes}>{text(f"A{n}", uuid(n))}{cell.replace("{n}", str(n))}</row>'
        for n, cell in enumerate(cells, 2)
    ]
    made = sheet(HEADER, *rows)
    quick, general = plain_and_parsed(tmp_path, made, shared=strings("shared"), style=styles("0%"))
    assert quick == general


def test_rows_in_a_comment_are_no_rows(tmp_path: Path) -> None:
    hidden = f"<!-- {row(2, U1, 'a')} -->{row(3, U2, 'b')}<![CDATA[{row(4, U3, 'c')}]]>"
    rows, problems, _ = read(book(tmp_path, sheet(HEADER, hidden, row(5, U3, "d"))))
    assert ([item.line for item in rows], codes(rows, problems)) == ([3, 5], [])


# -- the forms of the format ----------------------------------------------------------------------------------------


def test_strict_workbooks_and_prefixes_are_read(tmp_path: Path) -> None:
    made = sheet(HEADER, row(2, U1, '<c r="B2" t="s"><v>0</v></c>'), main=books.STRICT)
    shared = strings("strict", main=books.STRICT)
    path = book(tmp_path, parts(made, shared=shared, main=books.STRICT, office=books.STRICT_OFFICE))
    assert read(path)[0][0].fields == {"name": "strict"}
    prefixed = (
        made.replace("<", "<x:").replace("<x:/", "</x:").replace("xmlns=", "xmlns:x=").replace(books.STRICT, books.MAIN)
    )
    assert read(book(tmp_path, prefixed, shared=strings("prefix")))[0][0].fields == {"name": "prefix"}
    foreign = made.replace(books.STRICT, "urn:another")
    assert read(book(tmp_path, foreign))[1][0].code == "WORKBOOK_DAMAGED"


EXCEL = (
    f'<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\r\n<worksheet xmlns="{books.MAIN}" xmlns:r="{books.OFFICE}" '
    'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006" mc:Ignorable="x14ac xr" '
    'xmlns:x14ac="http://schemas.microsoft.com/office/spreadsheetml/2009/9/ac" '
    'xmlns:xr="http://schemas.microsoft.com/office/spreadsheetml/2014/revision" xr:uid="{{0-0}}">'
    '<sheetPr filterMode="1"/><dimension ref="A1:B4"/><sheetViews><sheetView workbookViewId="0"/></sheetViews>'
    '<sheetFormatPr defaultRowHeight="15" x14ac:dyDescent="0.25"/><cols><col min="1" max="1" width="36" customWidth="1"/></cols>'
    "<sheetData>{}</sheetData>"
    '<autoFilter ref="A1:B4"><filterColumn colId="1"><filters><filter val="a"/></filters></filterColumn></autoFilter>'
    '<conditionalFormatting sqref="B2"><cfRule type="expression" priority="1"><formula>B2=1</formula></cfRule></conditionalFormatting>'
    '<pageMargins left="0.7"/><extLst><ext uri="x"><x14:f xmlns:x14="urn:x">Sheet1!A1</x14:f></ext></extLst></worksheet>'
)


def test_sheets_as_excel_and_libreoffice_write_them(tmp_path: Path) -> None:
    """An active filter hides rows: it is the same as hiding them by hand."""
    dy = ' spans="1:2" x14ac:dyDescent="0.25"'
    shared = strings("uuid", "name", U1, "a", U2, "b")
    rows = [f'<row r="{n}"{more}><c r="A{n}" s="0" t="s"><v>{2 * n - 2}</v></c><c r="B{n}" t="s"><v>{2 * n - 1}</v></c></row>'
            for n, more in ((1, dy), (2, dy), (3, ' spans="1:2" hidden="1" x14ac:dyDescent="0.25"'))]  # fmt: skip
    found, problems, _ = read(book(tmp_path, EXCEL.format("".join(rows)), shared=shared))
    assert ([item.fields["name"] for item in found], codes(found, problems)) == (
        ["a", "b"],
        [("Sheet1!3:3", "HIDDEN_ROW")],
    )
    cells = '<c r="A{0}" s="0" t="s"><v>{1}</v></c><c r="B{0}" s="0" t="s"><v>{2}</v></c>'
    libre = "".join(
        f'<row r="{n}" customFormat="false" ht="12.8" hidden="{hidden}" customHeight="false" outlineLevel="0" '
        f'collapsed="false">{cells.format(n, 2 * n - 2, 2 * n - 1)}</row>'
        for n, hidden in ((1, "false"), (2, "false"), (3, "true"))
    )
    found, problems, _ = read(book(tmp_path, sheet(libre), shared=shared))
    assert ([item.fields["name"] for item in found], codes(found, problems)) == (
        ["a", "b"],
        [("Sheet1!3:3", "HIDDEN_ROW")],
    )


def test_parts_are_found_by_relations_and_not_by_name(tmp_path: Path) -> None:
    made = parts(sheet(HEADER, row(2, U1, '<c r="B2" t="s"><v>0</v></c>')), shared=strings("odd"))
    moved = {
        "_rels/.rels": books.relations({"a": ("officeDocument", "/Book/Main%20part.xml")}),
        "Book/Main part.xml": made["xl/workbook.xml"],
        "Book/_rels/Main part.xml.rels": books.relations(
            {"s1": ("worksheet", "../deep\\Table.XML"), "t": ("sharedStrings", "./texts.xml")}
        ),
        "deep/table.xml": made["xl/worksheets/sheet1.xml"],
        "Book\\texts.xml": made["xl/sharedStrings.xml"],
    }
    assert read(book(tmp_path, moved))[0][0].fields == {"name": "odd"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "iso-8859-1"])
def test_every_encoding_of_xml_is_read(tmp_path: Path, encoding: str) -> None:
    made = parts(sheet(HEADER, row(2, U1, "café"), row(3, U2, "b")))
    declared = "utf-8" if encoding == "utf-8-sig" else encoding
    part = f'<?xml version="1.0" encoding="{declared}"?>\n{made["xl/worksheets/sheet1.xml"]!s}'
    made["xl/worksheets/sheet1.xml"] = part.encode(encoding)
    rows, problems, _ = read(book(tmp_path, made))
    assert ([item.fields["name"] for item in rows], problems) == (["café", "b"], [])


def test_a_workbook_that_is_saved_while_it_is_read_is_read_as_it_was(tmp_path: Path) -> None:
    before = book(tmp_path, sheet(HEADER, *(row(n, uuid(n), "old") for n in range(2, 2000)))).read_bytes()
    path = tmp_path / "m.xlsx"
    manifest = Manifest(str(path), Settings())
    rows = manifest.rows()
    found = [next(rows)]
    book(tmp_path, sheet(HEADER, *(row(n, uuid(n), "new") for n in range(2, 2000))))
    found += rows
    assert {item.fields["name"] for item in found} == {"old"}
    assert (len(found), manifest.sha256) == (1998, sha256(before).hexdigest())


def test_no_place_for_the_private_copy_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = book(tmp_path, sheet(HEADER, row(2, U1, "x")))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(StorageError, match="set TMPDIR"):
        read(path)


def test_names_of_cells() -> None:
    for column, word in ((0, "A"), (25, "Z"), (26, "AA"), (701, "ZZ"), (702, "AAA"), (16_383, "XFD")):
        assert (letters(column), column_of(word)) == (word, column)
    assert [column_of(word) for word in ("XFE", "AAAA", "a", "", "Ä")] == [None] * 5
    assert [sheet_prefix(name) for name in ("Data", "数据", "a b", "it's", "2026")] == ["Data!", "数据!", "'a b'!", "'it''s'!", "'2026'!"]  # fmt: skip


# -- files that are no workbook, damaged ones, bombs ----------------------------------------------------------------

GOOD = zipped(parts(sheet(HEADER, row(2, U1, "x"))))


def old_container(*streams: str) -> bytes:
    """Return the beginning of a compound file with streams of these names."""
    entries = "".join(f"{name}\0".ljust(32, "\0") for name in ("Root Entry", *streams))
    return b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1".ljust(512, b"\0") + entries.encode("utf-16-le").ljust(4096, b"\0")


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (b"", "NO_ROWS", "empty"),
        (b"uuid,name\n", "OTHER_FORMAT", "not an Excel workbook"),
        (b"<html><table>", "OTHER_FORMAT", "HTML"),
        (b"%PDF-1.7", "OTHER_FORMAT", "PDF"),
        (b"\x1f\x8b" + GOOD, "OTHER_FORMAT", "gzip"),
        (old_container("Workbook"), "OTHER_FORMAT", ".xls"),
        (old_container("EncryptionInfo", "EncryptedPackage"), "ENCRYPTED", "password"),
        (zipped({"mimetype": "application/vnd.oasis.opendocument.spreadsheet", "META-INF/manifest.xml": ""}), "OTHER_FORMAT", ".ods"),
        (zipped({"Index/Document.iwa": ""}), "OTHER_FORMAT", "Numbers"),
        (zipped({"a.txt": "x"}), "OTHER_FORMAT", "zip archive"),
        (zipped({"_rels/.rels": books.relations({"a": ("officeDocument", "word/document.xml")}), "word/document.xml": "<w/>"}), "OTHER_FORMAT", "not an Excel workbook"),
        (zipped({"_rels/.rels": books.relations({"a": ("officeDocument", "xl/workbook.bin")}), "xl/workbook.bin": ""}), "OTHER_FORMAT", ".xlsb"),
        (GOOD[:-30], "WORKBOOK_DAMAGED", "truncated"),
        (GOOD[:200], "WORKBOOK_DAMAGED", "truncated"),
        (GOOD.replace(b"xl/worksheets/sheet1.xml", b"xl/worksheets/sheet2.xml"), "WORKBOOK_DAMAGED", "no part"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_workbook_is_refused_in_a_sentence(
    tmp_path: Path, content: bytes, code: str, words: str
) -> None:
    rows, problems, _ = read(write(tmp_path / "m.xlsx", content))
    assert ([(item.code, item.fatal) for item in problems], rows) == ([(code, True)], [])
    assert words in problems[0].message + problems[0].fix
    assert problems[0].fix


def test_a_part_whose_checksum_is_wrong_is_refused(tmp_path: Path) -> None:
    stored = zipped(parts(sheet(HEADER, row(2, U1, "x"))), zipfile.ZIP_STORED)
    _, problems, _ = read(write(tmp_path / "m.xlsx", stored.replace(U1.encode(), U2.encode())))
    assert problems[0].code == "WORKBOOK_DAMAGED"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_parts_of_one_name_are_refused(tmp_path: Path) -> None:
    content = io.BytesIO(GOOD)
    with zipfile.ZipFile(content, "a") as archive:
        archive.writestr("XL/worksheets/Sheet1.xml", sheet(HEADER, row(2, U2, "y")))
    _, problems, _ = read(write(tmp_path / "m.xlsx", content.getvalue()))
    assert "two files" in problems[0].message


def test_a_part_with_a_zip_password_is_refused(tmp_path: Path) -> None:
    content = bytearray(GOOD)
    at = content.find(b"PK\x01\x02")
    while at >= 0:
        content[at + 8] |= 1
        at = content.find(b"PK\x01\x02", at + 4)
    assert read(write(tmp_path / "m.xlsx", bytes(content)))[1][0].code == "ENCRYPTED"


ENTITY = '<!DOCTYPE x [<!ENTITY e "{}"><!ENTITY f SYSTEM "file:///etc/hostname">]>'
BROKEN_SHEETS = {
    "an entity": ENTITY.format("text") + sheet(HEADER, row(2, U1, text("B2", "x").replace("x<", "&e;<"))),
    "a foreign entity": ENTITY.format("") + sheet(HEADER, row(2, U1, text("B2", "x").replace("x<", "&f;<"))),
    "laughs": '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>' + sheet(HEADER),
    "no end": sheet(HEADER, row(2, U1, "x"))[:-20],
    "not XML": "uuid,name",
    "another root": sheet(HEADER).replace("worksheet", "chartsheet"),
    "rows twice": sheet(HEADER, row(2, U1, "x"), after="<sheetData/>"),
    "a row twice": sheet(HEADER, row(2, U1, "x"), row(2, U2, "y")),
    "rows out of order": sheet(HEADER, row(3, U1, "x"), row(2, U2, "y")),
    "a row beyond the last": sheet(HEADER, row(1_048_577, U1, "x")),
    "a column beyond the last": sheet(HEADER, row(2, U1, '<c r="XFE2"><v>1</v></c>')),
    "a cell of another row": sheet(HEADER, row(2, U1, '<c r="B3"><v>1</v></c>')),
    "alternatives": sheet(HEADER, f"<AlternateContent>{row(2, U1, 'x')}</AlternateContent>"),
    "no such text": sheet(HEADER, row(2, U1, '<c r="B2" t="s"><v>7</v></c>')),
    "a negative text": sheet(HEADER, row(2, U1, '<c r="B2" t="s"><v>-1</v></c>')),
    "an unknown type": sheet(HEADER, row(2, U1, '<c r="B2" t="x"><v>7</v></c>')),
    "an odd range": sheet(HEADER, row(2, U1, "x"), after='<mergeCell ref="B3:A1"/>'),
    "a deep part": sheet(HEADER, row(2, U1, "x"), after="<a>" * 500 + "</a>" * 500),
    "a deep cell": sheet(HEADER, row(2, U1, f'<c r="B2"><extLst>{"<a>" * 500}{"</a>" * 500}</extLst></c>')),
}


@pytest.mark.parametrize("kind", BROKEN_SHEETS)
def test_a_damaged_sheet_is_refused_as_a_whole(tmp_path: Path, kind: str) -> None:
    _, problems, _ = read(book(tmp_path, BROKEN_SHEETS[kind]))
    assert [(item.code, item.fatal) for item in problems] == [("WORKBOOK_DAMAGED", True)]


@pytest.mark.parametrize(
    "part",
    [
        sheet(HEADER, '<row r="2"><c r="A2" t="' + "x" * (3 << 20) + '"/></row>'),
        sheet(HEADER, row(2, U1, text("B2", "x" * (2 << 20)))),
        sheet(HEADER, after=f'<x y="{"z" * (3 << 20)}"/>'),
    ],
    ids=["a long attribute", "a long text", "a long tag behind the rows"],
)
def test_a_part_that_would_fill_the_memory_is_refused(tmp_path: Path, part: str) -> None:
    _, problems, _ = read(book(tmp_path, part))
    assert problems[0].code in ("WORKBOOK_DAMAGED", "WORKBOOK_TOO_LARGE")


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, problems, _ = read(book(tmp_path, sheet(HEADER, " " * (20 << 20))))
    assert (problems[0].code, "100 times" in problems[0].message) == ("WORKBOOK_TOO_LARGE", True)
    monkeypatch.setattr(package, "MAX_UNPACKED", 4096)
    _, problems, _ = read(book(tmp_path, sheet(HEADER, *(row(n, uuid(n), f"name {n}") for n in range(2, 99)))))
    assert problems[0].code == "WORKBOOK_TOO_LARGE"


def test_a_declared_size_that_is_too_large_is_enough(tmp_path: Path) -> None:
    content = bytearray(GOOD)
    at = content.rfind(b"PK\x01\x02", 0, content.rfind(b"xl/worksheets/sheet1.xml"))
    content[at + 24 : at + 28] = struct.pack("<I", 0x7FFF_FFFF)
    assert read(write(tmp_path / "m.xlsx", bytes(content)))[1][0].code == "WORKBOOK_TOO_LARGE"


def test_a_row_that_is_too_long_is_one_problem(tmp_path: Path) -> None:
    """Many cells may point to one long text."""
    names = ["uuid", "name", *(f"_{n}" for n in range(40))]
    header = "".join(text(f"{letters(at)}1", name) for at, name in enumerate(names))
    long = "".join(f'<c r="{letters(at)}3" t="s"><v>0</v></c>' for at in range(1, 42))
    made = sheet(f'<row r="1">{header}</row>', row(2, U1, "x"), f'<row r="3">{text("A3", U2)}{long}</row>')
    rows, problems, _ = read(book(tmp_path, made, shared=strings("x" * 32_767)))
    assert codes(rows, problems) == [("Sheet1!3:3", "LINE_TOO_LONG")]


def test_lists_of_parts_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "MAX_LIST", 100)
    _, problems, _ = read(book(tmp_path, sheet(HEADER, row(2, U1, "x"))))
    assert problems[0].code == "WORKBOOK_TOO_LARGE"
    monkeypatch.undo()
    monkeypatch.setattr(shared_strings, "MOST", 2)
    _, problems, _ = read(book(tmp_path, sheet(HEADER, row(2, U1, "x")), shared=strings("a", "b", "c")))
    assert problems[0].code == "WORKBOOK_TOO_LARGE"


def test_limits_of_the_file_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "m.xlsx", GOOD)
    monkeypatch.setattr(spool, "MOST_PARTS", 3)
    assert "more than 3 files" in read(path)[1][0].message
    monkeypatch.setattr(spool, "LARGEST_FILE", 100)
    assert read(path)[1][0].code == "WORKBOOK_TOO_LARGE"


def test_a_cell_in_the_last_corner_costs_nothing(tmp_path: Path) -> None:
    """calamine lays out all cells up to it, 550 GB, and its allocator aborts the process."""
    made = sheet(HEADER, row(2, U1, "x"), '<row r="1048576"><c r="XFD1048576" t="b"><v>1</v></c></row>')
    rows, problems, _ = read(book(tmp_path, made))
    assert codes(rows, problems) == [("Sheet1!XFD1048576", "OUTSIDE_TABLE")]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4), st.booleans())
def test_a_damaged_file_is_never_a_traceback(tmp_path: Path, edits: list[tuple[int, int]], stored: bool) -> None:
    content = bytearray(zipped(parts(sheet(HEADER, row(2, U1, "x"))), zipfile.ZIP_STORED) if stored else GOOD)
    for at, byte in edits:
        content[at % len(content)] = byte
    try:
        rows, problems, _ = read(write(tmp_path / "m.xlsx", bytes(content)))
    except BulkimgError:
        return
    assert all(item.uuid == U1 for item in rows if not item.problems) or problems


# -- names and standard input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.xls", "a.xlsm", "a.ods", "a.numbers", "a.xlsb", "a.XLS"])
def test_other_spreadsheets_are_refused_by_name(name: str) -> None:
    with pytest.raises(UsageError, match=r"is not read; save it as \.xlsx"):
        find_format(name, None)


def test_a_workbook_is_never_gzipped() -> None:
    with pytest.raises(UsageError, match="gunzip"):
        find_format("a.xlsx.gz", None)


def test_a_workbook_with_the_name_of_a_csv_says_how(tmp_path: Path) -> None:
    path = write(tmp_path / "m.csv", GOOD)
    assert "--format xlsx" in read(path)[1][0].fix
    assert read(path, format="xlsx")[0][0].uuid == U1


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestRefused, match="cannot be read"):
        read(tmp_path / "missing.xlsx")


# -- on the command line --------------------------------------------------------------------------------------------


def test_the_samples_are_those_that_their_module_makes() -> None:
    for name, content in workbooks().items():
        assert (ROOT / "samples" / name).read_bytes() == content, "python -m samples.workbooks makes them again"


def test_problems_name_their_cells_everywhere(cli: Cli) -> None:
    path = str(ROOT / "samples" / "traps.xlsx")
    assert "choose one with --sheet NAME" in cli("check", path, code=2).err
    listed = cli("check", path, "--sheet", "Images", code=3).out
    for place in ("B6", "B7", "B8", "B9", "B10", "B11", "B12", "B13", "14:14", "B15", "G17", "A18"):
        assert f": Images!{place}" in listed
    assert "warning: Images!B5 name" in listed
    document = cli("check", path, "--sheet", "Images", "--json", code=3).json()
    assert [document["problems"][0][name] for name in ("cell", "column")] == ["Images!B6", "name"]
    assert document["problems"][0]["line"] == 6
    assert (document["rows_left_out"], document["remarks"]) == (0, [])
    skipping = cli("check", path, "--sheet", "Images", "--hidden-rows", "skip", "--json", code=3).json()
    assert (skipping["rows_left_out"], skipping["remarks"]) == (1, ["1 hidden row skipped (first in row 14)"])
    job = cli.write("job.toml", f'[job]\nmanifest = "{path}"\nsheet = "Images"\nhidden_rows = "skip"\n')
    assert "1 hidden row skipped (first in row 14)" in cli("check", job, code=3).err
    assert "Images!14:14" not in cli("check", job, code=3).out
    assert "Images!14:14" not in cli("check", path, code=3, BULKIMG_SHEET="Images", BULKIMG_HIDDEN_ROWS="skip").out


def test_standard_input_may_be_a_workbook(cli: Cli) -> None:
    with (ROOT / "samples" / "relabel.xlsx").open("rb") as file:
        process = cli.start("check", "-", "--format", "xlsx", stdin=file.fileno())
        out, err = process.communicate(timeout=60)
    assert (process.returncode, "60 rows, all valid" in str(err)) == (0, True), out
    assert cli("check", "-", "--format", "xlsx", stdin="uuid,name\n", code=3)


def test_bad_workbooks_are_refused_and_nothing_is_sent(cli: Cli) -> None:
    cli.write("locked.xlsx", old_container("EncryptedPackage"))
    cli.write("twice.xlsx", zipped(parts(sheet(row(1, "uuid", "name", "name"), row(2, U1, "a", "b")))))
    cli.write("none.xlsx", zipped(parts(sheet(HEADER))))
    cli.write("clash.xlsx", zipped(parts(sheet(HEADER, row(2, U1, "a"), row(4, U1, "b")))))
    for name, words in (
        ("locked", "password"), ("twice", "Sheet1!B1 name"), ("none", "no rows"), ("clash", "Sheet1!B4 name 'b'"),
    ):  # fmt: skip
        assert words in cli("run", f"{name}.xlsx", "--yes", "--endpoint", "http://127.0.0.1:9", code=3, BULKIMG_SESSION="0" * 32).err  # fmt: skip
