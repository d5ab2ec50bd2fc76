"""Measure the rate while both cores are busy: the whole program at 1,000 requests a second, at both ends.

`python -m tests.bench.exactness` runs this after its own part. The sender's moments are the `started_at` of run.db, set
when a request is admitted. The receiver is an asyncio server in another process. It notes when the kernel got each
request, when it read it itself, and how late a timer of 1 ms was: so long its process did not run. The load is two
processes that only count.
"""

import asyncio
import contextlib
import json
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from tests.arrival import ask_for_stamps, stamp
from tests.battery.api import Call, inventory
from tests.bench.sections import machine
from tests.conftest import ROOT
from tests.windows import most_within
from tests.zstack.raw import parts

RATE = 1_000
PART, BUSY_PARTS = 15.0, 4  # seconds, and how many of them
SPACING, CAUGHT_UP = 1.017 / RATE, 0.020  # seconds between slots, and for how long one is valid after its moment


class Ends(NamedTuple):
    """Moments at the sender, at the receiver's kernel, and in the receiver's process."""

    sent: int
    arrived: int
    read: int

    def __str__(self) -> str:
        return " / ".join(f"{number:,}" for number in self)


@dataclass(frozen=True)
class Seen:
    """One part of the measurement, from the fifth request on."""

    reached: float  # share of the rate, at the sender
    most: Ends  # requests in any second
    tenth: Ends  # requests in any tenth of a second
    longest_gap: float  # milliseconds between two requests at the sender
    lost: float  # share of the slots that no request could take in time
    receiver_stall: float  # milliseconds: the longest time that the receiver did not run


class Receiver:
    """Answer PUTs with the values that they set. Note when the kernel got each of them, and when it was read."""

    def __init__(self) -> None:
        self.kernel: list[float] = []
        self.read: list[float] = []
        self.stall = 0.0
        self._loop = asyncio.get_running_loop()
        self._buffers: dict[socket.socket, bytes] = {}

    async def serve(self) -> None:
        """Serve until standard input is closed."""
        ended = self._loop.create_future()
        self._loop.add_reader(sys.stdin.fileno(), ended.cancel)
        with socket.create_server(("127.0.0.1", 0), backlog=1024) as server:
            server.setblocking(False)
            ask_for_stamps(server)
            self._loop.add_reader(server, self._accept, server)
            print(server.getsockname()[1], flush=True)
            while not ended.done():
                before = time.monotonic()
                await asyncio.sleep(0.001)
                self.stall = max(self.stall, time.monotonic() - before - 0.001)
            for connection in self._buffers:
                connection.close()

    def _accept(self, server: socket.socket) -> None:
        connection, _ = server.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
        self._buffers[connection] = b""
        self._loop.add_reader(connection, self._read, connection)

    def _read(self, connection: socket.socket) -> None:
        data, extra, _, _ = connection.recvmsg(65536, 256)
        if not data:
            self._loop.remove_reader(connection)
            del self._buffers[connection]
            connection.close()
            return
        self._buffers[connection] += data
        if call := _request(self._buffers[connection]):
            now = time.time()
            self._buffers[connection] = b""
            self.read.append(now)
            self.kernel.append(stamp(extra))
            connection.send(inventory(call.uuid, call.wanted).wire())


def _request(data: bytes) -> Call | None:
    """Return a PUT once it is whole."""
    if b"\r\n\r\n" not in data:
        return None
    call = Call.of(*parts(data))
    return call if len(call.body) == int(call.headers.get("content-length", -1)) else None


async def receive() -> None:
    """Print the port first, and at the end what was received."""
    receiver = Receiver()
    await receiver.serve()
    print(json.dumps([receiver.kernel, receiver.read, receiver.stall]))


