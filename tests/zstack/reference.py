"""Send requests with aiohttp's ClientSession. HttpClient's answers are compared with its answers.

It shares with bulkimg the type of an answer (Answer) and the code that reads rate limit headers. Everything between the
socket and the answer is aiohttp's own.
"""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import aiohttp
from aiohttp.client_middlewares import ClientHandlerType
from yarl import URL

from bulkimg.zstack.http import LONGEST_DATE, LONGEST_LOCATION, MAX_BODY
from bulkimg.zstack.limits import parse_rate_limit, parse_retry_after
from bulkimg.zstack.wire import Answer


class _BrokenError(Exception):
    """A kept connection broke. It is not one of the errors after which aiohttp sends a request again."""


# The first that matches says why there is no answer.
_FAILURES: tuple[tuple[type[Exception], str], ...] = (
    (aiohttp.ClientSSLError, "TLS"),
    (aiohttp.ClientConnectorError, "NOT_CONNECTED"),
    (TimeoutError, "TIMEOUT"),
    (aiohttp.ClientPayloadError, "ANSWER_CUT"),
    (aiohttp.ClientResponseError, "NOT_HTTP"),
    (ValueError, "NOT_HTTP"),
    (_BrokenError, "NO_ANSWER"),
    (aiohttp.ClientError, "NO_ANSWER"),
    (OSError, "NO_ANSWER"),
)


class Session:
    """One ClientSession without redirects, cookies, proxies. `timeout` is seconds from the call to an answer's last byte."""

    def __init__(self, base: str, *, timeout: float, now: Callable[[], float]) -> None:
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(_connected)
        trace.on_connection_reuseconn.append(_connected)
        self._base, self._now, self._timeout = base, now, timeout
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            middlewares=(_once,),
            trust_env=False,
            trace_configs=[trace],
        )

    async def send(self, method: str, target: str, headers: dict[str, str], body: bytes | None = None) -> Answer:
        """Send one request. Return its answer, or why there is none."""
        connected: list[bool] = []
        request = self._session.request(
            method,
            URL(self._base + target, encoded=True),
            headers={"Accept-Encoding": "identity", **headers},
            data=body,
            allow_redirects=False,
            trace_request_ctx=connected,
        )
        try:
            # Not ClientTimeout(total=…): a body that arrived before its request is read without that timer, and never
            # ends.
            async with asyncio.timeout(self._timeout), request as response:
                return await self._read(response)
        except Exception as error:
            failure = next((name for kind, name in _FAILURES if isinstance(error, kind)), type(error).__name__)
            return Answer(None, failure=failure, sent=bool(connected))

    async def _read(self, response: aiohttp.ClientResponse) -> Answer:
        raw = b""
        while len(raw) <= MAX_BODY and (more := await response.content.read(MAX_BODY + 1 - len(raw))):
            raw += more
        if len(raw) > MAX_BODY:
            response.close()
            return Answer(None, failure="BODY_TOO_LARGE")
        headers = response.headers
        waits = headers.get("Retry-After")
        return Answer(
            response.status,
            raw,
            None if waits is None else parse_retry_after(waits, self._now()),
            parse_rate_limit(headers, self._now()),
            location=headers.get("Location", "")[:LONGEST_LOCATION] if 300 <= response.status < 400 else "",
            date=headers.get("Date", "")[:LONGEST_DATE],
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()


async def _connected(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: Any) -> None:
    context.trace_request_ctx.append(True)


async def _once(request: aiohttp.ClientRequest, handler: ClientHandlerType) -> aiohttp.ClientResponse:
    try:
        return await handler(request)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _BrokenError from error
