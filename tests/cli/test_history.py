"""Runs by name and by `last`: what undo means, what `next:` prints, two runs at once, status, runs and --prune."""

import json
import shlex
import signal
import subprocess
import sys
from typing import Any

import pytest

from bulkimg.engine.reopen import stored_settings
from bulkimg.ledger import RunDirectory
from tests.cli.terminal import on_a_terminal
from tests.cli.test_commands import manifest, some_images
from tests.conftest import UUID, Cli, Server, sandbox_process

FAST = ("--yes", "--rate", "unlimited")
NOWHERE = "http://127.0.0.1:9"


def typed(cli: Cli, line: str, code: int | None = 0, **environment: Any) -> Any:
    """Type a command line that bulkimg printed."""
    word, *rest = shlex.split(line)
    assert word == "bulkimg", line
    return cli(*rest, code=code, **environment)


def following(err: str, mark: str = "next:") -> str:
    """Return the command of the last `next:`."""
    lines = [line.partition(mark)[2].strip() for line in err.splitlines() if line.startswith(mark)]
    assert lines, err
    return lines[-1]


# -- names --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["flag", "variable", "job"])
def test_a_named_run_is_resumed_by_the_same_line_and_refused_when_it_is_finished(
    cli: Cli, server: Server, how: str
) -> None:
    cli.write("m.csv", manifest(some_images(server, 20)))
    cli.write("job.toml", '[job]\nmanifest = "m.csv"\nrun_id = "nightly-1"\n')
    words: tuple[str, ...] = ("run", "job.toml" if how == "job" else "m.csv", "--yes")
    words += ("--run-id", "nightly-1") if how == "flag" else ()
    given: dict[str, Any] = {"BULKIMG_RUN_ID": "nightly-1"} if how == "variable" else {}
    here = cli.at(server)
    here(*words, "--rate", "10/s", "--max-duration", "600ms", code=6, **given)
    assert cli.runs() == ["nightly-1"]
    done = here(*words, "--rate", "unlimited", **given)
    assert "resuming run nightly-1" in done.err
    assert (cli.runs(), cli.summary()["counts"]["updated"]) == (["nightly-1"], 20)
    before = len(server.puts())
    assert "nightly-1 is finished" in here(*words, code=7, **given).err
    assert len(server.puts()) == before


def test_a_named_run_takes_no_other_manifest_and_no_other_server(cli: Cli, server: Server) -> None:
    cli.write("m.csv", manifest(some_images(server, 20)))
    here = cli.at(server)
    here("run", "m.csv", "--yes", "--run-id", "x", "--rate", "10/s", "--max-duration", "500ms", code=6)
    cli.write("m.csv", manifest(some_images(server, 20)))
    assert "not the manifest of run x" in here("run", "m.csv", *FAST, "--run-id", "x", code=7).err
    other = here("run", "m.csv", *FAST, "--run-id", "x", "--endpoint", NOWHERE, code=7).err
    assert f"run x was started against {server.url}/zstack, not {NOWHERE}/zstack" in other


def test_a_name_that_a_refused_manifest_had_is_free_again(cli: Cli, server: Server) -> None:
    cli.write("m.csv", f"uuid,platform\n{UUID},Linx\n")
    cli.at(server)("run", "m.csv", *FAST, "--run-id", "x", code=3)
    cli.write("m.csv", manifest(some_images(server, 1)))
    cli.at(server)("run", "m.csv", *FAST, "--run-id", "x")
    assert cli.summary()["counts"]["updated"] == 1


def test_a_named_undo_or_retry_is_resumed_and_no_other_run_is_taken_for_it(cli: Cli, server: Server) -> None:
    here = cli.at(server)
    cli.write("m.csv", manifest(some_images(server, 20)))
    here("run", "m.csv", *FAST, "--run-id", "campaign")
    back = ("undo", "campaign", "--yes", "--run-id", "back")
    here(*back, "--rate", "10/s", "--max-duration", "600ms", code=6)
    assert "run back does different work" in here("run", "m.csv", *FAST, "--run-id", "back", code=7).err
    here(*back, "--rate", "unlimited", "--max-duration", "1m")
    assert cli.runs() == ["campaign", "back"]
    assert cli.summary()["counts"]["unprocessed"] == 0
    assert "is finished" in here(*back, code=7).err


