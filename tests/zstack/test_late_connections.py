"""A connection takes time. When it is there, the request may have lost its turn, or the rate may be used up."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

from bulkimg.applier import Paced
from bulkimg.pace import Pace
from bulkimg.zstack import HttpClient, Transport, read_authority
from bulkimg.zstack.wire import RequestWriter
from tests.conftest import UUID
from tests.windows import most_within
from tests.zstack.raw import at_once, http, read_request
from tests.zstack.test_tls import HOST, TlsServer, authority, tls_server

__all__ = ["authority"]  # the fixture
PATH = f"/v1/images/{UUID}/actions"


class Gate:
    """A proxy in front of a server. It accepts at once, and passes no bytes until it is `open`."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.port = 0
        self.connections = 0
        self.ended = 0


@contextlib.asynccontextmanager
async def gate_before(server: TlsServer) -> AsyncIterator[Gate]:
    gate = Gate()
    pumps: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                writer.write(data)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gate.connections += 1
        await gate.open.wait()
        theirs, ours = await asyncio.open_connection(HOST, server.port)
        both = {asyncio.create_task(pump(reader, ours)), asyncio.create_task(pump(theirs, writer))}
        pumps.update(both)
        await asyncio.wait(both)
        gate.ended += 1

    listener = await asyncio.start_server(serve, HOST, 0)
    gate.port = listener.sockets[0].getsockname()[1]
    try:
        yield gate
    finally:
        listener.close()
        async with asyncio.timeout(10):
            await asyncio.gather(*pumps)  # the client has closed its connections


@contextlib.asynccontextmanager
async def scene(authority: trustme.CA, tmp_path: Path) -> AsyncIterator[tuple[TlsServer, Gate, HttpClient, bytes]]:
    """Yield a server, the gate before it, a client of both, and a request."""
    async with tls_server(authority.issue_cert(HOST)) as server, gate_before(server) as gate:
        url = f"https://{HOST}:{gate.port}"
        client = HttpClient(url, timeout=20, authority=read_authority(tmp_path / "ca.pem"), now=time.time)
        try:
            yield server, gate, client, RequestWriter(url).request("PUT", PATH, "", b"{}")
        finally:
            await client.close()


async def _until(condition: object, what: str) -> None:
    for _ in range(2000):
        if condition():  # type: ignore[operator]
            return
        await asyncio.sleep(0.005)
    raise AssertionError(what)


async def test_a_lost_turn_sends_nothing_and_keeps_the_connection(authority: trustme.CA, tmp_path: Path) -> None:
    async with scene(authority, tmp_path) as (server, gate, client, request):
        allowed: list[bool] = [False, True]

        async def begin() -> bool:
            return allowed.pop(0)

        gate.open.set()
        answer = await client.send(request, begin)
        assert (answer.status, answer.failure, answer.sent) == (None, "TURN_LOST", False)
        assert server.bodies == []
        assert (await client.send(request, begin)).status == 200
        assert (server.bodies, gate.connections) == ([b"{}"], 1)


async def test_a_request_that_is_given_up_before_it_begins_closes_its_connection(
    authority: trustme.CA, tmp_path: Path
) -> None:
    async with scene(authority, tmp_path) as (server, gate, client, request):
        waits = asyncio.Event()

        async def begin() -> bool:
            waits.set()
            await asyncio.Event().wait()
            return True

        gate.open.set()
        sending = asyncio.create_task(client.send(request, begin))
        await waits.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await _until(lambda: gate.ended == 1, "the connection is still open")
        assert server.bodies == []


async def test_the_wait_for_its_turn_uses_none_of_a_requests_time(authority: trustme.CA, tmp_path: Path) -> None:
    async with tls_server(authority.issue_cert(HOST)) as server:
        url = f"https://{HOST}:{server.port}"
        client = HttpClient(url, timeout=1.0, authority=read_authority(tmp_path / "ca.pem"), now=time.time)

        async def begin() -> bool:
            await asyncio.sleep(1.5)
            return True

        answer = await client.send(RequestWriter(url).request("PUT", PATH, "", b"{}"), begin)
        await client.close()
        assert answer.status == 200, answer


async def test_connections_that_are_there_all_at_once_do_not_break_the_rate(
    authority: trustme.CA, tmp_path: Path
) -> None:
    """The server does not shake hands until all requests have had their turns."""
    rate, requests, begun = 40, 60, list[float]()

    class Noting(Pace):
        async def begin(self, epoch: int) -> bool:
            begins = await super().begin(epoch)
            begun.append(asyncio.get_running_loop().time())
            return begins

    async with scene(authority, tmp_path) as (server, gate, client, _):
        pace = Noting(rate, requests)
        transport = Transport(client, f"https://{HOST}:{gate.port}", Paced(pace))
        sending = [
            asyncio.create_task(transport.exchange("PUT", PATH, headers=str, body=b"{}")) for _ in range(requests)
        ]
        await _until(lambda: gate.connections == requests, "the requests wait for their turns")
        gate.open.set()
        answers = await asyncio.gather(*sending)
        assert [answer.status for answer in answers] == [200] * requests
        assert len(server.bodies) == requests
        assert most_within(1.0, sorted(begun)) <= rate


@pytest.mark.parametrize("said", [b"", http(b"nobody asked for this")])
async def test_a_connection_that_the_server_ends_or_writes_to_while_its_request_waits_is_not_used(said: bytes) -> None:
    """Its bytes would become the answer; after its end, the request would count as sent, and as the server's failure."""
    waits, was_said = asyncio.Event(), asyncio.Event()
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        if connections == 1:
            await waits.wait()
            writer.write(said)
        else:
            await read_request(reader)
            writer.write(http(b"the answer"))
        if not said or connections == 2:
            writer.close()
        was_said.set()
        await reader.read()
        writer.close()

    async def begin() -> bool:
        waits.set()
        await was_said.wait()
        for _ in range(50):
            await asyncio.sleep(0)
        return True

    async with await asyncio.start_server(serve, HOST, 0) as server:
        url = f"http://{HOST}:{server.sockets[0].getsockname()[1]}"
        client = HttpClient(url, timeout=20, now=time.time)
        request = RequestWriter(url).request("PUT", PATH, "", b"{}")
        answer = await client.send(request, begin)
        assert (answer.status, answer.failure, answer.sent) == (None, "TURN_LOST", False)
        assert (await client.send(request, at_once)).raw == b"the answer"
        await client.close()
    assert connections == 2
