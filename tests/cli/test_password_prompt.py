"""A password is asked for if an account has none and a person can type it. It is never shown."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.terminal import on_a_terminal
from tests.cli.test_commands import manifest, some_images
from tests.conftest import Cli, Server

ACCOUNT: dict[str, Any] = {"BULKIMG_ACCOUNT": "admin", "BULKIMG_SESSION": ""}
MISSING = "BULKIMG_PASSWORD is not set, but BULKIMG_ACCOUNT is"


def answering(
    cli: Cli, server: Server, answer: str, *words: str, redirected: str = "", **environment: Any
) -> tuple[int, str, str]:
    """Run at a terminal and type a line after each question."""
    return on_a_terminal(cli, server, answer, *words, ahead=False, redirected=redirected, **environment)


def kept(place: Path) -> str:
    """Return everything that was written below a folder, as text."""
    return "".join(path.read_bytes().decode("latin-1") for path in place.rglob("*") if path.is_file())


def test_a_password_is_asked_for_and_not_echoed(cli: Cli, server: Server) -> None:
    cli.write("m.csv", manifest(some_images(server, 2)))
    code, shown, _ = answering(cli, server, "password\ny\n", "run", "m.csv", **ACCOUNT)
    assert code == 0, shown
    assert f"Password of admin on {server.url}: " in shown
    after = shown.split(f"Password of admin on {server.url}: ")[1]
    assert not after.startswith("password")
    assert "2 updated" in after


def test_a_wrong_password_is_a_refused_login_and_leaves_no_trace(cli: Cli, server: Server) -> None:
    cli.write("m.csv", manifest(some_images(server, 2)))
    before = len(server.puts())
    code, shown, _ = answering(cli, server, "canary-typed\n", "run", "m.csv", **ACCOUNT)
    assert code == 5, shown
    assert "refused the login" in shown
    assert len(server.puts()) == before
    assert "canary-typed" not in shown
    assert "canary-typed" not in kept(cli.place)


def test_no_password_typed_sends_nothing(cli: Cli, server: Server) -> None:
    cli.write("m.csv", manifest(some_images(server, 2)))
    before = len(server.requests())
    code, shown, _ = answering(cli, server, "\n", "run", "m.csv", **ACCOUNT)
    assert (code, len(server.requests())) == (2, before)
    assert "no password was typed; nothing was sent" in shown


@pytest.mark.parametrize("command", [("doctor",), ("export", "--fields", "name")])
def test_commands_that_read_ask_too(cli: Cli, server: Server, command: tuple[str, ...]) -> None:
    code, shown, _ = answering(cli, server, "password\n", *command, **ACCOUNT)
    assert code == 0, shown
    assert "Password of admin on" in shown


@pytest.mark.parametrize("how", ["flag", "variable"])
def test_yes_means_that_nobody_is_there_to_type(cli: Cli, server: Server, how: str) -> None:
    cli.write("m.csv", manifest(some_images(server, 2)))
    words = ("--yes",) if how == "flag" else ()
    given = ACCOUNT if how == "flag" else ACCOUNT | {"BULKIMG_YES": "1"}
    code, shown, _ = answering(cli, server, "password\n", "run", "m.csv", *words, **given)
    assert code == 2
    assert MISSING in shown
    assert "Password of" not in shown


@pytest.mark.parametrize("words", [("run", "m.csv"), ("export",), ("verify", "last")])
def test_without_a_terminal_it_is_the_usual_error(cli: Cli, server: Server, words: tuple[str, ...]) -> None:
    cli.write("m.csv", manifest(some_images(server, 1)))
    cli.at(server)("run", "m.csv", "--yes", "--rate", "unlimited")
    done = cli.at(server)(*words, code=2, stdin="password\n", **ACCOUNT)
    assert MISSING in done.err
    assert "Password of" not in done.out + done.err


def test_the_question_leaves_the_document_alone(cli: Cli, server: Server) -> None:
    cli.write("m.csv", manifest(some_images(server, 2)))
    code, shown, document = answering(
        cli, server, "password\ny\n", "run", "m.csv", "--json", redirected="out", **ACCOUNT
    )
    assert code == 0, shown
    assert json.loads(document)["counts"]["updated"] == 2


def test_a_password_that_is_there_is_not_asked_for(cli: Cli, server: Server) -> None:
    cli.write("m.csv", manifest(some_images(server, 1)))
    code, shown, _ = answering(cli, server, "y\n", "run", "m.csv", **ACCOUNT, BULKIMG_PASSWORD="password")
    assert code == 0, shown
    assert "Password of" not in shown