def test_a_named_undo_that_is_resumed_still_takes_tags_away(cli: Cli, server: Server) -> None:
    here = cli.at(server)
    cli.write("m.csv", manifest(some_images(server, 20)))
    here("run", "m.csv", *FAST, "--run-id", "campaign")
    back = ("undo", "campaign", "--yes", "--run-id", "back")
    here(*back, "--rate", "10/s", "--max-duration", "600ms", code=6)
    asked = stored_settings(RunDirectory(cli.place / "runs/back"))
    here(*back, "--rate", "unlimited", "--max-duration", "1m")
    kept = stored_settings(RunDirectory(cli.place / "runs/back"))
    assert kept["tags_mode"] == asked["tags_mode"] == "replace"
    assert kept["allow_field"] == asked["allow_field"]


def test_a_name_whose_process_died_before_its_ledger_is_free(cli: Cli, server: Server) -> None:
    (cli.place / "runs" / "x").mkdir(parents=True, mode=0o700)
    (cli.place / "runs" / "x" / ".begun").touch()
    cli.write("m.csv", manifest(some_images(server, 1)))
    cli.at(server)("run", "m.csv", *FAST, "--run-id", "x")


@pytest.mark.parametrize("name", ["last", "a/b", "..", ".x", "a b", "x" * 101, "é"])
def test_a_name_that_is_none_is_refused(cli: Cli, server: Server, name: str) -> None:
    cli.write("m.csv", manifest(some_images(server, 1)))
    assert "is not a valid run name" in cli.at(server)("run", "m.csv", "--run-id", name, code=2).err


def test_last_is_the_newest_run_whatever_the_names(cli: Cli, server: Server) -> None:
    here = cli.at(server)
    for name in ("zzz", "aaa", None, "mmm"):
        cli.write("m.csv", manifest(some_images(server, 1)))
        here("run", "m.csv", *FAST, *(("--run-id", name) if name else ()))
    assert cli("status", "--json").json()["run_id"] == "mmm"
    assert [run["run_id"] for run in cli("runs", "--json").json()][::3] == ["mmm", "zzz"]


# -- undo ---------------------------------------------------------------------------------------------------------------


def test_undo_last_twice_never_redoes_the_campaign(cli: Cli, server: Server) -> None:
    images = some_images(server, 3)
    before = server.table()
    cli.write("m.csv", manifest(images))
    here = cli.at(server)
    here("run", "m.csv", *FAST)
    campaign = cli.runs()[-1]
    assert f"undo of run {campaign} (m.csv, " in here("undo", "last", *FAST).err
    undo = cli.runs()[-1]
    assert server.table() == before
    puts = len(server.puts())
    done = here("undo", "last", *FAST)
    assert f"run {campaign} was already undone by run {undo} at " in done.err
    assert (server.table(), len(server.puts()), len(cli.runs())) == (before, puts, 2)
    assert here("undo", "last", *FAST, "--json").json()["exit_code"] == 0
    done = here("undo", undo, *FAST)
    assert f"which is itself the undo of {campaign}: this redoes its changes" in done.err
    assert server.table() != before


def test_undo_last_after_a_redo_takes_the_campaign_back_again(cli: Cli, server: Server) -> None:
    before = server.table()
    cli.write("m.csv", manifest(some_images(server, 2)))
    here = cli.at(server)
    here("run", "m.csv", *FAST)
    here("undo", "last", *FAST)
    here("undo", cli.runs()[-1], *FAST)
    assert server.table() != before
    here("undo", "last", *FAST)
    assert server.table() == before
    assert "was already undone" in here("undo", "last", *FAST).err


def test_an_undo_that_left_rows_is_not_said_to_be_done(cli: Cli, server: Server) -> None:
    images = some_images(server, 3)
    cli.write("m.csv", manifest(images))
    here = cli.at(server)
    here("run", "m.csv", *FAST)
    server.edit(images[0], name="theirs")
    here("undo", "last", *FAST, code=1)
    assert " UTC, except 1 row; nothing to do" in here("undo", "last", *FAST, code=1).err


def test_an_undo_that_was_stopped_is_to_be_resumed(cli: Cli, server: Server) -> None:
    cli.write("m.csv", manifest(some_images(server, 20)))
    here = cli.at(server)
    here("run", "m.csv", *FAST)
    here("undo", "last", "--yes", "--rate", "10/s", "--max-duration", "600ms", code=6)
    assert f"bulkimg resume {cli.runs()[-1]}" in here("undo", "last", *FAST, code=7).err


