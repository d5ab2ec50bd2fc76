"""T32: the server is the one that was named, or nothing is sent. A bad certificate ends the run without many retries.

Each test makes its certificates: from an unknown authority, for another host, expired, not yet valid, an incomplete
chain.
"""

import asyncio
import contextlib
import os
import socket
import ssl
import struct
import threading
import warnings
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

import bulkimg
from bulkimg.errors import UsageError
from bulkimg.zstack.http import read_authority
from bulkimg.zstack.wire import Answer
from tests.conftest import UUID
from tests.ended import ended
from tests.zstack.raw import http, read_request
from tests.zstack.test_transport import transport

HOST = "127.0.0.1"
DAY = timedelta(days=1)


@dataclass
class TlsServer:
    """A TLS server that keeps the bodies and counts handshakes.

    `restart` changes its certificate for new connections.
    """

    port: int = 0
    bodies: list[bytes] = field(default_factory=list)
    handshakes: int = 0
    answers_before_close: int = 1_000_000
    context: ssl.SSLContext = field(default_factory=lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))


Issue = Callable[[trustme.CA], trustme.LeafCert]


@contextlib.asynccontextmanager
async def tls_server(*certificates: trustme.LeafCert) -> AsyncIterator[TlsServer]:
    state = TlsServer()
    for certificate in certificates:
        certificate.configure_cert(state.context)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        state.handshakes += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            for _ in range(state.answers_before_close):
                _, path, _, body = await read_request(reader)
                state.bodies.append(body)
                uuid = path.split("/")[4] if path.endswith("/actions") else UUID
                writer.write(http(b'{"inventory": {"uuid": "%s", "name": "x"}}' % uuid.encode()))
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0, ssl=state.context)
    state.port = server.sockets[0].getsockname()[1]
    try:
        yield state
    finally:
        server.close()
        await asyncio.sleep(0.05)


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    return made


async def put(url: str, ca_file: Path | None) -> Answer:
    client = transport(url, ca_file=ca_file)
    try:
        return await client.exchange("PUT", f"/v1/images/{UUID}/actions", headers=str, body=b"secret")
    finally:
        await client.close()


async def test_an_authority_named_by_ca_file_is_trusted(authority: trustme.CA, tmp_path: Path) -> None:
    async with tls_server(authority.issue_cert(HOST)) as server:
        assert (await put(f"https://{HOST}:{server.port}", tmp_path / "ca.pem")).status == 200
        assert server.bodies == [b"secret"]


def _expired(authority: trustme.CA) -> trustme.LeafCert:
    return authority.issue_cert(HOST, not_before=datetime.now(UTC) - 2 * DAY, not_after=datetime.now(UTC) - DAY)


def _not_yet(authority: trustme.CA) -> trustme.LeafCert:
    return authority.issue_cert(HOST, not_before=datetime.now(UTC) + DAY, not_after=datetime.now(UTC) + 2 * DAY)


def _chain_cut(authority: trustme.CA) -> trustme.LeafCert:
    """Make a certificate of an intermediate authority, whose own certificate the server does not send."""
    whole = authority.create_child_ca().issue_cert(HOST)
    return trustme.LeafCert(whole.private_key_pem.bytes(), whole.cert_chain_pems[0].bytes(), [])


@pytest.mark.parametrize(
    ("issue", "says"),
    [
        (_expired, "expired"),
        (_not_yet, "not yet valid"),
        (_chain_cut, "issuer"),
        (lambda _: trustme.CA().issue_cert(HOST), "issuer"),
        (lambda authority: authority.issue_cert("localhost"), "IP address mismatch"),
        (lambda authority: authority.issue_cert("*.example.com", "198.51.100.7"), "IP address mismatch"),
    ],
    ids=["expired", "not yet valid", "chain cut", "unknown authority", "another name", "other names"],
)
async def test_a_certificate_that_proves_nothing_gets_nothing(
    authority: trustme.CA, tmp_path: Path, issue: Issue, says: str
) -> None:
    async with tls_server(issue(authority)) as server:
        answer = await put(f"https://{HOST}:{server.port}", tmp_path / "ca.pem")
        assert (answer.status, answer.failure, answer.sent) == (None, "TLS", False)
        assert says in answer.detail
        assert server.bodies == []


async def test_an_authority_that_nobody_named_is_not_trusted(authority: trustme.CA) -> None:
    async with tls_server(authority.issue_cert(HOST)) as server:
        answer = await put(f"https://{HOST}:{server.port}", None)
        assert (answer.failure, answer.sent, server.bodies) == ("TLS", False, [])


