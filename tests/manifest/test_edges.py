"""Common mistakes: blanks, quotes, lines above the header, encodings, and advice that fits the mistake."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from bulkimg.layers import Layer, flags_layer, merge
from bulkimg.manifest import Manifest
from bulkimg.model import Problem, Row
from tests.manifest.test_tabular import read, uuid, write

BLANKS = [
    "\u00a0",
    "\u3000",
    "\u200b",
    "\ufeff",
    "\u2060",
    "\u2800",
    "\u3164",
    "\u200e\u200f",
    " \t ",
    "\u2003",
    "\x85",
]
U1, U2 = uuid(1), uuid(2)


def configured(path: Path, encoding: str) -> tuple[list[Row], list[Problem]]:
    """Read a manifest when a profile or the environment names the encoding."""
    manifest = Manifest(str(path), merge(Layer({"encoding": encoding}, lambda option: f"BULKIMG_{option.upper()}")))
    return list(manifest.rows()), manifest.problems


@pytest.mark.parametrize(
    ("row", "fields"),
    [
        (' "web 01"', {"name": "web 01"}),
        ('\t"web 01"', {"name": "web 01"}),
        ('\u00a0"web 01"', {"name": "web 01"}),
        ('   "web, 02"', {"name": "web, 02"}),
        (' "say ""hi"""', {"name": 'say "hi"'}),
        (' "two\nlines, ""x"" "', {"name": 'two\nlines, "x" '}),
        ('"a, ""b"", c"', {"name": 'a, "b", c'}),
        ('"two\n , ""b"" "', {"name": 'two\n , "b" '}),
        ('5" disk', {"name": '5" disk'}),
    ],
)
def test_blanks_before_an_opening_quote_are_no_part_of_the_value(
    tmp_path: Path, row: str, fields: dict[str, Any]
) -> None:
    rows, problems, _ = read(write(tmp_path / "m.csv", f"uuid,name\n{U1},plain\n{U2},{row}\n"))
    assert (problems, [r.problems for r in rows], rows[1].fields) == ([], [(), ()], fields)


def test_blanks_before_quotes_in_every_column_and_in_the_header(tmp_path: Path) -> None:
    text = f'"uuid", "name" , "userTags"\n  "{U1}", "web, 01", "env:prod;team:a"\n'
    rows, problems, _ = read(write(tmp_path / "m.csv", text.replace('" ,', '",')))
    assert (problems, rows[0].fields) == ([], {"name": "web, 01", "userTags": ["env:prod", "team:a"]})


def test_quotes_after_other_characters_are_refused_with_a_fix(tmp_path: Path) -> None:
    rows, _, _ = read(write(tmp_path / "m.csv", f'uuid,name\n{U1}, "a" b\n{U2},"a" \n'))
    assert [row.problems[0].code for row in rows] == ["CSV_SYNTAX"] * 2


@pytest.mark.parametrize("blank", BLANKS)
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize(
    "field",
    ["name", "description", "guestOsType", "platform", "virtio", "mediaType", "format", "architecture", "system"],
)
def test_a_blank_value_leaves_the_field_as_it_is(tmp_path: Path, kind: str, field: str, blank: str) -> None:
    other = "name" if field == "description" else "description"
    text = f"uuid,{field},{other}\n{U1},{blank},x\n"
    if kind == "jsonl":
        text = json.dumps({"uuid": U1, field: blank, other: "x"}) + "\n"
    elif blank == "\x85":
        text = text.replace("\x85", '"\x85"')
    rows, problems, _ = read(write(tmp_path / f"m.{kind}", text))
    assert (problems, rows[0].problems) == ([], ()) or (kind, field) in {("jsonl", "virtio"), ("jsonl", "system")}
    assert rows[0].fields == {other: "x"}


