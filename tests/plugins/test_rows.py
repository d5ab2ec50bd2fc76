"""A row hook may change or refuse a row. What it makes passes the same checks as the manifest's own values."""

import json
import os
from typing import Any

import pytest

from bulkimg.engine.plugins import load_plugins
from bulkimg.errors import UsageError
from bulkimg.manifest import Manifest
from bulkimg.model import Row
from bulkimg.settings import Settings
from tests.plugins.conftest import Site

ONE, TWO = "1" * 32, "2" * 32


def body(code: str) -> str:
    """Return a plugin whose row hook has this body."""
    return "@hookimpl\ndef bulkimg_row(row):\n" + "".join(f"    {line}\n" for line in code.splitlines())


def said(row: Row) -> list[str]:
    return [problem.text for problem in row.problems]


def test_a_row_is_changed_refused_or_left_as_it_is(site: Site) -> None:
    site.install(
        "names",
        body(
            "if row.fields['name'] == 'bad': return Problem('is a reserved name', 'name', 'choose another')\n"
            "if row.fields['name'] == 'same': return None\n"
            "return row.with_fields(name=row.fields['name'].upper(), userTags=['a', 'b'], platform=None)"
        ),
    )
    text = f"uuid,name,platform\n{ONE},web,Linux\n{TWO},bad,Linux\n{'3' * 32},same,Linux\n"
    changed, refused, same = site.rows(text, ["names"])
    assert (changed.fields, changed.problems) == ({"name": "WEB", "userTags": ["a", "b"]}, ())
    assert same.fields == {"name": "same", "platform": "Linux"}
    (problem,) = refused.problems
    assert (problem.line, problem.column, problem.value, problem.code) == (3, "name", "bad", "PLUGIN")
    assert (problem.message, problem.fix) == ("is a reserved name (plugin names)", "choose another")
    assert changed.cells == (ONE, "web", "Linux")  # what failed.csv shows is the manifest's own


def test_a_hook_gets_values_and_cells_and_nothing_that_it_could_change_in_place(site: Site) -> None:
    module = site.install("looks", "seen = []\n" + body("seen.append(row)"))
    text = f"uuid,virtio,userTags,if_name,_owner\n{ONE.upper()},yes,a;b,old,me\n"
    site.rows(text, ["looks"])
    (row,) = site.module(module).seen
    assert (row.line, row.uuid) == (2, ONE)
    assert dict(row.fields) == {"virtio": True, "userTags": ("a", "b")}
    assert dict(row.expects) == {"name": "old"}
    assert row.cells == {"uuid": ONE, "virtio": "yes", "userTags": "a;b", "if_name": "old", "_owner": "me"}
    site.install("writes", body("row.fields['name'] = 'x'"))
    with pytest.raises(UsageError, match="raised TypeError"):
        site.rows(text, ["writes"])


def test_rows_of_jsonl_and_of_mappings_pass_too(site: Site) -> None:
    site.install("names", body("return row.with_fields(name=row.cells['_owner'] + ' ' + row.fields['name'])"))
    (row,) = site.rows(json.dumps({"uuid": ONE, "name": "x", "_owner": "me"}), ["names"], name="m.jsonl")
    assert row.fields == {"name": "me x"}
    alter = load_plugins(["names"]).alter
    changes: list[dict[str, Any]] = [{"uuid": ONE, "name": "x", "_owner": "us"}]
    assert [row.fields for row in Manifest("(rows)", Settings(), changes, alter).rows()] == [{"name": "us x"}]