def test_undo_last_passes_over_plans_and_names_the_run_that_changed_something(cli: Cli, server: Server) -> None:
    cli.write("m.csv", manifest(some_images(server, 2)))
    here = cli.at(server)
    here("run", "m.csv", *FAST)
    changed = cli.runs()[-1]
    here("run", "m.csv", *FAST)
    cli.write("n.csv", manifest(some_images(server, 2)))
    here("plan", "n.csv")
    done = here("undo", "last", *FAST)
    assert f"bulkimg undo {changed}" in done.err
    assert here("undo", "last", "--yes", "--runs-dir", "none", code=2).err.count("no run") == 1


def test_the_question_says_what_is_undone(cli: Cli, server: Server) -> None:
    cli.write("m.csv", manifest(some_images(server, 1)))
    here = cli.at(server)
    here("run", "m.csv", *FAST, "--note", "CHG-17")
    campaign = cli.runs()[-1]
    code, shown, _ = on_a_terminal(cli, server, "n\n", "undo", "last")
    assert code == 7
    for part in (f"Undo of run {campaign}", "m.csv", "1 updated", "CHG-17", "old values back on 1 image of"):
        assert part in shown
    here("undo", "last", *FAST)
    code, shown, _ = on_a_terminal(cli, server, "n\n", "undo", cli.runs()[-1])
    assert (code, "Redo the changes on 1 image of" in shown) == (7, True)


# -- next: --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [(), ("--runs-dir", "my runs")])
def test_next_names_the_id_and_works_when_typed(cli: Cli, server: Server, where: tuple[str, ...]) -> None:
    cli.write("m.csv", manifest(some_images(server, 12)))
    here = cli.at(server)
    done = here("run", "m.csv", "--yes", "--rate", "10/s", "--max-duration", "500ms", *where, code=6)
    line = following(done.err)
    assert "last" not in line
    assert line == following(here("status", "last", *where).out)
    done = typed(here, f"{line} --max-duration 1m")
    check, _, undo = following(done.err, "check:").partition(" · take back: ")
    typed(here, check)
    assert "12 updated" in typed(here, f"{undo} --yes").err


def test_next_of_a_plan_applies_it(cli: Cli, server: Server) -> None:
    cli.write("m.csv", manifest(some_images(server, 2)))
    line = following(cli.at(server)("plan", "m.csv").err)
    assert f"bulkimg apply {cli.runs()[-1]} --checksum " in line
    assert "2 updated" in typed(cli.at(server), line).err


def test_next_after_failed_rows_retries_them_by_id(cli: Cli, server: Server) -> None:
    cli.write("m.csv", f"uuid,name\n{UUID},x\n")
    done = cli.at(server)("run", "m.csv", *FAST, code=1)
    assert following(done.err) == f"bulkimg retry {cli.runs()[-1]}"
    hints = (cli.run_dir() / "failed.csv").read_text("utf-8-sig")
    assert " last" not in hints


@pytest.mark.parametrize("command", ["run", "plan"])
def test_after_a_server_that_was_never_reached_next_is_what_was_typed(cli: Cli, server: Server, command: str) -> None:
    cli.write("m 1.csv", manifest(some_images(server, 2)))
    here = cli.at(server)
    done = here(command, "m 1.csv", "--rate", "100/s", code=5, BULKIMG_ENDPOINT=NOWHERE)
    line = following(done.err) if command == "run" else cli.summary()["next"]
    assert line == f"bulkimg {command} 'm 1.csv' --rate 100/s"
    assert cli.summary()["next"] == line
    typed(here, line)


@pytest.mark.parametrize("command", ["apply", "resume", "undo", "retry"])
def test_what_is_kept_names_the_id_also_where_last_was_typed(cli: Cli, server: Server, command: str) -> None:
    """With a server that does not answer: in `next:`, in summary.json and in the hints."""
    images = some_images(server, 3)
    with sandbox_process("--images", "300") as gone:
        here = cli.at(gone)
        cli.write("m.csv", manifest(images) + (f"{UUID},x\n" if command == "retry" else ""))
        if command in ("apply", "resume"):
            here("plan", "m.csv")
        else:
            here("run", "m.csv", *FAST, code=1 if command == "retry" else 0)
    before = len(cli.runs())
    done = here(command, "last", *FAST, code=5)
    line = following(done.err)
    assert line.split()[:2] == ["bulkimg", command]
    assert line.split()[2] == cli.runs()[0]
    assert len(cli.runs()) == before + (command in ("undo", "retry"))
    for name in cli.runs():
        summary = json.loads((cli.place / "runs" / name / "summary.json").read_text())
        assert "last" not in shlex.split(summary["next"] or "")
        assert all(" last" not in cause["hint"] for cause in summary["causes"])


