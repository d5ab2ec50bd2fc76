"""A run as a workbook: every cell a text that comes back the same, nothing that can run, a manifest as it is."""

import csv
import io
import json
import resource
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import xlsxwriter  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from bulkimg.engine.anew import create_retry
from bulkimg.engine.create import create_run
from bulkimg.engine.reopen import resume_run
from bulkimg.errors import StorageError, UsageError
from bulkimg.ledger import Ledger, RunDirectory, claims, stats
from bulkimg.ledger.files import write_fed_back
from bulkimg.ledger.intake import add_rows
from bulkimg.manifest import Manifest
from bulkimg.manifest.check import Checker
from bulkimg.model import FIELDS, Outcome, Row, Status, utf16_length
from bulkimg.planner import load_rows
from bulkimg.report import workbook, xlsx
from bulkimg.report.tables import write_table
from bulkimg.report.workbook import OURS, too_large
from bulkimg.report.xlsx import LONGEST, Line, Sheet, Style, column_name, fitted, write_workbook
from bulkimg.settings import Settings
from tests.manifest import books
from tests.report.workbooks import children, tags, texts, xml

HOSTILE = (
    "=1+1", "+1", "-1", "@SUM(A1)", "=HYPERLINK(\"http://x\")", "'quoted", "<r>x</r>", "<r><t>x</t></r>",
    '<r><t>x</t></r></is></c><c r="B1"><f>1+1</f><v>2</v></c><c r="C1" t="inlineStr"><is><r><t>y</t></r>',
    "]]>", "<!--", "&amp;", "&#61;1", "_x0041_", "_x005F_x0041_", "_x005F__x0041_", "__x0041_", "_x000D_", "_xZZZZ_",
    "a\r\nb", "a\rb", "a\nb", "\n", "\t", " ", " a ", "a\x00b", "\x01", "\x1f", "\x7f", "\x85", "\u2028", "\ufeff", "0012",
    "1e5", "TRUE", "1.23E+31", "http://example.com", "mailto:a@b", "#REF!", "\U0001f600", "\ue000", "\u202ecod.exe",
)  # fmt: skip
ANY_TEXT = st.text(
    st.one_of(
        st.sampled_from("_x005F041D<r>/&;=\"' \t\r\n\x00\x01\x0b\x1f\x7f\x85\u2028\ufeff\ufffe\uffff\U0001f600"),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=40,
)


def book(lines: Sequence[Line], widths: Sequence[float] = (10.0,)) -> io.BytesIO:
    file = io.BytesIO()
    write_workbook(file, [Sheet("results", lambda: iter(lines), widths, is_table=True)], [Style(), Style("AABBCC")])
    file.seek(0)
    return file


@given(st.lists(ANY_TEXT.map(fitted), min_size=1, max_size=12))
@effort(max_examples=150, deadline=None)
def test_every_text_comes_back_the_same(found: list[str]) -> None:
    assert [row[0] for row in texts(book([(1, ["header"]), *((1, [f"_{text}"]) for text in found)]))[1:]] == [
        f"_{text}" for text in found
    ]


@given(st.lists(ANY_TEXT, min_size=1, max_size=12))
@effort(max_examples=50, deadline=None)
def test_every_cell_is_a_text_whatever_is_in_it(found: list[str]) -> None:
    assert tags(xml(book([(1, [text]) for text in found]), "xl/worksheets/sheet1.xml")) <= KNOWN


KNOWN = {
    "worksheet", "sheetViews", "sheetView", "pane", "selection", "sheetFormatPr", "cols", "col", "sheetData", "row", "c",
    "is", "t", "autoFilter", "pageMargins", "ignoredErrors", "ignoredError",
}  # fmt: skip


def test_no_text_becomes_a_formula_or_anything_else() -> None:
    file = book([(1, [text]) for text in HOSTILE])
    assert [row[0] for row in texts(file)] == list(HOSTILE)
    sheet = xml(file, "xl/worksheets/sheet1.xml")
    assert tags(sheet) <= KNOWN
    assert {cell.get("t") for cell in sheet.iter(f"{sheet.tag[:-9]}c")} == {"inlineStr"}


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("a\ud800b", "a\\ud800b"),
        ("\ufffe", "\\ufffe"),
        ("x" * LONGEST, "x" * LONGEST),
        ("x" * (LONGEST + 1), "x" * 32733 + "… (cut: it has 32,768 characters)"),
        ("\U0001f600" * 20_000, None),
    ],
)
def test_what_no_cell_holds_is_written_out_or_cut_and_says_so(text: str, cell: str | None) -> None:
    found = fitted(text)
    if cell is not None:
        assert found == cell
    else:
        assert found.endswith("… (cut: it has 40,000 characters)")
    assert utf16_length(found) <= LONGEST
    assert texts(book([(1, [found])])) == [[found]]