@pytest.mark.parametrize("blank", BLANKS)
def test_blanks_at_the_ends_of_headers_ids_tags_and_choices_are_passed_over(tmp_path: Path, blank: str) -> None:
    blank = blank.replace("\x85", " ")
    text = f"{blank}uuid{blank},{blank}userTags,platform{blank},virtio\n{blank}{U1}{blank},a;{blank};b{blank},{blank}Linux,true{blank}\n"
    rows, problems, _ = read(write(tmp_path / "m.csv", text))
    assert (problems, rows[0].problems, rows[0].uuid) == ([], (), U1)
    assert rows[0].fields == {"userTags": ["a", "b"], "platform": "Linux", "virtio": True}


@pytest.mark.parametrize("record", [",,", " , ,", '" ","",""', "\u00a0,\u3000,", "   ", "\x1a", "\u200b"])
def test_blank_records_are_passed_over_and_counted(tmp_path: Path, record: str) -> None:
    text = f"{record}\nuuid,name,platform\n{U1},a,Linux\n{record}\n{record}\n{U2},b,Linux\n{record}\n"
    rows, problems, manifest = read(write(tmp_path / "m.csv", text))
    assert (problems, [row.line for row in rows], [row.problems for row in rows]) == ([], [3, 6], [(), ()])
    assert (manifest.blank_records, manifest.first_blank) == (3, 4)


@pytest.mark.parametrize("line", ["{}", '{"uuid": null, "name": ""}', '{"uuid": " ", "userTags": []}', "\u00a0"])
def test_blank_lines_of_jsonl_are_passed_over(tmp_path: Path, line: str) -> None:
    rows, problems, _ = read(write(tmp_path / "m.jsonl", f'{line}\n{{"uuid": "{U1}", "name": "a"}}\n{line}\n'))
    assert (problems, [row.line for row in rows]) == ([], [2])


@pytest.mark.parametrize(
    ("above", "delimiter"),
    [
        ("sep=;", ";"), ('"sep=,"', ","), ("sep=\t", "\t"), ("SEP=|", "|"), ("sep=;;;", ";"), ("\ufeffsep=;", ";"),
        ("#TYPE System.Management.Automation.PSCustomObject", ","), ('"#TYPE Selected.X",,', ","), ("\n,,\nsep=;\n", ";"),
    ],
)  # fmt: skip
def test_what_programs_write_above_the_header_is_passed_over(tmp_path: Path, above: str, delimiter: str) -> None:
    text = f"{above}\nuuid{delimiter}name{delimiter}userTags\n{U1}{delimiter}a{delimiter}x\n"
    rows, problems, _ = read(write(tmp_path / "m.csv", text))
    assert (problems, rows[0].fields) == ([], {"name": "a", "userTags": ["x"]})
    assert rows[0].line == text.count("\n")


def test_a_title_above_the_header_is_one_problem_that_names_the_header(tmp_path: Path) -> None:
    _, problems, _ = read(write(tmp_path / "m.csv", f"Images of May,,\n\nuuid,name,platform\n{U1},a,Linux\n"))
    assert [(p.line, p.code, "line 3" in p.message) for p in problems] == [(1, "NO_UUID_COLUMN", True)]


# -- encodings ----------------------------------------------------------------------------------------------------------

NAME = "生产镜像-二"


@pytest.mark.parametrize("encoding", ["gbk", "cp1252", "latin-1", "gb18030", "cp437", "shift_jis", "big5"])
@pytest.mark.parametrize("extra", ["_status", "_line"])
@pytest.mark.parametrize("packed", [False, True])
def test_our_own_files_are_utf_8_whatever_is_configured(
    tmp_path: Path, encoding: str, extra: str, packed: bool
) -> None:
    body = f"uuid,name,{extra}\n{U1},{NAME},x\n".encode()
    path = write(tmp_path / ("m.csv.gz" if packed else "m.csv"), gzip.compress(body) if packed else body)
    for rows, problems in (configured(path, encoding), read(path, encoding=encoding)[:2]):
        assert (problems, rows[0].fields) == ([], {"name": NAME})