@pytest.mark.parametrize(
    "guard", [("--max-changes", "1"), ("--max-changes", "1%"), ("--set", "architecture=aarch64")], ids=str
)
@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_guard_sells_no_way_around(cli: Cli, server: Server, guard: tuple[str, ...], command: str) -> None:
    cli.write("m.csv", manifest(some_images(server, 3)))
    done = cli.at(server)(command, "m.csv", *guard, *(("--yes",) if command == "run" else ()), code=None)
    assert done.code == (7 if command == "run" else 0)
    assert "next:" not in done.err
    assert cli.summary()["next"] is None
    assert "--max-changes 3" not in done.err
    assert "--allow-field architecture" not in done.err
    assert "plan.html" in done.err
    page = (cli.run_dir() / "plan.html").read_text("utf-8")
    assert "bulkimg apply would refuse this plan:" in page
    assert "--checksum" not in page


def test_the_hint_of_a_row_agrees_with_next(cli: Cli, server: Server) -> None:
    cli.write("m.csv", manifest(some_images(server, 3)))
    here = cli.at(server)
    here("run", "m.csv", "--yes", "--max-changes", "1", code=7)
    assert [cause["hint"] for cause in cli.summary()["causes"]] == [""]
    here("run", "m.csv", "--yes", code=5, BULKIMG_ENDPOINT=NOWHERE)
    assert [cause["hint"] for cause in cli.summary()["causes"]] == ["bulkimg run m.csv --yes sends it"]
    assert following(cli("status").out) == "bulkimg run m.csv --yes"


def test_a_guard_of_a_named_run_holds_until_another_is_given(cli: Cli, server: Server) -> None:
    cli.write("m.csv", manifest(some_images(server, 3)))
    here, before = cli.at(server), len(server.puts())
    here("run", "m.csv", *FAST, "--run-id", "x", "--max-changes", "1", code=7)
    assert "--max-changes allows 1" in here("run", "m.csv", *FAST, "--run-id", "x", code=7).err
    assert len(server.puts()) == before
    here("run", "m.csv", *FAST, "--run-id", "x", "--max-changes", "3")


def test_a_named_run_whose_server_was_never_reached_takes_the_right_endpoint(cli: Cli, server: Server) -> None:
    cli.write("m.csv", manifest(some_images(server, 3)))
    here = cli.at(server)
    done = here("run", "m.csv", *FAST, "--run-id", "x", code=5, BULKIMG_ENDPOINT=NOWHERE)
    typed(here, following(done.err))
    assert (cli.runs(), cli.summary()["counts"]["updated"]) == (["x"], 3)


def test_a_canary_that_fails_sells_no_way_around(cli: Cli, server: Server) -> None:
    cli.write("m.csv", f"uuid,name\n{UUID},x\n" + manifest(some_images(server, 3)).split("\n", 1)[1])
    done = cli.at(server)("run", "m.csv", *FAST, "--canary", "4", "--no-survey", code=4)
    assert cli.summary()["next"] is None
    assert "--canary 0" not in done.err