def test_the_parts_are_those_that_another_library_writes() -> None:
    """Excel itself is not here: what it is known to open is the measure."""
    file, model = io.BytesIO(), io.BytesIO()
    lines = [(2, ["uuid", "_status"]), (1, ["a", "failed"])]
    write_workbook(
        file,
        [
            Sheet("results", lambda: iter(lines), (34.0, 20.0), is_table=True),
            Sheet("summary", lambda: iter(lines), (9.0, 9.0)),
        ],
        [Style(), Style("1F2328", "FFFFFF", bold=True)],
    )
    theirs = xlsxwriter.Workbook(model, {"in_memory": False, "constant_memory": True})
    plain = theirs.add_format({"num_format": 49})
    bold = theirs.add_format({"num_format": 49, "bold": True, "bg_color": "#1F2328", "font_color": "#FFFFFF"})
    for name in ("results", "summary"):
        sheet = theirs.add_worksheet(name)
        sheet.set_column(0, 0, 34, plain)
        sheet.set_column(1, 1, 20, plain)
        sheet.ignore_errors({"number_stored_as_text": "A1:B2"})
        if name == "results":
            sheet.freeze_panes(1, 0)
            sheet.autofilter(0, 0, 1, 1)
        for at, (_, cells) in enumerate(lines):
            sheet.set_row(at, None, bold)
            for column, text in enumerate(cells):
                sheet.write_string(at, column, text, bold)
    theirs.close()
    for part in ("xl/worksheets/sheet1.xml", "xl/worksheets/sheet2.xml"):
        ours, model_sheet = xml(file, part), xml(model, part)
        assert children(ours) == [name for name in children(model_sheet) if name != "dimension"]
        assert tags(ours) == tags(model_sheet) - {"dimension"}
    for part in ("xl/workbook.xml", "xl/styles.xml"):
        optional = {"fileVersion", "workbookPr", "calcPr", "dxfs", "tableStyles", "numFmts"}
        assert children(xml(file, part)) == [name for name in children(xml(model, part)) if name not in optional]
    views = [xml(one, "xl/worksheets/sheet1.xml").findall("{*}sheetViews//") for one in (file, model)]
    shown, known = ([(element.tag, element.attrib) for element in found] for found in views)
    assert shown == known != []
    names = [xml(one, "xl/workbook.xml").find(".//{*}definedName") for one in (file, model)]
    assert [(name.text, name.attrib) for name in names if name is not None] == [
        ("results!$A$1:$B$2", {"name": "_xlnm._FilterDatabase", "localSheetId": "0", "hidden": "1"})
    ] * 2


def test_a_sheet_too_large_for_a_plain_zip_file_is_written_again_with_zip64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xlsx, "_NEEDS_ZIP64", 5000)
    lines = [(1, [f"text {number}"]) for number in range(500)]
    assert texts(book(lines)) == [list(line[1]) for line in lines]


@pytest.mark.parametrize(
    ("number", "name"), [(1, "A"), (26, "Z"), (27, "AA"), (702, "ZZ"), (703, "AAA"), (16384, "XFD")]
)
def test_columns_have_letters(number: int, name: str) -> None:
    assert column_name(number) == name


