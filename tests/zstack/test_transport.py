"""One call is one request. Nothing leaves the origin. A status is always the server's own."""

import asyncio
import gzip
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from bulkimg.zstack.http import MAX_BODY, HttpClient, read_authority
from bulkimg.zstack.transport import Transport
from bulkimg.zstack.wire import Answer
from tests.conftest import UUID, corpus
from tests.zstack.raw import Raw, always, http, raw_server

PATH = f"/v1/images/{UUID}/actions"


class Unpaced:
    """Let every request through, and count the results."""

    def __init__(self) -> None:
        self.admitted = 0
        self.told: list[Answer | None] = []

    async def admit(self) -> int:
        self.admitted += 1
        return 0

    admit_probe = admit

    async def begin(self, epoch: int) -> bool:
        return True

    def record(self, epoch: int, answer: Answer | None) -> int:
        self.told.append(answer)
        return 0


def transport(url: str, timeout: float = 5.0, ca_file: Path | None = None) -> Transport:
    return Transport(
        HttpClient(url, timeout=timeout, authority=read_authority(ca_file), now=time.time), f"{url}/zstack", Unpaced()
    )


async def put(url: str, times: int = 1, timeout: float = 5.0) -> list[Answer]:
    client = transport(url, timeout)
    try:
        return [await client.exchange("PUT", PATH, headers=str, body=b"{}") for _ in range(times)]
    finally:
        await client.close()


@pytest.mark.parametrize("warm", [0, 1])
async def test_a_put_is_never_sent_twice_by_the_http_client(warm: int) -> None:
    """aiohttp does this silently when a connection breaks (docs/dev/reliability.md F1)."""

    async def reply(raw: Raw, writer: asyncio.StreamWriter) -> bool:
        if len(raw.requests) <= warm:
            writer.write(http(b"{}"))
            return True
        return False

    async with raw_server(reply) as raw:
        answers = await put(raw.url, times=warm + 1)
    assert len(raw.requests) == warm + 1
    assert (answers[-1].status, answers[-1].failure, answers[-1].sent) == (None, "NO_ANSWER", True)


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
async def test_redirects_are_not_followed(status: str) -> None:
    async with raw_server(always(http(b"{}"))) as elsewhere:
        async with raw_server(always(http(b"", status, f"Location: {elsewhere.url}/x"))) as raw:
            (answer,) = await put(raw.url)
        assert answer.status == int(status[:3])
        assert elsewhere.connections == 0


async def test_cookies_are_neither_kept_nor_sent() -> None:
    async with raw_server(always(http(b"{}", "200 OK", "Set-Cookie: a=b"), stays=True)) as raw:
        await put(raw.url, times=2)
    assert all("cookie" not in headers for _, _, headers, _ in raw.requests)


