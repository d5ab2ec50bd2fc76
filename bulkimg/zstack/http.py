"""Send HTTP requests on aiohttp's connector and parser, with bytes of our own (docs/dev/reliability.md).

One call is one request on the wire: nothing here redirects, keeps cookies, reads a proxy or sends a second time.
Bodies are bounded. A connection that received unrequested bytes is closed. Every exception becomes an Answer that
says whether bytes may have gone out.

`TCPConnector.connect` and `Connection` are documented; `ResponseHandler` (its protocol) is not. So pyproject.toml pins
aiohttp to a minor version, and tests/zstack/test_differential.py holds the answers against ClientSession's.
"""

import asyncio
import math
import os
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from bulkimg.errors import UsageError
from bulkimg.zstack.limits import parse_rate_limit, parse_retry_after
from bulkimg.zstack.wire import TURN_LOST, Answer

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection
    from aiohttp.http import RawResponseMessage

MAX_BODY = 2 << 20  # bytes: 200 images with every field are under 1 MiB; as Python objects it may be 30 times as much
KEEP_ALIVE = 10.0  # seconds that an unused connection is kept
MOST_INTERIM = 16  # answers 1xx before the answer itself
LONGEST_LOCATION = 1000  # characters of a redirect's target that a message may name
LONGEST_DATE = 64
_TELLING = frozenset(b"RrXx")  # first letters of Retry-After, RateLimit and X-RateLimit


class HttpClient:
    """Send requests to one origin. `base` is its URL; `timeout` is seconds to an answer's last byte.

    `now` is seconds since the epoch. `authority` is what `read_authority` returned; None trusts the system's.
    """

    def __init__(self, base: str, *, timeout: float, authority: str | None = None, now: Callable[[], float]) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeout = timeout
        self._now = now
        self._connector = aiohttp.TCPConnector(limit=0, ssl=_tls_of(authority), ttl_dns_cache=60)
        self._base = base
        self._target: aiohttp.ClientRequest | None = None  # names host, port and TLS to the connector; never sent
        self._idle: deque[tuple[float, Connection]] = deque()  # since when; the newest is used first
        self._deadlines: dict[ResponseHandler, float] = {}  # of the requests without an answer
        self._alarm: asyncio.TimerHandle | None = None  # one for all of them: it rings at the earliest deadline

    async def send(self, request: bytes, begin: Callable[[], Awaitable[bool]]) -> Answer:
        """Send one request (wire.py formats it). Return its answer, or why there is none.

        `begin` is awaited when there is a connection. Its time does not count. If it returns False, or the server ends
        the connection or writes to it meanwhile, nothing is sent.
        """
        called, sent = self._loop.time(), False
        try:
            connection = self._unused() or await self._connect()
            left = called + self._timeout - self._loop.time()
            if not await self._begins(connection, begin):
                return Answer(None, failure=TURN_LOST, detail="it may not be sent any more", sent=False)
            sent = True
            return await self._exchange(connection, request, self._loop.time() + left)
        except Exception as error:
            return _failed(error, sent=sent)

    async def _begins(self, connection: "Connection", begin: Callable[[], Awaitable[bool]]) -> bool:
        """Return whether the request may be sent. If not, the connection is kept for another one."""
        was_usable = _is_usable(connection)
        try:
            begins = await begin()
        except BaseException:
            connection.close()
            raise
        if begins and (_is_usable(connection) or not was_usable):
            return True
        # Bytes that came meanwhile would become the answer to this request. `_unused` closes such a connection.
        self._idle.append((self._loop.time(), connection))
        return False

    def _unused(self) -> "Connection | None":
        """Return an open connection without unexpected bytes in it, if there is one."""
        oldest = self._loop.time() - KEEP_ALIVE
        while self._idle and self._idle[0][0] < oldest:
            self._idle.popleft()[1].close()
        while self._idle:
            connection = self._idle.pop()[1]
            if _is_usable(connection):
                return connection
            connection.close()
        return None

    async def _connect(self) -> "Connection":
        if self._target is None:
            self._target = aiohttp.ClientRequest("GET", URL(self._base), loop=self._loop)
        limits = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout, ceil_threshold=math.inf)
        async with asyncio.timeout(self._timeout):
            return await self._connector.connect(self._target, [], limits)

    async def _exchange(self, connection: "Connection", request: bytes, deadline: float) -> Answer:
        protocol, transport = connection.protocol, connection.transport
        if protocol is None or transport is None or transport.is_closing():  # it broke as soon as it was there
            connection.close()
            raise aiohttp.ServerDisconnectedError
        protocol.set_response_params(read_until_eof=True)
        self._watch(protocol, deadline)
        try:
            transport.write(request)
            answer = await self._answer(protocol, deadline)
        except BaseException as error:
            transport.abort()
            connection.close()
            if self._deadlines.pop(protocol, None) is None and isinstance(error, Exception):
                raise TimeoutError from None
            raise
        if self._deadlines.pop(protocol, None) is None:  # what an aborted connection left is no whole answer
            connection.close()
            raise TimeoutError
        if protocol.should_close or (answer.status or 0) < 200:
            connection.close()
        else:
            # Without a parser whatever arrives is kept as it is, and makes `should_close` true: half a head would hide in it.
            protocol._parser = None
            self._idle.append((self._loop.time(), connection))
        return answer

    async def _answer(self, protocol: "ResponseHandler", deadline: float) -> Answer:
        message, payload = await protocol.read()
        interim = 0
        while 100 <= message.code < 200 and message.code != 101:
            interim += 1
            if interim > MOST_INTERIM:
                raise HttpProcessingError(message="too many interim answers")
            message, payload = await protocol.read()
        raw = payload.read_nowait(MAX_BODY + 1) if payload.is_eof() else b""
        if not payload.at_eof():
            # A body that stops being HTTP closes its connection and never ends: no alarm wakes who waits for it.
            async with asyncio.timeout_at(deadline):
                while not payload.at_eof() and len(raw) <= MAX_BODY:
                    raw += await payload.read(MAX_BODY + 1 - len(raw))
        if len(raw) > MAX_BODY:
            return Answer(None, failure="BODY_TOO_LARGE", detail=f"the answer is larger than {MAX_BODY:,} bytes")
        return self._as_answer(message, raw)

    def _as_answer(self, message: "RawResponseMessage", raw: bytes) -> Answer:
        """Return the message as an Answer. Most have no header that tells anything but the date."""
        headers, date = message.headers, message.headers.get("Date", "")[:LONGEST_DATE]
        location = headers.get("Location", "")[:LONGEST_LOCATION] if 300 <= message.code < 400 else ""
        retry_after = quota = None
        for name, _ in message.raw_headers:
            if name[0] in _TELLING:
                waits = headers.get("Retry-After")
                retry_after = parse_retry_after(waits, self._now()) if waits is not None else None
                quota = parse_rate_limit(headers, self._now())
                break
        return Answer(message.code, raw, retry_after, quota, location=location, date=date)

    # -- deadlines --------------------------------------------------------------------------------------------------

    def _watch(self, protocol: "ResponseHandler", deadline: float) -> None:
        self._deadlines[protocol] = deadline
        if self._alarm is None or deadline < self._alarm.when():
            self._set_alarm(deadline)

    def _set_alarm(self, moment: float) -> None:
        if self._alarm:
            self._alarm.cancel()
        self._alarm = self._loop.call_at(moment, self._expire)

    def _expire(self) -> None:
        """Abort the connections whose request has run out of time: those that wait for them get a TimeoutError."""
        self._alarm = None
        now = self._loop.time()
        for protocol in [protocol for protocol, deadline in self._deadlines.items() if deadline <= now]:
            del self._deadlines[protocol]
            if protocol.transport is not None:
                protocol.transport.abort()
        if self._deadlines:
            self._set_alarm(min(self._deadlines.values()))

    async def close(self) -> None:
        """Close every connection."""
        if self._alarm:
            self._alarm.cancel()
        while self._idle:
            self._idle.pop()[1].close()
        await self._connector.close()


