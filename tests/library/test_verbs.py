"""Every verb of the command line is a function, plain and async, with the same outcome."""

from pathlib import Path

import pytest

import bulkimg
from tests.conftest import UUID, Server
from tests.library.calling import HOWS, Caller


@pytest.fixture(params=HOWS)
def call(request: pytest.FixtureRequest, server: Server, tmp_path: Path) -> Caller:
    return Caller(server, tmp_path / "runs", request.param)


def test_run_sends_every_change(call: Caller) -> None:
    changes = call.changes(3)
    result = call.at("run", changes)
    assert (result.ok, result.exit_code, result.counts["updated"]) == (True, 0, 3)
    assert list(call.names(changes)) == [change["name"] for change in changes]


def test_plan_sends_nothing_and_apply_sends_it(call: Caller) -> None:
    changes, before = call.changes(3), len(call.server.puts())
    planned = call.at("plan", changes)
    assert planned.plan.actions["update"] == 3
    assert planned.plan.fields == {"name": 3}
    assert len(call.server.puts()) == before
    applied = call.of("apply", planned.run_id, checksum=planned.plan.digest)
    assert (applied.run_id, applied.exit_code, applied.counts["updated"]) == (planned.run_id, 0, 3)
    assert list(call.names(changes)) == [change["name"] for change in changes]


def test_apply_refuses_another_checksum(call: Caller) -> None:
    planned, before = call.at("plan", call.changes(1)), len(call.server.puts())
    with pytest.raises(bulkimg.BulkimgError):
        call.of("apply", planned.run_id, checksum="0" * 64)
    assert len(call.server.puts()) == before


def test_undo_puts_the_old_values_back(call: Caller) -> None:
    changes = call.changes(3)
    before = list(call.names(changes))
    result = call.at("run", changes)
    undone = call.of("undo", result.run_id)
    assert (undone.exit_code, undone.counts["updated"]) == (0, 3)
    assert undone.run_id != result.run_id
    assert list(call.names(changes)) == before


def test_undo_of_a_part_leaves_the_rest(call: Caller) -> None:
    changes = call.changes(3)
    before = list(call.names(changes))
    result = call.at("run", changes)
    undone = call.of("undo", result.run_id, where=[f"uuid={changes[0]['uuid']}"])
    assert undone.counts["updated"] == 1
    assert list(call.names(changes)) == [before[0], changes[1]["name"], changes[2]["name"]]


def test_resume_sends_what_was_left(call: Caller) -> None:
    changes = call.changes(30)
    stopped = call.at("run", changes, rate="10/s", max_duration=0.5)
    assert (stopped.exit_code, stopped.ok) == (6, False)
    assert stopped.counts["unprocessed"] > 0
    resumed = call.of("resume", stopped.run_id, max_duration="1m")
    assert (resumed.run_id, resumed.exit_code, resumed.counts["updated"]) == (stopped.run_id, 0, 30)
    assert list(call.names(changes)) == [change["name"] for change in changes]


def test_retry_is_a_new_run_of_the_rows_that_failed(call: Caller) -> None:
    result = call.at("run", [*call.changes(2), {"uuid": UUID, "name": "is not there"}])
    assert (result.exit_code, result.counts["updated"], result.counts["failed"]) == (1, 2, 1)
    retried = call.of("retry", result.run_id)
    assert retried.run_id != result.run_id
    assert (sum(retried.counts.values()), retried.counts["failed"]) == (1, 1)


def test_verify_finds_what_has_drifted_since(call: Caller) -> None:
    changes = call.changes(2)
    result = call.at("run", changes)
    verified = call.of("verify", result.run_id)
    assert (verified.images, verified.drifted, verified.ok, verified.exit_code) == (2, [], True, 0)
    call.server.edit(changes[1]["uuid"], name="edited by another")
    verified = call.of("verify", result.run_id)
    assert (verified.ok, verified.exit_code) == (False, 1)
    (drift,) = verified.drifted
    assert (drift.uuid, drift.field) == (changes[1]["uuid"], "name")
    assert (drift.wanted, drift.now) == (changes[1]["name"], "edited by another")
    assert str(verified) == f"run {result.run_id}: 2 images checked, 1 field drifted"


def test_export_gives_rows_that_run_takes(call: Caller) -> None:
    rows = call.at("export", fields=["name"], with_expectations=True, where=["platform=Linux"])
    assert rows
    assert all(set(row) == {"uuid", "name", "if_name"} and row["name"] == row["if_name"] for row in rows)
    assert call.at("run", rows).counts["unchanged"] == len(rows)
    for row in rows[:2]:
        row["name"] += " and more"
    assert call.at("run", rows).counts["updated"] == 2


def test_an_expectation_that_no_longer_holds_is_a_conflict(call: Caller) -> None:
    rows = call.at("export", fields=["name"], with_expectations=True, where=["platform=Linux"])[:1]
    call.server.edit(rows[0]["uuid"], name=f"{rows[0]['name']}!")
    result = call.at("run", [rows[0] | {"name": "overwrites"}])
    assert (result.exit_code, result.counts["conflict"]) == (1, 1)


@pytest.mark.parametrize("name", ["the id", "its beginning", "its directory", "last"])
def test_open_run_finds_an_earlier_run(server: Server, tmp_path: Path, name: str) -> None:
    result = Caller(server, tmp_path).at("run", Caller(server, tmp_path).changes(1))
    words = {
        "the id": result.run_id, "its beginning": result.run_id[:-1], "its directory": str(result.directory),
        "last": "last",
    }  # fmt: skip
    assert bulkimg.open_run(words[name], runs_dir=tmp_path) == result


def test_open_run_says_that_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(bulkimg.UsageError, match="there are no runs in"):
        bulkimg.open_run("last", runs_dir=tmp_path)


def test_a_run_that_is_finished_is_returned_as_it_is_by_resume(call: Caller) -> None:
    result, before = call.at("run", call.changes(1)), len(call.server.puts())
    assert call.of("resume", result.run_id) == result
    assert len(call.server.puts()) == before


def test_an_approval_that_says_no_sends_nothing(call: Caller) -> None:
    asked: list[object] = []

    async def no(what: object) -> bool:
        asked.append(what)
        return False

    before = len(call.server.puts())
    with pytest.raises(bulkimg.RunRefused) as refused:
        call.at("run", call.changes(2), approve=no)
    assert [type(what) for what in asked] == [bulkimg.PlanMade]
    assert len(call.server.puts()) == before
    assert refused.value.result.counts["updated"] == 0
