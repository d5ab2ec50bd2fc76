"""Questions reach the person, a reader may stop, JSON is JSON, --quiet is quiet, and nohup is respected."""

import json
import os
import signal
import time
from typing import Any

import pytest

from tests.cli.terminal import on_a_terminal
from tests.cli.test_commands import manifest, some_images
from tests.conftest import UUID, Cli, Server

FAST = ("--rate", "unlimited")


@pytest.mark.parametrize("redirected", ["", "err", "out", "both"])
@pytest.mark.parametrize("extra", [(), ("-q",), ("--log-format", "json"), ("--json",), ("--progress", "none")])
def test_the_question_reaches_the_terminal_wherever_the_outputs_go(
    cli: Cli, server: Server, redirected: str, extra: tuple[str, ...]
) -> None:
    cli.write("m.csv", manifest(some_images(server, 2)))
    before = len(server.puts())
    code, shown, _ = on_a_terminal(cli, server, "n\n", "run", "m.csv", *extra, redirected=redirected)
    assert (code, len(server.puts())) == (7, before)
    assert f"Change 2 images on {server.url}/zstack? [y/N, d shows the differences]" in shown
    assert "plan: 2 to update (name 2)" in shown or redirected in ("", "out")


@pytest.mark.parametrize("redirected", ["err", "both"])
def test_every_command_that_sends_asks_there_too(cli: Cli, server: Server, redirected: str) -> None:
    """run's canary, apply, retry and undo."""
    images = some_images(server, 6)
    cli.write("m.csv", manifest(images))
    code, shown, _ = on_a_terminal(cli, server, "y\nn\n", "run", "m.csv", "--canary", "2", redirected=redirected)
    assert (code, shown.count("? [y/N, d ")) == (7, 2)
    assert cli.summary()["counts"]["updated"] == 2
    cli.at(server)("plan", "m.csv", *FAST)
    before = len(server.puts())
    for command in (["apply", "last"], ["undo", cli.runs()[0]]):
        code, shown, _ = on_a_terminal(cli, server, "n\n", *command, redirected=redirected)
        assert (code, "? [y/N, d " in shown, len(server.puts())) == (7, True, before)


def test_a_manifest_typed_at_the_terminal_is_asked_about(cli: Cli, server: Server) -> None:
    typed = f"uuid,name\n{some_images(server, 1)[0]},typed {time.time()}\n\x04n\n"
    before = len(server.puts())
    code, shown, _ = on_a_terminal(cli, server, typed, "run", "-")
    assert (code, "? [y/N, d " in shown, len(server.puts())) == (7, True, before)


@pytest.mark.parametrize("command", ["run", "undo", "retry", "resume", "apply"])
def test_an_ignored_hangup_stays_ignored(cli: Cli, server: Server, command: str) -> None:
    images = some_images(server, 16)
    cli.write("m.csv", manifest(images))
    slow, here = ("--yes", "--rate", "25/s", "--concurrency", "4"), cli.at(server)
    words: tuple[str, ...] = ("run", "m.csv")
    if command == "undo":
        here("run", "m.csv", "--yes", *FAST)
        words = ("undo", "last")
    elif command == "apply":
        here("plan", "m.csv", *FAST)
        words = ("apply", "last")
    elif command in ("resume", "retry"):
        here("run", "m.csv", "--yes", "--max-duration", "500ms", "--rate", "10/s", code=6)
        words = (command, "last", "--max-duration", "1m")
    before = len(server.puts())
    process = here.start(*words, *slow, ignored=(signal.SIGHUP,), cold=command == "run")
    server.wait_for_put(before)
    process.send_signal(signal.SIGHUP)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert cli.summary()["counts"]["unprocessed"] == 0


def test_a_hangup_that_is_not_ignored_stops_the_run_resumable(cli: Cli, server: Server) -> None:
    cli.write("m.csv", manifest(some_images(server, 40)))
    before = len(server.puts())
    process = cli.at(server).start("run", "m.csv", "--yes", "--rate", "10/s")
    server.wait_for_put(before)
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    assert process.returncode == 143


# -- readers ------------------------------------------------------------------------------------------------------------

COLD = (
    ("run", "m.csv", "--yes", "--json"),
    ("check", "bad.csv"),
    ("export",),
    ("--help",),
)  # the interpreter's end counts


def read_a_little(cli: Cli, *arguments: str, cold: bool) -> tuple[int, str]:
    """Run a command whose standard output nobody reads. Returns its exit code and its standard error."""
    reader, writer = os.pipe()
    process = cli.start(*arguments, stdout=writer, cold=cold)
    os.close(writer)
    os.close(reader)
    _, err = process.communicate(timeout=60)
    return process.wait(), err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("run", "m.csv", "--yes", "--json"), 0),
        (("plan", "m.csv", "--detailed-exitcode"), 10),
        (("plan", "m.csv", "--json", "--detailed-exitcode"), 10),
        (("check", "bad.csv"), 3),
        (("check", "bad.csv", "--json"), 3),
        (("check", "m.csv", "--json"), 0),
        (("run", "m.csv", "-n"), 0),
        (("run", "bad.csv", "--json"), 3),
        (("runs",), 0),
        (("status", "last"), 0),
        (("status", "nothing", "--json"), 2),
        (("export",), 0),
        (("export", "--format", "jsonl"), 0),
        (("--help",), 0),
        (("run", "--help"), 0),
        (("--version",), 0),
        (("try", UUID, "--set", "name=x"), 0),
        (("verify", "last"), 0),
    ],
)  # fmt: skip
def test_a_reader_that_goes_away_changes_no_exit_code(
    cli: Cli, server: Server, words: tuple[str, ...], code: int
) -> None:
    cli.write("m.csv", manifest(some_images(server, 3)))
    cli.write("bad.csv", "uuid,name\n" + "x,y\n" * 600)
    if words[0] in ("runs", "status", "verify"):
        cli.at(server)("run", "m.csv", "--yes", *FAST)
    found, err = read_a_little(cli.at(server), *words, cold=words in COLD)
    assert (found, "Traceback" in err, "Exception ignored" in err) == (code, False, False), err