# -- a run --------------------------------------------------------------------------------------------------------------


def uuid(number: int) -> str:
    return f"{number:032x}"


def run_of(tmp_path: Path, name: str, text: str | bytes, **options: Any) -> tuple[Ledger, RunDirectory]:
    """Read a manifest into a ledger, as a run begins."""
    directory = RunDirectory(tmp_path / f"run-{name}")
    directory.path.mkdir(mode=0o700)
    source = tmp_path / name
    source.write_bytes(text.encode() if isinstance(text, str) else text)
    ledger = Ledger.create(directory.ledger)
    settings = Settings(skip_invalid=True, **options)
    load_rows(ledger, Manifest(str(source), settings))
    ledger.set_meta(state="ready", run_id=directory.run_id)
    return ledger, directory


def sheet_of(tmp_path: Path, name: str, text: str | bytes, **options: Any) -> list[list[str]]:
    ledger, directory = run_of(tmp_path, name, text, **options)
    write_table(ledger, directory, tmp_path / "x.xlsx", "xlsx", held=True)
    ledger.close()
    return texts(tmp_path / "x.xlsx")


def asked(tmp_path: Path, sheet: list[list[str]]) -> list[Row]:
    """Read a sheet as a manifest: its cells are texts like those of a CSV."""
    path = tmp_path / "again.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(sheet)
    manifest = Manifest(str(path), Settings())
    rows = list(manifest.rows())
    assert not manifest.problems
    return rows


def test_the_own_columns_come_first_and_are_the_same_texts(tmp_path: Path) -> None:
    buffer = io.StringIO()
    cells = [[uuid(n), text, "Linux", "kept"] for n, text in enumerate(HOSTILE, 1) if "\0" not in text]
    csv.writer(buffer, quoting=csv.QUOTE_ALL).writerows([["uuid", "name", "platform", "_mine"], *cells])
    sheet = sheet_of(tmp_path, "m.csv", buffer.getvalue())
    assert sheet[0] == ["uuid", "name", "platform", "_mine", *OURS]
    assert [row[:4] for row in sheet[1:]] == cells


TRAPS = "samples/traps.xlsx"
TWO = (books.row(1, "uuid", "name"), books.row(2, uuid(1), "web"), books.row(3, uuid(2), "db"))
MISTAKES = "\n".join([
    "uuid,name,platform,userTags",
    f"{uuid(1)},web,Linux,a;b",
    f"{uuid(2)},web,Linus,",
    f"{uuid(3)},we,b,Linux,",
    f"{uuid(4)},web",
    f"{uuid(5)},\"open,Linux,",
    "no-uuid,web,Linux,",
    f"{uuid(7)},,,",
    f"{uuid(8)},a,,",
    f"{uuid(8)},b,,",
    f"{uuid(9)},{'long' * 100},,",
    f"{uuid(10)}",
    f"{uuid(11)},web,Linux,{';'.join(f'tag-{n:05d}' for n in range(4000))}",
])  # fmt: skip


def test_a_row_that_was_refused_is_refused_again_and_no_other_is(tmp_path: Path) -> None:
    """Also where its cells are not known to belong to these columns, or do not fit in a sheet."""
    ledger, directory = run_of(tmp_path, "m.csv", MISTAKES)
    before = {row.line: row for row in Manifest(str(tmp_path / "m.csv"), Settings()).rows()}
    write_table(ledger, directory, tmp_path / "x.xlsx", "xlsx", held=True)
    sheet = texts(tmp_path / "x.xlsx")
    line, status = sheet[0].index("_line"), sheet[0].index("_status")
    again = asked(tmp_path, sheet)
    assert len(again) == len(before) == len(sheet) - 1
    for cells, row in zip(sheet[1:], again, strict=True):
        was = before[int(cells[line])]
        cut = uuid(11) in cells
        if cells[status] == "invalid" and cells[0] != uuid(8):  # a contradiction is of two rows
            assert row.problems, cells
        elif cut:
            assert [problem.code for problem in row.problems] == ["UNFIT_TEXT"]
        else:
            assert not row.problems, row.problems
            assert (row.uuid, row.fields, row.expects) == (was.uuid, was.fields, was.expects)
    joined = next(cells[0] for cells in sheet if cells[line] == "4")
    assert joined == f"5 cells: {uuid(3)} | we | b | Linux | "


