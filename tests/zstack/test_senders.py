"""Requests that other processes put on the wire: answered as by HttpClient, and never lost with their process."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from bulkimg.errors import UsageError
from bulkimg.zstack import senders
from bulkimg.zstack.http import MAX_BODY, HttpClient
from bulkimg.zstack.senders import Senders
from bulkimg.zstack.transport import Client
from bulkimg.zstack.wire import Answer
from tests.zstack.raw import Raw, always, http, raw_server

HEADERS = {"Authorization": "OAuth 0123456789abcdef0123456789abcdef", "X-Job-UUID": "5" * 32}


def children() -> list[int]:
    """The processes that this one has started and not yet buried, zombies left out."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == os.getpid() and state != "Z":
                found.append(int(stat.parent.name))
    return found


def senders_of(known: list[int]) -> list[int]:
    return sorted(set(children()) - set(known))


@contextlib.asynccontextmanager
async def sending(count: int = 1, timeout: float = 5.0) -> AsyncIterator[tuple[Senders, list[int]]]:
    """The client and the pids of its processes."""
    known = children()
    client = Senders(count, timeout=timeout, ca_file=None, now=time.time)
    pids = senders_of(known)
    assert len(pids) == count
    try:
        await until(lambda: all(sender.is_there for sender in client._all))
        yield client, pids
    finally:
        await client.close()
    assert not senders_of(known), "its processes have ended with it"


async def put(client: Client, url: str) -> Answer:
    return await client.send("PUT", f"{url}/zstack/v1/images/x/actions", HEADERS, b'{"a":1}')


