"""Serve the metrics of a running run on a loopback address: GET and HEAD of /metrics, and nothing else."""

import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from urllib.parse import urlsplit

from bulkimg.errors import UsageError
from bulkimg.metrics.exposition import CONTENT_TYPE, Family, text

PATH = "/metrics"
_HEADERS = {
    "Content-Type": "text/plain; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}
_UNHEARD = logging.Logger("bulkimg.metrics", logging.CRITICAL + 1)  # a client's broken request is no news of the run
PATIENCE = 1.0  # seconds that the end of a run waits for an answer that is being written


class Endpoint:
    """A socket that is bound already, so that a port that is taken is known before anything is sent."""

    def __init__(self, address: str) -> None:
        """Listen on `HOST:PORT`. Raises UsageError if it is not possible."""
        self._socket = _bound(address)

    @asynccontextmanager
    async def serving(self, families: Callable[[], Iterable[Family]]) -> AsyncIterator[None]:
        """Answer within the block."""
        from aiohttp import web  # imported only now: most runs serve nothing

        from bulkimg.webserver import NAME, Server

        async def answer(request: web.BaseRequest) -> web.Response:
            status, content, headers = _answer(request.method, request.path, request.headers.get("Host", ""), families)
            return web.Response(status=status, body=content.encode(), headers={**NAME, **_HEADERS, **headers})

        runner = web.ServerRunner(Server(answer, _HEADERS, access_log=None, logger=_UNHEARD), shutdown_timeout=PATIENCE)
        try:
            await runner.setup()
            await web.SockSite(runner, self._socket).start()
            yield
        finally:
            await runner.cleanup()
            self._socket.close()


def check_address(address: str) -> None:
    """Raise UsageError if nothing can listen there."""
    _bound(address).close()


def _bound(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, int(port)))
        listener.listen()
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise UsageError(
            f"--metrics-listen {address}: cannot listen there: {error.strerror}; choose another port"
        ) from None
    return listener


def _answer(
    method: str, path: str, host: str, families: Callable[[], Iterable[Family]]
) -> tuple[int, str, dict[str, str]]:
    """Return status, content and the headers that only this answer has."""
    if not _is_local(host):
        return 421, "this host name is not served here\n", {}
    if path != PATH:
        return 404, f"only {PATH} is here\n", {}
    if method not in ("GET", "HEAD"):
        return 405, "only GET and HEAD\n", {"Allow": "GET, HEAD"}
    return 200, text(families()), {"Content-Type": CONTENT_TYPE}


def _is_local(host: str) -> bool:
    """Return whether a Host header names this machine's loopback. A page of another site cannot send that."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False
