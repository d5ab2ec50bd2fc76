"""Compare HttpClient's answers with ClientSession's: raw replies, and mutations of them, byte for byte (T23).

Both clients get the same reply from the same kind of server, cut at the same places; then the connection is closed or
kept. Each sends a second request, whose answer is always correct: it shows whether answers shift. Where the clients
differ, `EXPECTED` says which is right and why. Any other difference is a failure.
"""

import asyncio
import gzip
import json
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from bulkimg.zstack.http import MAX_BODY, MOST_INTERIM, HttpClient
from bulkimg.zstack.wire import Answer, RequestWriter
from tests.battery.answers import mutated
from tests.battery.report import Record
from tests.battery.shares import in_processes
from tests.zstack.raw import Raw, Reply, at_once, http, raw_server
from tests.zstack.reference import Session

NOW = 1_800_000_000.0  # the time for both clients, so that a date is the same number of seconds for both
PATIENCE = 0.6  # seconds: a client's timeout
LONG_PATIENCE = 2.0  # the timeout of a repeated comparison
AT_ONCE = 32  # comparisons at the same time
SECOND = b'{"answer": "second"}'

T = TypeVar("T")


class Client(Protocol):
    """A client that sends one request with each call."""

    async def send(self, method: str, target: str, headers: dict[str, str], body: bytes | None = None) -> Answer: ...
    async def close(self) -> None: ...


class Ours:
    """HttpClient, with requests that RequestWriter formats."""

    def __init__(self, base: str, *, timeout: float, now: Callable[[], float]) -> None:
        self._client = HttpClient(base, timeout=timeout, now=now)
        self._writer = RequestWriter(base)

    async def send(self, method: str, target: str, headers: dict[str, str], body: bytes | None = None) -> Answer:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        try:
            return await self._client.send(self._writer.request(method, target, lines, body), at_once)
        except Exception as error:  # nothing that a server sends may raise
            return Answer(None, failure=type(error).__name__)

    async def close(self) -> None:
        await self._client.close()


Kind = type[Ours] | type[Session]


@asynccontextmanager
async def client_of(kind: Kind, url: str, patience: float) -> AsyncIterator[Client]:
    """Make one client, closed at the end of the block."""
    client = kind(url, timeout=patience, now=lambda: NOW)
    try:
        yield client
    finally:
        await client.close()


class Trial(NamedTuple):
    """A reply in the pieces in which it is sent. `stays`: the connection is kept afterwards."""

    name: str
    pieces: tuple[bytes, ...]
    stays: bool

    @property
    def raw(self) -> bytes:
        return b"".join(self.pieces)


class Seen(NamedTuple):
    """One client's results of a trial.

    `received` counts the server's requests after the first call and after the last.
    """

    answers: tuple[Answer, ...]
    received: tuple[int, int]
    connections: int

    @property
    def said(self) -> tuple[Answer, ...]:
        """Return what is compared: everything but the text of a failure."""
        return tuple(answer._replace(detail="") for answer in self.answers)

    @property
    def faults(self) -> list[str]:
        """Return errors that no client may make."""
        found = []
        first, second = self.answers
        if self.received[0] != 1:
            found.append(f"one call sent {self.received[0]} requests")
        if self.received[1] != 2 and not (self.received[1] == 1 and second.status is None):
            found.append(f"two calls sent {self.received[1]} requests")
        if second.status is not None and (second.status, second.raw) != (200, SECOND):
            found.append("the second answer is not the second request's")
        if not (first.sent and second.sent):
            found.append("a request that was sent is called unsent")
        return found


class Pair(NamedTuple):
    """Both clients' results of one trial."""

    trial: Trial
    ours: Seen
    session: Seen


async def settle() -> None:
    """Let the loop turn until everything written has been read: loopback delivers at once."""
    for _ in range(6):
        await asyncio.sleep(0)


def _scripted(trial: Trial, told: asyncio.Event) -> Reply:
    async def reply(raw: Raw, writer: asyncio.StreamWriter) -> bool:
        if len(raw.requests) > 1:
            writer.write(http(SECOND))
            return True
        try:
            for piece in trial.pieces:
                if writer.is_closing():  # the client has closed the connection
                    return False
                writer.write(piece)
                await writer.drain()
                await settle()
        finally:
            told.set()
        return trial.stays

    return reply


