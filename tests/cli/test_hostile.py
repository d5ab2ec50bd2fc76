"""Faults that a hostile reviewer found once."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_commands import manifest, some_images
from tests.conftest import UUID, Cli, Server


def test_a_run_with_map_and_set_can_be_resumed_and_retried(cli: Cli, server: Server) -> None:
    images = some_images(server, 40)
    cli.write("m.csv", "id,title\n" + "".join(f"{uuid},t{n}\n" for n, uuid in enumerate([*images, "0" * 32])))
    options = [
        "--map",
        "id=uuid",
        "--map",
        "title=name",
        "--set",
        "description={title}, kept",
        "--allow-value",
        "format=vhd",
    ]
    before = len(server.puts())
    process = cli.at(server).start("run", "m.csv", "--yes", "--rate", "20/s", "--progress", "none", *options)
    server.wait_for_put(before)
    process.kill()
    process.communicate()
    cli.at(server)("resume", "last", "--rate", "unlimited", code=1)
    assert server.images()[images[39]]["description"] == "t39, kept"
    cli.at(server)("retry", "last", code=1)
    assert [row["code"] for row in cli.results()] == ["NO_SUCH_IMAGE"]


def test_nobody_has_to_read_standard_error(cli: Cli, server: Server) -> None:
    """A closed or full message stream neither stops a run nor changes its exit code."""
    cli.write("m.csv", manifest(some_images(server, 60)))
    for arguments in (["--progress", "json", "-v"], ["--progress", "plain", "-v"]):
        process = cli.at(server).start("run", "m.csv", "--yes", "--rate", "unlimited", *arguments)
        assert process.stderr is not None
        process.stderr.close()
        assert process.wait(60) == 0
        assert process.stdout is not None
        process.stdout.close()
        counts = cli.summary()["counts"]
        assert counts["updated"] + counts["unchanged"] == 60
    with Path("/dev/full").open("w") as full:
        process = cli.at(server).start("run", "m.csv", "--yes", "--rate", "unlimited", stderr=full.fileno())
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_messages_that_nobody_can_read_are_not_put_among_the_results(cli: Cli, server: Server) -> None:
    """If it was closed before the start, there is no standard error, and `print` would use standard output."""
    cli.write("m.csv", manifest(some_images(server, 2)))
    words = ("run", "m.csv", "--yes", "--rate", "unlimited", "--json")
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -m bulkimg "$@" 2>&-', sys.executable, *words],
        cwd=cli.place,
        env=cli.at(server).env(),
        stdout=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert json.loads(done.stdout)["counts"]["updated"] == 2


def test_a_full_standard_output_is_one_sentence(cli: Cli, server: Server) -> None:
    cli.write("m.csv", manifest(some_images(server, 2)))
    with Path("/dev/full").open("w") as full:
        process = cli.at(server).start("run", "m.csv", "--yes", "--json", stdout=full.fileno(), cold=True)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, "No space left on device" in err, "Traceback" in err) == (8, True, False)


def test_another_profile_cannot_move_a_runs_target(cli: Cli, server: Server) -> None:
    cli.write("m.csv", manifest(some_images(server, 2)))
    cli("run", "m.csv", "--yes", code=5, BULKIMG_ENDPOINT="http://127.0.0.1:9", BULKIMG_SESSION="x")
    (cli.place / "config" / "bulkimg").mkdir(parents=True)
    profile = f'[profile.other]\nendpoint = "{server.url}"\nbase_path = "/elsewhere"\naccount = "admin"\npassword_command = ["echo", "password"]\n'
    cli.write("config/bulkimg/config.toml", profile)
    before = len(server.requests())
    assert "the run's target is http://127.0.0.1:9" in cli("resume", "last", "--profile", "other", code=2).err
    cli.write("config/bulkimg/config.toml", profile.replace(f'endpoint = "{server.url}"\n', ""))
    cli("resume", "last", "--profile", "other", code=5)
    assert json.loads((cli.run_dir() / "summary.json").read_text())["target"] == "http://127.0.0.1:9/zstack"
    assert len(server.requests()) == before


@pytest.mark.parametrize(
    "credentials", [{"BULKIMG_PASSWORD": "bad"}, {"BULKIMG_PASSWORD": "bad", "BULKIMG_ENDPOINT": "http://127.0.0.1:9"}]
)
def test_a_failed_login_leaves_outcomes_and_a_document(cli: Cli, server: Server, credentials: dict[str, str]) -> None:
    cli.write("m.csv", manifest(some_images(server, 4)))
    environment: dict[str, Any] = {"BULKIMG_ENDPOINT": server.url, "BULKIMG_ACCOUNT": "admin", **credentials}
    found = cli("run", "m.csv", "--yes", "--json", code=5, **environment).json()
    assert (found["counts"]["unprocessed"], found["next"]) == (4, "bulkimg run m.csv --yes --json")
    assert len((cli.run_dir() / "unprocessed.csv").read_text().splitlines()) == 5


@pytest.mark.parametrize(
    ("line", "options", "words"),
    [
        ({"uuid": UUID, "name": "a"}, ["--where", "plattform!=Linux"], "no row has this key, but --where names it"),
        ({"uuid": UUID, "name": "a"}, ["--map", "titel=name"], "no row has this key, but --map names it"),
        ({"uuid": UUID, "name": "a", "title": "b"}, ["--map", "title=name"], "sets name, as another key does"),
        ({"uuid": UUID, "name": "a", "id": "f" * 32}, ["--map", "id=uuid"], "sets uuid, as another key does"),
        ({"uuid": UUID, "name": "x", "if_name": "\ud800"}, [], "half a surrogate pair"),
    ],
)
def test_jsonl_is_as_strict_as_csv(cli: Cli, line: dict[str, str], options: list[str], words: str) -> None:
    cli.write("m.jsonl", json.dumps(line) + "\n")
    assert words in cli("check", "m.jsonl", *options, code=3).out


def test_results_never_replace_the_manifest_however_it_came(cli: Cli, server: Server) -> None:
    text = manifest(some_images(server, 2))
    cli.write("in.csv", text)
    with (cli.place / "in.csv").open() as stdin:
        process = cli.at(server).start("run", "-", "--results", "in.csv", stdin=stdin.fileno())
    process.communicate(timeout=60)
    assert process.returncode == 2
    cli("run", "in.csv", "--yes", code=5, BULKIMG_ENDPOINT="http://127.0.0.1:9", BULKIMG_SESSION="x")
    cli("resume", "last", "--results", "in.csv", code=2, BULKIMG_SESSION="x")
    cli("resume", "last", "--results", "foo.txt", code=2, BULKIMG_SESSION="x")
    assert (cli.place / "in.csv").read_text() == text


def test_a_run_without_a_header_does_not_hide_the_others(cli: Cli) -> None:
    from bulkimg.ledger import Ledger

    place = cli.place / "runs" / "20260101-000000.000-aaaa"
    place.mkdir(parents=True)
    Ledger.create(place / "run.db").close()
    assert "abandoned" in cli("runs").out
    assert "next:" not in cli("status").out
    assert "ended before its manifest was read" in cli("resume", "last", code=7, BULKIMG_SESSION="x").err


def test_a_dry_run_that_was_asked_for_is_not_passed_over(cli: Cli, server: Server) -> None:
    cli.write("m.csv", f"uuid,name\n{'0' * 32},a\n")
    cli.at(server)("run", "m.csv", "--yes", code=1)
    before = len(server.requests())
    for command in (["retry", "last"], ["resume", "last"], ["try", UUID, "--set", "name=x", "--send"]):
        assert "has no dry run" in cli.at(server)(*command, code=2, BULKIMG_DRY_RUN="1").err
    assert len(server.requests()) == before


@pytest.mark.parametrize("value", ["description=", "name=", "name={name}-2026"])
def test_try_and_set_refuse_what_would_change_nothing_or_nonsense(cli: Cli, server: Server, value: str) -> None:
    assert cli.at(server)("try", UUID, "--set", value, "--send", code=2).err
    if value.endswith("="):
        cli.write("m.csv", f"uuid\n{UUID}\n")
        assert "a blank value leaves the field unchanged" in cli("check", "m.csv", "--set", value, code=2).err


@pytest.mark.parametrize(
    "table",
    ["session_command = 5", 'session_command = " "', "session_file = true", "where = 5", "map = [1]", "set = 3", "results = 5", "ca_file = 7",
     "runs_dir = 5", "manifest = 'x'"],
)  # fmt: skip
def test_wrong_types_in_a_profile_are_a_sentence(cli: Cli, table: str) -> None:
    cli.write("m.csv", f"uuid,name\n{UUID},a\n")
    (cli.place / "config" / "bulkimg").mkdir(parents=True)
    cli.write("config/bulkimg/config.toml", f"[profile.p]\nendpoint = 'http://127.0.0.1:9'\n{table}\n")
    cli("run", "m.csv", "--yes", "--profile", "p", code=2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--endpoint", "http://bob:S3cret@host"], "//…@host"),
        (["--endpoint", "http://a..b"], "is not a URL"),
        (["--endpoint", "http://host:0"], "port 0"),
        (["--timeout", "9" * 400], "is not a duration"),
        (["--rate", "9" * 400], "is not a rate"),
        (["--encoding", "rot13"], "is not a known encoding"),
    ],
)
def test_options_that_no_client_can_use(cli: Cli, arguments: list[str], words: str) -> None:
    cli.write("m.csv", f"uuid,name\n{UUID},a\n")
    done = cli("run", "m.csv", "--yes", *arguments, code=2, BULKIMG_SESSION="x")
    assert words in done.err
    assert "S3cret" not in done.err
    assert len(done.err) < 400


def test_a_file_name_that_is_not_utf_8(cli: Cli, server: Server) -> None:
    name = os.fsdecode(b"m\xff.csv")
    (cli.place / name).write_text(manifest(some_images(server, 2)))
    cli.at(server)("run", name, "--yes")
    assert "2" in cli("runs").out


def test_finding_the_delimiter_is_never_slow(cli: Cli) -> None:
    cells = "".join(f'{n:032x},"{("a " * 900)}"\n' for n in range(50))
    cli.write("m.csv", "uuid,description\n" + cells.replace("a ", "'a "))
    cli.write("n.csv", "uuid,name\n" + UUID + "," + '"a ' * 100_000 + "\n")
    begun = time.monotonic()
    cli("check", "m.csv", code=3)
    cli("check", "n.csv", code=3)
    assert time.monotonic() - begun < 20


def test_many_contradicting_rows_do_not_cost_their_square(cli: Cli) -> None:
    cli.write("m.csv", "uuid,name\n" + "".join(f"{UUID},n{n}\n" for n in range(4000)))
    assert len(cli("check", "m.csv", code=3).out) < 2_000_000


def test_retry_of_nothing_leaves_no_run(cli: Cli, server: Server) -> None:
    cli.write("m.csv", manifest(some_images(server, 1)))
    cli.at(server)("run", "m.csv", "--yes")
    run = cli.run_dir()
    cli.at(server)("retry", "last")
    assert cli.run_dir() == run
