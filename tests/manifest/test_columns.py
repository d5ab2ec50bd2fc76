"""Which column sets which field: --map, --set and its templates, --where, slices, `if_` columns, our own columns."""

from pathlib import Path

import pytest

from bulkimg.errors import UsageError
from bulkimg.manifest.check import Checker
from bulkimg.manifest.columns import Columns
from bulkimg.model import FIELDS
from bulkimg.settings import Settings
from tests.conftest import UUID
from tests.manifest.test_tabular import read, uuid, write


def test_map_and_templates_over_the_rows_own_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "m.csv", f"image,os,_wave\n{UUID},CentOS 7,3\n")
    rows, problems, _ = read(path, map=["image=uuid", "os=guestOsType"], set=["name={os}-w{_wave}-{{x}}", "system=no"])
    assert not problems
    assert (rows[0].uuid, rows[0].fields) == (
        UUID,
        {"guestOsType": "CentOS 7", "name": "CentOS 7-w3-{x}", "system": False},
    )


def test_a_template_over_a_blank_cell_is_a_problem_of_its_row(tmp_path: Path) -> None:
    """Blank means «leave as it is», so `-2026` would be a guess."""
    path = write(tmp_path / "m.csv", f"uuid,name\n{uuid(1)},a\n{uuid(2)},\n")
    rows, _, _ = read(path, set=["name={name}-2026"])
    assert rows[0].fields == {"name": "a-2026"}
    assert [p.code for p in rows[1].problems] == ["BLANK_IN_TEMPLATE"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"set": ["name={nmae}"]}, "did you mean 'name'"),
        ({"set": ["name={name"]}, "expected '}'"),
        ({"set": ["name={name!r}"]}, "only a column name in braces; write {COLUMN}"),
        ({"set": ["name={name.__class__}"]}, "no column 'name.__class__'"),
        ({"set": ["nmae=x"]}, "did you mean 'name'"),
        ({"set": ["platform=Linx"]}, "did you mean 'Linux'"),
        ({"set": ["name=a", "name=b"]}, "given twice"),
        ({"map": ["nme=name"]}, "no column 'nme'"),
        ({"where": ["nme=x"]}, "no column 'nme'"),
        ({"map": ["name"]}, "not NAME=VALUE"),
    ],
)
def test_options_that_cannot_be_right_are_refused_with_the_nearest(
    tmp_path: Path, options: dict[str, object], words: str
) -> None:
    path = write(tmp_path / "m.csv", f"uuid,name\n{UUID},a\n")
    with pytest.raises(UsageError, match=r".") as refused:
        read(path, **options)
    assert words in str(refused.value)


def test_where_and_slices_choose_rows_and_count_the_others(tmp_path: Path) -> None:
    path = write(
        tmp_path / "m.csv", "uuid,platform,_site\n" + "".join(f"{uuid(n)},Linux,s{n % 3}\n" for n in range(30))
    )
    rows, _, manifest = read(path, where=["_site=s1"], skip_rows="6", max_rows="5")
    assert [row.line - 2 for row in rows] == [7, 10, 13, 16, 19]
    assert manifest.left_out == 25
    assert len(read(path, where=["_site!=s1"])[0]) == 20
    assert len(read(path, where=["_site~=S%"])[0]) == 30


def test_a_broken_row_is_reported_whatever_where_selects(tmp_path: Path) -> None:
    path = write(tmp_path / "m.csv", f'uuid,name\n{uuid(1)},a\n{uuid(2)},"b\n')
    rows, _, _ = read(path, where=["name=zzz"])
    assert [(row.line, bool(row.problems)) for row in rows] == [(3, True)]


def test_preconditions_are_parsed_and_kept(tmp_path: Path) -> None:
    path = write(
        tmp_path / "m.csv", f"uuid,name,if_platform,if_virtio,if_name\n{uuid(1)},a,Anything,yes,\n{uuid(2)},b,,maybe,\n"
    )
    rows, _, manifest = read(path)
    assert rows[0].expects == {"platform": "Anything", "virtio": True}
    assert [(p.column, p.code) for p in rows[1].problems] == [("if_virtio", "BAD_VALUE")]
    assert manifest.has_expectations


def test_our_own_columns_are_ignored_so_failed_csv_can_be_fed_back(tmp_path: Path) -> None:
    path = write(
        tmp_path / "m.csv", f"uuid,name,_status,_code,_message,_hint\n{UUID},a,failed,SYS.1003,gone,check it\n"
    )
    rows, problems, _ = read(path)
    assert (problems, rows[0].fields) == ([], {"name": "a"})


def test_the_keys_of_rows_are_named_in_one_order() -> None:
    """The order of a set of texts differs from process to process."""
    keys = ["uuid", "name", *FIELDS[2:], *(f"_{at}" for at in range(8))]
    settings = Settings(where=("zzzz=1",))
    columns = Columns(settings, Checker(settings.empty_token, settings.allow_value, no_tags=False))
    (problem,) = columns.never_seen(1, set(keys))
    assert problem.message.endswith(f"; valid names are {', '.join(sorted(keys))}")
