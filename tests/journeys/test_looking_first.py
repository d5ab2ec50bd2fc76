"""Nothing is sent without a survey: other servers that answer, fields that cannot be read, rows of unknown outcome."""

import asyncio
import json
from collections import Counter
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.conftest import Cli
from tests.security.servers import call_of, json_answer, refusal
from tests.zstack.raw import Raw, Reply, http, raw_server

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
    "403 refusal": (refusal("ID.1002", "not allowed"), "not allowed"),
}  # fmt: skip


def environment(raw: Raw) -> dict[str, Any]:
    return {"BULKIMG_ENDPOINT": raw.url, "BULKIMG_SESSION": SECRET}


def kinds(raw: Raw) -> Counter[str]:
    """Count requests by method."""
    return Counter(request[0] for request in raw.requests)


def always(answer: bytes) -> Reply:
    """Return a server that gives every request the same answer."""

    async def reply(_: Raw, writer: Any) -> bool:
        writer.write(answer)
        await writer.drain()
        return True

    return reply


@pytest.mark.parametrize("what", FOREIGN)
async def test_what_is_not_the_api_sends_nothing_and_is_named(cli: Cli, what: str) -> None:
    answer, words = FOREIGN[what]

    cli.write("m.csv", ROWS)
    async with raw_server(always(answer)) as raw:
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
    async with raw_server(always(answer)) as raw:
        done = await asyncio.to_thread(cli, "run", "m.csv", "--no-survey", *FAST, code=5, **environment(raw))
        assert words in done.err
        assert kinds(raw)["PUT"] == 1
    assert cli.summary()["counts"] | {"unknown": 1, "unprocessed": 39} == cli.summary()["counts"]


async def test_a_proxy_that_blocks_questions_and_passes_puts_is_sent_nothing(cli: Cli) -> None:
    async def reply(raw: Raw, writer: Any) -> bool:
        call = call_of(raw.requests[-1])
        put = json_answer({"inventory": {"uuid": call.uuid, **call.wanted}}) if call.kind == "put" else b""
        writer.write(put or http(b"<html>blocked</html>", "403 Forbidden"))
        await writer.drain()
        return True

    cli.write("m.csv", ROWS)
    async with raw_server(reply) as raw:
        await asyncio.to_thread(cli, "run", "m.csv", *FAST, code=5, **environment(raw))
        assert kinds(raw)["PUT"] == 0
        done = await asyncio.to_thread(cli, "run", "m.csv", "--no-survey", *FAST, code=0, **environment(raw))
        assert kinds(raw)["PUT"] == 40
    assert "cannot be read" not in done.err


class Fleet:
    """Images in memory, in the documented dialect. `hidden` are kinds of tags that get another answer."""

    def __init__(self, hidden: dict[str, bytes] | None = None, *, null_platform: str = "") -> None:
        self.images: dict[str, dict[str, Any]] = {uuid: dict(image) for uuid, image in IMAGES.items()}
        self.hidden = hidden or {}
        if null_platform:
            self.images[null_platform].pop("platform")

    async def reply(self, raw: Raw, writer: Any) -> bool:
        method, path, _, _ = raw.requests[-1]
        call = call_of(raw.requests[-1])
        kind = next((kind for kind in self.hidden if f"/{kind}" in path), "")
        if kind:
            data = self.hidden[kind]
        elif call.kind == "put":
            self.images[call.uuid] |= call.wanted
            data = json_answer({"inventory": self.images[call.uuid]})
        elif call.kind == "read":
            data = json_answer({"inventories": [self.images[call.uuid]]})
        elif call.kind == "list" and method == "GET":
            data = self.listed(path)
        else:
            data = http(b"the job has been expired", "404 Not Found")
        writer.write(data)
        await writer.drain()
        return True

    def listed(self, path: str) -> bytes:
        asked = parse_qs(urlsplit(path).query)
        if "-tags" in path:
            return json_answer({"inventories": []})
        wanted = next(
            (text.split("?=")[1].split(",") for text in asked.get("q", []) if "?=" in text), sorted(self.images)
        )
        beyond = next((text.split(">")[1] for text in asked.get("q", []) if ">" in text), "")
        found = [self.images[uuid] for uuid in sorted(wanted) if uuid in self.images and uuid > beyond]
        found = found[: int(asked["limit"][0])]
        if "platform" in asked.get("fields", [""])[0].split(",") and any("platform" not in image for image in found):
            return refusal("SYS.1000", "java.lang.NullPointerException", "An internal error happened in system")
        return json_answer({"inventories": found})