def test_plugins_see_what_those_before_them_made_and_a_refusal_ends_the_chain(site: Site) -> None:
    site.install("one", body("return row.with_fields(name=row.fields['name'] + ' 1')"))
    site.install("two", body("return row.with_fields(name=row.fields['name'] + ' 2')"))
    site.install("no", body("return [Problem('no'), Problem('never')]"))
    last = site.install("last", "seen = []\n" + body("seen.append(row)"))
    text = f"uuid,name\n{ONE},x\n"
    assert [row.fields for row in site.rows(text, ["one", "two"])] == [{"name": "x 1 2"}]
    assert [row.fields for row in site.rows(text, ["two", "one"])] == [{"name": "x 2 1"}]
    (row,) = site.rows(text, ["one", "no", "last"])
    assert (said(row), row.fields) == (["no (plugin no)", "never (plugin no)"], {"name": "x"})
    assert site.module(last).seen == []


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ("name='x' * 256", "is 256 characters long; the limit is 255 (set by plugin wrong)"),
        ("name=''", "cannot be empty (set by plugin wrong)"),
        ("platform='linux'", "(set by plugin wrong)"),
        ("userTags=[]", "is an empty list (set by plugin wrong)"),
        ("userTags=['a', '']", "contains an empty tag (set by plugin wrong)"),
        ("description='x\\0'", "contains a NUL character at character 2 (set by plugin wrong)"),
        ("name='  '", "name: sets a blank text, and None is what leaves a field as it is (plugin wrong)"),
        ("name=5", "name: sets a value of type int, not a text (plugin wrong)"),
        ("virtio='yes'", "virtio: sets a value of type str, not True or False (plugin wrong)"),
        ("virtio=1", "virtio: sets a value of type int, not True or False (plugin wrong)"),
        ("userTags='a;b'", "userTags: sets a value of type str, not a list of texts (plugin wrong)"),
        ("userTags=[1]", "userTags: sets a value of type list, not a list of texts (plugin wrong)"),
        ("nmae='x'", "plugin wrong (bulkimg-wrong 1.0) sets 'nmae', which is no field; did you mean 'name'?"),
        ("uuid='x'", "plugin wrong (bulkimg-wrong 1.0) sets 'uuid', which is no field"),
        ("session='x'", "plugin wrong (bulkimg-wrong 1.0) sets 'session', which is no field"),
    ],
)
def test_a_value_of_a_plugin_passes_the_checks_of_the_manifest(site: Site, values: str, problem: str) -> None:
    site.install("wrong", body(f"return row.with_fields({values})"))
    (row,) = site.rows(f"uuid,name\n{ONE},x\n", ["wrong"])
    assert any(problem in text for text in said(row)), said(row)


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("return 5", "returned a value of type int, not a Row, a Problem, a list of them or None"),
        ("return 'no'", "returned a value of type str, not a Row"),
        ("return True", "returned a value of type bool, not a Row"),
        ("return {'name': 'x'}", "returned a value of type dict, not a Row"),
        ("return ['no']", "returned a list with a value of type str, which is not a Problem"),
        ("return Problem('')", "returned a Problem whose message is empty"),
        ("return Problem(None)", "returned a Problem whose message is empty"),
        ("return replace(row, uuid='2' * 32)", "changed uuid of the row, which a plugin cannot"),
        ("return replace(row, line=1)", "changed line of the row, which a plugin cannot"),
        ("return replace(row, expects={})", "changed expects of the row, which a plugin cannot"),
        ("return replace(row, cells={})", "changed cells of the row, which a plugin cannot"),
        ("return replace(row, fields=None)", "returned a row whose fields are None, not a mapping"),
        ("return replace(row, fields={1: 'x'})", "sets '1', which is no field"),
    ],
)
def test_what_is_no_answer_is_a_problem_of_the_row_that_names_the_plugin(site: Site, code: str, problem: str) -> None:
    site.install("wrong", "from dataclasses import replace\n" + body(code))
    (row,) = site.rows(f"uuid,name,if_name\n{ONE},x,y\n", ["wrong"])
    (found,) = row.problems
    assert found.message.startswith(f"plugin wrong (bulkimg-wrong 1.0) {problem}")
    assert (found.code, found.line, found.fix) == ("PLUGIN", 2, "fix the plugin, or leave it out")
    assert row.fields == {"name": "x"}