def _is_usable(connection: "Connection") -> bool:
    """Return whether a connection is open, and has received nothing since its last answer."""
    protocol = connection.protocol
    return protocol is not None and protocol.is_connected() and not protocol.should_close


def read_authority(ca_file: Path | None) -> str | None:
    """The certificates of an authority's file, in PEM: read once, for a pipe has them once. UsageError where they are of no use."""
    if ca_file is None:
        return None
    try:
        authority = ca_file.read_bytes().decode(
            "ascii", "ignore"
        )  # names next to the certificates may be in any tongue
        _tls_of(authority)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"--ca-file {ca_file}: cannot be used: {getattr(error, 'strerror', None) or error}") from None
    return authority


def _tls_of(authority: str | None) -> ssl.SSLContext | bool:
    """What aiohttp takes for `ssl`."""
    return True if authority is None else ssl.create_default_context(cadata=authority or " ")  # "" means the system's


def _failed(error: Exception, *, sent: bool) -> Answer:
    """Why there is no answer, in our words: an exception's own text may hold headers (docs/dev/reliability.md F16)."""
    failure, detail = "NO_ANSWER", "the connection broke before the answer was complete"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        failure, detail = "TLS", f"the server's certificate is not accepted: {_reason(error.certificate_error)}"
    elif isinstance(error, aiohttp.ClientSSLError):
        failure, detail = "TLS", f"TLS failed: {_reason(error.os_error)}"
    elif isinstance(error, aiohttp.ClientConnectorError):
        failure, detail = "NOT_CONNECTED", f"cannot connect: {_reason(error.os_error)}"
    elif isinstance(error, ValueError) and not sent:
        failure, detail = "NOT_CONNECTED", "the server's address is not valid"
    elif isinstance(error, TimeoutError):
        failure, detail = (
            ("TIMEOUT", "no answer before the timeout")
            if sent
            else ("NOT_CONNECTED", "cannot connect before the timeout")
        )
    elif isinstance(error, aiohttp.ClientPayloadError):
        failure, detail = "ANSWER_CUT", "the answer was cut short"
    elif isinstance(error, HttpProcessingError | ValueError):
        failure, detail = "NOT_HTTP", "the answer is not valid HTTP"
    elif not isinstance(error, aiohttp.ClientError | OSError):
        raise error
    return Answer(None, failure=failure, detail=detail, sent=sent)


def _reason(error: BaseException) -> str:
    """The system's own words, without what asyncio or aiohttp put around it."""
    if isinstance(error, ssl.SSLError):
        return getattr(error, "verify_message", None) or error.reason or "no reason given"
    number = getattr(error, "errno", None)
    return (
        os.strerror(number)
        if isinstance(number, int) and number > 0
        else getattr(error, "strerror", None) or type(error).__name__
    )
