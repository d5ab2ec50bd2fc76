"""After a change, fields that the answer lacks are read, many images in one query, before a row is updated."""

from pathlib import Path
from typing import Any

from aiohttp import web

import bulkimg
from tests.conftest import Cli, sandbox_process
from tests.ended import ended
from tests.journeys.test_bad_servers import SESSION, Lies, lying


async def run(server: Lies, place: Path, changes: list[dict[str, Any]]) -> bulkimg.Summary:
    one = bulkimg.Run(
        changes,
        credentials=bulkimg.Session(SESSION),
        endpoint=server.url,
        runs_dir=place,
        rate="unlimited",
        survey=False,
        adaptive=False,
    )
    return await ended(one)


async def test_a_value_that_reads_back_as_another_has_drifted(tmp_path: Path) -> None:
    """The answer shows the name and no description. The images show the result."""
    questions = []

    async def script(server: Lies, kind: str, request: web.Request, said: Any) -> web.Response | None:
        if kind != "read":
            return None
        wanted = request.query["q"].removeprefix("uuid?=").split(",")
        questions.append(wanted)
        kept = [{"uuid": uuid, "description": "kept" if int(uuid, 16) % 2 else "another"} for uuid in wanted]
        return web.json_response({"inventories": kept})

    changes = [{"uuid": f"{n:032x}", "name": "new", "description": "kept"} for n in range(40)]
    async with lying(script) as server:
        summary = await run(server, tmp_path, changes)
    assert (summary.counts["updated"], summary.counts["drifted"]) == (20, 20)
    assert len(questions) <= 10, "many images with one question"


async def test_what_nothing_shows_is_named(tmp_path: Path) -> None:
    """The server has no queries or never shows the field.

    The row is updated, and a message says what is not confirmed.
    """
    for answer in (web.Response(status=404, text="no api mapping to /v1/images"), None):

        async def script(
            server: Lies, kind: str, request: web.Request, said: Any, answer: web.Response | None = answer
        ) -> web.Response | None:
            if kind != "read":
                return None
            if answer is not None:
                return web.Response(status=answer.status, text=answer.text)
            wanted = request.query["q"].removeprefix("uuid?=").split(",")
            return web.json_response({"inventories": [{"uuid": uuid} for uuid in wanted]})

        async with lying(script) as server:
            summary = await run(server, tmp_path, [{"uuid": "0" * 32, "name": "new", "description": "x"}])
        assert summary.counts["updated"] == 1
        results = (Path(summary.directory) / "results.jsonl").read_text()
        assert "not confirmed (missing from the answer): description" in results


async def test_a_server_that_stops_telling_of_tags_ends_no_run(tmp_path: Path) -> None:
    """It showed that they are missing, then no tags: the row is updated, and a message says what is not confirmed."""
    asked = []

    async def script(server: Lies, kind: str, request: web.Request, said: Any) -> web.Response | None:
        if kind != "read":
            return None
        if "user-tags" in request.path:
            asked.append(request.path)
            none = web.json_response({"inventories": []})
            return none if len(asked) == 1 else web.Response(status=404, text="no api mapping to /v1/user-tags")
        return web.json_response({"inventories": [{"uuid": "0" * 32, "name": "new"}]})

    async with lying(script) as server:
        summary = await run(server, tmp_path, [{"uuid": "0" * 32, "name": "new", "userTags": ["t"]}])
    assert len(asked) > 1
    assert summary.counts["updated"] == 1
    results = (Path(summary.directory) / "results.jsonl").read_text()
    assert "not confirmed (missing from the answer): userTags" in results


def test_the_documented_dialect_confirms_every_field(cli: Cli) -> None:
    """Its answers have five of the nine fields. After the read-back, every field of every row is confirmed."""
    with sandbox_process("--images", "30", "--dialect", "documented") as server:
        rows = sorted(server.images())
        cli.write("m.csv", "uuid,name,description,guestOsType,virtio\n" + "".join(f"{u},n,d,g,false\n" for u in rows))
        cli.at(server)("run", "m.csv", "--yes", "--rate", "unlimited", "--no-survey", "--no-adaptive")
        results = cli.results()
        assert {(result["status"], result["message"]) for result in results} == {("updated", "")}
        assert all(result["after"]["description"] == "d" for result in results)
        reads = [request for request in server.requests() if request["path"].endswith("/images")]
        assert len(reads) <= 10