@pytest.mark.parametrize("encoding", ["gbk", "cp1252", "latin-1"])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_valid_utf_8_under_a_configured_encoding_is_refused_with_both_readings(
    tmp_path: Path, encoding: str, kind: str
) -> None:
    text = f"uuid,name\n{uuid(3)},ascii\n{U1},{NAME}\n"
    if kind == "jsonl":
        text = f'{{"uuid": "{U1}", "name": "{NAME}"}}\n'
    path = write(tmp_path / f"m.{kind}", text)
    _, problems = configured(path, encoding)
    assert problems[0].fatal
    assert problems[0].line == (3 if kind == "csv" else 1)
    assert NAME[:2] in problems[0].message
    assert NAME.encode().decode(encoding, "replace")[:1] in problems[0].message
    assert "--encoding utf-8" in problems[0].fix
    assert read(path, encoding="utf-8")[0][-1].fields == {"name": NAME}


def test_the_contradiction_is_found_in_the_last_line_of_a_long_file(tmp_path: Path) -> None:
    text = "uuid,name\n" + "".join(f"{uuid(n)},image {n}\n" for n in range(9000)) + f"{uuid(9000)},café\n"
    _, problems = configured(write(tmp_path / "m.csv", text), "cp1252")
    assert problems[0].line == 9002


def test_an_encoding_that_fits_is_obeyed_wherever_it_was_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "m.csv", f"uuid,name\n{U1},{NAME}\n".encode("gbk"))
    assert configured(path, "gbk")[0][0].fields == {"name": NAME}
    assert read(path, encoding="gbk")[0][0].fields == {"name": NAME}
    ascii_only = write(tmp_path / "a.csv", f"uuid,name\n{U1},a\n")
    assert configured(ascii_only, "gbk")[1] == []


def test_only_a_flag_is_the_word_on_the_encoding() -> None:
    asked = Layer({"encoding": "gbk"}, lambda option: f"[profile.p] {option}")
    assert merge(asked).encoding_is_configured
    assert not merge(flags_layer({"encoding": "gbk"}), asked).encoding_is_configured
    assert not merge().encoding_is_configured


# -- advice that fits the mistake ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("m.csv", f"uuid,name,description\n{U1},web\n".encode(), "add 1 delimiter at the end of the line"),
        ("m.csv", f"uuid,name\n{U1},web,,\n".encode(), "remove the 2 delimiters at the end of the line"),
        ("m.csv", f"uuid,name\n{U1},a,b\n".encode(), "quote cells that contain the delimiter"),
        ("m.csv", f"uuid,name\n{U1};a\n".encode(), "use the same delimiter as the header"),
        ("m.csv", f"uuid,name\n{U1}，a\n".encode(), "full-width"),
        ("m.csv", f"uuid，name\n{U1}，a\n".encode(), "full-width"),
        ("m.csv", b"uuid,name\n1.23E+31,a\n", "a spreadsheet"),
        ("m.csv", b"uuid;name\n1,23457E+31;a\n", "a spreadsheet"),
        ("m.csv", b"uuid,name\n123456789012345678901234567890,a\n", "a spreadsheet"),
        ("m.csv", b"uuid,name\n########,a\n", "a spreadsheet"),
        ("m.jsonl", b'{"uuid": 12345, "name": "a"}\n', "a spreadsheet"),
        ("m.csv", b"PK\x03\x04\x14\x00\x06\x00\x08\x00", "name it .xlsx, or give --format xlsx"),
        ("m.jsonl", b"PK\x03\x04\x14\x00\x06\x00\x08\x00", "name it .xlsx, or give --format xlsx"),
        ("m.csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "save it as .xlsx"),
        ("m.csv", b"<html><body><table>", "HTML"),
        ("m.csv", b"\xef\xbb\xbf\n<!DOCTYPE html>", "HTML"),
        ("m.jsonl", b"[\n", "jq -c '.[]'"),
        ("m.jsonl", f'[{{"uuid": "{U1}", "name": "a"}}]\n'.encode(), "jq -c '.[]'"),
        ("m.jsonl", f'{{"uuid": "{U1}", "name": "a"}},\n'.encode(), "jq -c '.[]'"),
        ("m.jsonl", b"{\n", "jq -c ."),
    ],
)  # fmt: skip
def test_the_advice_fits_the_mistake(tmp_path: Path, name: str, body: bytes, words: str) -> None:
    rows, problems, _ = read(write(tmp_path / name, body))
    found = [*problems, *(problem for row in rows for problem in row.problems)]
    assert words in f"{found[0].message}; {found[0].fix}", found


