"""The witness's HTTP/1.1: read a request, write an answer or a part of one, break a connection.

It shares no code with bulkimg, so that an error of bulkimg's parser is not repeated here.
"""

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Mapping

from tests.battery.api import Call

MOST_HEAD = 1 << 16


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

    def __init__(self, number: int, reader: Reader, writer: asyncio.StreamWriter, arrived: Mapping[int, float]) -> None:
        self.number = number
        self.open = True
        self._arrived, self._descriptor = arrived, writer.get_extra_info("socket").fileno()
        self._reader = reader
        self._writer = writer

    @property
    def arrived(self) -> float:
        """When the kernel received the latest bytes, of the monotonic clock."""
        return self._arrived[self._descriptor]

    @property
    def left(self) -> float | None:
        """When the client closed or broke the connection, or None."""
        return self._reader.left

    async def request(self) -> Call | None:
        """Return the next request, or None if there is none."""
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
            line, *rest = head[:-4].decode("latin-1").split("\r\n")
            method, target, _ = line.split(" ")
            headers = {name.strip().lower(): value.strip() for name, _, value in (one.partition(":") for one in rest)}
            body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError, ValueError):
            return None
        return Call.of(method, target, headers, body)

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