async def test_a_platform_that_is_null_in_some_image_fails_no_command(cli: Cli) -> None:
    """fidelity.md, first finding: plan, run, export, verify and undo ask without `fields`."""
    null, other = list(IMAGES)[5], list(IMAGES)[7]
    fleet = Fleet(null_platform=null)
    cli.write("m.csv", f"uuid,name,platform\n{null},renamed,\n{other},,Windows\n")
    async with raw_server(fleet.reply) as raw:
        given = environment(raw)

        async def run(*words: str) -> Any:
            return await asyncio.to_thread(cli, *words, **given)

        assert "plan: 2 to update (name 1, platform 1)" in (await run("plan", "m.csv", "--rate", "unlimited")).out
        await run("run", "m.csv", *FAST)
        assert fleet.images[null]["name"] == "renamed"
        assert fleet.images[other]["platform"] == "Windows"
        await run("verify", "last", "--rate", "unlimited")
        exported = (await run("export", "--rate", "unlimited")).out
        assert len(exported.splitlines()) == 41
        await run("undo", "last", *FAST)
        assert fleet.images[other] == IMAGES[other]
        assert fleet.images[null]["name"] == IMAGES[null]["name"]
        assert len(raw.requests) < 40


@pytest.mark.parametrize("kind", ["system-tags", "user-tags"])
@pytest.mark.parametrize(
    "answer",
    [
        http(b"no api mapping to /v1/tags", "404 Not Found"),
        http(b"<html>forbidden</html>", "403 Forbidden"),
        refusal("ID.1002", "no permission to query tags"),
        http(b"", "405 Method Not Allowed"),
    ],
    ids=["404", "403", "refused", "405"],
)
async def test_tags_that_cannot_be_read_cost_only_what_depends_on_them(cli: Cli, kind: str, answer: bytes) -> None:
    fleet = Fleet({kind: answer})
    named, plain, guarded = list(IMAGES)[:3]
    field = "systemTags" if kind == "system-tags" else "userTags"
    cli.write(
        "m.csv",
        f"uuid,name,architecture,{field},if_{field}\n{named},a,,t::x,\n{plain},b,x86_64,,\n{guarded},c,,,t::y\n",
    )
    async with raw_server(fleet.reply) as raw:
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
        assert fleet.images[named]["name"] == "old 1"
        assert fleet.images[plain]["name"] == "old 2"
        sent = [call_of(request) for request in raw.requests if request[0] == "PUT"]
        assert not any(field in json.dumps(call.body) for call in sent[2:]), "undo removes no tag that nobody saw"


# -- rows of unknown outcome --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [1, 2, 5, 6])
async def test_a_row_nobody_can_tell_about_is_sent_again_while_tries_are_left(cli: Cli, lost: int) -> None:
    """There is no answer, no job and no way to read, but the row's values are absolute."""
    seen: list[dict[str, Any]] = []

    async def reply(raw: Raw, writer: Any) -> bool:
        call = call_of(raw.requests[-1])
        if call.kind == "put":
            seen.append(call.body)
            if len(seen) <= lost:
                return False
            writer.write(json_answer({"inventory": {"uuid": call.uuid, **call.wanted}}))
        else:
            writer.write(http(b"not found", "404 Not Found"))
        await writer.drain()
        return True

    cli.write("m.csv", f"uuid,name\n{'1' * 32},new\n")
    async with raw_server(reply) as raw:
        words = ("run", "m.csv", "--no-survey", "--action-key", "updateimage", "--retries", "5", *FAST)
        await asyncio.to_thread(cli, *words, code=None, **environment(raw))
    (result,) = cli.results()
    assert result["status"] == ("updated" if lost < 6 else "unknown")
    assert (result["attempts"], len(seen)) == (min(lost + 1, 6), min(lost + 1, 6))
    assert all(body == seen[0] for body in seen)
