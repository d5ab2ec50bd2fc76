"""The commands: what they print and where, the precedence of options, and help that is quick and complete."""

import inspect
import itertools
import json
import re
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bulkimg.cli.main import COMMANDS
from bulkimg.cli.options import OPTIONS
from bulkimg.errors import UsageError
from bulkimg.process import OTHER_FILES, allow_files
from bulkimg.settings import Settings
from tests.cli.terminal import on_a_terminal
from tests.conftest import ROOT, UUID, Cli, Server


def some_images(server: Server, count: int, start: int = 0) -> list[str]:
    return sorted(server.images())[start : start + count]


_times = itertools.count()


def manifest(images: list[str], text: str = "renamed {n}") -> str:
    """Make a manifest with a new name for every image, each time another one."""
    text += f" {next(_times)}"
    return "uuid,name\n" + "".join(f"{image},{text.format(n=n)}\n" for n, image in enumerate(images))


def test_help_imports_neither_the_http_client_nor_the_models() -> None:
    """So `bulkimg --help` takes less than 0.3 s. No time is asserted here."""
    code = (
        "import sys\nsys.argv = ['bulkimg', '--help']\nfrom bulkimg.cli.main import main\n"
        "try: main()\nexcept SystemExit: pass\nprint(sorted({'aiohttp', 'rich', 'sqlite3', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_is_no_coroutine(cli: Cli, command: str) -> None:
    done = cli(command, "--help")
    assert COMMANDS[command][1].split(".")[0][:40] in " ".join(done.out.split())
    module = __import__(f"bulkimg.cli.{COMMANDS[command][0]}", fromlist=["command"])
    assert not inspect.iscoroutinefunction(module.command)  # typer would not run it, and exit 0


def test_every_option_is_a_setting() -> None:
    names = {field.alias or name for name, field in Settings.model_fields.items()}
    assert set(OPTIONS) <= names


def test_precedence_is_flag_environment_job_file_profile_default(cli: Cli, server: Server) -> None:
    images = some_images(server, 1)
    cli.write("m.csv", manifest(images))
    (cli.place / "config" / "bulkimg").mkdir(parents=True)
    cli.write(
        "config/bulkimg/config.toml",
        f'[profile.p]\nendpoint = "{server.url}"\nrate = "11/s"\nconcurrency = 3\nretries = 1\n',
    )
    cli.write(
        "job.toml", '[job]\nmanifest = "m.csv"\n[target]\nprofile = "p"\n[pace]\nrate = "22/s"\nconcurrency = 4\n'
    )
    session: dict[str, Any] = {"BULKIMG_SESSION": server.session}

    def pace(*arguments: str, **environment: Any) -> tuple[float | str, int]:
        found = cli("run", "job.toml", "--yes", "--json", *arguments, **session, **environment).json()["pace"]
        return found["rate_cap"], found["concurrency"]

    assert pace() == (22.0, 4)
    assert pace(BULKIMG_RATE="33/s") == (33.0, 4)
    assert pace("--rate", "44/s", BULKIMG_RATE="33/s") == (44.0, 4)
    assert cli("run", "m.csv", "--yes", "--json", "--profile", "p", **session).json()["pace"]["rate_cap"] == 11.0


def test_the_profile_gets_its_password_from_a_command(cli: Cli, server: Server) -> None:
    cli.write("m.csv", manifest(some_images(server, 2)))
    (cli.place / "config" / "bulkimg").mkdir(parents=True)
    table = f'[profile.p]\nendpoint = "{server.url}"\naccount = "admin"\npassword_command = ["printf", "password"]\n'
    cli.write("config/bulkimg/config.toml", table)
    cli("run", "m.csv", "--yes", "--profile", "p")
    paths = [request["path"].rsplit("/", 1)[-1] for request in server.requests()]
    assert paths.count("login") >= 1
    cli.write(
        "config/bulkimg/config.toml",
        table.replace('password_command = ["printf", "password"]', 'password = "password"'),
    )
    assert "in plain text" in cli("run", "m.csv", "--yes", "--profile", "p", code=2).err


def test_standard_output_is_one_json_document(cli: Cli, server: Server) -> None:
    cli.write("m.csv", manifest(some_images(server, 3)))
    done = cli.at(server)("run", "m.csv", "--yes", "--json", "--progress", "json", "--log-format", "json")
    summary = done.json()
    assert summary == cli.summary()
    assert summary["counts"]["updated"] == 3
    assert all(json.loads(line) for line in done.err.splitlines())


def test_a_manifest_on_standard_input(cli: Cli, server: Server) -> None:
    images = some_images(server, 3)
    done = cli.at(server)("run", "-", "--json", stdin=manifest(images))
    assert done.json()["counts"]["updated"] == 3
    text = "".join(json.dumps({"uuid": image, "name": "from a pipe"}) + "\n" for image in images)
    assert cli.at(server)("run", "-", "--format", "jsonl", "--json", stdin=text).json()["counts"]["updated"] == 3


def test_a_dry_run_and_a_check_send_nothing_and_leave_nothing(cli: Cli, server: Server) -> None:
    cli.write("m.csv", manifest(some_images(server, 8)))
    before = len(server.requests())
    done = cli.at(server)("run", "m.csv", "-n")
    assert "8 rows would be sent; nothing was sent (dry run)" in done.out
    assert "8 rows, all valid" in cli("check", "m.csv").err
    assert len(server.requests()) == before
    assert not (cli.place / "runs").exists()


def test_on_a_terminal_it_asks_and_shows_a_bar(cli: Cli, server: Server) -> None:
    cli.write("m.csv", manifest(some_images(server, 5)))
    before = len(server.puts())
    code, shown, _ = on_a_terminal(cli, server, "n\n", "run", "m.csv", cold=True)
    assert (code, len(server.puts())) == (7, before)
    assert f"Change 5 images on {server.url}/zstack? [y/N, d shows the differences]" in shown
    assert "nothing was sent" in shown
    assert f"bulkimg apply {cli.runs()[-1]}" in shown
    code, shown, _ = on_a_terminal(cli, server, "y\n", "run", "m.csv")
    assert (code, len(server.puts()) > before) == (0, True)
    assert "5/5" in shown
    assert "━" in shown


PLAN = {"plan.csv", "plan.html"}


def plan_files(cli: Cli) -> set[str]:
    return PLAN & {path.name for path in cli.run_dir().iterdir()}


def test_a_plan_is_written_where_somebody_looks_at_it(cli: Cli, server: Server) -> None:
    """Not by a run that asks nobody.

    `plan` writes it, `apply` keeps its files, and a run that a guard refuses writes it.
    """
    uuids = some_images(server, 3)
    here = cli.at(server)
    cli.write("m.csv", manifest(uuids))
    here("run", "m.csv", "--yes", code=0)
    assert plan_files(cli) == set()
    here("undo", "last", "--yes", code=0)
    assert plan_files(cli) == set()
    here("run", "m.csv", "--yes", "--max-changes", "1", code=7)
    assert plan_files(cli) == PLAN
    here("plan", "m.csv", code=0)
    assert plan_files(cli) == PLAN
    before = {name: (cli.run_dir() / name).stat().st_mtime_ns for name in PLAN}
    here("apply", "last", "--yes", code=0)
    assert {name: (cli.run_dir() / name).stat().st_mtime_ns for name in PLAN} == before


@pytest.mark.parametrize("flags", [(), ("--no-survey",)])
def test_a_question_comes_with_the_plan(cli: Cli, server: Server, flags: tuple[str, ...]) -> None:
    cli.write("m.csv", manifest(some_images(server, 3)))
    on_a_terminal(cli, server, "n\n", "run", "m.csv", *flags)
    assert plan_files(cli) == PLAN


def test_a_difference_after_the_canary_makes_the_plan_that_nobody_has_looked_at(cli: Cli, server: Server) -> None:
    cli.write("m.csv", manifest(some_images(server, 9)))
    on_a_terminal(cli, server, "y\nn\n", "run", "m.csv", "--canary", "3")
    for name in PLAN:
        (cli.run_dir() / name).unlink()
    _, shown, _ = on_a_terminal(cli, server, "d\nn\n", "resume", "last")
    assert f"all of them: runs/{cli.runs()[-1]}/plan.html" in shown
    assert plan_files(cli) == PLAN


def test_on_a_terminal_it_asks_again_after_the_canary(cli: Cli, server: Server) -> None:
    """The question is visible, and text that was typed ahead is understood."""
    cli.write("m.csv", manifest(some_images(server, 12)))
    before = len(server.puts())
    code, shown, _ = on_a_terminal(cli, server, "y\nn\n", "run", "m.csv", "--canary", "3")
    assert f"Send the other 9 to {server.url}/zstack?" in shown
    assert "nothing more was sent" in shown
    assert code == 7
    assert len(server.puts()) - before <= 4  # one more to find out the action key
    code, shown, _ = on_a_terminal(cli, server, "y\n", "resume", "last")
    assert f"Send the other 9 to {server.url}/zstack?" in shown, "no is not forgotten"
    assert code == 0


def test_a_misspelled_variable_is_told(cli: Cli, server: Server) -> None:
    cli.write("m.csv", manifest(some_images(server, 1)))
    done = cli.at(server)("run", "m.csv", "--yes", BULKIMG_MAX_CHANGE="3")
    said = "BULKIMG_MAX_CHANGE is not a variable of bulkimg and is ignored; did you mean 'BULKIMG_MAX_CHANGES'?"
    assert said in done.err
    assert "warning" not in cli.at(server)("run", "m.csv", "--yes", BULKIMG_MAX_CHANGES="3").err


def test_status_and_runs_tell_of_living_and_finished_runs(cli: Cli, server: Server) -> None:
    images = some_images(server, 60)
    cli.write("m.csv", manifest(images))
    before, until = len(server.puts()), time.monotonic() + 60
    process = cli.at(server).start("run", "m.csv", "--yes", "--rate", "10/s", "--concurrency", "4")
    server.wait_for_put(before)
    while not (living := cli("status", "--json").json())["counts"]["updated"]:
        assert time.monotonic() < until
    assert (living["state"], living["running"]) == ("running", True)
    assert 0 < living["counts"]["updated"] < 60
    assert cli.at(server)("resume", "last", code=7).err.count("another process") == 1
    cli("ctl", "last", "rate=unlimited")
    process.communicate(timeout=60)
    assert cli("status", "--json").json()["state"] == "done"
    assert "done" in cli("runs").out
    assert [run["rows"] for run in cli("runs", "--json").json()] == [60]


def test_try_shows_a_curl_without_the_secret_and_sends_on_request(cli: Cli, server: Server) -> None:
    image = some_images(server, 1)[0]
    before = len(server.requests())
    done = cli.at(server)("try", image.upper(), "--set", "name=it's new")
    assert "curl -X PUT" in done.out
    assert f"/zstack/v1/images/{image}/actions" in done.out
    assert server.session not in done.out
    assert len(server.requests()) == before
    sent = cli.at(server)("try", image, "--set", "name=tried", "--send")
    assert json.loads(sent.out)["inventory"]["name"] == "tried"
    assert server.images()[image]["name"] == "tried"
    assert cli.at(server)("try", UUID, "--set", "name=x", "--send", code=1).out.count("SYS.1003") == 1


def test_the_jobs_run_as_they_stand_against_the_sandbox(cli: Cli, server: Server) -> None:
    """Only the port differs here, because 8080 may be in use. Of several targets only one is there."""
    least = {"from-sql.toml": 10, "regions.toml": 5}
    for job in sorted((ROOT / "jobs").glob("*.toml")):
        options = ["--yes", "--json", "--rate", "unlimited", "--results", "r.jsonl", "--endpoint", server.url]
        options += ["--targets", "eu"] if job.name == "regions.toml" else []
        counts = cli.at(server)("run", str(job), *options).json()["counts"]
        assert counts["updated"] + counts["unchanged"] >= least.get(job.name, 40), job.name


def test_the_sample_of_mistakes_has_each_found(cli: Cli) -> None:
    done = cli("check", str(ROOT / "samples" / "mistakes.csv"), "--json", code=3).json()
    assert [problem["line"] for problem in done["problems"]] == [3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    assert all(problem["fix"] for problem in done["problems"])


def test_a_port_in_use_is_said(cli: Cli, server: Server) -> None:
    port = server.url.rsplit(":", 1)[1]
    assert f"port {port} on 127.0.0.1" in cli("sandbox", "--port", port, code=2).err
    assert "kinds are" in cli("sandbox", "--faults", "fire=1%", code=2).err


def test_a_closed_pipe_is_no_traceback(cli: Cli) -> None:
    cli.write("bad.csv", "uuid,name\n" + "x,y\n" * 20000)
    process = cli.start("check", "bad.csv")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    process.wait(30)


def test_the_readme_names_every_command() -> None:
    text = (ROOT / "README.md").read_text("utf-8").partition("\n## Commands\n")[2].partition("\n## ")[0]
    named = [name for row in re.findall(r"^\|(.*?)\|", text, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(COMMANDS)
    assert Path(ROOT / "CHANGELOG.md").exists()


def test_a_connection_for_each_row_needs_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    hard = 20 + OTHER_FILES
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (hard, hard))
    allow_files(20)
    with pytest.raises(UsageError, match=f"21 rows in flight need {hard + 1}, but.*lower --concurrency to 20"):
        allow_files(21)


@pytest.mark.parametrize(("limits", "code"), [("ulimit -n 40", 2), ("ulimit -Sn 40", 0), ("ulimit -n 8", 8)])
def test_too_few_open_files_are_raised_or_said(cli: Cli, server: Server, limits: str, code: int) -> None:
    """A soft limit is raised.

    A hard limit that is too low for the concurrency is an error with the number that would do.
    """
    cli.write("m.csv", manifest(some_images(server, 30)))
    words = ("run", "m.csv", "--yes", "--rate", "unlimited", "--concurrency", "20")
    done = subprocess.run(
        ["sh", "-c", f'{limits}; exec "$0" -m bulkimg "$@"', sys.executable, *words],
        cwd=cli.place,
        env=cli.at(server).env(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    if code == 2:
        assert (
            "too few open files: 20 rows in flight need 52, but the system allows 40; lower --concurrency to 8"
            in done.stderr
        )
        cli.at(server)("resume", "last", code=0)