# -- two at once --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("second", ["same manifest", "same content", "same job", "undo", "resume"])
def test_the_second_living_run_of_the_same_work_is_refused(cli: Cli, server: Server, second: str) -> None:
    images = some_images(server, 40)
    here = cli.at(server)
    cli.write("m.csv", manifest(images))
    cli.write("job.toml", '[job]\nname = "nightly"\nmanifest = "m.csv"\n')
    source = "job.toml" if second == "same job" else "m.csv"
    words: tuple[str, ...] = ("run", "m.csv", *FAST)
    if second == "same content":
        cli.write("copy.csv", (cli.place / "m.csv").read_bytes())
        words = ("run", "copy.csv", *FAST)
    elif second == "same job":
        cli.write("other.csv", manifest(images))
        cli.write("job2.toml", '[job]\nname = "nightly"\nmanifest = "other.csv"\n')
        words = ("run", "job2.toml", *FAST)
    elif second in ("undo", "resume"):
        here("run", "m.csv", "--yes", "--rate", "10/s", "--max-duration", "2s", code=6)
        words = (second, cli.runs()[-1], *FAST)
    puts = len(server.puts())
    first = here.start("run", source, "--yes", "--rate", "5/s", "--run-id", "first")
    try:
        server.wait_for_put(puts)
        done = here(*words, code=7)
        assert "run first of the same manifest or job is under way" in done.err
        assert "--allow-overlap" not in done.err
        if second == "same manifest":
            here("plan", "m.csv")
            here("run", "m.csv", *FAST, "--allow-overlap", code=None)
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate(timeout=30)
    assert here(*words, code=None).code != 7, "a dead one is in nobody's way"


def test_other_work_and_other_servers_are_not_in_the_way(cli: Cli, server: Server) -> None:
    here = cli.at(server)
    cli.write("m.csv", manifest(some_images(server, 40)))
    cli.write("n.csv", manifest(some_images(server, 2, 50)))
    puts = len(server.puts())
    first = here.start("run", "m.csv", "--yes", "--rate", "5/s")
    try:
        server.wait_for_put(puts)
        here("run", "n.csv", *FAST)
        here("run", "m.csv", *FAST, "--endpoint", NOWHERE, code=5)
        here("run", "m.csv", *FAST, "--runs-dir", "others")
    finally:
        first.send_signal(signal.SIGTERM)
        first.communicate(timeout=30)


# -- status and runs ----------------------------------------------------------------------------------------------------


def test_status_of_a_living_run_tells_in_flight_from_waiting(cli: Cli, server: Server) -> None:
    cli.write("m.csv", manifest(some_images(server, 60)))
    puts = len(server.puts())
    process = cli.at(server).start("run", "m.csv", "--yes", "--rate", "10/s", "--concurrency", "4")
    try:
        server.wait_for_put(puts + 5)
        living = cli("status", "--json").json()
        text = cli("status").out
        listed = cli("runs", "--json").json()[0]
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
    assert living["running"]
    assert living["counts"]["unknown"] == living["counts"]["unprocessed"] == living["not_fine"] == 0
    assert living["settled"] == sum(living["counts"].values())
    assert living["settled"] + living["in_flight"] + living["waiting"] == living["rows"] == 60
    assert 0 <= living["in_flight"] <= 4
    assert "in flight" in text
    assert "waiting" in text
    assert listed["not_fine"] == 0
    dead = cli("status", "--json").json()
    assert (dead["state"], sum(dead["counts"].values())) == ("interrupted", 60)


def test_status_adds_up_and_shows_a_plan_as_a_plan(cli: Cli, server: Server) -> None:
    images = some_images(server, 4)
    here = cli.at(server)
    cli.write("m.csv", manifest(images))
    here("plan", "m.csv")
    found = cli("status")
    assert "plan: 4 to update (name 4)" in found.out
    assert "unprocessed" not in found.out
    assert cli("runs", "--json").json()[0]["not_fine"] == 0
    here("apply", "last", *FAST)
    here("run", "m.csv", *FAST)
    assert "4 of 4 rows settled" in cli("status").out


def test_runs_tells_one_run_from_another(cli: Cli, server: Server) -> None:
    here = cli.at(server)
    cli.write("m.csv", manifest(some_images(server, 3)) + f"{UUID},x\n")
    here("run", "m.csv", *FAST, "--note", "CHG-17", code=1)
    here("retry", "last", *FAST, code=1)
    here("undo", "last", *FAST, code=None)
    here("undo", cli.runs()[0], *FAST)
    header, *lines = cli("runs").out.splitlines()
    for name in ("RUN", "STARTED", "KIND", "TARGET", "STATE", "UPDATED", "UNCHANGED", "NOT FINE", "NOTE"):
        assert name in header
    assert [line.split()[3] for line in lines] == ["undo", "retry", "run"]
    assert "CHG-17" in lines[-1]
    assert len(cli("runs", "--limit", "1", "--json").json()) == 1
    assert cli("runs", "--state", "stopped", "--json").json() == []
    assert len(cli("runs", "--target", server.url, "--json").json()) == 3
    assert cli("runs", "--target", "elsewhere", "--json").json() == []