def test_rows_of_jsonl_have_a_column_for_each_field_and_refused_ones_stay_refused(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"uuid": uuid(1), "name": "=1+1", "userTags": ["a;b", "c"], "if_name": "old"},
        {"uuid": uuid(2), "virtio": True, "description": ""},
        {"uuid": uuid(3), "name": "web", "virtio": "perhaps"},
        {"uuid": uuid(4), "name": "web", "nam": "x"},
        {"uuid": uuid(5), "name": "\ud800"},
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    sheet = sheet_of(tmp_path, "m.jsonl", lines)
    assert sheet[0][:6] == ["uuid", "name", "description", "virtio", "userTags", "if_name"]
    assert sheet[1][:6] == [uuid(1), "=1+1", "", "", '["a;b", "c"]', "old"]
    assert sheet[2][:6] == [uuid(2), "", "<empty>", "true", "", ""]
    assert [bool(row.problems) for row in asked(tmp_path, sheet)] == [False, False, True, True, True]
    (first, *_), (was, *_) = asked(tmp_path, sheet), Manifest(str(tmp_path / "m.jsonl"), Settings()).rows()
    assert (first.uuid, first.fields, first.expects) == (was.uuid, was.fields, was.expects)


def test_a_cell_that_comes_back_otherwise_is_refused_in_every_field() -> None:
    """The problem says why, and what to do."""
    _, of_uuid = Checker().uuid(2, f"{uuid(1)}\0", cells=True)
    for name in ("uuid", *FIELDS, *(f"if_{name}" for name in FIELDS)):
        given = {name.removeprefix("if_"): "x" * 200 + "\0"}
        checked = Checker().expects if name.startswith("if_") else Checker().fields
        found = of_uuid if name == "uuid" else checked(2, given, cells=True)[1]
        assert [(item.column, item.code, item.fix) for item in found] == [
            (name, "UNFIT_TEXT", "type the right value again")
        ]
        assert "\0" not in found[0].text


def test_our_columns_of_an_earlier_run_are_replaced(tmp_path: Path) -> None:
    sheet = sheet_of(tmp_path, "m.csv", f"uuid,_status,name,_message\n{uuid(1)},failed,web,why\n")
    assert sheet[0] == ["uuid", "name", *OURS]
    assert sheet[1][:4] == [uuid(1), "web", "unprocessed", ""]


SHEETS_WITH_TRAPS = {
    "merged cells": books.sheet(*TWO, after='<mergeCells count="1"><mergeCell ref="B2:B3"/></mergeCells>'),
    "a hidden column": books.sheet(*TWO, before='<cols><col min="2" max="2" hidden="1"/></cols>'),
    "formulas, with --strict": books.sheet(
        TWO[0], books.row(2, uuid(1), '<c r="B2" t="str"><f>A1</f><v>web</v></c>'), TWO[2]
    ),
    "no such column": books.sheet(books.row(1, "uuid", "name", "owner"), *TWO[1:]),
}


