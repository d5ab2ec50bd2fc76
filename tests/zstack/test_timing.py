"""Answers that come late, in halves, too early or never: deadlines hold, no connection is left, no answers shift."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from bulkimg.zstack.http import MOST_INTERIM, HttpClient
from bulkimg.zstack.wire import Answer, RequestWriter
from tests.zstack.raw import Raw, Reply, at_once, http, raw_server

Send = Callable[[], Awaitable[Answer]]


def sender(url: str, timeout: float) -> tuple[HttpClient, Send]:
    """Return a client, and a call that sends one PUT with it."""
    client = HttpClient(url, timeout=timeout, now=time.time)
    request = RequestWriter(url).request("PUT", "/v1/images", "", b"{}")
    return client, lambda: client.send(request, at_once)


def in_parts(*parts: bytes, then: bytes = b"") -> Reply:
    """Answer the first request with these parts, each sent on its own, without an end. All others get `then`."""

    async def reply(raw: Raw, writer: asyncio.StreamWriter) -> bool:
        for part in parts if len(raw.requests) == 1 else (then,):
            writer.write(part)
            await writer.drain()
            for _ in range(6):
                await asyncio.sleep(0)
        return True

    return reply


@pytest.mark.parametrize(
    "parts",
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", b'{"a": 1}'),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", b'{"a": 1}'),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n", b'{"a": 1}\r\n'),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n", b'{"a": 1}\r\n', b"no number\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n" + b'{"a": 1}', b"\r\nno number\r\n"),
    ],
    ids=["until the end", "with a length", "chunked", "chunked, then garbage", "chunked, garbage in the same breath"],
)
async def test_a_body_without_end_is_no_answer_at_the_deadline(parts: tuple[bytes, ...]) -> None:
    """Also if the parser has closed the connection: nothing else wakes the reader of that body."""
    async with raw_server(in_parts(*parts, then=http(b"{}"))) as raw, asyncio.timeout(10):
        client, send = sender(raw.url, timeout=0.3)
        answer = await send()
        assert (answer.status, answer.failure, answer.sent) == (None, "TIMEOUT", True)
        assert (await send()).status == 200
        await client.close()
        assert len(raw.requests) == 2


async def test_a_cancelled_request_leaves_no_connection_behind() -> None:
    asked = asyncio.Event()

    async def late(raw: Raw, writer: asyncio.StreamWriter) -> bool:
        asked.set()
        if len(raw.requests) > 1:
            writer.write(http(b'{"n": 2}'))
        return True

    async with raw_server(late) as raw, asyncio.timeout(10):
        client, send = sender(raw.url, timeout=5)
        task = asyncio.ensure_future(send())
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await send()).raw == b'{"n": 2}'
        assert raw.connections == 2
        await client.close()


@pytest.mark.parametrize(
    "late",
    [http(b'{"ghost": 1}'), b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", b"\0"],
    ids=["an answer", "half a head", "half a body", "garbage"],
)
async def test_bytes_that_come_between_two_requests_answer_neither(late: bytes) -> None:
    async with raw_server(in_parts(http(b'{"n": 1}'), late, then=http(b'{"n": 2}'))) as raw, asyncio.timeout(10):
        client, send = sender(raw.url, timeout=2)
        assert (await send()).raw == b'{"n": 1}'
        for _ in range(20):
            await asyncio.sleep(0)
        assert (await send()).raw == b'{"n": 2}'
        assert (await send()).raw == b'{"n": 2}'
        await client.close()


async def test_an_answer_nobody_asked_for_in_two_halves_answers_nobody() -> None:
    """The first half ends inside a header's value.

    The rest would become the answer to the connection's next request.
    """
    half_sent: list[asyncio.StreamWriter] = []
    answered, was_sent = asyncio.Event(), asyncio.Event()

    async def reply(raw: Raw, writer: asyncio.StreamWriter) -> bool:
        if writer in half_sent:
            writer.write(b"y\r\nContent-Length: 5\r\n\r\nghost")
        writer.write(http(b"%d" % len(raw.requests)))
        if not half_sent:
            half_sent.append(writer)
            await writer.drain()
            await answered.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nX: ")
            was_sent.set()
        await writer.drain()
        return True

    async with raw_server(reply) as raw:
        client, send = sender(raw.url, 5.0)
        first = await send()
        answered.set()
        await was_sent.wait()
        for _ in range(50):  # nothing shows half a header
            await asyncio.sleep(0)
        second = await send()
        await client.close()
    assert (first.raw, second.raw, raw.connections) == (b"1", b"2", 2)


async def test_many_deadlines_at_once_are_all_kept() -> None:
    async with raw_server(in_parts(then=b"")) as raw, asyncio.timeout(30):
        client, send = sender(raw.url, timeout=1)
        answers = await asyncio.gather(*(send() for _ in range(200)))
        assert {(answer.status, answer.failure) for answer in answers} <= {(None, "TIMEOUT"), (None, "NOT_CONNECTED")}
        await client.close()


@pytest.mark.parametrize("interim", [MOST_INTERIM, MOST_INTERIM + 1])
async def test_interim_answers_are_bounded(interim: int) -> None:
    data = b"HTTP/1.1 102 Processing\r\n\r\n" * interim + http(b"{}")
    async with raw_server(in_parts(data)) as raw, asyncio.timeout(10):
        client, send = sender(raw.url, timeout=5)
        answer = await send()
        assert (answer.status, answer.failure) == ((200, "") if interim == MOST_INTERIM else (None, "NOT_HTTP"))
        await client.close()


async def test_a_server_that_closes_while_we_write_gives_no_answer() -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server, asyncio.timeout(10):
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        client = HttpClient(url, timeout=5, now=time.time)
        answer = await client.send(RequestWriter(url).request("PUT", "/v1/images", "", b" " * (8 << 20)), at_once)
        assert (answer.status, answer.failure, answer.sent) == (None, "NO_ANSWER", True)
        await client.close()


@pytest.mark.parametrize("name", ["Retry-After", "retry-after", "RETRY-AFTER", "rETRY-aFTER"])
async def test_the_name_of_a_header_may_have_any_case(name: str) -> None:
    async with raw_server(in_parts(http(b"", "429 Busy", f"{name}: 7"))) as raw, asyncio.timeout(10):
        client, send = sender(raw.url, timeout=5)
        assert (await send()).retry_after == 7
        await client.close()