@contextlib.contextmanager
def both_cores_busy(seconds: float, number: int) -> Iterator[None]:
    """Run so many processes that count until the block ends. They also end by themselves after a time."""
    count = f"import time\nend = time.monotonic() + {seconds}\nwhile time.monotonic() < end: sum(range(10000))"
    busy = [subprocess.Popen([sys.executable, "-c", count]) for _ in range(number)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def part(seconds: float, *, busy: bool) -> Seen:
    """Measure `bulkimg run` for so long."""
    command = [sys.executable, "-m", "tests.bench.underload", "receive"]
    with tempfile.TemporaryDirectory(prefix="bulkimg-rate-") as where:
        receiver = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        try:
            assert receiver.stdout is not None
            port = int(receiver.stdout.readline())
            with both_cores_busy(4 * seconds + 30, (os.cpu_count() or 2) if busy else 0):
                sent = _run(Path(where), int(RATE * seconds), port)
            arrived, read, stall = json.loads(receiver.communicate("")[0])
        finally:
            receiver.kill()
            receiver.wait()
    return _seen(sent, sorted(arrived), read, stall)


def _run(place: Path, rows: int, port: int) -> list[float]:
    """Return the moments at which its requests were admitted, in seconds since the epoch."""
    manifest = place / "m.csv"
    manifest.write_text("uuid,name,platform\n" + "".join(f"{n:032x},new-{n},Linux\n" for n in range(1, rows + 1)))
    environment = {**os.environ, "BULKIMG_SESSION": "0" * 32, "BULKIMG_ENDPOINT": f"http://127.0.0.1:{port}"}
    command = [sys.executable, "-m", "bulkimg", "run", str(manifest), "--yes", "--no-survey", "--no-adaptive"]
    command += [
        "--rate",
        f"{RATE}/s",
        "--concurrency",
        "64",
        "--progress",
        "none",
        "-q",
        "--runs-dir",
        str(place / "runs"),
    ]
    subprocess.run(command, env=environment, check=True, cwd=ROOT)
    (ledger,) = (place / "runs").glob("*/run.db")
    with contextlib.closing(sqlite3.connect(ledger)) as db:
        return [moment for (moment,) in db.execute("SELECT started_at / 1000.0 FROM outcome ORDER BY started_at")]


def _seen(sent: Sequence[float], arrived: Sequence[float], read: Sequence[float], stall: float) -> Seen:
    sent, arrived, read = sent[4:], arrived[4:], read[4:]
    gaps = [later - earlier for earlier, later in pairwise(sent)]
    took = sent[-1] - sent[0]
    return Seen(
        reached=(len(sent) - 1) / took / RATE,
        most=Ends(*(most_within(1.0, moments) for moments in (sent, arrived, read))),
        tenth=Ends(*(most_within(0.1, moments) for moments in (sent, arrived, read))),
        longest_gap=max(gaps) * 1000,
        lost=_lost(sent) / took,
        receiver_stall=stall * 1000,
    )


def _lost(sent: Sequence[float]) -> float:
    """Return the seconds by which the slots moved because none was taken while it was valid."""
    slot, lost = sent[0], 0.0
    for moment in sent[1:]:
        slot += SPACING
        missed = max(0.0, moment - CAUGHT_UP - slot)
        slot += missed
        lost += missed
    return lost


def table() -> str:
    """Return the section for RESULTS.md."""
    parts = [("idle", part(PART, busy=False))]
    parts += [(f"busy, part {number + 1}", part(PART, busy=True)) for number in range(BUSY_PARTS)]
    for name, seen in parts:
        sys.stderr.write(f"{name}: {seen}\n")
    lines = [
        f"{machine()}; `bulkimg run --rate {RATE}/s --concurrency 64 --no-survey`, parts of {PART:g} s; the receiver is a process of its own",
        "on the same cores, «busy» is beside two processes that do nothing but count. `python -m tests.bench.exactness` prints this.",
        "Sent is the moment of admission, arrived that at which the receiver's kernel got it, read that at which the receiver read it.",
        "A slot is lost when it is not taken within 20 ms: its process did not run, or had other rows to do. What was reached is what was",
        "not lost, divided by the 1.017 by which slots lie farther apart than they need be.",
        "",
        "| | reached | most in any second: sent / arrived / read | in any 0.1 s | longest gap, ms | slots lost | receiver stood still, ms |",
        "|---" * (1 + len(fields(Seen))) + "|",
    ]
    for name, s in parts:
        lines.append(
            f"| {name} | {s.reached:.1%} | {s.most} | {s.tenth} | {s.longest_gap:.0f} | {s.lost:.1%} | {s.receiver_stall:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["receive"]:
        asyncio.run(receive())
    else:
        print(table())