@pytest.mark.parametrize("trap", SHEETS_WITH_TRAPS)
def test_a_manifest_that_was_refused_as_a_whole_stays_refused_until_a_person_corrects_it(
    tmp_path: Path, trap: str
) -> None:
    """Its results and its unprocessed.csv have a column that says why, and that no option ignores."""
    made = books.zipped(books.parts(SHEETS_WITH_TRAPS[trap]))
    ledger, directory = run_of(tmp_path, "m.xlsx", made, strict=True)
    assert stats.problem_counts(ledger)[2]
    write_table(ledger, directory, tmp_path / "x.xlsx", "xlsx", held=True)
    write_fed_back(ledger, directory.path, "<empty>")
    ledger.close()
    for path in (tmp_path / "x.xlsx", directory.path / "unprocessed.csv"):
        again = Manifest(str(path), Settings())
        rows = list(again.rows())
        assert [row.uuid for row in rows] == [uuid(1), uuid(2)], path
        problem = again.problems[-1]
        assert (problem.column, problem.fatal) == ("refused_manifest", True)
        assert problem.message == "says why the manifest of these rows was refused as a whole"
    columns, first, *_ = texts(tmp_path / "x.xlsx")
    assert dict(zip(columns, first, strict=True))["refused_manifest"].count("; ") >= 1


def test_the_column_of_a_refused_manifest_is_there_once_and_gone_when_it_is_deleted(tmp_path: Path) -> None:
    made = books.zipped(books.parts(SHEETS_WITH_TRAPS["merged cells"]))
    first = sheet_of(tmp_path, "m.xlsx", made)
    (tmp_path / "again").mkdir()
    second = sheet_of(tmp_path / "again", "x.xlsx", (tmp_path / "x.xlsx").read_bytes())
    assert first[0] == second[0] == ["uuid", "name", "refused_manifest", *OURS]
    assert "merged" in first[1][2]
    at = first[0].index("refused_manifest")
    corrected = [[*cells[:at], *cells[at + 1 :]] for cells in first]
    assert [(row.uuid, row.problems) for row in asked(tmp_path, corrected)] == [(uuid(1), ()), (uuid(2), ())]


def finished(tmp_path: Path) -> tuple[Ledger, RunDirectory]:
    """A run with rows of every status."""
    ledger, directory = run_of(
        tmp_path, "m.csv", "uuid,name\n" + "".join(f"{uuid(n)},web-{n}\n" for n in range(1, 9)) + "bad,x\n"
    )
    with ledger.transaction():
        found = claims.claim(ledger, 0, 6, lambda: "f" * 32, 1.0)
    statuses = [status for status in Status if status not in (Status.INVALID, Status.UNPROCESSED)]
    outcomes = [
        Outcome(item.ordinal, item.line, item.uuid, status, "CODE", "=why", "do this", 503, 1, "f" * 32, 1764252000.5, 12, ("name",), {"name": "old"}, {"name": "=new"})
        for item, status in zip(found, statuses, strict=True)
    ]  # fmt: skip
    ledger.insert_outcomes(claims.prepare(outcomes))
    ledger.set_meta(state="done", exit_code=1, next="bulkimg retry r", settings={"endpoint": "http://127.0.0.1:1"})
    return ledger, directory


def test_every_row_has_its_outcome_with_the_values_of_the_result_file(tmp_path: Path) -> None:
    ledger, directory = finished(tmp_path)
    write_table(ledger, directory, tmp_path / "x.xlsx", "xlsx", held=True)
    header, *rows = texts(tmp_path / "x.xlsx")
    lines = [json.loads(line) for (line,) in ledger.db.execute("SELECT jsonl FROM result ORDER BY ordinal")]
    assert len(rows) == len(lines) == 9
    for cells, line in zip(rows, lines, strict=True):
        shown = dict(zip(header, cells, strict=True))
        for name in OURS:
            value = line[name[1:]]
            if name == "_changed":
                value = ",".join(value)
            elif name in ("_before", "_after"):
                value = json.dumps(value, separators=(",", ":")) if value else ""
            assert shown[name] == ("" if value is None else str(value)), (name, shown)


