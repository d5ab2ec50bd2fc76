"""The witness's HTTP/1.1: read a request, write an answer or a part of one, break a connection.

It shares no code with bulkimg, so that an error of bulkimg's parser is not repeated here.
"""

import asyncio
import contextlib
import json
import socket
import struct
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

MOST_HEAD = 1 << 16


@dataclass(frozen=True, slots=True)
class Request:
    """One received request."""

    method: str
    path: str
    query: str
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def job(self) -> str:
        return self.headers.get("x-job-uuid", "")

    @property
    def authorization(self) -> tuple[str, str]:
        """(scheme, credential)."""
        scheme, _, credential = self.headers.get("authorization", "").partition(" ")
        return scheme, credential.strip()


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer before it is bytes. `truth` is its real content, for faults that change it."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, status: int, document: Any) -> "Reply":
        return cls(status, json.dumps(document).encode())

    @classmethod
    def text(cls, status: int, text: str, kind: str = "text/plain") -> "Reply":
        return cls(status, text.encode(), {"Content-Type": kind})

    @property
    def document(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def head(self, *, length: bool = True, **more: str) -> bytes:
        headers = {**self.headers, **{name.replace("_", "-"): value for name, value in more.items()}}
        if length:
            headers.setdefault("Content-Length", str(len(self.body)))
        return status_line(self.status) + b"".join(f"{k}: {v}\r\n".encode() for k, v in headers.items()) + b"\r\n"

    def wire(self) -> bytes:
        return self.head() + self.body


def status_line(status: int) -> bytes:
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = "Unheard Of"
    return f"HTTP/1.1 {status} {reason}\r\n".encode()


class GoneError(Exception):
    """The client left, or we closed the connection: nothing more can be sent on it."""


class Reader(asyncio.StreamReader):
    """A reader that remembers when the other side left."""

    left: float | None = None  # of the monotonic clock

    def feed_eof(self) -> None:
        self.left = self.left or time.monotonic()
        super().feed_eof()

    def set_exception(self, exc: Exception) -> None:
        self.left = self.left or time.monotonic()
        super().set_exception(exc)


class Connection:
    """One accepted connection. After `fin` or `reset` it takes no more requests."""

    def __init__(self, number: int, reader: Reader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.open = True
        self._reader = reader
        self._writer = writer

    @property
    def left(self) -> float | None:
        """When the client closed or broke the connection, or None."""
        return self._reader.left

    async def request(self) -> Request | None:
        """Return the next request, or None if there is none."""
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
            line, *rest = head[:-4].decode("latin-1").split("\r\n")
            method, target, _ = line.split(" ")
            headers = {name.strip().lower(): value.strip() for name, _, value in (one.partition(":") for one in rest)}
            body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError, ValueError):
            return None
        path, _, query = target.partition("?")
        return Request(method, path, query, headers, body)

    async def send(self, data: bytes) -> None:
        if not self.open or self._writer.is_closing() or self._reader.at_eof():
            raise GoneError
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            raise GoneError from error

    async def fin(self) -> None:
        """Close the connection normally."""
        self.open = False
        with contextlib.suppress(OSError):
            self._writer.close()

    def reset(self) -> None:
        """Close so that the client sees a reset, whatever data is still in flight."""
        self.open = False
        plug = self._writer.get_extra_info("socket")
        if plug is not None:
            with contextlib.suppress(OSError):
                plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def until_gone(self) -> None:
        """Wait until the client leaves. Drops what it sends meanwhile."""
        with contextlib.suppress(OSError):
            while await self._reader.read(1 << 16):
                pass
        raise GoneError
