"""Until the server's action key is known, one PUT is sent at a time, also for interrupted rows."""

import time

from tests.conftest import Cli, sandbox_process

ROWS = 40


def manifest(images: list[str], name: str) -> str:
    return "uuid,name\n" + "".join(f"{uuid},{name} {n}\n" for n, uuid in enumerate(images))


def wrong(puts: list[dict[str, str]]) -> int:
    """Return the PUTs with a key that this server does not know."""
    return sum('"updateimage"' in put["body"] for put in puts)


def test_one_request_finds_out_how_the_server_spells_it(cli: Cli) -> None:
    with sandbox_process("--images", str(ROWS), "--dialect", "zstack", "--service-time", "50") as server:
        cli.write("m.csv", manifest(sorted(server.images()), "new"))
        cli.at(server)("run", "m.csv", "--yes", "--no-survey", "--rate", "unlimited", "--no-adaptive")
        assert wrong(server.puts()) == 1
        assert len(server.puts()) == ROWS + 1


def test_a_run_resumed_before_the_key_is_known_finds_out_with_one_request(cli: Cli) -> None:
    """The run was killed during its first request, so the first rows of the resumed run are interrupted ones."""
    with sandbox_process("--images", "10", "--dialect", "zstack", "--faults", "any/slow=100%:1") as slow:
        cli.write("m.csv", manifest(sorted(slow.images()), "new"))
        process = cli.at(slow).start("run", "m.csv", "--yes", "--no-survey", "--rate", "unlimited", "--no-adaptive")
        slow.wait_for_put()
        time.sleep(0.1)
        process.kill()
        process.communicate(timeout=30)
        before = wrong(slow.puts())
        cli.at(slow)("resume", "last", "--rate", "unlimited", "--no-adaptive", "--timeout", "20s")
        assert wrong(slow.puts()) - before <= 1
        assert cli.summary()["counts"]["updated"] == 10
