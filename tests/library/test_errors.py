"""Every error of a run as a whole is raised, and each kind has its own type."""

import asyncio
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bulkimg
from tests.conftest import ROOT, Server
from tests.library.calling import HOWS, Caller

DEAD = "http://127.0.0.1:9"


@pytest.fixture(params=HOWS)
def call(request: pytest.FixtureRequest, server: Server, tmp_path: Path) -> Caller:
    return Caller(server, tmp_path / "runs", request.param)


def test_a_refused_manifest_shows_its_first_problems_and_has_them_all(call: Caller) -> None:
    before = len(call.server.requests())
    with pytest.raises(bulkimg.ManifestRefused) as refused:
        call.at("run", [{"uuid": f"bad {n}", "name": "x"} for n in range(8)])
    assert [problem.line for problem in refused.value.problems] == list(range(1, 9))
    assert {problem.code for problem in refused.value.problems} == {"BAD_UUID"}
    lines = str(refused.value).splitlines()
    assert "nothing was sent" in lines[0]
    assert [line.split(":")[0] for line in lines[1:6]] == [f"line {n}" for n in range(1, 6)]
    assert "bad 0" in lines[1]
    assert lines[6] == "and 3 more, in .problems"
    assert refused.value.exit_code == 3
    assert len(call.server.requests()) == before


def test_a_refused_file_is_named(call: Caller, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("uuid,platform\n" + "0" * 32 + ",Linx\n")
    with pytest.raises(bulkimg.ManifestRefused, match=r"line 2: .*Linx.*did you mean 'Linux'") as refused:
        call.at("run", path)
    assert str(refused.value).startswith(f"{path} is refused, nothing was sent:")


def test_skip_invalid_sends_the_others(call: Caller) -> None:
    result = call.at("run", [*call.changes(1), {"uuid": "bad", "name": "x"}], skip_invalid=True)
    assert (result.exit_code, result.counts["updated"], result.counts["invalid"]) == (1, 1, 1)


def test_a_server_that_is_not_there_is_a_target_error_with_its_run(call: Caller) -> None:
    with pytest.raises(bulkimg.TargetError) as failed:
        call.at("run", call.changes(2), endpoint=DEAD)
    assert not isinstance(failed.value, bulkimg.LoginRefused)
    assert failed.value.exit_code == 5
    result = failed.value.result
    assert (result.exit_code, result.counts["unprocessed"]) == (5, 2)
    assert result.run_id == bulkimg.open_run("last", runs_dir=call.runs_dir).run_id


@pytest.mark.parametrize("survey", [True, False])
@pytest.mark.parametrize(
    "credentials",
    [
        bulkimg.Account("admin", "canary-of-a-password"),
        bulkimg.AccessKey("sandboxno", "canary-of-a-key"),
        bulkimg.Session("canary"),
    ],
    ids=["account", "access key", "session"],
)
def test_credentials_that_are_not_accepted_are_a_refused_login_without_the_secret(
    call: Caller, credentials: Any, survey: bool
) -> None:
    with pytest.raises(bulkimg.LoginRefused) as refused:
        call.at("run", call.changes(1), credentials=credentials, survey=survey)
    assert "canary" not in f"{refused.value!r} {refused.value}"
    assert refused.value.exit_code == 5
    assert refused.value.result.counts["updated"] == 0


def test_export_and_verify_say_so_too(call: Caller) -> None:
    with pytest.raises(bulkimg.LoginRefused):
        call.at("export", credentials=bulkimg.Account("admin", "wrong"))
    with pytest.raises(bulkimg.TargetError):
        call.at("export", endpoint=DEAD)
    result = call.at("run", call.changes(1))
    with pytest.raises(bulkimg.LoginRefused):
        call.of("verify", result.run_id, credentials=bulkimg.Account("admin", "wrong"))


def test_a_guard_refuses_before_anything_is_sent(call: Caller) -> None:
    before = len(call.server.puts())
    with pytest.raises(bulkimg.RunRefused) as refused:
        call.at("run", call.changes(3), max_changes=2)
    assert refused.value.exit_code == 7
    assert refused.value.result.counts["updated"] == 0
    assert len(call.server.puts()) == before


def test_nothing_to_retry_and_nothing_to_undo_are_refusals(call: Caller) -> None:
    result = call.at("run", call.changes(1))
    with pytest.raises(bulkimg.RunRefused, match="retry"):
        call.of("retry", result.run_id)
    call.of("undo", result.run_id)
    with pytest.raises(bulkimg.RunRefused):
        call.of("undo", result.run_id, where=["line=99"])


@pytest.mark.parametrize(
    ("verb", "wrong", "near"),
    [
        ("run", "max_error", "max_errors"),
        ("plan", "concurency", "concurrency"),
        ("export", "end_point", "endpoint"),
    ],
)
def test_a_wrong_option_is_named_with_the_nearest(call: Caller, verb: str, wrong: str, near: str) -> None:
    arguments: list[Any] = [] if verb == "export" else [[]]
    with pytest.raises(bulkimg.UsageError, match=f"there is no option '{wrong}'; did you mean '{near}'"):
        call.at(verb, *arguments, **{wrong: 1})


@pytest.mark.parametrize("name", ["json", "progress", "quiet", "yes", "dry_run", "log_format", "verbose", "job_name"])
def test_what_belongs_to_the_command_line_is_no_option_here(call: Caller, name: str) -> None:
    with pytest.raises(bulkimg.UsageError, match=f"there is no option '{name}'"):
        call.at("run", [], **{name: True})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("rate", "fast"),
        ("concurrency", 0),
        ("max_errors", "many"),
        ("tags", "perhaps"),
        ("window", "9-5"),
        ("retries", -1),
    ],
)
def test_a_wrong_value_is_said_with_its_option(call: Caller, option: str, value: Any) -> None:
    with pytest.raises(bulkimg.UsageError, match=rf"{option} .*{value}"):
        call.at("run", call.changes(1), **{option: value})
    assert not call.runs_dir.exists()


