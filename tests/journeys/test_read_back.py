"""After a change, fields that the answer lacks are read, many images in one query, before a row is updated."""

from pathlib import Path
from typing import Any

import bulkimg
from tests.battery.api import Call, Reply, inventories, inventory
from tests.conftest import Cli, sandbox_process
from tests.ended import ended
from tests.journeys.test_bad_servers import READS, SESSION, Lies, lying


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


def named(server: Lies, call: Call) -> Reply:
    """Return a PUT's answer that shows the name and nothing else."""
    done = server.good.answer(call)
    return inventory(call.uuid, {"name": call.wanted["name"]}) if call.kind == "put" else done


async def test_a_value_that_reads_back_as_another_has_drifted(tmp_path: Path) -> None:
    """The answer shows the name and no description. The images show the result."""
    questions = []

    async def script(server: Lies, call: Call) -> Reply | None:
        if call.kind not in READS:
            return named(server, call)
        wanted = call.asked["q"][0].removeprefix("uuid?=").split(",")
        questions.append(wanted)
        kept = [{"uuid": uuid, "description": "kept" if int(uuid, 16) % 2 else "another"} for uuid in wanted]
        return inventories(kept)

    changes = [{"uuid": f"{n:032x}", "name": "new", "description": "kept"} for n in range(40)]
    async with lying(script) as server:
        summary = await run(server, tmp_path, changes)
    assert (summary.counts["updated"], summary.counts["drifted"]) == (20, 20)
    assert len(questions) <= 10, "many images with one question"


async def test_what_nothing_shows_is_named(tmp_path: Path) -> None:
    """The server has no queries or never shows the field.

    The row is updated, and a message says what is not confirmed.
    """
    for answer in (Reply.text(404, "no api mapping to /v1/images"), None):

        async def script(server: Lies, call: Call, answer: Reply | None = answer) -> Reply | None:
            if call.kind not in READS:
                return named(server, call)
            if answer is not None:
                return answer
            wanted = call.asked["q"][0].removeprefix("uuid?=").split(",")
            return inventories({"uuid": uuid} for uuid in wanted)

        async with lying(script) as server:
            summary = await run(server, tmp_path, [{"uuid": "0" * 32, "name": "new", "description": "x"}])
        assert summary.counts["updated"] == 1
        results = (Path(summary.directory) / "results.jsonl").read_text()
        assert "not confirmed (missing from the answer): description" in results


async def test_a_server_that_stops_telling_of_tags_ends_no_run(tmp_path: Path) -> None:
    """It showed that they are missing, then no tags: the row is updated, and a message says what is not confirmed."""
    asked = []

    async def script(server: Lies, call: Call) -> Reply | None:
        if call.kind not in READS:
            return None
        if call.kind == "tags":
            asked.append(call.path)
            return inventories([]) if len(asked) == 1 else Reply.text(404, "no api mapping to /v1/user-tags")
        return inventories([{"uuid": "0" * 32, "name": "new"}])

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
