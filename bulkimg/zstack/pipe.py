"""Exchange Python values in batches between a run and a process that sends for it: one end of the pipe.

The run says (READY, timeout, authority) first, then (number, latest, method, url, headers, body), numbers from 1 on, and
(number,) to break one off; the other end says (READY, None), and (number, the values of an Answer), or None for what it has
not sent because the latest moment for it, on the monotonic clock, was over.

Both ends are processes of ours, started by the other, on a socket pair that has no name; so marshal may be trusted with it.
"""

import asyncio
import marshal
from collections.abc import Callable
from typing import Any, cast

READY = 0
BATCH = 8  # values at most, so that the other end has something to do while this one continues its turn
_SIZE = 4  # bytes before each batch


class Pipe(asyncio.Protocol):
    """`took` is called with each value that has come, `lost` once, when the other end is gone."""

    def __init__(self, took: Callable[[Any], None], lost: Callable[[], None]) -> None:
        self._took = took
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._waiting: list[Any] = []
        self._come = bytearray()

    def put(self, value: Any) -> None:
        """Send a value (of what marshal knows) with others of this turn of the event loop: a system call a batch."""
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(value)
        if len(self._waiting) >= BATCH:
            self._flush()

    def close(self) -> None:
        """What has been put is still sent."""
        self._flush()
        if self._transport:
            self._transport.close()

    def _flush(self) -> None:
        if self._transport is None:
            return  # connection_made comes back to it
        batch, self._waiting = self._waiting, []
        if batch and not self._transport.is_closing():
            raw = marshal.dumps(batch)
            self._transport.write(len(raw).to_bytes(_SIZE, "big") + raw)

    # -- asyncio calls these --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._come += data
        while len(self._come) >= _SIZE:
            end = _SIZE + int.from_bytes(self._come[:_SIZE], "big")
            if len(self._come) < end:
                return
            batch = marshal.loads(self._come[_SIZE:end])  # noqa: S302 - see above
            del self._come[:end]
            for value in batch:
                self._took(value)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost()
