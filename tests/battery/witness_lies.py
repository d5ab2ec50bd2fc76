"""The witness's damaged answers, faulty jobs and false answers about what was applied."""

import asyncio
import functools
import gzip
import json
import time
import zlib
from collections.abc import Callable
from typing import Any

from tests.battery.api import ZSTACK, Reply, error, job_unknown, status_line
from tests.battery.witness_exchange import FAULTS, HTML, Exchange, fault

MOST_SECONDS = 60.0  # bytes of an endless answer

# ------------------------------------------------------------------------------------------------ spoilt answers


@fault("wrong-length")
async def wrong_length(x: Exchange) -> None:
    """arg: long, short, or both in turn."""
    reply = await x.claimed()
    long = x.rule.arg == "long" or (x.rule.arg != "short" and x.rule.hits % 2 == 0)
    wrong = len(reply.body) + 10 if long else len(reply.body) - min(10, len(reply.body))
    await x.connection.send(reply.head(Content_Length=str(wrong)) + reply.body)
    if long:
        await x.connection.fin()


@fault("chunk-cut")
async def chunk_cut(x: Exchange) -> None:
    reply = await x.claimed()
    head = reply.head(length=False, Transfer_Encoding="chunked")
    await x.connection.send(head + f"{len(reply.body):x}\r\n".encode() + reply.body + b"\r\n")
    await x.connection.fin()


@fault("gzip-cut")
async def gzip_cut(x: Exchange) -> None:
    reply = await x.claimed()
    packed = gzip.compress(reply.body)[:-12]
    await x.say(Reply(reply.status, packed, {"Content-Encoding": "gzip"}))


@fault("cl-and-te")
async def cl_and_te(x: Exchange) -> None:
    reply = await x.good()
    head = reply.head(length=False, Transfer_Encoding="chunked", Content_Length="5")
    await x.connection.send(head + f"{len(reply.body):x}\r\n".encode() + reply.body + b"\r\n0\r\n\r\n")


def _spoilt(
    name: str, body: Callable[[Exchange], bytes], headers: dict[str, str] | None = None, act: Any = "coin"
) -> None:
    """Return a 200 with another body."""

    async def spoil(x: Exchange) -> None:
        await x.claimed(act)
        await x.say(Reply(200, body(x), headers or {}))

    FAULTS[name] = spoil


def _with(x: Exchange, raw: str) -> bytes:
    """Return the requested inventory with one more member in raw text."""
    return (json.dumps({"inventory": x.inventory()})[:-2] + f', "more": {raw}}}}}').encode()


DEEP = "[" * 20_000 + "]" * 20_000


@functools.cache
def _bomb() -> bytes:
    return zlib.compress(b" " * (128 << 20), 9)


_spoilt("empty-200", lambda x: b"")
_spoilt("html-200", lambda x: HTML, {"Content-Type": "text/html"})
_spoilt("error-200", lambda x: error("SYS.1000", "said with a 200").body)
_spoilt("nan-200", lambda x: _with(x, "NaN"))
_spoilt("deep-200", lambda x: _with(x, DEEP), act=True)
_spoilt("bigint-200", lambda x: _with(x, "9" * 5000), act=True)
_spoilt("bad-utf8-200", lambda x: json.dumps({"inventory": x.inventory()}).encode()[:-2] + b', "url": "\xff\xfe"}}')
_spoilt("gzip-bomb", lambda x: _bomb(), {"Content-Encoding": "deflate"})


async def _without_end(x: Exchange, head: bytes, more: bytes) -> None:
    await x.claimed()
    await x.connection.send(head)
    end = time.monotonic() + float(x.rule.arg or MOST_SECONDS)
    while time.monotonic() < end:
        await x.connection.send(more)
        await asyncio.sleep(0.002)  # other tests need the processor too
    await x.connection.fin()


@fault("endless-body")
async def endless_body(x: Exchange) -> None:
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    await _without_end(x, status_line(200) + b"Transfer-Encoding: chunked\r\n\r\n", chunk)


@fault("endless-headers")
async def endless_headers(x: Exchange) -> None:
    await _without_end(x, status_line(200), b"".join(b"X-More-%d: more\r\n" % n for n in range(100)))


@fault("endless-1xx")
async def endless_1xx(x: Exchange) -> None:
    await _without_end(x, b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 20)


# ------------------------------------------------------------------------------------------------ jobs and lies


def _accept(x: Exchange, reply: Reply | None = None, *, executes: bool = False) -> Reply | None:
    """Make a job that ends in this reply, or never. Returns None if the request would not have become a job."""
    if x.kind != "put" or x.api.dialect != ZSTACK or x.api.wanted(x.request) is None or x.request.job in x.api.jobs:
        return None
    answer = x.api.accept(x.request, executes=executes)
    x.api.jobs[x.request.job].reply = reply
    return answer


@fault("job-404")
async def job_404(x: Exchange) -> None:
    """On put: executed, and then the job is unknown. On poll: the plain answer."""
    await x.say((_accept(x, job_unknown(), executes=True) or await x.good()) if x.kind == "put" else job_unknown())


@fault("job-stuck")
async def job_stuck(x: Exchange) -> None:
    """On put: accepted and never executed, 202 for ever. On poll: still running."""
    await x.say((_accept(x) or await x.good()) if x.kind == "put" else Reply.of(202, {}))


@fault("job-other-location")
async def job_other_location(x: Exchange) -> None:
    reply = await x.good()
    await x.say(Reply.of(202, {"location": x.rule.arg}) if reply.status == 202 else reply)


@fault("job-fails")
async def job_fails(x: Exchange) -> None:
    """On put: the job ends in arg's error code and changes nothing."""
    failed = error(str(x.rule.arg or "SYS.1000"), "said by the witness's script")
    reply = _accept(x, failed)
    await x.say(reply or (await x.good() if x.kind == "put" and x.api.dialect == ZSTACK else failed))


@fault("duplicate-job")
async def duplicate_job(x: Exchange) -> None:
    """Accept the job, then answer that it is a duplicate."""
    reply = await x.good()
    await x.say(Reply.text(400, f"Duplicate job uuid[{x.request.job}]") if reply.status == 202 else reply)


@fault("lie-500")
async def lie_500(x: Exchange) -> None:
    await x.good()
    await x.say(Reply.text(500, "Internal Server Error"))


@fault("lie-200")
async def lie_200(x: Exchange) -> None:
    """Apply nothing, and answer (or end the job) with the requested values."""
    if x.api.wanted(x.request) is None:
        await x.say(await x.good())
        return
    shown = x.shown(x.image)
    await x.say(_accept(x, shown) or shown)


@fault("apply-twice")
async def apply_twice(x: Exchange) -> None:
    reply = await x.good()
    if x.api.wanted(x.request) is not None and x.image in x.api.table:
        x.api.apply(x.request)
    await x.say(reply)


_late: set[asyncio.Task[None]] = set()


@fault("apply-late")
async def apply_late(x: Exchange) -> None:
    """Lose the answer, and make the change arg seconds later. Until then the job is unknown."""

    async def later() -> None:
        await asyncio.sleep(float(x.rule.arg or 1.0))
        await x.good()

    task = asyncio.get_running_loop().create_task(later())
    _late.add(task)
    task.add_done_callback(_late.discard)
    await x.connection.fin()
