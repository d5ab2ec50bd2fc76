"""Bad input gets one clear sentence, the right exit code, and nothing sent."""

import json
import os
from typing import Any

import pytest

from tests.conftest import UUID, Cli, Server

GOOD = f"uuid,name\n{UUID},a\n"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("none.csv", None, "none.csv: cannot be read: No such file or directory"),
        ("empty.csv", "", "the manifest has no rows"),
        ("head.csv", "uuid,name\n", "the manifest has no rows"),
        ("col.csv", f"uuid,nmae\n{UUID},a\n", "did you mean 'name'?"),
        ("uuid.csv", "uuid,name\n../../accounts/login,a\n", "is not an image uuid"),
        ("full.csv", f"uuid,name\n{UUID[:-1]}０,a\n", "is not an image uuid"),
        ("newline.csv", f'uuid,name\n"{UUID}\n",a\n', "is not an image uuid"),
        ("enum.csv", f"uuid,platform\n{UUID},Linx\n", "enum.csv:2: platform 'Linx': is not one of Linux"),
        ("long.csv", f"uuid,name\n{UUID},{'x' * 256}\n", "is 256 characters long; the limit is 255"),
        ("twice.csv", f"uuid,name\n{UUID},a\n{UUID.upper()},b\n", "line 3 sets another value of name"),
        (
            "enc.csv",
            b"uuid,name\n" + UUID.encode() + b",\xff\xfe\n",
            "contains bytes that are not valid in this encoding",
        ),
        ("cut.csv.gz", b"\x1f\x8b\x08\x00\x00\x00\x00\x00", "gzip data"),
    ],
)
def test_a_bad_manifest_exits_3(cli: Cli, server: Server, name: str, text: str | bytes | None, words: str) -> None:
    before = len(server.requests())
    if text is not None:
        cli.write(name, text)
    done = cli.at(server)("run", name, "--yes", code=3)
    assert words in done.err
    assert len(server.requests()) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "name={nmae}"], "did you mean 'name'?"),
        (["--set", "nmae=x"], "did you mean 'name'?"),
        (["--rate", "fast"], "--rate 'fast' is not a rate"),
        (["--concurrency", "0"], "--concurrency '0' is not valid: input should be greater than or equal to 1"),
        (["--endpoint", "127.0.0.1:8080"], "is not a URL; write the scheme"),
        (["--endpoint", "http://h/zstack"], "give the context path with --base-path"),
        (["--endpoint", "http://u:p@h"], "contains a user name or password"),
        (["--encoding", "klingon"], "is not a known encoding"),
        (["--progress", "loud"], "is not one of 'auto', 'bar', 'plain', 'json' or 'none'"),
        (["--max-errors", "150%"], "is not a limit"),
        (["--results", "good.csv"], "this is the manifest, and the results would overwrite it"),
        (["--results", "good.txt"], "end it in .csv, .jsonl, .xlsx or .parquet"),
        (["--profile", "prod"], "create it with a table [profile.prod]"),
        (["--ca-file", "none.pem"], "--ca-file none.pem: cannot be used"),
        (["--colour"], "No such option"),
    ],
)
def test_a_bad_option_exits_2(cli: Cli, server: Server, arguments: list[str], words: str) -> None:
    cli.write("good.csv", GOOD)
    before = len(server.requests())
    done = cli.at(server)("run", "good.csv", "--yes", *arguments, code=2)
    assert words in done.err
    assert len(server.requests()) == before


def test_a_wrong_environment_variable_is_named(cli: Cli, server: Server) -> None:
    cli.write("good.csv", GOOD)
    assert (
        "BULKIMG_TIMEOUT 'soon' is not a duration"
        in cli.at(server)("run", "good.csv", code=2, BULKIMG_TIMEOUT="soon").err
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "[job]\nmanifest = 'good.csv'\n[pace]\nratte = 5\n",
            "job.toml:4: unknown option 'ratte' in [pace]; did you mean 'rate'?",
        ),
        ("[jobb]\nmanifest = 'good.csv'\n", "job.toml:1: unknown table [jobb]; did you mean 'job'?"),
        ("[job]\nname = 'x'\n", "has no manifest"),
        ("[job\n", "is not TOML"),
        ("[job]\nmanifest = 'good.csv'\n[pace]\nrate = 'x'\n", "job.toml:4: [pace] rate = 'x' is not a rate"),
        ("[job]\nmanifest = 'good.csv'\n[set]\nnmae = 'x'\n", "did you mean 'name'?"),
    ],
)
def test_a_bad_job_file_exits_2_with_its_line(cli: Cli, server: Server, text: str, words: str) -> None:
    cli.write("good.csv", GOOD)
    cli.write("job.toml", text)
    assert words in cli.at(server)("run", "job.toml", "--yes", code=2).err