# -- warnings -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        *(("name", word, "FOREIGN_WORD") for word in ("NULL", "None", "nan", "N/A", "#N/A", "#REF!", "#NAME?", "\\N")),
        *(("description", word, "FOREIGN_WORD") for word in ("null", "NaN", "#DIV/0!", "#VALUE!", "<NA>")),
        ("guestOsType", "none", "FOREIGN_WORD"),
        ("name", "web-01\u00a0", "INVISIBLE_END"),
        ("name", "\u200bweb-01", "INVISIBLE_END"),
        ("description", "x\u2060", "INVISIBLE_END"),
        ("name", "web\n01", "BROKEN_NAME"),
        ("name", "web\t01", "BROKEN_NAME"),
        ("userTags", "env:prod,team:a", "ODD_TAG"),
        ("userTags", "['env:prod', 'team:a']", "ODD_TAG"),
        ("userTags", "a|b", "ODD_TAG"),
        ("userTags", "a；b", "ODD_TAG"),
        ("systemTags", "nan", "FOREIGN_WORD"),
        ("name", "'web 01'", "QUOTED_VALUE"),
        ("name", "\u201cweb 01\u201d", "QUOTED_VALUE"),
        ("name", '="007"', "QUOTED_VALUE"),
    ],
)  # fmt: skip
def test_what_is_hardly_ever_meant_is_a_warning_and_a_problem_under_strict(
    tmp_path: Path, field: str, value: str, code: str
) -> None:
    cell = '"' + value.replace('"', '""') + '"'
    path = write(tmp_path / "m.csv", f"uuid,{field}\n{U1},{cell}\n")
    rows, problems, _ = read(path)
    assert (problems, rows[0].problems) == ([], ())
    assert code in [warning.code for warning in rows[0].warnings]
    assert code in [problem.code for problem in read(path, strict=True)[0][0].problems]


@pytest.mark.parametrize(
    "value", ["web-01", "nano", "na-prod", "Null Island", "a b", "C#", "don't", '5" disk', "web,01"]
)
def test_ordinary_names_give_no_warning(tmp_path: Path, value: str) -> None:
    cell = '"' + value.replace('"', '""') + '"'
    rows, _, _ = read(write(tmp_path / "m.csv", f"uuid,name,userTags\n{U1},{cell},a;b\n"))
    assert rows[0].warnings == ()


@pytest.mark.parametrize(("name", "layers"), [("m.csv.gz", 2), ("m.parquet", 1), ("m.xlsx", 1)])
def test_a_file_that_is_compressed_once_too_often_says_so(tmp_path: Path, name: str, layers: int) -> None:
    """The signatures of all formats are in one place, so that every reader knows them."""
    content = f"uuid,name\n{U1},x\n".encode()
    for _ in range(layers):
        content = gzip.compress(content)
    manifest = Manifest(str(write(tmp_path / name, content)), merge(flags_layer({})))
    assert list(manifest.rows()) == []
    (problem,) = manifest.problems
    assert (problem.code, problem.message) == ("OTHER_FORMAT", "is compressed with gzip")
    assert problem.fix == "unpack it first: gunzip"