def test_a_value_that_the_checks_refuse_may_be_corrected_and_else_stays_refused(site: Site) -> None:
    site.install("corrects", body("return row.with_fields(virtio=True, platform='Linux')"))
    site.install("leaves", body("return row.with_fields(description='d')"))
    site.install("removes", body("return row.with_fields(platform=None, description='d')"))
    text = f"uuid,virtio,platform\n{ONE},maybe,linux\n"
    (corrected,) = site.rows(text, ["corrects"])
    assert (corrected.fields, corrected.problems) == ({"virtio": True, "platform": "Linux"}, ())
    for plugin in ("leaves", "removes"):
        (row,) = site.rows(text, [plugin])
        assert {problem.column for problem in row.problems} == {"virtio", "platform"}
        assert not any("plugin" in text for text in said(row))  # it did not set them


def test_what_is_no_problem_of_a_value_stays(site: Site) -> None:
    site.install("names", body("return row.with_fields(name='n', description='d')"))
    (row,) = site.rows(f"uuid,name,if_virtio\n{ONE},,maybe\n", ["names"], set=["description={name}"])
    assert [(problem.column, problem.code) for problem in row.problems] == [
        ("if_virtio", "BAD_VALUE"),
        ("name", "BLANK_IN_TEMPLATE"),
    ]
    (row,) = site.rows(json.dumps({"uuid": ONE, "nmae": "x"}), ["names"], name="m.jsonl")
    assert [problem.code for problem in row.problems] == ["UNKNOWN_COLUMN"]


def test_rows_without_an_image_and_rows_that_are_left_out_are_not_passed(site: Site) -> None:
    module = site.install("looks", "seen = []\n" + body("seen.append(row.line)"))
    text = f"uuid,name\n{ONE},skipped\nnonsense,x\n{TWO}\n{TWO},wanted\n{'3' * 32},other\n"
    rows = site.rows(text, ["looks"], where=["name!=other"], skip_rows=1)
    assert [bool(row.problems) for row in rows] == [True, True, False]
    assert site.module(module).seen == [5]


def test_warnings_are_those_of_the_changed_row(site: Site) -> None:
    site.install("names", body("return row.with_fields(name=row.fields['name'].strip('\\u200b'), description='NULL')"))
    text = f"uuid,name\n{ONE},web\u200b\n"
    (row,) = site.rows(text, ["names"])
    assert [(warning.column, warning.code) for warning in row.warnings] == [("description", "FOREIGN_WORD")]
    (row,) = site.rows(text, ["names"], strict=True)
    assert [(problem.column, problem.code) for problem in row.problems] == [("description", "FOREIGN_WORD")]


CELLS = (
    "x", "", " x ", "\u00a0x", "<empty>", " <empty> ", "yes", "0", "TRUE", "a;b", ";", "a; b", "Linux", " Linux", "linux",
    "NULL", "\U0001f600" * 130, "y" * 256, "y" * 255, "\u200b", "a\tb", "=1+1", "'x'", "d\u00e9j\u00e0", "1,5",
)  # fmt: skip


@pytest.mark.parametrize("tags_mode", ["add", "replace"])
def test_a_plugin_that_changes_nothing_leaves_every_row_as_it_is(site: Site, tags_mode: str) -> None:
    """The values are read as cells, and checked again as values: both find the same."""
    site.install("same", body("return row.with_fields()"))
    site.install("around", body("return row.with_fields(guestOsType='g')"))
    site.install("back", body("return row.with_fields(guestOsType=None)"))
    columns = ("name", "description", "platform", "virtio", "userTags")
    lines = [
        ",".join([f"{n:032x}", *('"' + cell + '"' if name == column else "" for name in columns)])
        for n, (column, cell) in enumerate((column, cell) for column in columns for cell in CELLS)
    ]
    text = f"uuid,{','.join(columns)}\n" + "\n".join(lines) + "\n"
    plain = site.rows(text, [], tags_mode=tags_mode)
    assert site.rows(text, ["same"], tags_mode=tags_mode) == plain
    again = site.rows(text, ["around", "back"], tags_mode=tags_mode)
    assert [(row.uuid, row.fields, row.warnings) for row in again] == [(r.uuid, r.fields, r.warnings) for r in plain]
    assert [{p.column for p in row.problems} for row in again] == [{p.column for p in row.problems} for row in plain]
    assert any(row.problems for row in plain)