async def until(come: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not come():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@contextlib.contextmanager
def shut_port() -> Iterator[str]:
    """A URL where nobody listens, and nobody else will."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


ANSWERS = {
    "an answer": http(b'{"inventory":{"name":"\xc3\xa9"}}'),
    "a refusal with headers": http(
        b"{}", "429 Too Many", "Retry-After: 7", "RateLimit-Remaining: 3", "RateLimit-Reset: 9"
    ),
    "no answer": b"",
    "half an answer": b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{",
    "no http": b"SSH-2.0-OpenSSH\r\n\r\n",
    "too much": http(bytes(MAX_BODY + 1)),
    "just not too much": http(bytes(MAX_BODY)),
}


async def test_every_answer_is_the_one_that_http_client_gives() -> None:
    alone = HttpClient(timeout=5.0, ca_file=None, now=time.time)
    async with sending() as (client, _):
        for name, raw in ANSWERS.items():
            async with raw_server(always(raw)) as server:
                expected, found = await put(alone, server.url), await put(client, server.url)
                assert found == expected, name
                assert server.requests[0] == server.requests[1], "the same bytes went out"
        with shut_port() as url:
            assert await put(client, url) == await put(alone, url)
    await alone.close()


async def test_requests_are_shared_out_among_the_processes() -> None:
    release = asyncio.Event()

    async def reply(raw: Raw, writer: asyncio.StreamWriter) -> bool:
        await release.wait()
        writer.write(http(b"{}"))
        return True

    async with raw_server(reply) as server, sending(3) as (client, _):
        tasks = [asyncio.ensure_future(put(client, server.url)) for _ in range(12)]
        await until(lambda: len(server.requests) == 12)
        assert [len(sender.open) for sender in client._all] == [4, 4, 4]
        release.set()
        assert {answer.status for answer in await asyncio.gather(*tasks)} == {200}


async def test_what_a_killed_process_was_sending_may_have_gone_out_and_the_others_go_on() -> None:
    release = asyncio.Event()

    async def reply(raw: Raw, writer: asyncio.StreamWriter) -> bool:
        await release.wait()
        writer.write(http(b"{}"))
        return True

    async with raw_server(reply) as server, sending(2) as (client, pids):
        tasks = [asyncio.ensure_future(put(client, server.url)) for _ in range(6)]
        await until(lambda: len(server.requests) == 6)
        os.kill(pids[0], signal.SIGKILL)
        ended = [await tasks[n] for n in (0, 2, 4)]
        release.set()
        assert {(answer.status, answer.failure, answer.sent) for answer in ended} == {(None, "NO_ANSWER", True)}
        assert {(await tasks[n]).status for n in (1, 3, 5)} == {200}
        assert (await put(client, server.url)).status == 200, "by the other one"
        os.kill(pids[1], signal.SIGKILL)
        await until(lambda: not client._all[1].is_there)
        assert (await put(client, server.url)).status == 200, "by nobody else, so by ourselves"
        assert len(server.requests) == 8, "no request went out twice"


async def test_a_process_that_hangs_costs_one_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(senders, "GRACE", 0.5)
    async with raw_server(always(http(b"{}"), stays=True)) as server, sending(timeout=0.5) as (client, pids):
        assert (await put(client, server.url)).status == 200
        os.kill(pids[0], signal.SIGSTOP)
        answer = await asyncio.wait_for(put(client, server.url), 10)
        assert (answer.failure, answer.sent) == ("NO_ANSWER", True)
        assert (await put(client, server.url)).status == 200


async def test_a_process_that_does_not_come_up_is_done_without(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    async with raw_server(always(http(b"{}"), stays=True)) as server:
        client = Senders(2, timeout=5.0, ca_file=None, now=time.time)
        assert (await put(client, server.url)).status == 200
        await client.close()


async def test_a_request_that_is_given_up_is_broken_off() -> None:
    broken = asyncio.Event()

    async def reply(raw: Raw, writer: asyncio.StreamWriter) -> bool:
        with contextlib.suppress(ConnectionError):
            while not writer.transport.is_closing():
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                await asyncio.sleep(0.05)
        broken.set()
        return False

    async with raw_server(reply) as server, sending(timeout=60.0) as (client, _):
        task = asyncio.ensure_future(put(client, server.url))
        await until(lambda: len(server.requests) == 1)
        task.cancel()
        await asyncio.wait_for(broken.wait(), 10)
        assert not client._all[0].open


async def test_the_pipe_takes_much_at_once() -> None:
    """More than a socket's buffer holds, both ways, so that batches come in pieces."""
    large = b'{"inventory":"' + b"x" * 300_000 + b'"}'
    async with raw_server(always(http(large), stays=True)) as server, sending() as (client, _):
        body = b"y" * 100_000
        sent = [client.send("PUT", f"{server.url}/{n}", HEADERS, body) for n in range(40)]
        assert {answer.raw for answer in await asyncio.gather(*sent)} == {large}
        assert {request[3] for request in server.requests} == {body}
        assert sorted(int(request[1][1:]) for request in server.requests) == list(range(40))


async def test_a_process_shows_no_credential_and_imports_nothing_of_the_working_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BULKIMG_SESSION", "secret-of-the-environment")
    (tmp_path / "ssl.py").write_text("raise SystemExit('taken from the working directory')")
    monkeypatch.chdir(tmp_path)
    async with raw_server(always(http(b"{}"), stays=True)) as server, sending() as (client, pids):
        started = Path(f"/proc/{pids[0]}")
        assert b"bulkimg.zstack.sender" in (started / "cmdline").read_bytes()
        assert "BULKIMG_SESSION" not in senders._environment()
        assert (await put(client, server.url)).status == 200
        assert client._all[0].is_there, "it is the process that has sent it"
        limits = (started / "limits").read_text()
        assert [line.split()[4:6] for line in limits.splitlines() if "core file" in line] == [["0", "0"]]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
async def test_signals_are_the_runs_business(number: signal.Signals) -> None:
    """Ctrl-C in a terminal reaches the whole process group: what is in flight is still answered."""
    async with raw_server(always(http(b"{}"), stays=True)) as server, sending() as (client, pids):
        assert (await put(client, server.url)).status == 200
        os.kill(pids[0], number)
        assert (await put(client, server.url)).status == 200
        assert client._all[0].is_there


async def test_where_no_process_can_be_started_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(
        UsageError, match="--processes: no other process can be started: No such file or directory; use 1"
    ):
        Senders(1, timeout=5.0, ca_file=None, now=time.time)


async def test_they_end_by_themselves_when_the_pipe_does() -> None:
    async with raw_server(always(http(b"{}"), stays=True)) as server, sending(2) as (client, _):
        assert (await put(client, server.url)).status == 200
    assert [sender._process.returncode for sender in client._all] == [0, 0], "nobody had to end them"
