"""A server with injected faults: every row gets one true outcome, and the ledger knows every PUT."""

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from tests.conftest import Cli, Server, sandbox_process

FAULTS = (
    "reset-before=6%,reset-after=6%,429=2%:1,500=4%,502=4%,503=4%,slow=2%:0.3,drop=6%,truncate=4%,"
    "poll/reset-before=3%,poll/502=3%,poll/truncate=2%,query/502=2%"
)


@pytest.fixture(scope="module")
def sick(dialect: str) -> Iterator[Server]:
    with sandbox_process("--images", "150", "--dialect", dialect, "--faults", FAULTS, "--seed", "7") as found:
        yield found


def manifest(server: Server, mark: str) -> tuple[str, dict[str, str]]:
    wanted = {uuid: f"{mark}-{n}" for n, uuid in enumerate(sorted(server.images()))}
    return "uuid,name\n" + "".join(f"{uuid},{name}\n" for uuid, name in wanted.items()), wanted


def attempts(cli: Cli) -> dict[str, int]:
    """Read the attempts by image from run.db with plain SQL."""
    db = sqlite3.connect(f"file:{cli.run_dir() / 'run.db'}?mode=ro", uri=True)
    found = dict(db.execute("SELECT lower(hex(uuid)), count(*) FROM attempt JOIN row USING (ordinal) GROUP BY 1"))
    db.close()
    return found


def puts_by_image(server: Server) -> Counter[str]:
    return Counter(re.findall("[0-9a-f]{32}", put["path"])[0] for put in server.puts())


def test_every_row_is_updated_through_a_storm_of_faults(cli: Cli, sick: Server) -> None:
    text, wanted = manifest(sick, "storm")
    cli.write("m.csv", text)
    done = cli.at(sick)(
        "run", "m.csv", "--yes", "--rate", "unlimited", "--retries", "12", "--concurrency", "16", code=None
    )
    results = cli.results()
    assert len(results) == len(wanted) == sum(cli.summary()["counts"].values())
    images = sick.images()
    for result in results:
        assert result["status"] == "updated", (result, done.err)
        assert images[result["uuid"]]["name"] == wanted[result["uuid"]]
    known = attempts(cli)
    for uuid, count in puts_by_image(sick).items():
        assert count <= known[uuid], "a PUT that the ledger does not know of"


def test_without_a_way_to_ask_a_lost_answer_is_unknown(cli: Cli) -> None:
    with sandbox_process(
        "--images", "40", "--dialect", "documented", "--only-update", "--faults", "reset-after=40%", "--seed", "3"
    ) as server:
        text, wanted = manifest(server, "lost")
        cli.write("m.csv", text)
        cli.at(server)("run", "m.csv", "--yes", "--no-survey", "--rate", "unlimited", "--retries", "0", code=1)
        statuses = Counter(result["status"] for result in cli.results())
        assert set(statuses) == {"updated", "unknown"}
        assert statuses["unknown"] > 3
        assert all(server.images()[uuid]["name"] == name for uuid, name in wanted.items())
        failed = (cli.run_dir() / "failed.csv").read_text()
        assert failed.count("unknown") >= statuses["unknown"]
        assert cli("check", str(cli.run_dir() / "failed.csv")).code == 0


def test_refusals_are_final_and_their_causes_counted(cli: Cli, server: Server) -> None:
    images = sorted(server.images())
    cli.write("m.csv", "uuid,name\n" + f"{images[0]},fine\n" + "".join(f"{n:032x},gone\n" for n in range(20)))
    before = len(server.puts())
    done = cli.at(server)("run", "m.csv", "--yes", "--rate", "unlimited", "--no-survey", code=1)
    assert Counter(result["status"] for result in cli.results()) == {"updated": 1, "failed": 20}
    assert len(server.puts()) - before <= 22, "a refusal is not tried again"
    (cause,) = cli.summary()["causes"]
    assert (cause["rows"], cause["code"], cause["first_line"]) == (20, "SYS.1003", 3)
    assert "the image does not exist on this server" in cause["hint"]
    assert f"next:    bulkimg retry {cli.runs()[-1]}" in done.err


def test_the_error_limit_stops_the_run(cli: Cli, server: Server) -> None:
    cli.write("m.csv", "uuid,name\n" + "".join(f"{n:032x},gone\n" for n in range(400)))
    done = cli.at(server)(
        "run",
        "m.csv",
        "--yes",
        "--rate",
        "unlimited",
        "--max-errors",
        "10",
        "--concurrency",
        "4",
        "--no-survey",
        code=4,
    )
    counts = cli.summary()["counts"]
    assert 11 <= counts["failed"] <= 11 + 4
    assert counts["unprocessed"] == 400 - counts["failed"]
    assert "--max-errors allows 10" in done.err
    assert len((cli.run_dir() / "unprocessed.csv").read_text().splitlines()) == counts["unprocessed"] + 1