def test_every_row_passes_also_where_lines_could_be_read_quickly(site: Site) -> None:
    module = site.install("looks", "seen = []\n" + body("seen.append(row.line)"))
    (site.place / "m.csv").write_text("uuid,name\n" + "".join(f"{n:032x},name {n}\n" for n in range(100)))
    manifest = Manifest(str(site.place / "m.csv"), Settings(), alter=load_plugins(["looks"]).alter)
    assert all(isinstance(row, Row) for row in manifest.stored_rows())
    assert site.module(module).seen == list(range(2, 102))
    site.install("observer", "@hookimpl\ndef bulkimg_event(event): ...")
    for others in ([], ["observer"]):
        without = Manifest(str(site.place / "m.csv"), Settings(), alter=load_plugins(others).alter)
        assert all(isinstance(row, tuple) for row in without.stored_rows())


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        ("return row.cells['owner']", "raised KeyError: 'owner' ("),
        ("raise SystemExit(0)", "raised SystemExit: 0 ("),
        ("raise RuntimeError('two\\nlines')", "raised RuntimeError: two lines ("),
        ("raise RuntimeError", "raised RuntimeError ("),
        ("import os; raise OSError(os.environ['BULKIMG_SESSION'])", "raised OSError: [hidden] ("),
        ("1 / 0", "raised ZeroDivisionError: division by zero ("),
    ],
)
def test_an_exception_stops_the_check_in_one_sentence(
    site: Site, monkeypatch: pytest.MonkeyPatch, code: str, failure: str
) -> None:
    monkeypatch.setenv("BULKIMG_SESSION", "0123456789abcdef")
    module = site.install("fails", body(f"if row.line == 3:\n    {code}"), version="3.0")
    with pytest.raises(UsageError) as caught:
        site.rows(f"uuid,name\n{ONE},x\n{TWO},y\n", ["fails"])
    text = str(caught.value)
    assert text.startswith(f"plugin fails (bulkimg-fails 3.0): line 3: bulkimg_row {failure}{module}.py:")
    assert text.endswith("); nothing was sent; fix the plugin, or leave it out")
    assert "\n" not in text
    assert os.environ["BULKIMG_SESSION"] not in text


def test_fields_may_be_any_mapping_that_can_be_read(site: Site) -> None:
    site.install("chain", "from collections import ChainMap\n" + body(
        "from dataclasses import replace\nreturn replace(row, fields=ChainMap({'name': 'new'}, row.fields))"))  # fmt: skip
    assert [row.fields for row in site.rows(f"uuid,name\n{ONE},x\n", ["chain"])] == [{"name": "new"}]
    site.install("raises", """
        from collections.abc import Mapping
        class Odd(Mapping):
            def __getitem__(self, name): raise OSError
            def __iter__(self): raise OSError
            def __len__(self): return 1
        @hookimpl
        def bulkimg_row(row): return Row(row.line, row.uuid, Odd(), row.expects, row.cells)
        """)  # fmt: skip
    with pytest.raises(UsageError, match="line 2: bulkimg_row returned fields that raise OSError; nothing was sent"):
        site.rows(f"uuid,name\n{ONE},x\n", ["raises"])


def test_a_keyboard_interrupt_in_a_hook_is_no_failure_of_the_plugin(site: Site) -> None:
    site.install("slow", body("raise KeyboardInterrupt"))
    with pytest.raises(KeyboardInterrupt):
        site.rows(f"uuid,name\n{ONE},x\n", ["slow"])


def test_a_problem_that_quotes_a_credential_shows_none(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BULKIMG_SESSION", "0123456789abcdef")
    site.install("leaks", "import os\n" + body("return Problem('is ' + os.environ['BULKIMG_SESSION'], 'name')"))
    (row,) = site.rows(f"uuid,name\n{ONE},x\n", ["leaks"])
    assert said(row) == ["name 'x': is [hidden] (plugin leaks)"]
