"""When the kernel received bytes: a moment that does not depend on how late the receiving process ran.

SO_TIMESTAMPNS (man 7 socket) works for TCP too since Linux 4.16. On the loopback device it is the moment at which the
sender's own call handed the bytes over. The kernel begins to stamp a moment after the first socket of the machine has
asked for it (`net_enable_timestamp` defers that to a worker), so the first bytes may have no stamp: then it is the
moment at which they were read, which is never earlier.
"""

import socket
import struct
import time
from collections.abc import Sequence

_TIMESTAMPS = 35  # SO_TIMESTAMPNS, which Python does not name


def ask_for_stamps(listener: socket.socket) -> None:
    """Let every socket that it accepts stamp what it receives."""
    listener.setsockopt(socket.SOL_SOCKET, _TIMESTAMPS, 1)


def stamp(extra: Sequence[tuple[int, int, bytes]]) -> float:
    """Return when the kernel received the last of these bytes, or now if it has not stamped them, in seconds since the
    epoch. `extra` is what `recvmsg` returned with them.
    """
    for level, kind, data in extra:
        if (level, kind) == (socket.SOL_SOCKET, _TIMESTAMPS):
            seconds, nanoseconds = struct.unpack("qq", data[:16])
            return float(seconds + nanoseconds / 1e9)
    return time.time()


class StampingSocket(socket.socket):
    """A socket of a server of asyncio. `arrived`, by file descriptor: when the last bytes came, of the monotonic clock."""

    arrived: dict[int, float]

    @classmethod
    def listening(cls, port: int) -> "StampingSocket":
        """Return a socket that is bound to this port of 127.0.0.1, and whose connections stamp."""
        made = cls(socket.AF_INET, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.arrived = {}
        ask_for_stamps(made)
        made.bind(("127.0.0.1", port))
        return made

    def accept(self) -> tuple["StampingSocket", object]:
        descriptor, address = self._accept()  # type: ignore[attr-defined] # what socket.socket.accept calls
        made = StampingSocket(self.family, self.type, self.proto, fileno=descriptor)
        made.arrived = self.arrived
        return made, address

    def recv(self, size: int, flags: int = 0) -> bytes:
        data, extra, _, _ = self.recvmsg(size, 256, flags)
        if data:
            self.arrived[self.fileno()] = time.monotonic() - (time.time() - stamp(extra))
        return data