async def test_tls_1_0_and_1_1_are_not_spoken(authority: trustme.CA, tmp_path: Path) -> None:
    async with tls_server(authority.issue_cert(HOST)) as server:
        server.context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            server.context.minimum_version = ssl.TLSVersion.TLSv1
            server.context.maximum_version = ssl.TLSVersion.TLSv1_1
        answer = await put(f"https://{HOST}:{server.port}", tmp_path / "ca.pem")
        assert (answer.status, answer.sent, server.bodies) == (None, False, [])


async def test_a_server_that_says_it_speaks_an_older_protocol_is_named(authority: trustme.CA, tmp_path: Path) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(bytes.fromhex("15 0301 0002 02 46"))  # a fatal alert, protocol_version (RFC 8446 §6)
        writer.close()

    server = await asyncio.start_server(refuse, HOST, 0)
    async with server:
        answer = await put(f"https://{HOST}:{server.sockets[0].getsockname()[1]}", tmp_path / "ca.pem")
    assert (answer.failure, answer.sent) == ("TLS", False)
    assert "PROTOCOL_VERSION" in answer.detail


@pytest.mark.parametrize("how", ["reset", "closed"])
async def test_a_handshake_that_breaks_is_no_connection_and_no_verdict_on_the_certificate(
    authority: trustme.CA, tmp_path: Path, how: str
) -> None:
    """A proxy that restarts does this. The run waits, as in every outage."""

    async def cut(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if how == "reset":
            raw: socket.socket = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort() if how == "reset" else writer.close()

    server = await asyncio.start_server(cut, HOST, 0)
    async with server:
        answer = await put(f"https://{HOST}:{server.sockets[0].getsockname()[1]}", tmp_path / "ca.pem")
    assert (answer.failure, answer.sent) == ("NOT_CONNECTED", False)


async def test_plain_http_answers_on_a_tls_port_are_no_answer(authority: trustme.CA) -> None:
    async with tls_server(authority.issue_cert(HOST)) as server:
        answer = await put(f"http://{HOST}:{server.port}", None)
        assert answer.status is None
        assert server.bodies == []


async def execute(server: TlsServer, place: Path, rows: int, **options: Any) -> bulkimg.Run:
    """Execute a run of so many rows at 40 requests a second."""
    changes = [{"uuid": f"{n:032x}", "name": "x"} for n in range(rows)]
    given: dict[str, Any] = {"rate": "40/s", "concurrency": 2, "endpoint": f"https://{HOST}:{server.port}", **options}
    one = bulkimg.Run(changes, credentials=bulkimg.Session("5" * 32), runs_dir=place / "runs", survey=False, **given)
    await ended(one)
    return one


async def test_a_certificate_that_expires_in_the_middle_stops_the_run(authority: trustme.CA, tmp_path: Path) -> None:
    """Open connections stay. The first new one finds the bad certificate, and nothing more is tried."""
    soon = datetime.now(UTC) + timedelta(seconds=2.5)
    certificate = authority.issue_cert(HOST, not_before=datetime.now(UTC) - DAY, not_after=soon)
    async with tls_server(certificate) as server:
        server.answers_before_close = 10
        one = await execute(server, tmp_path, 300, ca_file=tmp_path / "ca.pem")
        assert one.summary is not None
        counts = one.summary.counts
        assert one.summary.exit_code == 5
        assert counts["updated"] + counts["unprocessed"] == 300
        assert counts["updated"] == len([body for body in server.bodies if b"updateimage" in body]) > 20
        assert counts["unprocessed"] > 0


async def test_a_certificate_that_is_not_accepted_sends_no_row_and_is_tried_once(
    authority: trustme.CA, tmp_path: Path
) -> None:
    async with tls_server(_expired(authority)) as server:
        one = await execute(server, tmp_path, 50, ca_file=tmp_path / "ca.pem", retries=5)
        assert one.summary is not None
        assert (one.summary.exit_code, one.summary.counts["unprocessed"], server.bodies) == (5, 50, [])
        assert server.handshakes <= 2


async def test_an_authority_that_can_be_read_once_is_read_once(authority: trustme.CA, tmp_path: Path) -> None:
    """For example `--ca-file <(command)`. A file that is read twice may also differ the second time."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(authority.cert_pem.bytes(),))
    writer.start()
    async with tls_server(authority.issue_cert(HOST)) as server, asyncio.timeout(30):
        await execute(server, tmp_path, 10, ca_file=pipe)
        assert len(server.bodies) >= 10
    writer.join()


async def test_an_empty_authority_is_not_the_systems(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("# nobody, «né»\n")
    (tmp_path / "nothing.pem").write_bytes(b"")
    for name in ("empty.pem", "nothing.pem"):
        with pytest.raises(UsageError, match=f"--ca-file .*{name}: cannot be used: "):
            read_authority(tmp_path / name)
