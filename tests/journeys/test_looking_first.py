"""Nothing is sent without a survey: other servers that answer, fields that cannot be read, rows of unknown outcome."""

import asyncio
import json
from collections import Counter
from typing import Any

import pytest

from tests.battery.api import Api, Call, Reply, error
from tests.conftest import Cli
from tests.security.servers import scripted
from tests.zstack.raw import Raw, always, http, raw_server

IMAGES = {
    f"{n:032x}": {"uuid": f"{n:032x}", "name": f"old {n}", "platform": "Linux", "architecture": "aarch64"}
    for n in range(1, 41)
}
ROWS = "uuid,name\n" + "".join(f"{uuid},new {n}\n" for n, uuid in enumerate(IMAGES))
FAST = ("--yes", "--rate", "unlimited", "--progress", "none")
SECRET = "5e551017" * 4
PAGE = b"<html><head><title>Sign in to Corp SSO</title></head><body>please</body></html>"

FOREIGN = {
    "301": (http(b"", "301 Moved Permanently", "Location: https://zs.example:8443/zstack/v1/images"), "https://zs.example:8443"),
    "302": (http(b"", "302 Found", "Location: http://other.example/login"), "http://other.example"),
    "303": (http(b"", "303 See Other", "Location: /login"), "/login"),
    "307": (http(b"", "307 Temporary Redirect", "Location: https://zs.example/"), "https://zs.example"),
    "308": (http(b"", "308 Permanent Redirect"), "HTTP 308"),
    "200 page": (http(PAGE), "Sign in to Corp SSO"),
    "200 text": (http(b"welcome"), "welcome"),
    "404 page": (http(b"<html><h1>404 Not Found</h1></html>", "404 Not Found"), "404 Not Found"),
    "404 text": (http(b"no api mapping to /v1/images", "404 Not Found"), "--base-path"),
    "403 page": (http(b"<html>Forbidden by WAF</html>", "403 Forbidden"), "Forbidden by WAF"),
    "401 page": (http(b"<html>Authorization Required</html>", "401 Unauthorized"), "Authorization Required"),
    "405": (http(b"", "405 Method Not Allowed"), "HTTP 405"),
    "400 plain to https": (http(b"<html>The plain HTTP request was sent to HTTPS port</html>", "400 Bad Request"), "HTTPS port"),
    "403 refusal": (error("ID.1002", "not allowed").wire(), "not allowed"),
}  # fmt: skip


def environment(raw: Raw) -> dict[str, Any]:
    return {"BULKIMG_ENDPOINT": raw.url, "BULKIMG_SESSION": SECRET}


def kinds(raw: Raw) -> Counter[str]:
    """Count requests by method."""
    return Counter(request[0] for request in raw.requests)


def fleet() -> Api:
    return Api(table={uuid: dict(image) for uuid, image in IMAGES.items()})


@pytest.mark.parametrize("what", FOREIGN)
async def test_what_is_not_the_api_sends_nothing_and_is_named(cli: Cli, what: str) -> None:
    answer, words = FOREIGN[what]

    cli.write("m.csv", ROWS)
    async with raw_server(always(answer, stays=True)) as raw:
        for command in (("run", "m.csv", *FAST), ("plan", "m.csv", "--rate", "unlimited"), ("export",)):
            done = await asyncio.to_thread(cli, *command, code=5, **environment(raw))
            assert words in done.err, done.err
            assert done.out == ""
            assert ("--no-survey" in done.err) is (command[0] != "export" and "401" not in what)
        assert kinds(raw)["PUT"] == 0
        assert kinds(raw)["GET"] < 45
    for name in cli.runs():
        assert json.loads((cli.place / "runs" / name / "summary.json").read_text())["counts"]["unprocessed"] == 40


@pytest.mark.parametrize("what", ["301", "302", "303", "307", "308"])
async def test_without_a_survey_the_first_redirect_ends_the_run(cli: Cli, what: str) -> None:
    answer, words = FOREIGN[what]

    cli.write("m.csv", ROWS)
    async with raw_server(always(answer, stays=True)) as raw:
        done = await asyncio.to_thread(cli, "run", "m.csv", "--no-survey", *FAST, code=5, **environment(raw))
        assert words in done.err
        assert kinds(raw)["PUT"] == 1
    assert cli.summary()["counts"] | {"unknown": 1, "unprocessed": 39} == cli.summary()["counts"]