@pytest.mark.parametrize(
    ("data", "failure"),
    [
        (b"", "NO_ANSWER"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}", "ANSWER_CUT"),
        (b"SSH-2.0-OpenSSH\r\n", "NOT_HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", "NOT_HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", "NOT_HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "ANSWER_CUT"),
    ],
)
async def test_a_broken_answer_has_no_status(data: bytes, failure: str) -> None:
    """aiohttp reports most of these as status 400 (F2)."""
    async with raw_server(always(data)) as raw:
        (answer,) = await put(raw.url)
    assert (answer.status, answer.failure, answer.sent) == (None, failure, True)


async def test_an_answer_nobody_asked_for_does_not_shift_the_next_ones() -> None:
    """The connection with such an answer is closed (F3)."""

    answered, was_sent = asyncio.Event(), asyncio.Event()

    async def reply(raw: Raw, writer: asyncio.StreamWriter) -> bool:
        number = len(raw.requests)
        writer.write(http(b'{"n":%d}' % number))
        if number == 1:
            await writer.drain()
            await answered.wait()
            writer.write(http(b'{"n":"ghost"}'))
            was_sent.set()
        return True

    async with raw_server(reply) as raw:
        client = transport(raw.url)
        numbers = []
        for _ in range(4):
            numbers.append((await client.exchange("PUT", PATH, headers=str, body=b"{}")).json()["n"])
            answered.set()
            await was_sent.wait()
            for _ in range(50):
                await asyncio.sleep(0)
        await client.close()
    assert numbers == [1, 2, 3, 4]


async def test_bodies_are_bounded() -> None:
    async def endless(_: Raw, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        for _piece in range(4 * MAX_BODY // 65536):
            writer.write(b"x" * 65536)
            await writer.drain()
        return False

    async with raw_server(endless) as raw:
        assert (await put(raw.url))[0].failure == "BODY_TOO_LARGE"
    bomb = gzip.compress(b"\0" * (20 * MAX_BODY))
    async with raw_server(always(http(bomb, "200 OK", "Content-Encoding: gzip"))) as raw:
        assert (await put(raw.url))[0].failure == "BODY_TOO_LARGE"


async def test_a_server_that_drips_or_says_nothing_is_bounded_by_the_timeout() -> None:
    async def drip(_: Raw, writer: asyncio.StreamWriter) -> bool:
        for char in b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000:
            writer.write(bytes([char]))
            await writer.drain()
            await asyncio.sleep(0.02)
        return False

    async with raw_server(drip) as raw:
        (answer,) = await put(raw.url, timeout=0.3)
    assert (answer.status, answer.failure, answer.sent) == (None, "TIMEOUT", True)


async def test_no_connection_means_nothing_was_sent() -> None:
    (answer,) = await put("http://127.0.0.1:9")
    assert (answer.status, answer.failure, answer.sent) == (None, "NOT_CONNECTED", False)
    assert "refused" in answer.detail.lower()


@pytest.mark.parametrize(
    "path", ["/v1/images/../accounts", f"/v1/images/{UUID}/actions?x", "/v1/zones", f"/v1/images/{UUID}\n"]
)
async def test_other_paths_than_ours_are_a_bug(path: str) -> None:
    client = transport("http://127.0.0.1:9")
    with pytest.raises(AssertionError):
        await client.exchange("PUT", path, headers=str)
    await client.close()


async def test_the_llhttp_corpus_as_answers_never_crashes_nor_lies() -> None:
    """Every status that bulkimg reports is in the raw answer."""
    files = sorted(corpus("llhttp-responses/raw").glob("*.http"))
    for path in files:
        data = path.read_bytes()
        async with raw_server(always(data)) as raw:
            (answer,) = await put(raw.url, timeout=2)
        assert len(raw.requests) == 1, path.name
        if answer.status is not None:
            assert f" {answer.status}".encode() in data, path.name
    assert len(files) == 85


async def test_a_name_that_nobody_can_resolve_is_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without DNS: an outage like a refused connection, and nothing was sent."""

    def gone(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", gone)
    [answer] = await put("http://zstack.internal:8080")
    assert (answer.failure, answer.sent) == ("NOT_CONNECTED", False)
    assert "name resolution" in answer.detail


@pytest.mark.parametrize(("begins", "counted"), [(False, 0), (True, 1)])
async def test_a_request_that_is_given_up_is_counted_if_it_was_sent(begins: bool, counted: int) -> None:
    waits = asyncio.Event()

    class Waits:
        async def send(self, request: bytes, begin: Callable[[], Awaitable[bool]]) -> Answer:
            assert not begins or await begin()
            waits.set()
            await asyncio.Event().wait()
            return Answer(200)

        async def close(self) -> None:
            pass

    client, sent = Transport(Waits(), "http://node/zstack", Unpaced()), list[str]()
    sending = asyncio.create_task(client.send(0, "PUT", PATH, "", b"{}", begun=lambda: sent.append("first byte")))
    await waits.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert client.meter.total == len(sent) == counted
