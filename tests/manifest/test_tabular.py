"""CSV and TSV: every row of the file is found at its line in an editor, also after damaged rows."""

import gzip
import tracemalloc
from pathlib import Path

import pytest

from bulkimg.layers import flags_layer, merge
from bulkimg.manifest import Manifest
from bulkimg.manifest.source import MAX_LINE
from bulkimg.model import Problem, Row
from bulkimg.settings import Settings


def uuid(number: int) -> str:
    return f"{number:032x}"


def read(path: Path, **options: object) -> tuple[list[Row], list[Problem], Manifest]:
    manifest = Manifest(str(path), merge(flags_layer(options)) if options else Settings())
    rows = list(manifest.rows())
    return rows, manifest.problems, manifest


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize("count", [1, 2, 18, 19, 20, 21, 22, 1000])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_every_row_is_read_once_in_order(tmp_path: Path, count: int, newline: str) -> None:
    """No row is lost at the end of the sample that finds the delimiter, nor anywhere else."""
    lines = ["uuid,name", *(f"{uuid(n)},image {n}" for n in range(count))]
    rows, problems, _ = read(write(tmp_path / "m.csv", newline.join(lines)))
    assert [row.uuid for row in rows] == [uuid(n) for n in range(count)]
    assert [row.line for row in rows] == list(range(2, count + 2))
    assert problems == []


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(tmp_path: Path, delimiter: str) -> None:
    text = f"uuid{delimiter}name{delimiter}description\n{uuid(1)}{delimiter}a{delimiter}b, c; d\n"
    text = text if delimiter not in ",;" else text.replace("b, c; d", '"b, c; d"')
    rows, problems, _ = read(write(tmp_path / "m.csv", text))
    assert not problems
    assert rows[0].fields == {"name": "a", "description": "b, c; d"}


def test_a_single_column_has_no_delimiter(tmp_path: Path) -> None:
    """With --set, a list of uuids is a manifest."""
    rows, problems, _ = read(write(tmp_path / "m.csv", f"uuid\n{uuid(1)}\n{uuid(2)}\n"), set=["platform=Linux"])
    assert (problems, [row.fields for row in rows]) == ([], [{"platform": "Linux"}] * 2)


def test_line_numbers_are_an_editors_after_quoted_newlines_and_blank_lines(tmp_path: Path) -> None:
    text = f'uuid,description\n{uuid(1)},"two\nlines"\n\n{uuid(2)},x\n{uuid(3)},"a\r\nb\r\nc"\n{uuid(4)},y\n'
    rows, _, _ = read(write(tmp_path / "m.csv", text))
    assert [(row.line, row.fields["description"]) for row in rows] == [
        (2, "two\nlines"),
        (5, "x"),
        (6, "a\r\nb\r\nc"),
        (9, "y"),
    ]


@pytest.mark.parametrize("spoiled", [2, 5, 500, 999])
def test_an_unclosed_quote_costs_its_own_row_and_no_other(tmp_path: Path, spoiled: int) -> None:
    lines = [f"{uuid(n)},name {n}" for n in range(1000)]
    lines[spoiled] = f'{uuid(spoiled)},"name'
    rows, _, _ = read(write(tmp_path / "m.csv", "uuid,name\n" + "\n".join(lines)))
    assert [row.line for row in rows] == list(range(2, 1002))
    assert [row.line for row in rows if row.problems] == [spoiled + 2]
    assert rows[spoiled].problems[0].code == "CSV_SYNTAX"


def test_unclosed_quotes_in_many_rows_are_each_found(tmp_path: Path) -> None:
    lines = [f'{uuid(n)},"name {n}' if n % 10 == 3 else f"{uuid(n)},name {n}" for n in range(300)]
    rows, _, _ = read(write(tmp_path / "m.csv", "uuid,name\n" + "\n".join(lines) + "\n"))
    assert len(rows) == 300
    assert [row.line for row in rows if row.problems] == [n + 2 for n in range(300) if n % 10 == 3]


@pytest.mark.parametrize(
    ("cells", "code"),
    [
        ("\0", "UNFIT_TEXT"),
        ("a,b,c", "CELL_COUNT"),
        ('"a"b', "CSV_SYNTAX"),
        ("x" * (MAX_LINE + 10), "LINE_TOO_LONG"),
        ("x" * 3_000_000, "LINE_TOO_LONG"),
    ],
)
def test_a_damaged_row_is_a_problem_with_its_line_and_its_neighbours_run(tmp_path: Path, cells: str, code: str) -> None:
    rows, _, _ = read(write(tmp_path / "m.csv", f"uuid,name\n{uuid(1)},a\n{uuid(2)},{cells}\n{uuid(3)},c\n"))
    assert [(row.line, [p.code for p in row.problems]) for row in rows] == [(2, []), (3, [code]), (4, [])]


