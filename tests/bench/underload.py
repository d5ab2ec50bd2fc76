"""The rate while both cores are busy: the whole program at 1,000 requests a second, seen at both ends.

`python -m tests.bench.exactness` runs this after its own part. The sender's moments are the `started_at` of run.db, taken when a request is
admitted; the receiver is an asyncio server in another process, which notes the moment at which it reads each request, and by
how much a timer of 1 ms of its own was late: so long its process did not run. The load is two processes that only count.
"""

import asyncio
import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path

from tests.bench.sections import machine
from tests.conftest import ROOT
from tests.windows import most_within

RATE = 1_000
PART, BUSY_PARTS = 15.0, 4  # seconds, and how many of them
SPACING, CAUGHT_UP = 1.017 / RATE, 0.010  # seconds: between slots, and for how long one is valid after its moment


@dataclass(frozen=True)
class Seen:
    """One part of the measurement, from the fifth request on."""

    reached: float  # share of the rate, at the sender
    sender_most: int  # requests in any second
    receiver_most: int
    sender_tenth: int  # requests in any tenth of a second
    receiver_tenth: int
    longest_gap: float  # milliseconds between two requests at the sender
    lost: float  # share of the slots that went by because nobody could take them in time
    receiver_stall: float  # milliseconds: the longest time that the receiver did not run


class Receiver(asyncio.Protocol):
    """Answers a PUT with the values that it carries."""

    def __init__(self, moments: list[float]) -> None:
        self._moments, self._buffer = moments, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        now = time.time()
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        if len(body) < int(length.partition(b":")[2]):
            return
        self._moments.append(now)
        self._buffer = b""
        values = next(iter(json.loads(body).values()))
        text = json.dumps({"inventory": {"uuid": head.split(b" ", 2)[1].split(b"/")[-2].decode(), **values}}).encode()
        answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
            len(text),
            text,
        )
        assert isinstance(self._transport, asyncio.WriteTransport)
        self._transport.write(answer)


async def receive() -> None:
    """Until standard input is closed; prints the port first, and in the end what was seen."""
    moments, stalls, loop = list[float](), [0.0], asyncio.get_running_loop()
    server = await loop.create_server(lambda: Receiver(moments), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = loop.create_future()
    loop.add_reader(sys.stdin.fileno(), ended.cancel)
    while not ended.done():
        before = time.monotonic()
        await asyncio.sleep(0.001)
        stalls.append(time.monotonic() - before - 0.001)
    print(json.dumps([moments, max(stalls)]))


@contextlib.contextmanager
def both_cores_busy(seconds: float, number: int) -> Iterator[None]:
    """So many processes that count, until the block ends; they end by themselves after so long."""
    count = f"import time\nend = time.monotonic() + {seconds}\nwhile time.monotonic() < end: sum(range(10000))"
    busy = [subprocess.Popen([sys.executable, "-c", count]) for _ in range(number)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def part(seconds: float, *, busy: bool) -> Seen:
    """`bulkimg run` for so long."""
    command = [sys.executable, "-m", "tests.bench.underload", "receive"]
    with tempfile.TemporaryDirectory(prefix="bulkimg-rate-") as where:
        receiver = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        try:
            assert receiver.stdout is not None
            port = int(receiver.stdout.readline())
            with both_cores_busy(4 * seconds + 30, (os.cpu_count() or 2) if busy else 0):
                sent = _run(Path(where), int(RATE * seconds), port)
            moments, stall = json.loads(receiver.communicate("")[0])
        finally:
            receiver.kill()
            receiver.wait()
    return _seen(sent, sorted(moments), stall)


def _run(place: Path, rows: int, port: int) -> list[float]:
    """The moments at which its requests were admitted, seconds since the epoch."""
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
        return [moment for (moment,) in db.execute("SELECT started_at FROM outcome ORDER BY started_at")]


def _seen(sent: Sequence[float], received: Sequence[float], stall: float) -> Seen:
    sent, received = sent[4:], received[4:]
    gaps = [later - earlier for earlier, later in pairwise(sent)]
    took = sent[-1] - sent[0]
    return Seen(
        reached=(len(sent) - 1) / took / RATE,
        sender_most=most_within(1.0, sent),
        receiver_most=most_within(1.0, received),
        sender_tenth=most_within(0.1, sent),
        receiver_tenth=most_within(0.1, received),
        longest_gap=max(gaps) * 1000,
        lost=_lost(sent) / took,
        receiver_stall=stall * 1000,
    )


def _lost(sent: Sequence[float]) -> float:
    """Seconds by which the slots moved because none was taken while it was valid."""
    slot, lost = sent[0], 0.0
    for moment in sent[1:]:
        slot += SPACING
        missed = max(0.0, moment - CAUGHT_UP - slot)
        slot += missed
        lost += missed
    return lost


def table() -> str:
    """The section of RESULTS.md."""
    parts = [("idle", part(PART, busy=False))]
    parts += [(f"busy, part {number + 1}", part(PART, busy=True)) for number in range(BUSY_PARTS)]
    for name, seen in parts:
        sys.stderr.write(f"{name}: {seen}\n")
    lines = [
        f"{machine()}; `bulkimg run --rate {RATE}/s --concurrency 64 --no-survey`, parts of {PART:g} s; the receiver is a process of its own",
        "on the same cores, «busy» is beside two processes that do nothing but count. `python -m tests.bench.exactness` prints this.",
        "A slot is lost when it is not taken within 10 ms: its process did not run, or had other rows to do.",
        "",
        "| | reached | most in any second: sent | received | in any 0.1 s: sent | received | longest gap, ms | slots lost | receiver stood still, ms |",
        "|---" * (1 + len(fields(Seen))) + "|",
    ]
    for name, s in parts:
        lines.append(
            f"| {name} | {s.reached:.1%} | {s.sender_most:,} | {s.receiver_most:,} | {s.sender_tenth} | {s.receiver_tenth} "
            f"| {s.longest_gap:.0f} | {s.lost:.1%} | {s.receiver_stall:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["receive"]:
        asyncio.run(receive())
    else:
        print(table())