def test_a_server_must_be_named(call: Caller) -> None:
    with pytest.raises(bulkimg.UsageError, match="no server: give endpoint="):
        call.of("run", [])


def test_a_run_keeps_its_server(call: Caller) -> None:
    result = call.at("run", call.changes(1))
    with pytest.raises(bulkimg.UsageError, match="endpoint is the run's own"):
        call.at("resume", result.run_id)


@pytest.mark.parametrize("verb", ["run", "plan", "apply", "resume", "retry", "undo", "verify", "export"])
async def test_a_plain_call_inside_a_loop_says_what_to_await(server: Server, tmp_path: Path, verb: str) -> None:
    arguments: list[Any] = {"export": [], "run": [[]], "plan": [[]]}.get(verb, ["last"])
    with pytest.raises(bulkimg.UsageError, match="an event loop is running here; await the async form"):
        getattr(bulkimg, verb)(*arguments, credentials=bulkimg.Session(server.session), runs_dir=tmp_path)
    await asyncio.sleep(0)  # a coroutine that is not awaited would be a warning, which is an error here


def test_every_error_is_one_of_ours_and_says_its_exit_code() -> None:
    codes = {
        "UsageError": 2, "ManifestRefused": 3, "TargetError": 5, "LoginRefused": 5, "RunRefused": 7, "StorageError": 8,
        "RowsNotFine": 1,
    }  # fmt: skip
    for name, code in codes.items():
        error = getattr(bulkimg, name)
        assert issubclass(error, bulkimg.BulkimgError)
        assert error.exit_code == code
    assert issubclass(bulkimg.LoginRefused, bulkimg.TargetError)


# -- what is logged, and what is not printed ----------------------------------------------------------------------------


def test_the_logger_hears_the_sentences_and_nothing_is_printed(
    call: Caller, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO, "bulkimg"):
        result = call.at("run", call.changes(2))
    said = [record.getMessage() for record in caplog.records if record.name == "bulkimg"]
    assert any(line.startswith("plan: 2 to update") for line in said)
    assert any(result.run_id in line and "sending 2 of 2 rows" in line for line in said)
    assert capfd.readouterr() == ("", "")


def test_without_a_handler_nothing_is_printed_even_when_it_fails(
    call: Caller, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(bulkimg.TargetError):
        call.at("run", call.changes(1), endpoint=DEAD)
    with pytest.raises(bulkimg.ManifestRefused):
        call.at("run", [{"uuid": "bad", "name": "x"}])
    assert call.at("run", [{"uuid": "0" * 31 + "1", "name": "x"}]).exit_code == 1
    assert capfd.readouterr() == ("", "")


def test_a_program_without_handlers_prints_nothing_not_even_warnings(server: Server, tmp_path: Path) -> None:
    """In a process of its own: pytest has handlers, and Python prints warnings without handlers."""
    code = (
        "import sys, bulkimg\n"
        "try: bulkimg.run([{'uuid': sys.argv[3], 'name': 'x'}], endpoint=sys.argv[1], runs_dir=sys.argv[2], survey=False,\n"
        "                 credentials=bulkimg.Session('0'))\n"
        "except bulkimg.LoginRefused: sys.exit(5)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, server.url, str(tmp_path), min(server.images())],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (5, "", "")


# -- credentials --------------------------------------------------------------------------------------------------------


def without_credentials(call: Caller, **options: Any) -> Any:
    return call.at("run", call.changes(1), credentials=None, **options)


def test_credentials_are_found_in_the_environment(call: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(bulkimg.UsageError, match="no credentials found"):
        without_credentials(call)
    monkeypatch.setenv("BULKIMG_SESSION", call.server.session)
    assert without_credentials(call).ok


def test_credentials_are_found_in_a_file_that_the_environment_names(
    call: Caller, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "session"
    path.write_text(f"{call.server.session}\n")
    path.chmod(0o600)
    monkeypatch.setenv("BULKIMG_SESSION_FILE", str(path))
    assert without_credentials(call).ok


def test_endpoint_and_credentials_are_found_in_a_profile(call: Caller, tmp_path: Path) -> None:
    place = tmp_path / "config" / "bulkimg"
    place.mkdir(parents=True)
    (place / "config.toml").write_text(
        f'[profile.p]\nendpoint = "{call.server.url}"\naccount = "admin"\npassword_command = ["printf", "password"]\n'
    )
    assert call.of("run", call.changes(1), credentials=None, profile="p").ok
    with pytest.raises(bulkimg.UsageError, match=r"no table \[profile.q\]"):
        call.of("run", call.changes(1), credentials=None, profile="q")


def test_credentials_that_are_given_win(call: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BULKIMG_SESSION", "0" * 32)
    assert call.at("run", call.changes(1)).ok


def test_the_environment_sets_no_other_option(call: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BULKIMG_ENDPOINT", DEAD)
    monkeypatch.setenv("BULKIMG_MAX_CHANGES", "0")
    monkeypatch.setenv("BULKIMG_RATE", "nonsense")
    assert call.at("run", call.changes(1)).ok


def test_no_credential_shows_its_secret() -> None:
    for made in (bulkimg.Session("canary"), bulkimg.Account("name", "canary"), bulkimg.AccessKey("id", "canary")):
        assert "canary" not in f"{made!r} {made}"