# -- forms --------------------------------------------------------------------------------------------------------------

TROUBLES: list[tuple[str, tuple[str, ...], int]] = [
    ("a good run", ("run", "m.csv", "--yes"), 0),
    ("plain progress", ("run", "m.csv", "--yes", "--progress", "plain"), 0),
    ("bar", ("run", "m.csv", "--yes", "--progress", "bar"), 0),
    ("problems", ("run", "bad.csv", "--yes"), 3),
    ("warnings", ("run", "warned.csv", "--yes"), 0),
    ("misuse", ("run", "m.csv", "--colour"), 2),
    ("wrong value", ("run", "m.csv", "--rate", "fast"), 2),
    ("missing file", ("run", "none.csv"), 3),
    ("missing job", ("run", "none.toml"), 2),
    ("unknown run", ("resume", "nothing"), 2),
    ("nothing to retry", ("retry", "done"), 0),
    ("nothing to resume", ("resume", "done"), 0),
    ("no server", ("run", "m.csv", "--yes", "--endpoint", "http://127.0.0.1:9"), 5),
    ("guard", ("run", "guarded.csv", "--yes", "--max-changes", "0"), 7),
    ("plan", ("plan", "m.csv"), 0),
    ("undo", ("undo", "done", "--yes"), 0),
    ("no arguments", ("run",), 2),
]


@pytest.fixture(scope="module")
def used(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """A folder with manifests, and a run called `done`."""
    cli = Cli(tmp_path_factory.mktemp("used"))
    cli.write("m.csv", manifest(some_images(server, 3)))
    cli.write("bad.csv", f"uuid,platform\n{UUID},Linx\n")
    cli.write("warned.csv", f"uuid,name\n{some_images(server, 1, 10)[0]},NULL\n,,\n".replace(",,\n", ",\n"))
    cli.write("guarded.csv", f"uuid,name\n{some_images(server, 1, 20)[0]},never sent\n")
    cli.at(server)("run", "m.csv", "--yes", "--run-id", "done", *FAST)
    return cli


@pytest.mark.parametrize(
    ("words", "code"), [(words, code) for _, words, code in TROUBLES], ids=[t[0] for t in TROUBLES]
)
@pytest.mark.parametrize("how", ["flag", "flag=", "variable"])
def test_log_format_json_is_json_in_every_line(
    used: Cli, server: Server, words: tuple[str, ...], code: int, how: str
) -> None:
    given: dict[str, Any] = {"BULKIMG_NO_SUCH_THING": "1"}
    if how == "variable":
        given["BULKIMG_LOG_FORMAT"] = "json"
    else:
        words += ("--log-format", "json") if how == "flag" else ("--log-format=json",)
    done = used.at(server)(*words, code=code, **given)
    lines = [json.loads(line) for line in done.err.splitlines()]
    assert all(isinstance(line, dict) for line in lines)
    assert lines or code == 0


@pytest.mark.parametrize(
    ("words", "code"),
    [(words, code) for name, words, code in TROUBLES if name != "no arguments"],
    ids=[t[0] for t in TROUBLES if t[0] != "no arguments"],
)
def test_json_is_always_exactly_one_document(used: Cli, server: Server, words: tuple[str, ...], code: int) -> None:
    done = used.at(server)(*words, "--json", code=code)
    document = done.json()
    assert document["schema"] == 1
    if code:
        assert document["exit_code"] == code
    if "error" in document:
        assert set(document["error"]) == {"code", "message", "hint"}
        assert document["error"]["message"]


def test_an_unknown_command_or_a_missing_one_is_a_document_too(cli: Cli) -> None:
    assert cli("runn", "--json", code=2).json()["error"]["code"] == "USAGE"
    assert cli("--json", code=2).json()["exit_code"] == 2


@pytest.mark.parametrize("how", ["-q", "--quiet", "variable", "job"])
def test_quiet_says_nothing_when_all_is_well_and_everything_when_it_is_not(cli: Cli, server: Server, how: str) -> None:
    cli.write("m.csv", manifest(some_images(server, 2)) + ",\n")
    cli.write("job.toml", '[job]\nmanifest = "m.csv"\n[run]\nyes = true\nquiet = true\n')
    source = "job.toml" if how == "job" else "m.csv"
    flags = (how,) if how.startswith("-") else ()
    given: dict[str, Any] = {"BULKIMG_QUIET": "1"} if how == "variable" else {}
    given["BULKIMG_NO_SUCH_THING"] = "1"
    assert cli.at(server)("run", source, "--yes", *flags, *FAST, **given).err == ""
    done = cli.at(server)("run", source, "--yes", *flags, "--max-changes", "0", *FAST, **given)
    assert done.err == "", "nothing changes any more"
    cli.write("m.csv", f"uuid,name\n{UUID},x\n")
    done = cli.at(server)("run", source, "--yes", *flags, *FAST, code=1, **given)
    assert "1 failed" in done.err
    assert "NO_SUCH_THING" in done.err
    assert "cannot be read" in cli.at(server)("run", "none.csv", "-q", code=3).err