def test_a_row_is_coloured_by_its_status_and_stays_text_when_it_is_edited(tmp_path: Path) -> None:
    ledger, directory = finished(tmp_path)
    write_table(ledger, directory, tmp_path / "x.xlsx", "xlsx", held=True)
    styles = xml(tmp_path / "x.xlsx", "xl/styles.xml")
    formats, fills = list(styles.find("{*}cellXfs") or ()), list(styles.find("{*}fills") or ())
    rows = list(xml(tmp_path / "x.xlsx", "xl/worksheets/sheet1.xml").findall(".//{*}row"))
    colours = {}
    for row, cells in zip(rows[1:], texts(tmp_path / "x.xlsx")[1:], strict=True):
        assert {cell.get("s") for cell in row} == {row.get("s")}, "every cell has the style of its row"
        found = formats[int(row.get("s") or 0)]
        assert found.get("numFmtId") == "49", "text, so that 0012 stays 0012"
        colour = fills[int(found.get("fillId") or 0)].find(".//{*}fgColor")
        colours[cells[2]] = None if colour is None else colour.get("rgb")
    assert set(colours) == {status.value for status in Status}
    assert colours.pop("unchanged") is None
    assert len(set(colours.values())) == len(colours)
    pane = xml(tmp_path / "x.xlsx", "xl/worksheets/sheet1.xml").find(".//{*}pane")
    assert pane is not None
    assert pane.attrib == {"ySplit": "1", "topLeftCell": "A2", "activePane": "bottomLeft", "state": "frozen"}
    filters = xml(tmp_path / "x.xlsx", "xl/worksheets/sheet1.xml").find("{*}autoFilter")
    assert filters is not None
    assert filters.get("ref") == f"A1:{column_name(2 + len(OURS))}10"


def test_the_summary_has_counts_causes_and_the_next_command(tmp_path: Path) -> None:
    ledger, directory = finished(tmp_path)
    write_table(ledger, directory, tmp_path / "x.xlsx", "xlsx", held=True)
    found = [[cell for cell in row if cell] for row in texts(tmp_path / "x.xlsx", "summary")]
    for line in (["run", directory.run_id], ["target", "http://127.0.0.1:1"], ["next", "bulkimg retry r"], ["exit code", "1"],
                 ["failed", "1"], ["all", "9"], ["failed", "CODE", "1", "5", "=why", "do this"]):  # fmt: skip
        assert line in found, (line, found)


def test_a_run_that_begins_has_a_sheet_without_rows(tmp_path: Path) -> None:
    ledger, directory = finished(tmp_path)
    write_table(ledger, directory, tmp_path / "x.xlsx", "xlsx", held=True, rows=False)
    assert texts(tmp_path / "x.xlsx") == [["uuid", "name", *OURS]]


@pytest.mark.parametrize(
    ("rows", "columns", "why"),
    [
        (1_048_575, ["uuid"], ""),
        (1_048_576, ["uuid"], "1,048,576 rows, and a sheet holds at most 1,048,575 below its header"),
        (1, ["c"] * (16_384 - len(OURS) - 1), ""),
        (1, ["c"] * 16_384, "16,384 columns, and a sheet holds at most 16,369 with ours next to them"),
        (1, None, ""),
    ],
)
def test_what_no_sheet_holds_is_known_before(rows: int, columns: list[str] | None, why: str) -> None:
    assert too_large(rows, columns) == why


