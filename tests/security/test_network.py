"""Plain http to another machine with a password gives a warning, and is refused if TLS is required."""

from typing import Any

import pytest

from tests.conftest import Cli

ROW = f"uuid,name\n{7:032x},x\n"
ACCOUNT: dict[str, Any] = {"BULKIMG_ACCOUNT": "admin", "BULKIMG_PASSWORD": "hunter22-of-a-test"}
ELSEWHERE = "http://node.invalid:8080"  # a name that no server has: nothing is ever sent
HARMLESS = (
    "http://127.0.0.1:9",
    "http://localhost:9",
    "http://[::1]:9",
    "https://127.0.0.1:9",
    "https://node.invalid:9",
)


def profile(cli: Cli, text: str) -> None:
    (cli.place / "config" / "bulkimg").mkdir(parents=True)
    cli.write("config/bulkimg/config.toml", f"[profile.p]\n{text}\n")


def warns(text: str) -> bool:
    return "require_tls" in text.lower() and "https" in text


def test_a_password_over_plain_http_is_warned_of_with_the_remedy(cli: Cli) -> None:
    cli.write("m.csv", ROW)
    done = cli("run", "m.csv", "--yes", "--timeout", "5s", code=5, BULKIMG_ENDPOINT=ELSEWHERE, **ACCOUNT)
    assert warns(done.err)
    assert len([line for line in done.err.splitlines() if "require_tls" in line]) == 1
    assert "hunter22" not in done.err


@pytest.mark.parametrize("endpoint", HARMLESS)
def test_loopback_and_https_are_not_warned_of_nor_refused(cli: Cli, endpoint: str) -> None:
    """With require_tls too: it is about the network, and loopback is not the network."""
    cli.write("m.csv", ROW)
    given = {**ACCOUNT, "BULKIMG_ENDPOINT": endpoint, "BULKIMG_REQUIRE_TLS": "true"}
    assert not warns(cli("run", "m.csv", "--yes", "--timeout", "5s", code=5, **given).err)


@pytest.mark.parametrize("host", ["127.0.0.1.node.invalid", "localhost.node.invalid", "127.0.0.1@node.invalid"])
def test_a_host_that_only_looks_like_loopback_is_not(cli: Cli, host: str) -> None:
    cli.write("m.csv", ROW)
    given = {**ACCOUNT, "BULKIMG_ENDPOINT": f"http://{host}:9", "BULKIMG_REQUIRE_TLS": "true"}
    cli("run", "m.csv", "--yes", "--timeout", "5s", code=2, **given)


@pytest.mark.parametrize("where", ["profile", "environment"])
def test_require_tls_refuses_plain_http_before_anything(cli: Cli, where: str) -> None:
    """Exit 2, one sentence, no run, no request. The session of a profile is protected like the password."""
    cli.write("m.csv", ROW)
    given: dict[str, Any] = {} if where == "profile" else {"BULKIMG_REQUIRE_TLS": "true"}
    profile(cli, f'endpoint = "{ELSEWHERE}"\n' + ("require_tls = true" if where == "profile" else ""))
    credentials: tuple[dict[str, Any], ...] = (ACCOUNT, {"BULKIMG_SESSION": "5e551017" * 4})
    for credential in credentials:
        done = cli("run", "m.csv", "--yes", "--profile", "p", code=2, **given, **credential)
        assert warns(done.err)
        assert len(done.err.strip().splitlines()) == 1
    assert not (cli.place / "runs").exists()


def test_require_tls_holds_for_every_command_that_sends(cli: Cli) -> None:
    cli.write("m.csv", ROW)
    given = {**ACCOUNT, "BULKIMG_ENDPOINT": ELSEWHERE}
    cli("run", "m.csv", "--yes", "--timeout", "5s", code=5, **given)
    for words in (("resume", "last"), ("retry", "last"), ("try", "7" * 32, "--set", "name=x", "--send")):
        assert warns(cli(*words, code=2, BULKIMG_REQUIRE_TLS="true", **given).err), words
