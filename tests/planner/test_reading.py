"""Reading many images at once: smaller batches, pages, second queries, answers about something else."""

import asyncio
import json
import random
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from bulkimg.applier import Paced
from bulkimg.credentials import Session
from bulkimg.errors import TargetError
from bulkimg.pace import Pace
from bulkimg.planner import CannotRead, Reader
from bulkimg.planner.reading import GATHER
from bulkimg.runtime import Runtime
from bulkimg.zstack import Answer, ImageApi, Transport, make_auth
from tests.battery.api import Api, Call
from tests.zstack.raw import parts

COUNT = 1000
IMAGES = {f"{n:032x}": {"uuid": f"{n:032x}", "name": f"image {n}", "platform": "Other"} for n in range(COUNT)}
SESSION = "5e551017" * 4
Query = dict[str, list[str]]


def answer(status: int, body: Any) -> Answer:
    return Answer(status, body if isinstance(body, bytes) else json.dumps(body).encode())


@dataclass
class Server:
    """A server in memory. `lie` answers instead of it if it returns an answer."""

    lie: Callable[[int, Query], Answer | None] = lambda number, query: None
    asked: list[Query] = field(default_factory=list)
    good: Api = field(default_factory=lambda: Api(table=IMAGES))

    async def send(self, request: bytes, begin: Callable[[], Awaitable[bool]]) -> Answer:
        assert await begin()
        call = Call.of(*parts(request))
        self.asked.append(call.asked)
        await asyncio.sleep(0)
        reply = self.good.answer(call)
        return self.lie(len(self.asked), call.asked) or Answer(reply.status, reply.body)

    async def close(self) -> None:
        pass


def reader_of(server: Server) -> Reader:
    async def no_sleep(seconds: float) -> None:
        await asyncio.sleep(0)

    runtime = Runtime(sleep=no_sleep, rng=random.Random(1))
    pace = Pace(float("inf"), 1)
    transport = Transport(server, "http://node:8080/zstack", Paced(pace))
    auth = make_auth(Session(SESSION), transport, time.time)
    return Reader(ImageApi(transport, auth), pace.breaker, runtime, retries=2)


async def test_two_hundred_images_a_question_and_only_the_fields_that_are_needed() -> None:
    server = Server()
    found = await reader_of(server).images(list(IMAGES), {"name"})
    assert len(found) == COUNT
    assert len(server.asked) == COUNT / 200
    assert {query["fields"][0] for query in server.asked} == {"name,uuid"}
    assert all(len(query["q"][0]) < 7000 for query in server.asked)


@pytest.mark.parametrize("status", [413, 414, 431, 400])
async def test_an_address_that_is_too_long_is_made_shorter(status: int) -> None:
    def lie(number: int, query: Query) -> Answer | None:
        return answer(status, b"too long") if query["q"][0].count(",") >= 40 else None

    server = Server(lie)
    assert len(await reader_of(server).images(list(IMAGES), {"name"})) == COUNT
    assert len(server.asked) < 60, "it is found out once, not for every batch"


async def test_an_answer_that_is_too_large_is_made_smaller() -> None:
    def lie(number: int, query: Query) -> Answer | None:
        return Answer(None, failure="BODY_TOO_LARGE") if int(query["limit"][0]) > 60 else None

    server = Server(lie)
    assert len(await reader_of(server).images(list(IMAGES), {"name"})) == COUNT
    pages = [page async for page in reader_of(Server(lie)).pages([], {"name"})]
    assert sum(map(len, pages)) == COUNT


async def test_an_image_is_missing_only_when_the_server_leaves_it_out_twice() -> None:
    """Some servers give fewer rows than they were asked for."""

    def lie(number: int, query: Query) -> Answer | None:
        wanted = query["q"][0].removeprefix("uuid?=").split(",")
        return answer(200, {"inventories": [IMAGES[uuid] for uuid in wanted if uuid in IMAGES][:70]})

    server = Server(lie)
    found = await reader_of(server).images([*list(IMAGES)[:200], "f" * 32], {"name"})
    assert (len(found), "f" * 32 in found) == (200, False)