def test_retry_after_holds_the_whole_run(cli: Cli) -> None:
    with sandbox_process("--images", "60", "--dialect", "documented", "--faults", "429=5%:1", "--seed", "5") as server:
        text, _ = manifest(server, "held")
        cli.write("m.csv", text)
        done = cli.at(server)("run", "m.csv", "--yes", "--rate", "unlimited", "--concurrency", "1")
        times = [put["at"] for put in server.puts()]
        held = done.err.count("the server asked to wait")
        assert held >= 1
        gaps = sorted((b - a for a, b in pairwise(times)), reverse=True)
        assert gaps[held - 1] >= 1.0
        assert cli.summary()["counts"]["updated"] == 60


def test_one_login_per_death_of_a_session_however_many_rows_notice(cli: Cli) -> None:
    # With this seed three sessions die, at the 34th, 175th and 238th PUT: further apart than rows are in flight.
    with sandbox_process("--images", "300", "--faults", "expire=1%", "--seed", "16", "--service-time", "5") as server:
        text, _ = manifest(server, "kicked")
        cli.write("m.csv", text)
        account: dict[str, Any] = {
            "BULKIMG_ENDPOINT": server.url,
            "BULKIMG_ACCOUNT": "admin",
            "BULKIMG_PASSWORD": "password",
        }
        cli("run", "m.csv", "--yes", "--rate", "200/s", "--concurrency", "32", **account)
        asked = [request["path"].split("/v1/")[1] for request in server.requests()]
        logins, logouts = asked.count("accounts/login"), sum(path.startswith("accounts/sessions/") for path in asked)
        assert cli.summary()["counts"]["updated"] == 300
        assert logins == 1 + 3
        assert logouts == 1
        everything = b"".join(path.read_bytes() for path in cli.run_dir().iterdir())
        assert b"b109f3bbbc244eb8" not in everything, "the hash of the password is a credential too"


def test_access_keys_sign_every_request(cli: Cli, server: Server) -> None:
    images = sorted(server.images())[:30]
    cli.write("m.csv", "uuid,name\n" + "".join(f"{uuid},signed\n" for uuid in images))
    key_id = re.search(r"BULKIMG_ACCESS_KEY_ID=(\w+)", server.greeting)
    secret = re.search(r"BULKIMG_ACCESS_KEY_SECRET=(\w+)", server.greeting)
    assert key_id
    assert secret
    key: dict[str, Any] = {
        "BULKIMG_ENDPOINT": server.url,
        "BULKIMG_ACCESS_KEY_ID": key_id[1],
        "BULKIMG_ACCESS_KEY_SECRET": secret[1],
    }
    cli("run", "m.csv", "--yes", **key)
    assert cli.summary()["counts"]["updated"] == 30
    assert {put["authorization"] for put in server.puts()[-30:]} == {"ZStack"}
    wrong = cli("run", "m.csv", "--yes", code=5, **{**key, "BULKIMG_ACCESS_KEY_SECRET": "nonsense"})
    assert "ACCESS_KEY" in wrong.err
    assert "nonsense" not in wrong.err


def test_a_dead_session_that_was_given_stops_the_run(cli: Cli, server: Server) -> None:
    cli.write("m.csv", manifest(server, "dead")[0])
    done = cli("run", "m.csv", "--yes", code=5, BULKIMG_ENDPOINT=server.url, BULKIMG_SESSION="0" * 32)
    assert "session is invalid or expired" in done.err
    counts = cli.summary()["counts"]
    assert counts["updated"] == 0
    assert counts["unprocessed"] + counts["failed"] == 300


def test_duplicates_are_one_put_and_both_get_its_outcome(cli: Cli, server: Server) -> None:
    image = next(uuid for uuid, found in server.images().items() if found.get("platform") not in (None, "Windows"))
    before = len(server.puts())
    cli.write("m.csv", f"uuid,name,platform\n{image},both,\n{image.upper()},,Windows\n")
    cli.at(server)("run", "m.csv", "--yes", "--action-key", "updateImage")
    (put,) = server.puts()[before:]
    assert json.loads(put["body"]) == {"updateImage": {"name": "both", "platform": "Windows"}}
    assert [(r["line"], r["status"], r["changed"]) for r in cli.results()] == [
        (n, "updated", ["name", "platform"]) for n in (2, 3)
    ]
