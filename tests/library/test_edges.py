"""Faults that a reviewer found: an empty run, a lock that stays, arguments of the wrong type."""

from pathlib import Path
from typing import Any

import pytest

import bulkimg
from tests.conftest import Cli, Server


@pytest.fixture
def options(server: Server, tmp_path: Path) -> dict[str, Any]:
    return {
        "endpoint": server.url,
        "credentials": bulkimg.Session(server.session),
        "runs_dir": tmp_path / "runs",
        "rate": "unlimited",
    }


def of_the_run(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "endpoint"}


@pytest.fixture
def rows(server: Server) -> list[dict[str, Any]]:
    return [{"uuid": sorted(server.images())[0], "description": "edge"}]


def test_a_refused_apply_lets_the_run_go(options: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    done = bulkimg.run(rows, **options)
    with pytest.raises(bulkimg.RunRefused, match="is finished"):
        bulkimg.apply(done.run_id, **of_the_run(options))
    assert bulkimg.undo(done.run_id, **of_the_run(options)).ok


@pytest.mark.parametrize("empty", ["", None])
def test_no_name_names_no_run(options: dict[str, Any], rows: list[dict[str, Any]], empty: Any, server: Server) -> None:
    bulkimg.run(rows, **options)
    sent = len(server.puts())
    with pytest.raises(bulkimg.UsageError, match="no run is named"):
        bulkimg.undo(empty, **of_the_run(options))
    assert len(server.puts()) == sent


def test_an_unset_variable_of_a_script_undoes_nothing(cli: Cli, server: Server, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(f"uuid,name\n{sorted(server.images())[1]},only\n")
    session = {"BULKIMG_SESSION": server.session}
    cli("run", "m.csv", "--yes", "--endpoint", server.url, code=0, **session)
    sent = len(server.puts())
    for verb in ("undo", "resume", "retry", "apply", "verify", "status"):
        done = cli(verb, "", *(["--yes"] if verb not in ("verify", "status") else []), code=2, **session)
        assert "no run is named" in done.err
    assert len(server.puts()) == sent


def test_a_condition_that_is_none_is_a_sentence(cli: Cli, server: Server, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(f"uuid,name\n{sorted(server.images())[2]},condition\n")
    session = {"BULKIMG_SESSION": server.session}
    cli("run", "m.csv", "--yes", "--endpoint", server.url, code=0, **session)
    assert "is not COLUMN=VALUE" in cli("undo", "last", "--yes", "--where", "nope", code=2, **session).err


@pytest.mark.parametrize("given", [{"credentials": "x"}, {"credentials": bulkimg.Account}, {"approve": 5}])
def test_an_argument_of_the_wrong_kind_is_a_usage_error(
    options: dict[str, Any], rows: list[dict[str, Any]], given: dict[str, Any]
) -> None:
    with pytest.raises(bulkimg.UsageError):
        bulkimg.run(rows, **options | given)


@pytest.mark.parametrize("answer", [True, False])
def test_a_plain_function_may_approve(options: dict[str, Any], rows: list[dict[str, Any]], answer: bool) -> None:
    rows[0]["description"] = f"approved {answer}"
    asked: list[Any] = []

    def approve(what: Any) -> bool:
        asked.append(what)
        return answer

    if answer:
        assert bulkimg.run(rows, approve=approve, **options).ok  # type: ignore[arg-type] # a plain function is taken too
    else:
        with pytest.raises(bulkimg.RunRefused, match="stopped at your request"):
            bulkimg.run(rows, approve=approve, **options)  # type: ignore[arg-type]
    assert [type(what) for what in asked] == [bulkimg.PlanMade]


def test_a_word_that_is_no_status_is_named_with_those_that_are(
    options: dict[str, Any], rows: list[dict[str, Any]]
) -> None:
    done = bulkimg.run(rows, **options)
    with pytest.raises(bulkimg.UsageError, match="'fine' is not a status; statuses are updated"):
        next(done.rows("fine"))


def test_dir_shows_the_public_names() -> None:
    assert dir(bulkimg) == sorted(bulkimg.__all__)