async def observe(kind: Kind, trial: Trial, patience: float) -> Seen:
    """Send two requests with one client: the first gets the trial's reply, the second a correct answer."""
    told = asyncio.Event()
    async with raw_server(_scripted(trial, told)) as raw, client_of(kind, raw.url, patience) as client:
        first = await client.send("PUT", "/v1/images", {}, b"{}")
        with suppress(TimeoutError):  # on a busy machine the client may have timed out before the request arrived
            await asyncio.wait_for(told.wait(), patience)
        await settle()
        before = len(raw.requests)
        second = await client.send("PUT", "/v1/images", {}, b"{}")
        return Seen((first, second), (before, len(raw.requests)), raw.connections)


async def compare(trial: Trial, patience: float = PATIENCE) -> Pair:
    """Run the trial with both clients at once, each with a server of its own."""
    return Pair(trial, *await asyncio.gather(observe(Ours, trial, patience), observe(Session, trial, patience)))


# ------------------------------------------------------------------------------------------- where they may differ

_INTERIM = re.compile(rb"HTTP/\d\.\d[ \t]+1(?!01)\d\d")


def _sound(answer: Answer) -> bool:
    return (answer.status, answer.raw) == (200, SECOND)


def _too_many_interim(pair: Pair) -> bool:
    """HttpClient is right: so many 1xx come from a broken server. Waiting for its end uses a slot until the timeout."""
    first, second = pair.ours.said
    return len(_INTERIM.findall(pair.trial.raw)) > MOST_INTERIM and first.failure == "NOT_HTTP" and _sound(second)


def _unasked_bytes(pair: Pair) -> bool:
    """HttpClient is right: bytes between two requests answer neither.

    ClientSession takes them for the second answer.
    """
    ours, session = pair.ours.said, pair.session.said
    return ours[0] == session[0] and _sound(ours[1]) and not _sound(session[1])


EXPECTED: dict[str, Callable[[Pair], bool]] = {
    "too many interim answers": _too_many_interim,
    "unasked bytes": _unasked_bytes,
}


def difference(pair: Pair) -> str:
    """Return one of EXPECTED, or the difference in full, or "" if there is none."""
    same = pair.ours.said == pair.session.said
    name = "" if same else next((name for name, fits in EXPECTED.items() if fits(pair)), "")
    faults = [*pair.ours.faults, *(() if name else pair.session.faults)]
    if faults or not (same or name):
        return f"{pair.trial.name}: {'; '.join(faults) or 'the answers differ'}: {pair}"
    return name


# ---------------------------------------------------------------------------------------------------- the replies

_JSON = b'{"inventory": {"uuid": "1234567890abcdef1234567890abcdef"}}'
_TEN_TIMES = b"HTTP/1.1 102 Processing\r\n\r\n" * 10