def test_bytes_of_another_encoding_are_found_at_their_line(tmp_path: Path) -> None:
    body = f"uuid,name\n{uuid(1)},ok\n".encode() + f"{uuid(2)},Gehäuse\n".encode("latin-1") + f"{uuid(3)},ok\n".encode()
    rows, _, _ = read(write(tmp_path / "m.csv", body))
    assert [(row.line, [(p.code, p.column) for p in row.problems]) for row in rows] == [
        (2, []),
        (3, [("ENCODING", "character 37")]),
        (4, []),
    ]
    assert read(tmp_path / "m.csv", encoding="latin-1")[0][1].fields == {"name": "Gehäuse"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_encodings_read_the_same_names(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path / "m.csv", f"uuid,name\n{uuid(1)},应用镜像 😀\n".encode(encoding))
    rows, problems, _ = read(path, encoding="utf-8" if encoding == "utf-8-sig" else encoding)
    assert (problems, rows[0].fields) == ([], {"name": "应用镜像 😀"})


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("asked", ["utf-8", "gbk", "cp1252", "utf-16-le"])
def test_a_byte_order_mark_wins_over_the_encoding_that_was_asked_for(tmp_path: Path, encoding: str, asked: str) -> None:
    path = write(tmp_path / "m.csv", f"uuid,name\n{uuid(1)},生产镜像\n".encode(encoding))
    rows, problems, _ = read(path, encoding=asked)
    assert (problems, rows[0].fields) == ([], {"name": "生产镜像"})


@pytest.mark.parametrize("order", ["le", "be"])
def test_utf_16_without_a_mark_is_named(tmp_path: Path, order: str) -> None:
    path = write(tmp_path / "m.csv", f"uuid,name\n{uuid(1)},a\n".encode(f"utf-16-{order}"))
    assert f"--encoding utf-16-{order}" in read(path)[1][0].fix
    assert read(path, encoding=f"utf-16-{order}")[0][0].fields == {"name": "a"}


def test_gz_is_known_by_its_content_and_a_truncated_one_is_refused(tmp_path: Path) -> None:
    packed = gzip.compress(("uuid,name\n" + "".join(f"{uuid(n)},image {n}\n" for n in range(5000))).encode())
    assert len(read(write(tmp_path / "m.csv.gz", packed))[0]) == 5000
    assert len(read(write(tmp_path / "m.csv", packed))[0]) == 5000
    rows, problems, _ = read(write(tmp_path / "cut.csv.gz", packed[:-20]))
    assert [(p.code, p.fatal) for p in problems] == [("GZ_DAMAGED", True)]
    assert problems[0].line == len(rows) + 2 or problems[0].line > 1
    assert read(write(tmp_path / "no.csv.gz", "uuid,name\n"))[1][0].code == "GZ_DAMAGED"


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("", ["NO_ROWS"]),
        ("\n\n", ["NO_ROWS"]),
        ("uuid,name\n", ["NO_ROWS"]),
        ("uuid,nmae\n1,2\n", ["UNKNOWN_COLUMN"]),
        ("uuid,name,name\n", ["COLUMN_TWICE"]),
        ("uuid,,name\n", ["EMPTY_COLUMN"]),
        ("name\nx\n", ["NO_UUID_COLUMN"]),
        (f"uuid\n{uuid(1)}\n", ["NO_FIELD_COLUMN"]),
    ],
)
def test_a_header_that_cannot_be_right_is_refused(tmp_path: Path, text: str, codes: list[str]) -> None:
    _, problems, _ = read(write(tmp_path / "m.csv", text))
    assert [problem.code for problem in problems if problem.code in codes] == codes
    assert all(problem.fatal and problem.fix for problem in problems)


def test_an_unknown_column_suggests_the_nearest(tmp_path: Path) -> None:
    _, problems, _ = read(write(tmp_path / "m.csv", f"uuid,guestOsTyp\n{uuid(1)},x\n"))
    assert "did you mean 'guestOsType'?" in problems[0].message


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    with path.open("w") as file:
        file.write("uuid,name\n")
        file.writelines(f"{uuid(n)},image number {n} with a name of some length\n" for n in range(30_000))
        file.write("x" * 20_000_000 + "\n")
    manifest = Manifest(str(path), Settings())
    tracemalloc.start()
    count = sum(1 for _ in manifest.rows())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 30_001
    assert peak < 8 * MAX_LINE
