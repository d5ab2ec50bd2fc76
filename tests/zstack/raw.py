"""A raw server: it answers with the bytes that a test gives it, and counts what it receives.

It shares no code with bulkimg.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field


@dataclass
class Raw:
    """What was received: (method, path, headers, body), and the number of connections."""

    url: str = ""
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    connections: int = 0


def parts(request: bytes) -> tuple[str, str, dict[str, str], bytes]:
    """Split a request's bytes into (method, target, headers, body)."""
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    return method, target, dict(line.split(": ", 1) for line in lines), body


async def at_once() -> bool:
    """Let a request be sent as soon as it has its connection."""
    return True


Reply = Callable[[Raw, asyncio.StreamWriter], Awaitable[bool]]


async def read_request(reader: asyncio.StreamReader) -> tuple[str, str, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = head[0].split(" ")
    headers = {line.split(":", 1)[0].lower(): line.split(":", 1)[1].strip() for line in head[1:] if ":" in line}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return method, path, headers, body


@contextlib.asynccontextmanager
async def raw_server(reply: Reply) -> AsyncIterator[Raw]:
    """Run a server. `reply` writes an answer to the newest request and returns whether the connection stays open."""
    raw = Raw()
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raw.connections += 1
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            while True:
                raw.requests.append(await read_request(reader))
                if not await reply(raw, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client left, or the test is over
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):  # the end of the test may raise it too
                await writer.wait_closed()
            serving.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 20)
    raw.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield raw
    finally:
        server.close()
        for task in list(serving):
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


def always(data: bytes, *, stays: bool = False) -> Reply:
    """Answer every request with the same bytes."""

    async def reply(_: Raw, writer: asyncio.StreamWriter) -> bool:
        writer.write(data)
        await writer.drain()
        return stays

    return reply


def http(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """Return a well-formed answer."""
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers])
    return head.encode() + b"\r\n\r\n" + body
