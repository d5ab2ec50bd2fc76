"""TLS: the server is who it says, or nothing is sent. The certificate beside this file is for 127.0.0.1 and for tests only."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

from bulkimg.zstack.wire import Answer
from tests.conftest import UUID
from tests.zstack.raw import http, read_request
from tests.zstack.test_transport import transport

HERE = Path(__file__).parent / "tls"


@contextlib.asynccontextmanager
async def tls_server() -> AsyncIterator[tuple[int, list[bytes]]]:
    """Its port, and the bodies it was sent."""
    bodies: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            bodies.append((await read_request(reader))[3])
            writer.write(http(b"{}"))
            await writer.drain()
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(HERE / "cert.pem", HERE / "key.pem")
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1], bodies
    finally:
        server.close()
        await asyncio.sleep(0.05)


async def put(url: str, ca_file: Path | None) -> Answer:
    client = transport(url, ca_file=ca_file)
    try:
        return await client.exchange("PUT", f"/v1/images/{UUID}/actions", headers=dict, body=b"secret")
    finally:
        await client.close()


async def test_an_authority_named_by_ca_file_is_trusted() -> None:
    async with tls_server() as (port, bodies):
        assert (await put(f"https://127.0.0.1:{port}", HERE / "cert.pem")).status == 200
        assert bodies == [b"secret"]


async def test_an_unknown_authority_and_another_host_get_nothing() -> None:
    async with tls_server() as (port, bodies):
        for url, ca_file in ((f"https://127.0.0.1:{port}", None), (f"https://localhost:{port}", HERE / "cert.pem")):
            answer = await put(url, ca_file)
            assert (answer.status, answer.failure, answer.sent) == (None, "TLS", False), url
        assert bodies == []


async def test_plain_http_answers_on_a_tls_port_are_no_answer() -> None:
    async with tls_server() as (port, bodies):
        answer = await put(f"http://127.0.0.1:{port}", None)
        assert answer.status is None
        assert bodies == []
