"""T65: a server whose answer never ends costs one timeout and a bounded amount of memory."""

import asyncio
import gzip
import itertools
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from tests.battery.api import Call
from tests.conftest import Cli
from tests.security.figures import measured
from tests.security.servers import call_of, scripted
from tests.security.watching import Seen, watch
from tests.zstack.raw import Raw, http, raw_server

MB = 1 << 20
MOST = 64 * MB
# aiohttp reads on while interim answers come; memory stops growing there, for 1 s as for 5 s (README, «Limits»).
MOST_GROWTH = {"endless 1xx": 160 * MB}
TIMEOUT = 1.0  # seconds a request may take
# Seconds to start, to ask what became of the change and to end, on a machine that has much else to do. Less than the
# timeout that a run has by itself: a bomb that costs another time than the given one is seen.
SLACK = 25.0
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def whole(body: bytes, *headers: str) -> Iterator[bytes]:
    yield http(body, "200 OK", "Content-Type: application/json", *headers)


def endless(head: bytes, piece: bytes) -> Iterator[bytes]:
    return itertools.chain([head], itertools.repeat(piece))


def gzip_bomb() -> bytes:
    """Return a quarter of a gigabyte of zeros in a megabyte."""
    return gzip.compress(b"\0" * (256 * MB), compresslevel=1)


well = scripted()
Bomb = Callable[[], Iterator[bytes]]
BOMBS: dict[str, Bomb] = {
    "gzip": lambda: whole(gzip_bomb(), "Content-Encoding: gzip"),
    "endless body": lambda: endless(HEAD + b"\r\n", b"x" * 65536),
    "endless chunks": lambda: endless(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 10_000),
    "endless headers": lambda: endless(HEAD, b"X-Header: value\r\n" * 4000),
    "one endless header": lambda: endless(HEAD + b"X-Header: ", b"x" * 65536),
    "endless 1xx": lambda: endless(b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 2000),
    "10,000,000 elements": lambda: whole(b'{"inventory":[' + b"0," * 9_999_999 + b"0]}"),
    "as many as fit": lambda: whole(b'{"inventory":[' + b"{}," * 2_790_000 + b"0]}"),
    "100,000 deep": lambda: whole(b"[" * 100_000 + b"]" * 100_000),
    "a number of 1,000,000 digits": lambda: whole(b'{"inventory":' + b"9" * 1_000_000 + b"}"),
}


def thrower(bomb: Bomb) -> Callable[[Raw, asyncio.StreamWriter], Awaitable[bool]]:
    """Answer every change with the bomb, as fast as the client reads it. Queries are answered well."""
    ready = list(itertools.islice(bomb(), 2))

    async def reply(raw: Raw, writer: asyncio.StreamWriter) -> bool:
        if call_of(raw).kind != "put":
            return await well(raw, writer)
        endlessly = len(ready) > 1
        for piece in itertools.chain(ready, itertools.repeat(ready[-1])) if endlessly else ready:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        return True

    return reply


RUN = f"run m.csv --yes --retries 0 --timeout {TIMEOUT:g}s --job-timeout 1s --progress none".split()


async def run_against(cli: Cli, url: str) -> Seen:
    cli.write("m.csv", f"uuid,name\n{1:032x},x\n")
    given: dict[str, Any] = {"BULKIMG_ENDPOINT": url, "BULKIMG_SESSION": "5e551017" * 4}
    return await asyncio.to_thread(watch, cli, *RUN, cold=True, **given)


@pytest.fixture(scope="module")
def plain() -> dict[str, int]:
    """The peak memory of a run with a good server."""
    return {}


async def plain_peak(cli: Cli, plain: dict[str, int]) -> int:
    if not plain:
        async with raw_server(scripted()) as raw:
            seen = await run_against(cli, raw.url)
        assert seen.code == 0, seen.err
        plain["peak"] = seen.peak
    return plain["peak"]


@pytest.mark.parametrize("name", BOMBS)
async def test_a_bomb_costs_bounded_memory_and_time(cli: Cli, name: str, plain: dict[str, int]) -> None:
    """The row is then unknown, never updated or failed."""
    usual = await plain_peak(cli, plain)
    async with raw_server(thrower(BOMBS[name])) as raw:
        seen = await run_against(cli, raw.url)
    growth = seen.peak - usual
    measured(f"T65 {name}", f"peak {seen.peak / MB:.0f} MB ({growth / MB:+.0f} MB), {seen.seconds:.1f} s")
    assert seen.code in (1, 5), seen.err
    assert {row["status"] for row in cli.results()} <= {"unknown", "unprocessed"}
    assert growth <= MOST_GROWTH.get(name, MOST)
    assert seen.seconds <= TIMEOUT + SLACK


async def test_sixteen_bombs_at_once_are_bounded_too(cli: Cli) -> None:
    """The default concurrency: memory grows with the answers in flight, and each of them is capped."""
    cli.write("m.csv", "uuid,name\n" + "".join(f"{n:032x},x\n" for n in range(17)))
    body = b'{"inventory":[' + b"0," * 3_900_000 + b"0]}"

    def script(call: Call) -> bytes | None:
        return http(body) if call.kind == "put" and call.uuid != "0" * 32 else None  # the first one is sent alone

    async with raw_server(scripted(script)) as raw:
        given: dict[str, Any] = {"BULKIMG_ENDPOINT": raw.url, "BULKIMG_SESSION": "5e551017" * 4}
        words = [
            "run",
            "m.csv",
            "--yes",
            "--rate",
            "unlimited",
            "--retries",
            "0",
            "--timeout",
            "20s",
            "--max-errors",
            "none",
        ]
        seen = await asyncio.to_thread(watch, cli, *words, cold=True, **given)
    measured("T65 16 answers of 8 MB at once", f"peak {seen.peak / MB:.0f} MB, {seen.seconds:.1f} s")
    assert seen.code in (0, 1, 5), seen.err
    assert seen.peak < 512 * MB


async def test_a_drip_costs_one_timeout(cli: Cli) -> None:
    """One byte after another, for ever: the timeout is for the whole answer."""

    async def drip(raw: Raw, writer: asyncio.StreamWriter) -> bool:
        if call_of(raw).kind != "put":
            return await well(raw, writer)
        for byte in itertools.chain(HEAD + b"Content-Length: 100000\r\n\r\n", itertools.repeat(120)):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.01)
        return False

    async with raw_server(drip) as raw:
        seen = await run_against(cli, raw.url)
    measured("T65 drip", f"{seen.seconds:.1f} s to give up")
    assert {row["status"] for row in cli.results()} <= {"unknown", "unprocessed"}
    assert seen.seconds <= TIMEOUT + SLACK