@pytest.mark.parametrize(
    "body",
    [
        b"<html>log in</html>",
        {"inventories": "none"},
        {"inventories": [{"uuid": "e" * 32, "name": "of another question"}]},
        {"inventories": [{"name": "without a uuid"}]},
        {"total": 3},
        b"",
    ],
)
async def test_an_answer_about_something_else_is_none(body: Any) -> None:
    """No image is taken for missing or for another."""
    with pytest.raises(CannotRead):
        await reader_of(Server(lambda number, query: answer(200, body))).images(["1".zfill(32)], {"name"})


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (404, b"no api mapping to /v1/images", CannotRead),
        (405, b"", CannotRead),
        (501, b"", CannotRead),
        (503, {"error": {"code": "SYS.1006", "description": "denied", "details": "by default"}}, CannotRead),
        (503, {"error": {"code": "ID.1006", "description": "too many sessions"}}, TargetError),
        (403, b"requestTimeTooSkewed", TargetError),
        (503, {"error": {"code": "SYS.1010", "description": "not ready"}}, TargetError),
    ],
)
async def test_a_server_that_cannot_be_asked_is_told_from_one_that_will_not_answer_now(
    status: int, body: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await reader_of(Server(lambda number, query: answer(status, body))).images(["1".zfill(32)], {"name"})


@pytest.mark.parametrize("odd", [(404, b"<html>"), (403, b"firewall"), (200, b"<html>please wait</html>")])
async def test_one_odd_answer_does_not_make_a_run_blind(odd: tuple[int, bytes]) -> None:
    """The query is repeated. If the server has shown images before, it is a failure, and never «cannot be asked»."""
    once = Server(lambda number, query: answer(*odd) if number == 2 else None)
    assert len(await reader_of(once).images(list(IMAGES), {"name"})) == COUNT
    for_good = Server(lambda number, query: answer(*odd) if number > 2 else None)
    with pytest.raises(TargetError, match="cannot read the images any more"):
        await reader_of(for_good).images(list(IMAGES), {"name"})


async def test_not_now_is_asked_again() -> None:
    def lie(number: int, query: Query) -> Answer | None:
        return answer(503, {"error": {"code": "SYS.1010", "description": "not ready"}}) if number < 3 else None

    assert len(await reader_of(Server(lie)).images(["1".zfill(32)], {"name"})) == 1


async def test_tags_come_in_pages_each_with_its_own_uuid() -> None:
    server, uuid = Server(), "1".zfill(32)
    rows = (
        {"uuid": f"{n:032x}", "resourceType": "ImageVO", "resourceUuid": uuid, "tag": f"tag {n}"} for n in range(2500)
    )
    server.good.tags["user-tags"] = {row["uuid"]: row for row in rows}
    tags = (await reader_of(server).tags("userTags", [uuid]))[uuid]
    assert len(tags) == 2500
    assert tags["tag 7"].uuid == f"{7:032x}"
    assert len(server.asked) == 3


@pytest.mark.parametrize("tag", [{"uuid": "x", "tag": "t"}, {"uuid": "1" * 32, "tag": 7}, {"uuid": "1" * 32, "tag": "t", "resourceUuid": "e" * 32}])  # fmt: skip
async def test_a_tag_that_cannot_be_is_no_answer(tag: dict[str, Any]) -> None:
    uuid = "1".zfill(32)
    server = Server(lambda number, query: answer(200, {"inventories": [{"resourceUuid": uuid, **tag}]}))
    with pytest.raises(CannotRead):
        await reader_of(server).tags("userTags", [uuid])


async def test_pages_neither_repeat_nor_leave_out_what_comes_and_goes_meanwhile() -> None:
    server = Server()
    seen: list[str] = []
    try:
        async for page in reader_of(server).pages([], {"name"}):
            seen += [image["uuid"] for image in page]
            IMAGES.pop(f"{len(seen) // 2:032x}", None)  # removed from what was already read
            IMAGES[f"{len(seen) // 3:031x}5"] = {"uuid": f"{len(seen) // 3:031x}5", "name": "new"}
        assert len(seen) == len(set(seen))
        assert {f"{n:032x}" for n in range(COUNT)} - set(seen) <= {
            f"{n:032x}" for n in range(COUNT) if f"{n:032x}" not in IMAGES
        }
    finally:
        IMAGES.clear()
        IMAGES.update(
            {f"{n:032x}": {"uuid": f"{n:032x}", "name": f"image {n}", "platform": "Other"} for n in range(COUNT)}
        )


async def test_a_server_that_does_not_turn_pages_is_found_out() -> None:
    first = [IMAGES[uuid] for uuid in sorted(IMAGES)[:200]]
    with pytest.raises(CannotRead, match="does not return its results in pages"):
        async for _ in reader_of(Server(lambda number, query: answer(200, {"inventories": first}))).pages([], {"name"}):
            pass


async def test_single_questions_at_the_same_time_are_one() -> None:
    server = Server()
    reader = reader_of(server)
    uuids = sorted(IMAGES)[:50]
    found = await asyncio.gather(*(reader.one(uuid, {"name"}) for uuid in [*uuids, "f" * 32]))
    assert [image and image["uuid"] for image in found] == [*uuids, None]
    assert len(server.asked) == 2, "the second is about the missing one"


async def test_a_credential_in_an_image_is_compared_and_never_written_down() -> None:
    body = {"inventories": [{"uuid": "1".zfill(32), "name": f"it is {SESSION}", "platform": "Other"}]}
    server = Server(lambda number, query: answer(200, body))
    (image,) = (await reader_of(server).images(["1".zfill(32)], {"name", "platform"})).values()
    assert image["name"] == f"it is {SESSION}"
    assert re.fullmatch(r"it is \[hidden\]", image.redacted["name"])
    assert image.redacted["platform"] == "Other"


async def test_what_nobody_waits_for_any_more_is_not_asked() -> None:
    """Two rows ask at about the same time, and one or both are stopped before their common query."""
    server = Server()
    reader = reader_of(server)
    first, second, *_ = IMAGES
    for left in ([], [second]):
        tasks = {uuid: asyncio.ensure_future(reader.one(uuid, {"name"})) for uuid in (first, second)}
        await asyncio.sleep(0)
        for uuid, task in tasks.items():
            if uuid not in left:
                task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        await asyncio.sleep(3 * GATHER)
        for _ in range(20):  # both waits may end in one turn of the loop
            await asyncio.sleep(0)
        assert [query["q"] for query in server.asked] == [[f"uuid?={uuid}"] for uuid in left]
