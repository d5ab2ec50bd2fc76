"""Send HTTP requests with aiohttp's client, with its traps closed (docs/dev/reliability.md).

One call is one request on the wire: no redirects, no cookies, no silent second PUT, no proxy or netrc from the
environment; bodies are bounded; a pooled connection with unexpected bytes is closed; every exception becomes
an Answer that says whether bytes may have gone out.
"""

import math
import os
import ssl
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp.client_middlewares import ClientHandlerType
from yarl import URL

from bulkimg import __version__
from bulkimg.errors import UsageError
from bulkimg.zstack.limits import parse_rate_limit, parse_retry_after
from bulkimg.zstack.wire import Answer

MAX_BODY = 2 << 20  # bytes: 200 images with every field are under 1 MiB; as Python objects it may be 30 times as much

LONGEST_LOCATION = 1000  # characters of a redirect's target that a message may name
LONGEST_DATE = 64

_connected: ContextVar[list[bool]] = ContextVar("connected")


class _NotResentError(Exception):
    """A connection error that aiohttp would answer by sending the PUT again; it does so only for its own types."""


async def _send_once(request: aiohttp.ClientRequest, handler: ClientHandlerType) -> aiohttp.ClientResponse:
    try:
        return await handler(request)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _NotResentError(type(error).__name__) from error


class _Connector(aiohttp.TCPConnector):
    """Reports when a connection is there, and never hands out a pooled one that holds unexpected bytes."""

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:  # noqa: ASYNC109 - aiohttp's signature
        connection = await super().connect(req, traces, timeout)
        while connection.protocol is not None and connection.protocol.should_close:
            connection.close()
            connection = await super().connect(req, traces, timeout)
        _connected.get().append(True)
        return connection


class HttpClient:
    """Sends requests; `timeout` is seconds to the last byte of an answer, `now` seconds since the epoch.

    `authority` is what `read_authority` has read; without one, the system's are trusted.
    """

    def __init__(self, *, timeout: float, authority: str | None = None, now: Callable[[], float]) -> None:
        self._now = now
        self._session = aiohttp.ClientSession(
            connector=_Connector(limit=0, ssl=_tls_of(authority), ttl_dns_cache=60, keepalive_timeout=10),
            cookie_jar=aiohttp.DummyCookieJar(),
            # The total is safe here: no request ever waits for a place in the pool, nor in a middleware, while it runs.
            timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=timeout, ceil_threshold=math.inf),
            middlewares=(_send_once,),
            trust_env=False,
            skip_auto_headers=("Accept",),
            headers={
                "User-Agent": f"bulkimg/{__version__}",
                "Accept-Encoding": "identity",
                "Accept": "application/json",
            },
        )

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        """One request and its answer, or why there is none. `url` is sent as it is."""
        reached: list[bool] = []
        _connected.set(reached)
        try:
            async with self._session.request(
                method, URL(url, encoded=True), data=body, headers=headers, allow_redirects=False
            ) as response:
                return await self._read(response)
        except Exception as error:
            return _failed(error, sent=bool(reached))

    async def _read(self, response: aiohttp.ClientResponse) -> Answer:
        raw = await response.content.read(MAX_BODY + 1)
        while not response.content.at_eof() and len(raw) <= MAX_BODY:
            raw += await response.content.read(MAX_BODY + 1 - len(raw))
        if len(raw) > MAX_BODY or response.status < 200:
            response.close()
        if len(raw) > MAX_BODY:
            return Answer(None, failure="BODY_TOO_LARGE", detail=f"the answer is larger than {MAX_BODY:,} bytes")
        waits = response.headers.get("Retry-After")
        retry_after = parse_retry_after(waits, self._now()) if waits is not None else None
        location = response.headers.get("Location", "")[:LONGEST_LOCATION] if 300 <= response.status < 400 else ""
        quota = parse_rate_limit(response.headers, self._now())
        date = response.headers.get("Date", "")[:LONGEST_DATE]
        return Answer(response.status, raw, retry_after, quota, location=location, date=date)

    async def close(self) -> None:
        await self._session.close()


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
    elif isinstance(error, ValueError) and not sent and not isinstance(error, aiohttp.ClientResponseError):
        failure, detail = "NOT_CONNECTED", "the server's address is not valid"
    elif isinstance(error, TimeoutError):
        failure, detail = (
            ("TIMEOUT", "no answer before the timeout")
            if sent
            else ("NOT_CONNECTED", "cannot connect before the timeout")
        )
    elif isinstance(error, aiohttp.ClientPayloadError):
        failure, detail = "ANSWER_CUT", "the answer was cut short"
    elif isinstance(error, aiohttp.ClientResponseError | ValueError):
        failure, detail = "NOT_HTTP", "the answer is not valid HTTP"
    elif not isinstance(error, _NotResentError | aiohttp.ClientError | OSError):
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
