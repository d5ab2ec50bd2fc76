"""The survey with hostile servers: their values are compared, shown safely, and hold no secret of ours."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.battery.api import Api, Reply, inventories
from tests.conftest import Cli
from tests.security.canaries import forms
from tests.security.servers import api, scripted, strangers
from tests.security.test_secrets import KINDS, Canaries, canaries, environment, rows, searched
from tests.security.watching import watch
from tests.zstack.raw import http, raw_server

LOOKING: dict[str, Any] = {"BULKIMG_SURVEY": "true"}
HOSTILE = "=cmd()\x1b]0;pwned\x07\u202e\r\n</script><script>alert(1)</script>"


def fleet_of(names: dict[str, str], session: str = "a" * 32) -> Api:
    """Return a good server with these images."""
    good = api(session)
    good.table = {uuid: {"uuid": uuid, "name": name} for uuid, name in names.items()}
    return good


def forms_of(given: Canaries) -> Iterator[str]:
    for secret in given.echoed.values():
        for form, data in forms(secret).items():
            if form != "utf-16":
                yield data.decode()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_secret_that_a_server_calls_an_image_is_written_nowhere(cli: Cli, kind: str) -> None:
    """Plan, run, conflict, undo, verify. Each image's name and tag is one of our secrets in one of its forms."""
    given = canaries(kind)
    texts = list(forms_of(given))
    cli.write(
        "m.csv",
        "uuid,name,userTags\n" + "".join(f"{n:032x},new-{n},\n" for n in range(len(texts))) + f"{'e' * 32},x,t\n",
    )
    fleet = fleet_of({f"{n:032x}": f"it is {text}" for n, text in enumerate(texts)} | {"e" * 32: "y"}, given.session)
    tag = {"uuid": "1" * 32, "resourceType": "ImageVO", "resourceUuid": "e" * 32, "tag": texts[0]}
    fleet.tags["user-tags"] = {tag["uuid"]: tag}
    async with raw_server(scripted(good=fleet)) as raw:
        where = environment(cli, given, raw.url) | LOOKING
        fast = ("--yes", "--rate", "unlimited", "-v", "--max-errors", "none")
        planned = await asyncio.to_thread(watch, cli, "plan", "m.csv", "--rate", "unlimited", **where)
        applied = await asyncio.to_thread(watch, cli, "apply", "last", *fast, **where)
        fleet.table["0" * 32]["name"] = f"again {texts[1]}"
        undone = await asyncio.to_thread(watch, cli, "undo", "last", *fast, **where)
        verified = await asyncio.to_thread(watch, cli, "verify", "last", "--rate", "unlimited", **where)
        assert strangers(raw) == []
    assert planned.code == 0, planned.err
    assert b"[hidden]" in planned.out
    assert applied.code in (0, 1), applied.err
    # If redaction breaks an answer's JSON, it cannot be compared with the survey: the row is a conflict.
    changed = [image for image in fleet.table.values() if image["name"].startswith(("new-", "again", "x"))]
    assert 0 < len(changed) <= len(fleet.table)
    assert undone.code == 1
    assert b"contained one of your credentials before" in undone.err
    searched(cli, given, planned, applied, undone, verified)


async def test_a_value_that_happens_to_be_the_password_is_compared_as_it_is(cli: Cli) -> None:
    """The password is `Linux`, and so is every second platform. These rows are as asked for, and not `[hidden]`."""
    fleet = fleet_of({f"{n:032x}": "x" for n in range(6)})
    for n, image in enumerate(fleet.table.values()):
        image["platform"] = "Linux" if n % 2 else "Other"
    cli.write("m.csv", "uuid,platform\n" + "".join(f"{uuid},Linux\n" for uuid in fleet.table))
    async with raw_server(scripted(good=fleet)) as raw:
        given: dict[str, Any] = {
            "BULKIMG_ENDPOINT": raw.url,
            "BULKIMG_ACCOUNT": "admin",
            "BULKIMG_PASSWORD": "Linux",
            **LOOKING,
        }
        seen = await asyncio.to_thread(watch, cli, "run", "m.csv", "--yes", "--rate", "unlimited", **given)
    assert seen.code == 0, seen.err
    assert cli.summary()["counts"] | {"updated": 3, "unchanged": 3} == cli.summary()["counts"]


async def test_what_an_image_is_called_is_harmless_wherever_it_is_shown(cli: Cli) -> None:
    fleet = fleet_of({f"{n:032x}": HOSTILE for n in range(3)})
    cli.write("m.csv", rows(3))
    async with raw_server(scripted(good=fleet)) as raw:
        given: dict[str, Any] = {"BULKIMG_ENDPOINT": raw.url, "BULKIMG_SESSION": "5e551017" * 4, **LOOKING}
        seen = await asyncio.to_thread(watch, cli, "plan", "m.csv", "--rate", "unlimited", **given)
    assert seen.code == 0
    for obeyed in (b"\x1b", b"\x07", "\u202e".encode(), b"\r"):
        assert obeyed not in seen.out + seen.err
    page = (cli.run_dir() / "plan.html").read_text("utf-8")
    assert page.count("</script>") == 2  # the data's, which is never run, and the script's
    assert "\u202e" not in page
    lines = (cli.run_dir() / "plan.csv").read_text("utf-8")
    assert ",=cmd" not in lines
    assert '"=cmd' not in lines


@pytest.mark.parametrize(
    ("answer", "is_read"),
    [
        (http(b"x" * (5 << 20)), False),
        (http(b'{"inventories": [' + b"[" * 100_000), False),
        (http(b"", "302 Found", "Location: http://127.0.0.1:9/zstack/v1/images"), False),
        (inventories([{"uuid": "0" * 32, "name": {"a": ["b"] * 1000}, "platform": 7}]), True),
        (inventories([{"uuid": "0" * 32, "name": "x" * 1_000_000}]), True),
        (inventories({"uuid": f"{n:032x}", "name": "x"} for n in range(5000)), False),
    ],
    ids=["too large", "too deep", "elsewhere", "odd values", "a long name", "too many"],
)
async def test_odd_answers_to_the_survey_make_no_false_outcome(cli: Cli, answer: Reply | bytes, is_read: bool) -> None:
    """Either nothing is sent and a message says so, or the server's values are compared.

    The PUT's own answer decides.
    """
    cli.write("m.csv", "uuid,name\n" + f"{'0' * 32},new\n")

    async with raw_server(scripted(lambda call: answer if call.kind == "query" else None)) as raw:
        given: dict[str, Any] = {"BULKIMG_ENDPOINT": raw.url, "BULKIMG_SESSION": "5e551017" * 4, **LOOKING}
        seen = await asyncio.to_thread(watch, cli, "run", "m.csv", "--yes", "--timeout", "3s", **given)
        assert strangers(raw) == []
    assert seen.peak < 200 << 20
    (result,) = cli.results()
    assert (seen.code, result["status"]) == ((0, "updated") if is_read else (5, "unprocessed")), (result, seen.err)
    assert json.loads(json.dumps(result)) == result
