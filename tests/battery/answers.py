"""T23: raw answers of the llhttp corpus and mutations of them, by seed, through PUT, poll, query and login.

The calls and the judgement of their answers are the production code; the server answers with bytes. No answer may
raise, hang, be sent twice, have a status that is not in its status line, or count as a success.
"""

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bulkimg import Account
from bulkimg.applier.judge import Next, judge_poll, judge_read, judge_update
from bulkimg.errors import TargetError
from bulkimg.model import Claim, Status
from bulkimg.zstack import Answer, HttpClient, ImageApi, Transport, make_auth
from tests.battery.report import Record
from tests.battery.shares import in_processes

CLAIM = Claim(1, 2, "1234567890abcdef" * 2, {"name": "wanted"}, 1, "fedcba0987654321" * 2)
TIMEOUT = 2.0  # seconds
SLOW = 5.0
_STATUS = re.compile(rb"(?:HTTP|RTSP|ICE)/\d\.\d[ \t]+(\d{3})")  # the three that llhttp, and so aiohttp, reads
_SNIPPETS = (
    b"\r\n", b"\n", b"\r", b"\0", b" ", b":", b"HTTP/1.1 200 OK\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Content-Encoding: gzip\r\n", b"Connection: close\r\n", b"Connection: keep-alive\r\n",
    b"Location: http://127.0.0.1:1/\r\n", b"Retry-After: 1\r\n", b"\xff\xfe", b"0\r\n\r\n", b"ffffffffffffffff\r\n",
    b'{"inventory":{"uuid":"1234567890abcdef1234567890abcdef"}}', b'{"inventory":{}}', b'{"error":{"code":"SYS.1003"}}',
)  # fmt: skip


def mutated(raw: bytes, rng: random.Random) -> bytes:
    """Change, cut out, double or insert some bytes."""
    data = bytearray(raw)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(5):
            case 0 if at < len(data):
                data[at] = rng.randrange(256)
            case 1:
                del data[at : at + rng.randrange(1, 20)]
            case 2:
                data[at:at] = data[at : at + rng.randrange(1, 40)]
            case 3:
                data[at:at] = rng.choice(_SNIPPETS)
            case _:
                del data[at:]
    return bytes(data)


