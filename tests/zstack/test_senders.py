"""Requests that other processes put on the wire: answered as by HttpClient, and never lost with their process."""

import asyncio
import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from bulkimg.errors import UsageError
from bulkimg.zstack import senders
from bulkimg.zstack.http import MAX_BODY, HttpClient
from bulkimg.zstack.sender import Workers
from bulkimg.zstack.senders import Senders
from bulkimg.zstack.transport import Client
from bulkimg.zstack.wire import Answer
from tests.zstack.raw import Raw, Reply, always, http, raw_server

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
    client = Senders(count, timeout=timeout, authority=None, now=time.time)
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


def once(release: asyncio.Event) -> Reply:
    """Answers are held back until then."""

    async def reply(raw: Raw, writer: asyncio.StreamWriter) -> bool:
        await release.wait()
        writer.write(http(b"{}"))
        return True

    return reply


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
    alone = HttpClient(timeout=5.0, authority=None, now=time.time)
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
    async with raw_server(once(release)) as server, sending(3) as (client, _):
        tasks = [asyncio.ensure_future(put(client, server.url)) for _ in range(12)]
        await until(lambda: len(server.requests) == 12)
        assert [len(sender.open) for sender in client._all] == [4, 4, 4]
        release.set()
        assert {answer.status for answer in await asyncio.gather(*tasks)} == {200}


async def test_what_a_killed_process_was_sending_may_have_gone_out_and_the_others_go_on() -> None:
    release = asyncio.Event()
    async with raw_server(once(release)) as server, sending(2) as (client, pids):
        tasks = [asyncio.ensure_future(put(client, server.url)) for _ in range(6)]
        await until(lambda: len(server.requests) == 6)
        os.kill(pids[0], signal.SIGKILL)
        ended = [await tasks[n] for n in (0, 2, 4)]
        release.set()
        assert {(answer.status, answer.failure, answer.sent) for answer in ended} == {(None, "SENDER", True)}
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
        assert (answer.failure, answer.sent) == ("SENDER", True)
        assert (await put(client, server.url)).status == 200


async def test_a_process_that_does_not_come_up_is_done_without(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    async with raw_server(always(http(b"{}"), stays=True)) as server:
        client = Senders(2, timeout=5.0, authority=None, now=time.time)
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
    given: list[dict[str, str]] = []
    start: Any = subprocess.Popen

    def started_with(*command: Any, env: dict[str, str], **how: Any) -> Any:
        given.append(env)
        return start(*command, env=env, **how)

    monkeypatch.setattr(subprocess, "Popen", started_with)
    async with raw_server(always(http(b"{}"), stays=True)) as server, sending() as (client, pids):
        started = Path(f"/proc/{pids[0]}")
        assert b"from bulkimg.zstack import sender" in (started / "cmdline").read_bytes()
        assert len(given) == 1
        assert not any(name.startswith("BULKIMG_") for name in given[0])
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
        UsageError, match="--processes: cannot start another process: No such file or directory; use --processes 1"
    ):
        Senders(1, timeout=5.0, authority=None, now=time.time)


async def test_one_ends_by_itself_when_the_pipe_does() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = senders._started(theirs.fileno())
    assert process.wait(20) == 0


async def test_one_whose_run_is_gone_before_it_is_there_does_not_begin() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        of_nobody = f"from bulkimg.zstack import sender; sender.main('{theirs.fileno()}', '1')"
        process = subprocess.Popen([sys.executable, "-c", of_nobody], pass_fds=[theirs.fileno()])
        assert process.wait(20) == 1


async def test_what_comes_to_its_turn_too_late_is_handed_back_and_not_sent() -> None:
    """A process that stood still would let out at once what was admitted for many moments; or for a run that is no more."""
    async with raw_server(always(http(b"{}"), stays=True)) as server, sending(timeout=30.0) as (client, pids):
        assert (await put(client, server.url)).status == 200
        client.lateness = lambda: 0.2
        os.kill(pids[0], signal.SIGSTOP)
        tasks = [asyncio.ensure_future(put(client, server.url)) for _ in range(5)]
        await asyncio.sleep(0.4)
        os.kill(pids[0], signal.SIGCONT)
        late = await asyncio.gather(*tasks)
        assert {(answer.status, answer.failure, answer.sent) for answer in late} == {(None, "SENDER", False)}
        assert len(server.requests) == 1
        os.kill(pids[0], signal.SIGSTOP)
        again = [await asyncio.wait_for(put(client, server.url), 10) for _ in range(5)]
        assert {answer.status for answer in again} == {200}, "it rests: on a busy machine, too, each goes out sometime"
        os.kill(pids[0], signal.SIGCONT)
        await until(lambda: time.monotonic() >= client._all[0].rests_until)
        client.lateness = lambda: 60.0
        task = asyncio.ensure_future(put(client, server.url))
        await asyncio.sleep(0)
        assert client._all[0].open, "it is sent by again"
        assert (await task).status == 200


async def test_where_no_moment_may_be_lost_none_is_handed_over() -> None:
    async with raw_server(always(http(b"{}"), stays=True)) as server, sending(timeout=30.0) as (client, pids):
        client.lateness = lambda: 0.0
        os.kill(pids[0], signal.SIGSTOP)
        assert (await asyncio.wait_for(put(client, server.url), 10)).status == 200