def test_prune_removes_what_is_finished_and_nothing_that_can_be_resumed(cli: Cli, server: Server) -> None:
    here = cli.at(server)
    for _ in range(3):
        cli.write("m.csv", manifest(some_images(server, 1)))
        here("run", "m.csv", *FAST)
    finished = cli.runs()
    cli.write("m.csv", manifest(some_images(server, 9)))
    here("plan", "m.csv")
    here("run", "m.csv", "--yes", "--rate", "10/s", "--max-duration", "300ms", code=6)
    kept = cli.runs()[3:]
    assert "--keep" in cli("runs", "--prune", code=2).err
    assert "removed" in cli("runs", "--prune", "--keep", "0", "--older-than", "90d").err
    assert cli.runs() == [*finished, *kept]
    assert cli("runs", "--prune", "--keep", "1", "--json").json()["removed"] == finished[1::-1]
    assert cli.runs() == [finished[2], *kept]
    cli("runs", "--prune", "--keep", "0")
    assert cli.runs() == kept
    assert "is not an age" in cli("runs", "--prune", "--older-than", "soon", code=2).err


def test_an_edited_manifest_is_said_at_resume(cli: Cli, server: Server) -> None:
    here = cli.at(server)
    cli.write("m.csv", manifest(some_images(server, 9)))
    here("run", "m.csv", "--yes", "--rate", "10/s", "--max-duration", "300ms", code=6)
    assert "has changed since" not in here("resume", "last", "--max-duration", "300ms", code=6).err
    cli.write("m.csv", manifest(some_images(server, 9)))
    resumed = here("resume", "last", "--rate", "unlimited", "--max-duration", "1m")
    assert "m.csv has changed since the run started" in resumed.err


# -- home ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("check", "m.csv"), ("runs",), ("run", "m.csv", "-n"), ("export",), ("status",)])
def test_no_home_and_no_entry_in_passwd_are_no_error(cli: Cli, server: Server, words: tuple[str, ...]) -> None:
    cli.write("m.csv", manifest([UUID]))
    environment = {k: v for k, v in cli.at(server).env().items() if k not in ("HOME", "XDG_CONFIG_HOME")}
    done = subprocess.run(
        ["unshare", "--user", "--map-user=54321", sys.executable, "-m", "bulkimg", *words],
        cwd=cli.place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == (2 if words == ("status",) else 0), done.stderr


@pytest.mark.parametrize(
    ("words", "variables"),
    [
        (("--runs-dir", "~nobody99/x"), {}),
        ((), {"BULKIMG_RUNS_DIR": "~nobody99/x"}),
        (("--results", "~nobody99/x.csv"), {}),
        (("--ca-file", "~nobody99/x.pem"), {}),
        ((), {"BULKIMG_SESSION_FILE": "~nobody99/x", "BULKIMG_SESSION": ""}),
        (("--profile", "p"), {"XDG_CONFIG_HOME": "~nobody99/x"}),
    ],
)
def test_a_home_that_is_not_there_is_one_sentence(
    cli: Cli, server: Server, words: tuple[str, ...], variables: dict[str, Any]
) -> None:
    cli.write("m.csv", manifest([UUID]))
    done = cli.at(server)("run", "m.csv", "--yes", *words, code=2, **variables)
    assert "home" in done.err


def test_a_tilde_is_a_home_wherever_it_stands(cli: Cli, server: Server) -> None:
    home = cli.place / "home"
    home.mkdir()
    (home / "m.csv").write_text(manifest(some_images(server, 1)))
    (home / "session").write_text(server.session)
    (home / "session").chmod(0o600)
    cli.write("job.toml", '[job]\nmanifest = "~/m.csv"\n[results]\npath = "~/out.csv"\n[run]\nruns_dir = "~/runs"\n')
    given: dict[str, Any] = {"HOME": str(home), "BULKIMG_SESSION": "", "BULKIMG_SESSION_FILE": "~/session"}
    cli.at(server)("run", "job.toml", *FAST, **given)
    assert (home / "out.csv").is_file()
    assert len(list((home / "runs").iterdir())) == 1
    cli.at(server)("run", "~/m.csv", *FAST, **given)
    cli.at(server)("export", "-o", "~/e.csv", **given)
    assert (home / "e.csv").read_bytes().startswith(b"\xef\xbb\xbfuuid,")