async def test_a_proxy_that_blocks_questions_and_passes_puts_is_sent_nothing(cli: Cli) -> None:
    def script(call: Call) -> bytes | None:
        return None if call.kind == "put" else http(b"<html>blocked</html>", "403 Forbidden")

    cli.write("m.csv", ROWS)
    async with raw_server(scripted(script, fleet())) as raw:
        await asyncio.to_thread(cli, "run", "m.csv", *FAST, code=5, **environment(raw))
        assert kinds(raw)["PUT"] == 0
        done = await asyncio.to_thread(cli, "run", "m.csv", "--no-survey", *FAST, code=0, **environment(raw))
        assert kinds(raw)["PUT"] == 40
    assert "cannot be read" not in done.err


async def test_a_platform_that_is_null_in_some_image_fails_no_command(cli: Cli) -> None:
    """fidelity.md, first finding: plan, run, export, verify and undo ask without `fields`."""
    null, other = list(IMAGES)[5], list(IMAGES)[7]
    good = fleet()
    del good.table[null]["platform"]
    cli.write("m.csv", f"uuid,name,platform\n{null},renamed,\n{other},,Windows\n")
    async with raw_server(scripted(good=good)) as raw:
        given = environment(raw)

        async def run(*words: str) -> Any:
            return await asyncio.to_thread(cli, *words, **given)

        assert "plan: 2 to update (name 1, platform 1)" in (await run("plan", "m.csv", "--rate", "unlimited")).out
        await run("run", "m.csv", *FAST)
        assert good.table[null]["name"] == "renamed"
        assert good.table[other]["platform"] == "Windows"
        await run("verify", "last", "--rate", "unlimited")
        exported = (await run("export", "--rate", "unlimited")).out
        assert len(exported.splitlines()) == 41
        await run("undo", "last", *FAST)
        assert good.table[other] == IMAGES[other]
        assert good.table[null]["name"] == IMAGES[null]["name"]
        assert len(raw.requests) < 40


@pytest.mark.parametrize("kind", ["system-tags", "user-tags"])
@pytest.mark.parametrize(
    "answer",
    [
        http(b"no api mapping to /v1/tags", "404 Not Found"),
        http(b"<html>forbidden</html>", "403 Forbidden"),
        error("ID.1002", "no permission to query tags").wire(),
        http(b"", "405 Method Not Allowed"),
    ],
    ids=["404", "403", "refused", "405"],
)
async def test_tags_that_cannot_be_read_cost_only_what_depends_on_them(cli: Cli, kind: str, answer: bytes) -> None:
    good = fleet()
    named, plain, guarded = list(IMAGES)[:3]
    field = "systemTags" if kind == "system-tags" else "userTags"
    cli.write(
        "m.csv",
        f"uuid,name,architecture,{field},if_{field}\n{named},a,,t::x,\n{plain},b,x86_64,,\n{guarded},c,,,t::y\n",
    )
    async with raw_server(scripted(lambda call: answer if call.path.endswith(kind) else None, good)) as raw:
        given = environment(raw)
        done = await asyncio.to_thread(cli, "run", "m.csv", *FAST, "--allow-field", "architecture", code=1, **given)
        assert done.err.count(f"{field} cannot be read") == 1
        by_line = {result["line"]: result for result in cli.results()}
        assert by_line[2]["status"] == "updated"
        assert field in by_line[2]["message"]
        assert by_line[3]["status"] == "updated"
        assert by_line[4]["status"] == "conflict"
        assert "cannot be checked" in by_line[4]["message"]
        assert by_line[3]["before"]["name"] == "old 2"
        await asyncio.to_thread(cli, "undo", "last", *FAST, code=None, **given)
        assert good.table[named]["name"] == "old 1"
        assert good.table[plain]["name"] == "old 2"
        sent = [body for method, _, _, body in raw.requests if method == "PUT"]
        assert not any(field.encode() in body for body in sent[2:]), "undo removes no tag that nobody saw"


# -- rows of unknown outcome --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [1, 2, 5, 6])
async def test_a_row_nobody_can_tell_about_is_sent_again_while_tries_are_left(cli: Cli, lost: int) -> None:
    """There is no answer, no job and no way to read, but the row's values are absolute."""
    seen: list[bytes] = []

    def script(call: Call) -> Reply | bytes | None:
        if call.kind != "put":
            return Reply.text(404, "not found")
        seen.append(call.body)
        return b"" if len(seen) <= lost else None

    cli.write("m.csv", f"uuid,name\n{'1' * 32},new\n")
    async with raw_server(scripted(script)) as raw:
        words = ("run", "m.csv", "--no-survey", "--action-key", "updateimage", "--retries", "5", *FAST)
        await asyncio.to_thread(cli, *words, code=None, **environment(raw))
    (result,) = cli.results()
    assert result["status"] == ("updated" if lost < 6 else "unknown")
    assert (result["attempts"], len(seen)) == (min(lost + 1, 6), min(lost + 1, 6))
    assert all(body == seen[0] for body in seen)