def test_credentials_come_from_private_places_and_one_kind_at_a_time(cli: Cli) -> None:
    cli.write("good.csv", GOOD)
    secret = cli.place / "secret"
    secret.write_text("hush")
    secret.chmod(0o644)
    target: dict[str, Any] = {"BULKIMG_ENDPOINT": "http://127.0.0.1:9"}
    assert "no credentials found; set BULKIMG_SESSION" in cli("run", "good.csv", code=2, **target).err
    told = cli("run", "good.csv", code=2, BULKIMG_ACCOUNT="admin", BULKIMG_PASSWORD_FILE=str(secret), **target).err
    assert "is readable by all users (mode 0644); run chmod 600 on it" in told
    assert "hush" not in told
    both = cli("run", "good.csv", code=2, BULKIMG_SESSION="a", BULKIMG_ACCOUNT="b", BULKIMG_PASSWORD="c", **target).err
    assert "are set at the same time" in both
    assert "BULKIMG_PASSWORD is not set" in cli("run", "good.csv", code=2, BULKIMG_ACCOUNT="b", **target).err
    assert not (cli.place / "runs").exists()


def test_no_endpoint_is_said(cli: Cli) -> None:
    cli.write("good.csv", GOOD)
    assert "no server: give --endpoint URL" in cli("run", "good.csv", code=2, BULKIMG_SESSION="x").err


def test_a_server_that_is_not_there_exits_5_with_every_row_unprocessed(cli: Cli) -> None:
    cli.write("good.csv", GOOD)
    for credentials in ({"BULKIMG_SESSION": "x"}, {"BULKIMG_ACCOUNT": "a", "BULKIMG_PASSWORD": "p"}):
        done = cli("run", "good.csv", "--yes", code=5, BULKIMG_ENDPOINT="http://127.0.0.1:9", **credentials)
        assert "Connection refused" in done.err
        assert [row["status"] for row in cli.results()] == ["unprocessed"]
        assert "next:    bulkimg run good.csv --yes\n" in done.err


def test_a_wrong_password_exits_5_and_is_tried_once(cli: Cli, server: Server) -> None:
    cli.write("good.csv", GOOD)
    before = len(server.requests())
    credentials: dict[str, Any] = {
        "BULKIMG_ENDPOINT": server.url,
        "BULKIMG_ACCOUNT": "admin",
        "BULKIMG_PASSWORD": "wrong-secret",
    }
    done = cli("run", "good.csv", "--yes", code=5, **credentials)
    assert "refused the login of account 'admin': ID.1000" in done.err
    assert len(server.requests()) - before == 1
    assert "wrong-secret" not in done.err


def test_expectations_are_not_passed_over(cli: Cli, server: Server) -> None:
    """Without a survey, no `if_` value can be compared: nothing is sent."""
    cli.write("if.csv", f"uuid,name,if_name\n{UUID},a,b\n")
    before = len(server.requests())
    assert (
        "if_ columns need the images' present values"
        in cli.at(server)("run", "if.csv", "--yes", "--no-survey", code=3).err
    )
    assert len(server.requests()) == before


def test_outputs_that_cannot_be_written_exit_8_before_anything_is_sent(cli: Cli, server: Server) -> None:
    cli.write("good.csv", GOOD)
    before = len(server.requests())
    for arguments in (
        ["--runs-dir", "/proc/bulkimg"],
        ["--results", "missing/results.csv"],
        ["--results", "/proc/results.csv"],
    ):
        done = cli.at(server)("run", "good.csv", "--yes", *arguments, code=8)
        assert len(done.err.strip().splitlines()) == 1
    assert len(server.requests()) == before


def test_results_replace_a_plain_file_and_nothing_else(cli: Cli, server: Server) -> None:
    cli.write("good.csv", GOOD)
    before = len(server.requests())
    (cli.place / "link.csv").symlink_to("elsewhere.csv")
    os.mkfifo(cli.place / "pipe.csv")
    for name in ("link.csv", "pipe.csv"):
        assert "not a regular file" in cli.at(server)("run", "good.csv", "--yes", "--results", name, code=2).err
    assert not (cli.place / "elsewhere.csv").exists()
    assert len(server.requests()) == before


def test_all_problems_are_listed_capped_on_the_screen_and_whole_in_the_results(cli: Cli, server: Server) -> None:
    cli.write("bad.csv", "uuid,name\n" + "".join(f"{n},x\n" for n in range(500)) + f"{UUID},good\n")
    done = cli.at(server)("run", "bad.csv", "--yes", code=3)
    assert "… and 480 more" in done.err
    assert len(done.err.splitlines()) < 30
    results = cli.results()
    assert [row["status"] for row in results] == ["invalid"] * 500 + ["unprocessed"]
    assert results[7]["line"] == 9
    assert "'7': is not an image uuid" in results[7]["message"]
    found = json.loads(cli("check", "bad.csv", "--json", code=3).out)
    assert (found["rows"], len(found["problems"])) == (501, 500)
    assert {"line": 9, "column": "uuid", "value": "7"}.items() <= found["problems"][7].items()


def test_hostile_texts_reach_the_terminal_written_out(cli: Cli) -> None:
    """No byte that a terminal obeys, and one line for each problem."""
    rows = ["\x1b]0;pwned\x07", "\x9b2J", "\u202egnp.exe", "a\u2028b", "\x7f", "\u0085"]
    cli.write("hostile.csv", "uuid,name\n" + "".join(f"{text}x,name\n" for text in rows))
    done = cli("check", "hostile.csv", code=3)
    assert len(done.out.splitlines()) == len(rows)
    assert not any(
        (char < " " and char != "\n") or "\x7f" <= char <= "\x9f" or char in "\u202e\u2028" for char in done.out
    )