class Bytes:
    """A server that answers each request with the given bytes, and closes."""

    def __init__(self) -> None:
        self.answer = b""
        self.requests = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if found := re.search(rb"(?i)content-length: (\d+)", head):
                await reader.readexactly(int(found[1]))
            self.requests += 1
            writer.write(self.answer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client rejected the answer
        finally:
            writer.close()

    async def stop(self) -> None:
        if self._server:
            self._server.close()


class Unpaced:
    """Let every request through."""

    async def admit(self) -> int:
        return 0

    admit_probe = admit

    async def begin(self, epoch: int) -> bool:
        return True

    def record(self, epoch: int, answer: Answer | None) -> int:
        return 0


@dataclass
class Told:
    """The results of a number of answers."""

    calls: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    troubles: list[str] = field(default_factory=list)


class Caller:
    """Make the four calls, and judge their answers."""

    def __init__(self, url: str) -> None:
        client = HttpClient(url, timeout=TIMEOUT, now=time.time)
        self.transport = Transport(client, f"{url}/zstack", Unpaced())
        self.auth = make_auth(Account("admin", "hunter22"), self.transport, time.time)
        self.api = ImageApi(self.transport, self.auth, "updateImage")

    @property
    def calls(self) -> dict[str, Callable[[], Awaitable[tuple[Answer | None, str]]]]:
        return {"put": self.put, "poll": self.poll, "query": self.query, "login": self.login}

    async def put(self) -> tuple[Answer | None, str]:
        answer = await self.api.update(0, CLAIM.uuid, CLAIM.fields, CLAIM.job_uuid)
        verdict = judge_update(answer, CLAIM)
        return answer, self._end(verdict.next, verdict.status)

    async def poll(self) -> tuple[Answer | None, str]:
        answer = await self.api.poll(CLAIM.job_uuid)
        verdict = judge_poll(answer, CLAIM)
        return answer, self._end(verdict.next, verdict.status)

    async def query(self) -> tuple[Answer | None, str]:
        answer = await self.api.read(CLAIM.uuid)
        verdict = judge_read(answer, CLAIM)
        return answer, self._end(verdict.next, verdict.status)

    async def login(self) -> tuple[Answer | None, str]:
        try:
            await self.auth.open()
        except TargetError:
            return None, "refused"
        return None, "believed"

    @staticmethod
    def _end(next_: Next, status: Status | None) -> str:
        """Check that `updated` has every field.

        An inventory without them is `updated`, not confirmed, and a message says so.
        """
        return status.value if status and next_ is Next.SETTLED else next_.name.lower()


async def _try(server: Bytes, caller: Caller, name: str, raw: bytes, told: Told) -> None:
    server.answer, server.requests = raw, 0
    begun = time.monotonic()
    try:
        answer, end = await caller.calls[name]()
    except Exception as error:  # nothing that a server sends may raise
        told.troubles.append(f"{name}: {type(error).__name__}: {error} on {raw[:200]!r}")
        return
    told.calls[name] += 1
    told.ends[f"{name} {end}"] += 1
    if time.monotonic() - begun > SLOW:
        told.troubles.append(f"{name}: {time.monotonic() - begun:.0f} s on {raw[:200]!r}")
    unasked = server.requests == 0 and answer is not None and answer.status is not None
    if (server.requests > 1 or unasked) and name != "login":  # 0: it was written to a connection that was closing
        told.troubles.append(f"{name}: received {server.requests} times on {raw[:200]!r}")
    said = {int(found) for found in _STATUS.findall(raw)}
    if answer is not None and answer.status is not None and answer.status not in said:
        told.troubles.append(f"{name}: status {answer.status}, which nobody said, on {raw[:200]!r}")
    if end in ("updated", "drifted", "believed") and b'"inventory' not in raw:
        told.troubles.append(f"{name}: {end} on {raw[:200]!r}")


async def _all(corpus: Sequence[bytes], mutations: int, seed: int) -> Told:
    told, rng, server = Told(), random.Random(seed), Bytes()
    caller = Caller(await server.start())
    caller.auth._sleep = _no_sleep  # type: ignore[attr-defined] # an account's; its patience is not what is tested
    names = list(caller.calls)
    for raw in corpus:
        for name in names:
            await _try(server, caller, name, raw, told)
    for number in range(mutations):
        await _try(server, caller, names[number % len(names)], mutated(rng.choice(corpus), rng), told)
    await caller.transport.close()
    await server.stop()
    return told


async def _no_sleep(seconds: float) -> None:
    await asyncio.sleep(0)


def _share(given: tuple[list[bytes], int, int]) -> Told:
    return asyncio.run(_all(*given))


def answers(folder: Path, mutations: int = 100_000, seed: int = 1, workers: int = 2) -> list[Record]:
    """Send each raw answer through all four calls, then the mutations, shared among them."""
    corpus = [path.read_bytes() for path in sorted(folder.glob("*.http"))]
    begun = time.monotonic()
    shares = [(corpus, mutations // workers, seed + worker) for worker in range(workers)]
    found = in_processes(_share, shares, workers)
    troubles = [text for one in found for text in one.troubles]
    ends = sum((one.ends for one in found), Counter())
    notes = f"{len(corpus)} raw replies and {mutations:,} mutations; {', '.join(f'{end} {n:,}' for end, n in ends.most_common(8))}"
    notes += f"; {'; '.join(troubles[:2])}" if troubles else ""
    total = sum(sum(one.calls.values()) for one in found)
    return [
        Record(
            "T23",
            "broken answers to PUT, poll, query and login",
            total,
            len(troubles),
            "answers",
            notes,
            time.monotonic() - begun,
        )
    ]
