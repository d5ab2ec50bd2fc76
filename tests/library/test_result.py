"""`Result`: a run's outcome, its rows and its plan."""

from pathlib import Path

import pytest

import bulkimg
from tests.conftest import UUID, Server
from tests.library.calling import Caller


@pytest.fixture(scope="module")
def mixed(server: Server, tmp_path_factory: pytest.TempPathFactory) -> bulkimg.Result:
    """Two rows updated, one unchanged, one failed."""
    call = Caller(server, tmp_path_factory.mktemp("mixed"))
    first, second, third = call.changes(3)
    third["name"] = server.images()[third["uuid"]]["name"]
    result = call.at("run", [first, second, third, {"uuid": UUID, "name": "is not there"}])
    assert isinstance(result, bulkimg.Result)
    return result


def test_ok_means_that_every_row_is_fine(mixed: bulkimg.Result, call: Caller) -> None:
    assert (mixed.ok, mixed.exit_code) == (False, 1)
    fine = call.at("run", call.changes(1))
    assert (fine.ok, fine.exit_code) == (True, 0)


def test_raise_for_status_raises_only_when_rows_are_not_fine(mixed: bulkimg.Result, call: Caller) -> None:
    fine = call.at("run", call.changes(1))
    assert fine.raise_for_status() is fine
    with pytest.raises(bulkimg.RowsNotFine) as raised:
        mixed.raise_for_status()
    assert raised.value.result is mixed
    assert raised.value.exit_code == 1
    assert str(raised.value) == f"run {mixed.run_id}: 1 failed"
    assert isinstance(raised.value, bulkimg.BulkimgError)


def test_every_status_is_counted(mixed: bulkimg.Result) -> None:
    assert set(mixed.counts) == {status.value for status in bulkimg.Status}
    assert {name: number for name, number in mixed.counts.items() if number} == {
        "updated": 2,
        "unchanged": 1,
        "failed": 1,
    }


def test_rows_come_in_the_order_of_the_source(mixed: bulkimg.Result) -> None:
    rows = list(mixed.rows())
    assert [row.line for row in rows] == [1, 2, 3, 4]
    assert [row.status for row in rows] == ["updated", "updated", "unchanged", "failed"]
    updated = rows[0]
    assert list(updated.changed) == ["name"]
    assert updated.before is not None
    assert updated.after is not None
    assert updated.before["name"] != updated.after["name"] == updated.name


@pytest.mark.parametrize(
    ("statuses", "lines"),
    [(["failed"], [4]), (["failed", "unknown"], [4]), (["updated", "failed"], [1, 2, 4]), (["conflict"], [])],
)
def test_rows_are_chosen_by_status(mixed: bulkimg.Result, statuses: list[str], lines: list[int]) -> None:
    assert [row.line for row in mixed.rows(*statuses)] == lines


def test_rows_take_a_status_by_name_too(mixed: bulkimg.Result) -> None:
    (row,) = mixed.rows(status="failed")
    assert (row.uuid, row.status, row.code) == (UUID, bulkimg.Status.FAILED, "NO_SUCH_IMAGE")
    assert row.message
    assert row.hint
    assert [row.line for row in mixed.rows(bulkimg.Status.FAILED)] == [4]


def test_a_word_that_is_no_status_is_refused(mixed: bulkimg.Result) -> None:
    with pytest.raises(bulkimg.UsageError, match="faild"):
        list(mixed.rows("faild"))


def test_a_result_says_itself_in_one_line(mixed: bulkimg.Result) -> None:
    assert str(mixed) == f"run {mixed.run_id}: 2 updated, 1 unchanged, 1 failed"


def test_a_result_says_what_to_type_next(mixed: bulkimg.Result, call: Caller) -> None:
    assert mixed.next is not None
    assert mixed.next.startswith("bulkimg ")
    assert call.at("run", call.changes(1)).next is None


def test_the_plan_is_kept_with_the_run(mixed: bulkimg.Result, call: Caller) -> None:
    assert mixed.plan is not None
    assert mixed.plan.actions["update"] == 2
    assert mixed.plan.surveyed
    blind = call.at("run", call.changes(1), survey=False)
    assert blind.plan is None or not blind.plan.surveyed


def test_the_directory_is_that_of_the_run(mixed: bulkimg.Result, server: Server) -> None:
    assert (mixed.directory / "results.csv").is_file()
    assert isinstance(mixed.directory, Path)
    assert mixed.directory.name == mixed.run_id
    assert mixed.target == f"{server.url}/zstack"


def test_a_result_cannot_be_changed(mixed: bulkimg.Result) -> None:
    with pytest.raises(AttributeError):
        mixed.exit_code = 0  # type: ignore[misc]
