"""Values: the limits of docs/dev/protocol.md §5, and a fix with every refusal."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkimg.blank import is_blank, trim
from bulkimg.cells import harmless, read_cell, write_cell
from bulkimg.manifest.check import Checker
from bulkimg.model import SERVER_TRIMS, TAGS, as_stored, normal_uuid, utf16_length
from tests.conftest import UUID, corpus
from tests.manifest.test_tabular import read, write


def check(field: str, cell: str) -> tuple[dict[str, Any], list[str]]:
    fields, problems = Checker().fields(1, {field: cell}, cells=True)
    assert all(problem.fix and problem.message for problem in problems)
    return fields, [problem.code for problem in problems]


@pytest.mark.parametrize(
    ("field", "cell", "value"),
    [
        ("name", " a ", " a "),
        ("description", "<empty>", ""),
        ("guestOsType", "<empty>", ""),
        ("system", "YES", True),
        ("virtio", "0", False),
        ("platform", "Windows", "Windows"),
        ("userTags", "a; b;;c", ["a", "b", "c"]),
        ("userTags", '["a;b","c"]', ["a;b", "c"]),
        ("name", "x" * 255, "x" * 255),
        ("name", "😀" * 127, "😀" * 127),
        ("description", "x" * 2048, "x" * 2048),
    ],
)
def test_good_cells(field: str, cell: str, value: Any) -> None:
    assert check(field, cell) == ({field: value}, [])


@pytest.mark.parametrize("cell", ["", "  ", "\t", "\x01\x02"])
def test_a_blank_cell_leaves_the_field_as_it_is(cell: str) -> None:
    assert check("name", cell) == ({}, [])


@pytest.mark.parametrize(
    ("field", "cell", "code"),
    [
        ("name", "<empty>", "EMPTY_VALUE"),
        ("platform", "<empty>", "EMPTY_VALUE"),
        ("name", "x" * 256, "TOO_LONG"),
        ("name", "😀" * 128, "TOO_LONG"),
        ("description", "x" * 2049, "TOO_LONG"),
        ("mediaType", "Iso", "BAD_VALUE"),
        ("architecture", "arm64", "BAD_VALUE"),
        ("format", "vmdk", "BAD_VALUE"),
        ("system", "maybe", "BAD_VALUE"),
        ("name", "a\0b", "UNFIT_TEXT"),
        ("name", "\ud800", "UNFIT_TEXT"),
        ("userTags", "<empty>", "EMPTY_VALUE"),
    ],
)
def test_bad_cells_are_refused_with_a_fix(field: str, cell: str, code: str) -> None:
    assert check(field, cell)[1] == [code]


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("x" * 256, "is 256 characters long; the limit is 255; shorten it by 1 character"),
        (
            "😀" * 129,
            "is 258 characters long in UTF-16, where an emoji counts as 2; the limit is 255; shorten it by 3 characters",
        ),
    ],
)
def test_a_long_text_is_refused_with_its_length(cell: str, said: str) -> None:
    _, (problem,) = Checker().fields(1, {"name": cell}, cells=True)
    assert f"{problem.message}; {problem.fix}" == said


def test_an_enumeration_suggests_the_nearest_and_admits_a_newer_value() -> None:
    _, problems = Checker().fields(1, {"architecture": "aarch46"}, cells=True)
    assert "did you mean 'aarch64'?" in problems[0].fix
    checker = Checker(allow_value=(("architecture", "riscv64"),))
    assert checker.fields(1, {"architecture": "riscv64"}, cells=True)[1] == []


@pytest.mark.parametrize(
    ("line", "codes"),
    [
        ({"name": None}, []),
        ({"system": "false"}, []),
        ({"system": 1}, []),
        ({"system": 2}, ["BAD_VALUE"]),
        ({"system": 1.0}, ["BAD_VALUE"]),
        ({"name": 5}, ["BAD_VALUE"]),
        ({"name": ["x"]}, ["BAD_VALUE"]),
        ({"userTags": "a;b"}, ["BAD_VALUE"]),
        ({"userTags": ["a", 1]}, ["BAD_VALUE"]),
        ({"description": ""}, []),
        ({"name": ""}, ["EMPTY_VALUE"]),
        ({"name": "\x01\x02"}, []),  # blank: it leaves the name as it is
        ({"updateimage": {"name": "x"}, "userTags": ["a"]}, []),
        ({"updateImage": {"name": "x"}, "name": "y"}, ["KEY_TWICE"]),
        ({"updateimage": {"nmae": "x"}}, ["UNKNOWN_COLUMN"]),
        ({"session": {"uuid": "attacker"}}, ["UNKNOWN_COLUMN"]),
        ({"updateimage": "x"}, ["JSON_SHAPE"]),
    ],
)
def test_jsonl_lines_flat_and_in_the_apis_own_shape(tmp_path: Path, line: dict[str, Any], codes: list[str]) -> None:
    rows, _, _ = read(write(tmp_path / "m.jsonl", json.dumps({"uuid": UUID, **line}) + "\n"))
    assert [problem.code for problem in rows[0].problems] == codes


@pytest.mark.parametrize("text", [UUID, UUID.upper(), "01234567-89AB-cdef-0123-456789abcdef"])
def test_uuids_are_normalised(text: str) -> None:
    assert normal_uuid(text) == UUID


def test_ids_that_must_never_reach_an_url_are_refused() -> None:
    hostile = json.loads(corpus("bulkimg-hostile/ids.json").read_text("utf-8"))["must_reject"]
    assert [text for text in hostile if isinstance(text, str) and normal_uuid(text)] == []
    assert len(hostile) > 30


@given(st.text())
def test_length_is_counted_in_utf_16_units(text: str) -> None:
    assert utf16_length(text) == len(text.encode("utf-16-le", "surrogatepass")) // 2


@given(
    st.sampled_from(["name", "description"]),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200),
)
def test_a_written_text_cell_reads_back_the_same(field: str, text: str) -> None:
    if trim(text) == "<empty>":
        return
    expected = None if is_blank(text) else text
    expected = "" if not text.strip(SERVER_TRIMS) else expected  # as the server stores it
    assert read_cell(field, write_cell(text, "<empty>"), "<empty>") == expected


@given(st.sampled_from(TAGS), st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=5))
def test_written_tags_read_back_the_same(field: str, tags: list[str]) -> None:
    assert read_cell(field, write_cell(tags, "<empty>"), "<empty>") == tags


def test_every_value_is_compared_as_the_server_stores_it() -> None:
    assert as_stored(" a\t") == "a"
    assert as_stored("\u00a0a") == "\u00a0a"  # Java's trim keeps it
    assert as_stored(["b", "a"]) == ["a", "b"]


def test_spreadsheet_formulas_are_made_harmless() -> None:
    hostile = json.loads(corpus("bulkimg-hostile/csv_formula.json").read_text("utf-8"))
    for text in hostile:
        shown = harmless(text)
        assert (
            not shown.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"))
            or shown[0] in "\t\r\n"
        ), text