def _chunked(body: bytes, *headers: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    head = b"\r\n".join([b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked", *headers])
    return head + b"\r\n\r\n" + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + end


# In pieces: what follows a whole answer arrives when the connection is idle.
OWN: dict[str, tuple[bytes, ...]] = {
    "sound": (http(_JSON),),
    "date": (http(_JSON, "200 OK", "Date: Fri, 27 Nov 2026 08:00:00 GMT"),),
    "accepted": (http(b'{"location": "/v1/api-jobs/x"}', "202 Accepted"),),
    "busy": (http(b"busy", "429 Too Many Requests", "Retry-After: 7"),),
    "busy, in capitals": (http(b"busy", "429 Too Many Requests", "RETRY-AFTER: 7"),),
    "busy, in small letters": (http(b"busy", "503 Busy", "retry-after: Fri, 15 Jan 2027 08:00:09 GMT"),),
    "busy, twice": (http(b"busy", "503 Busy", "rEtry-aFter: 7", "Retry-After: 9"),),
    "quota": (http(_JSON, "200 OK", 'RateLimit: "default";r=5;t=30'),),
    "quota, small letters": (http(_JSON, "200 OK", "x-ratelimit-remaining: 5", "x-ratelimit-reset: 30"),),
    "quota, then a wait": (http(_JSON, "200 OK", "X-RATELIMIT-Remaining: 5", "X-Ratelimit-RESET: 3", "retry-After: 1"),),
    "like a quota": (http(_JSON, "200 OK", "X-Request-Id: 5", "Refresh: 30"),),
    "redirect": (http(b"", "302 Found", "Location: http://127.0.0.1:1/" + "x" * 2000),),
    "location without redirect": (http(_JSON, "200 OK", "Location: /elsewhere"),),
    "until the end": (b"HTTP/1.1 200 OK\r\n\r\n", _JSON),
    "until the end, 1.0": (b"HTTP/1.0 200 OK\r\n\r\n" + _JSON,),
    "kept, 1.0": (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}",),
    "connection: close": (http(_JSON, "200 OK", "Connection: close"),),
    "chunked": (_chunked(_JSON),),
    "chunked, trailers": (_chunked(_JSON, end=b"0\r\nRetry-After: 3\r\n\r\n"),),
    "chunked, cut": (_chunked(_JSON, end=b""),),
    "not packed": (http(_JSON, "200 OK", "Content-Encoding: identity"),),
    "packed": (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(_JSON, mtime=0),),
    "packed, cut": (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(_JSON, mtime=0)[:-9],),
    "packed, not": (http(_JSON, "200 OK", "Content-Encoding: gzip"),),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n",),
    "no content, with content": (b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n{}",),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 20\r\n\r\n",),
    "continue": (b"HTTP/1.1 100 Continue\r\n\r\n", http(_JSON)),
    "10 interim answers": (_TEN_TIMES, http(_JSON)),
    "16 interim answers": (_TEN_TIMES[:-27], _TEN_TIMES[: 7 * 27] + http(_JSON)),
    "20 interim answers": (_TEN_TIMES, _TEN_TIMES, http(_JSON)),
    "switching": (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", b"after"),
    "switching, without a word": (b"HTTP/1.1 101 Switching Protocols\r\n\r\n",),
    "status 000": (http(_JSON, "000 Nothing"),),
    "status 099": (http(_JSON, "099 Little"),),
    "status 999": (http(_JSON, "999 Much"),),
    "status 20": (http(_JSON, "20 Short"),),
    "a header without name": (http(_JSON, "200 OK", ": x"),),
    "a header of a space": (http(_JSON, "200 OK", " : x"),),
    "a header folded": (http(_JSON, "200 OK", "Retry-After:\r\n 7"),),
    "body too large": (http(b" " * (MAX_BODY + 1)),),
    "body just not too large": (http(b" " * MAX_BODY),),
    "two answers": (http(_JSON) * 2,),
    "two answers, one late": (http(_JSON), http(b'{"ghost": 1}')),
    "two answers, one cut late": (http(_JSON), http(b'{"ghost": 1}')[:-5]),
    "half a head late": (http(_JSON), b"HTTP/1.1 200 OK\r\nContent-Le"),
    "a line late": (http(_JSON), b"\r\n"),
    "garbage late": (http(_JSON), b"\0garbage"),
    "interim late": (http(_JSON), b"HTTP/1.1 100 Continue\r\n\r\n"),
    "nothing": (),
}  # fmt: skip


def replies(corpora: Path | None) -> dict[str, tuple[bytes, ...]]:
    """Return our own replies; with `corpora`, also llhttp's, and one for each hostile value of a header."""
    found = dict(OWN)
    if corpora is not None:
        for path in sorted((corpora / "llhttp-responses" / "raw").glob("*.http")):
            found[path.name] = (path.read_bytes(),)
        hostile = corpora / "bulkimg-hostile"
        for value in json.loads((hostile / "retry_after.json").read_text("utf-8")):
            found[f"retry-after {value!r}"] = (_said("429 Busy", "Retry-After", value),)
        for value in json.loads((hostile / "location.json").read_text("utf-8")):
            found[f"location {value!r}"] = (_said("302 Found", "Location", value),)
    return found


def _said(status: str, name: str, value: object) -> bytes:
    head = f"HTTP/1.1 {status}\r\n{name}: ".encode()
    return head + str(value).encode("utf-8", "surrogatepass") + b"\r\nContent-Length: 2\r\n\r\n{}"


def whole(found: dict[str, tuple[bytes, ...]]) -> Iterator[Trial]:
    """Yield every reply as it is, with the connection closed and kept."""
    for name, pieces in found.items():
        yield Trial(name, pieces, stays=False)
        yield Trial(name, pieces, stays=True)


def mutations(found: dict[str, tuple[bytes, ...]], count: int, seed: int) -> Iterator[Trial]:
    """Yield `count` mutations, cut at up to four places; they are the same for the same seed."""
    rng = random.Random(f"differential {seed}")
    small = {
        name: raw for name, raw in ((name, b"".join(pieces)) for name, pieces in found.items()) if len(raw) < 1 << 16
    }
    for number in range(count):
        name = rng.choice(list(small))
        raw = mutated(small[name], rng)
        cuts = sorted(rng.randrange(len(raw) + 1) for _ in range(rng.choice((0, 1, 2, 4))))
        pieces = tuple(raw[start:end] for start, end in pairwise([0, *cuts, len(raw)]) if end > start)
        yield Trial(f"mutation {number} of {name}, seed {seed}", pieces, stays=rng.random() < 0.5)


# ----------------------------------------------------------------------------------------------------- many of them


@dataclass
class Told:
    """The results of many trials."""

    ends: Counter[str] = field(default_factory=Counter)  # HttpClient's first answers
    expected: Counter[str] = field(default_factory=Counter)
    troubles: list[str] = field(default_factory=list)
    once: list[str] = field(default_factory=list)  # differed, but not again with a longer timeout: a busy machine
    connections: int = 0  # trials in which one client made more connections

    def add(self, other: "Told") -> None:
        self.ends += other.ends
        self.expected += other.expected
        self.troubles += other.troubles
        self.once += other.once
        self.connections += other.connections


def _end(answer: Answer) -> str:
    return answer.failure if answer.status is None else str(answer.status)


async def hold(trials: Iterable[Trial]) -> Told:
    """Compare all trials, some at a time. A difference is compared again with a longer timeout and fewer at a time."""
    told, again = Told(), list[Trial]()

    async def first(trial: Trial) -> None:
        pair = await compare(trial)
        told.ends[_end(pair.ours.answers[0])] += 1
        told.connections += pair.ours.connections != pair.session.connections
        if difference(pair):
            again.append(trial)

    async def second(trial: Trial) -> None:
        said = difference(await compare(trial, LONG_PATIENCE))
        if said in EXPECTED:
            told.expected[said] += 1
        elif said:
            told.troubles.append(said)
        else:
            told.once.append(trial.name)

    await for_each(first, trials, AT_ONCE)
    await for_each(second, again, 4)
    return told


async def for_each(work: Callable[[T], Awaitable[None]], items: Iterable[T], at_once: int) -> None:
    """Work on all items, so many at a time."""
    left = iter(items)

    async def one_after_another() -> None:
        for item in left:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(one_after_another())


def _share(given: tuple[Path, int, int, bool]) -> Told:
    """Compare the whole replies and a share of the mutations, on uvloop or on asyncio.

    bulkimg uses uvloop if it is installed.
    """
    corpora, count, seed, fast = given
    found = replies(corpora)
    trials = [*whole(found), *mutations(found, count, seed)]
    if not fast:
        return asyncio.run(hold(trials))
    import uvloop

    return uvloop.run(hold(trials))


def differential(corpora: Path, count: int = 10_000, seed: int = 1, workers: int = 2) -> list[Record]:
    """Compare every reply and `count` mutations, half of them on each event loop."""
    begun, told = time.monotonic(), Told()
    shares = [(corpora, count // workers, seed * 100 + worker, bool(worker % 2)) for worker in range(workers)]
    for one in in_processes(_share, shares, workers):
        told.add(one)
    parts = [
        f"{len(replies(corpora))} replies whole on each of two event loops, {count:,} mutations",
        ", ".join(f"{end} {number:,}" for end, number in told.ends.most_common(8)),
        "differences, where HttpClient is right: "
        + ", ".join(f"{name} {n}" for name, n in sorted(told.expected.items())),
        f"{told.connections} differed in the number of connections only",
        f"{len(told.once)} differed once and not when made again",
        *told.troubles[:2],
    ]
    name = "answers held against ClientSession's"
    seconds = time.monotonic() - begun
    return [Record("T23", name, sum(told.ends.values()), len(told.troubles), "comparisons", "; ".join(parts), seconds)]