async def test_one_that_has_ended_is_buried_while_the_run_goes_on() -> None:
    async with sending(2) as (_, pids):
        os.kill(pids[0], signal.SIGKILL)
        await until(lambda: not Path(f"/proc/{pids[0]}").exists())


async def test_close_ends_at_once_what_is_stopped_and_what_is_not_there_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(senders, "GRACE", 600.0)
    known = children()
    async with asyncio.timeout(60):
        async with sending(timeout=30.0) as (client, pids):
            os.kill(pids[0], signal.SIGSTOP)
            much = asyncio.ensure_future(client.send("PUT", "http://127.0.0.1:9", HEADERS, bytes(2 << 20)))
            await asyncio.sleep(0.1)  # more than the pipe holds: what is left of it would be waited for
            much.cancel()
        client = Senders(8, timeout=5.0, authority=None, now=time.time)
        for pid in senders_of(known):
            os.kill(pid, signal.SIGSTOP)  # it will never be there
        await client.close()
    assert not senders_of(known)


async def test_close_needs_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system gives us none, a run that has finished is not to end without its summary."""

    def none_left(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with sending(2):
        monkeypatch.setattr(threading.Thread, "start", none_left)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
async def test_a_signal_while_it_starts_is_not_its_business_either(number: signal.Signals) -> None:
    known = children()
    client = Senders(3, timeout=5.0, authority=None, now=time.time)
    try:
        for pid in senders_of(known):
            os.kill(pid, number)
        await until(lambda: all(sender.is_there for sender in client._all))
    finally:
        await client.close()


async def test_where_one_cannot_be_started_none_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    known = children()
    start: Any = subprocess.Popen
    count = 0

    def two_at_most(*command: Any, **how: Any) -> Any:
        nonlocal count
        count += 1
        return start(["/nowhere/python"] if count > 2 else command[0], **how)

    monkeypatch.setattr(subprocess, "Popen", two_at_most)
    with pytest.raises(UsageError) as refused:
        Senders(3, timeout=5.0, authority=None, now=time.time)
    await until(lambda: not senders_of(known))
    assert refused.value.exit_code == 2  # the error is still there, and so is all that it refers to


async def test_a_colon_in_the_name_of_a_directory_opens_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A list of places joined by colons would name «a» where ours is «a:b»."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "ssl.py").write_text("raise SystemExit('taken from a foreign directory')")
    monkeypatch.syspath_prepend(str(tmp_path / "a:b"))
    async with raw_server(always(http(b"{}"), stays=True)) as server, sending() as (client, _):
        assert (await put(client, server.url)).status == 200


class Stub:
    """A client that does as it is told, and counts."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.sent = 0
        self._error = error

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        self.sent += 1
        if self._error:
            raise self._error
        return Answer(200)


REQUEST: tuple[Any, ...] = (float("inf"), "PUT", "http://x", {}, None)


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_is_given_up_before_its_turn_is_not_sent() -> None:
    stub, said = Stub(), list[Any]()
    workers = Workers(cast(HttpClient, stub), said.append, lambda: None)
    workers.take((1, *REQUEST))
    workers.take((1,))
    await turns()
    assert (stub.sent, said) == (0, [])
    workers.take((2, *REQUEST))
    await turns()
    assert [number for number, _ in said] == [2], "its worker waits for more"
    workers.take((3, *REQUEST))
    workers.take((3,))
    workers.take((4, *REQUEST))
    await turns()
    assert (stub.sent, [number for number, _ in said]) == (2, [2, 4])


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't start new thread")])
async def test_what_the_system_does_not_give_it_ends_the_process_and_not_the_run(error: Exception) -> None:
    said, given_up = list[Any](), list[bool]()
    workers = Workers(cast(HttpClient, Stub(error)), said.append, lambda: given_up.append(True))
    workers.take((1, *REQUEST))
    await turns()
    assert (said, given_up) == ([], [True]), "the run asks what became of it"


async def test_a_bug_in_it_is_told_by_its_name_alone() -> None:
    said = list[Any]()
    workers = Workers(cast(HttpClient, Stub(KeyError("a header"))), said.append, lambda: None)
    workers.take((1, *REQUEST))
    await turns()
    assert said == [(1, "KeyError")]


async def test_a_process_without_memory_ends_and_claims_no_request_unsent_that_went_out() -> None:
    """What such a process still says depends on where it was when its memory ended: a broken answer, no socket, nothing at all.
    It ends, what it had sent counts as sent, and the run goes on by itself."""
    large = http(b"x" * MAX_BODY)
    async with raw_server(always(large, stays=True)) as server, sending(timeout=30.0) as (client, pids):
        assert (await put(client, server.url)).status == 200
        used = int(Path(f"/proc/{pids[0]}/statm").read_text().split()[0]) * resource.getpagesize()
        resource.prlimit(pids[0], resource.RLIMIT_AS, (used + (1 << 20), used + (1 << 20)))
        for _ in range(10):
            received = len(server.requests)
            answers = await asyncio.gather(*(put(client, server.url) for _ in range(20)))
            assert len(server.requests) - received <= sum(answer.sent for answer in answers)
            if not client._all[0].is_there:
                break
        assert not client._all[0].is_there, "it has ended"
        assert any((answer.failure, answer.sent) == ("SENDER", True) for answer in answers)
        assert (await put(client, server.url)).status == 200, "by ourselves"