def test_a_run_whose_rows_no_sheet_holds_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows and columns that a sheet does hold take too long for a test: the limits are small here."""
    source = tmp_path / "m.csv"
    source.write_text("uuid,name\n" + "".join(f"{uuid(n)},x\n" for n in range(6)))
    asked_for = Settings(runs_dir=tmp_path / "runs", results=tmp_path / "x.xlsx")
    begun = create_run(str(source), asked_for.model_copy(update={"results": None}))
    begun.close()
    monkeypatch.setattr(workbook, "MOST_ROWS", 6)
    with pytest.raises(
        UsageError, match=r"x\.xlsx: the manifest has 6 rows, and a sheet holds at most 5 below its header"
    ):
        create_run(str(source), asked_for)
    with pytest.raises(UsageError, match="6 rows"):
        resume_run(begun.directory, asked_for)
    with pytest.raises(UsageError, match="6 rows"):
        create_retry(begun.directory, asked_for)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [begun.directory.run_id]
    begun.directory.hold()
    monkeypatch.setattr(workbook, "MOST_ROWS", 7)
    begun.directory.release()
    create_run(str(source), asked_for).close()


def many(tmp_path: Path, rows: int = 3000) -> tuple[Ledger, RunDirectory]:
    ledger, directory = run_of(tmp_path, "m.csv", "uuid,name\n")
    ledger.set_meta(columns=["uuid", "name"])
    add_rows(
        ledger, 1, [Row(n, uuid(n), {"name": f"{n * 7919:x}"}, {}, (uuid(n), f"{n * 7919:x}")) for n in range(2, rows)]
    )
    return ledger, directory


class _Stop(Exception):
    pass


@pytest.mark.parametrize("kind", ["xlsx", "parquet"])
def test_a_writing_that_is_broken_off_leaves_the_file_as_it_was(tmp_path: Path, kind: str) -> None:
    ledger, directory = many(tmp_path)
    path = tmp_path / f"x.{kind}"
    path.write_text("before")
    with pytest.raises(_Stop):
        write_table(ledger, directory, path, kind, held=True, check=_third_time())
    assert path.read_text() == "before"
    assert {file.name for file in tmp_path.iterdir()} == {path.name, "m.csv", directory.path.name}
    assert not list(directory.path.glob(".parquet*"))


def _third_time() -> Callable[[], None]:
    left = iter(range(2))

    def check() -> None:
        if next(left, None) is None:
            raise _Stop

    return check


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file of this process may grow beyond 20 kB: what a full disk does to a file that was begun."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("kind", ["xlsx", "parquet"])
def test_a_full_disk_is_a_sentence_and_leaves_the_file_as_it_was(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    ledger, directory = many(tmp_path)
    ledger.checkpoint()
    path = tmp_path / f"x.{kind}"
    path.write_text("before")
    request.getfixturevalue("small_files")
    with pytest.raises(StorageError, match="File too large; free space or fix the disk, then resume the run"):
        write_table(ledger, directory, path, kind, held=True)
    assert path.read_text() == "before"
    assert {file.name for file in tmp_path.iterdir()} == {path.name, "m.csv", directory.path.name}


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """A row is about 400 bytes of XML, and 3,000 of them are written in pieces of 200."""
    written: list[int] = []
    lines = [(1, ["x" * 300])] * 3000
    part = xlsx._Part(lambda data: written.append(len(data)), is_large=False)
    xlsx._write_sheet(part, Sheet("results", lambda: iter(lines), (10.0,)), is_first=True)
    assert max(written) < 100_000 < sum(written)


def test_a_cell_that_was_refused_for_its_kind_is_no_text_that_is_taken_later(tmp_path: Path) -> None:
    """Its text alone does not say that it was a date, an error or in a hidden row."""
    rows = list(Manifest(TRAPS, Settings(sheet="Images")).rows())
    ledger, directory = run_of(tmp_path, "traps.xlsx", Path(TRAPS).read_bytes(), sheet="Images")
    write_table(ledger, directory, tmp_path / "x.xlsx", "xlsx", held=True)
    ledger.close()
    again = list(Manifest(str(tmp_path / "x.xlsx"), Settings()).rows())
    assert [bool(row.problems) for row in again] == [bool(row.problems) for row in rows]
    assert sum(bool(row.problems) for row in again) == 11
    listed = [(problem.cell, problem.message) for row in again for problem in row.problems]
    marked = [found for found in listed if "the NUL character at its end marks" in found[1]]
    assert len(marked) >= 10
    assert all(cell.startswith("results!") for cell, _ in marked)
    dated = next(cells for cells in texts(tmp_path / "x.xlsx") if "DATE_CELL" in cells)
    assert dated[:2] == ["f72f2bb83586fca7fa0b85188296f5ea", "46327\0"]
