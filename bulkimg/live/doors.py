"""Let in only the browser of the person who started the page: what is refused, and why, before anything is looked up.

A web page of anybody's can make a browser ask 127.0.0.1. So a request needs the right Host (a name that was rebound to
127.0.0.1 has another one), a cookie that only a person with the printed address gets, and it must not come from a page
of another site or port. Nothing can be changed here, so there is no form and no token of one.
"""

import hmac
from collections.abc import Mapping
from typing import NamedTuple

from aiohttp import web

from bulkimg.webserver import NAME

TOKEN_BYTES = 32
HEADERS: Mapping[str, str] = {
    **NAME,
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "deny",
}
_OURS = ("same-origin", "none")  # Sec-Fetch-Site of a request of our own pages, or of a person at the address bar


class Refused(Exception):
    """A request that gets no answer but this. `again`: a person may have followed a link, and our own page may ask."""

    def __init__(self, status: int, why: str, *, again: bool = False) -> None:
        super().__init__(why)
        self.status = status
        self.again = again


class Doors(NamedTuple):
    """Who is let in. `token` is in the address that is printed, `cookie` is what it is exchanged for."""

    port: int
    token: str
    cookie: str

    @property
    def cookie_name(self) -> str:
        """Return the cookie's name. It holds the port, because a browser sends cookies to every port of a host."""
        return f"bulkimg-{self.port}"

    @property
    def set_cookie(self) -> str:
        return f"{self.cookie_name}={self.cookie}; Path=/; HttpOnly; SameSite=Strict"

    def check(self, request: web.BaseRequest) -> bool:
        """Return whether the request brings the token, to be exchanged for the cookie. Raises Refused."""
        self._check_host(request)
        if request.method not in ("GET", "HEAD"):
            raise Refused(405, "This page only shows: GET and HEAD are answered. bulkimg ctl changes a run.")
        if self._has_token(request):
            return True
        self._check_origin(request)
        if not _equal(request.cookies.get(self.cookie_name, ""), self.cookie):
            raise Refused(403, "Open the address that bulkimg ui printed when it began; it holds the key to this page.")
        return False

    def _check_host(self, request: web.BaseRequest) -> None:
        hosts = [host.lower() for host in request.headers.getall("Host", ())]
        known = [f"{name}:{self.port}" for name in ("127.0.0.1", "localhost", "[::1]")]
        if len(hosts) != 1 or hosts[0] not in known or not request.raw_path.startswith("/"):
            raise Refused(421, "This server answers only to 127.0.0.1 and localhost with its port.")

    def _has_token(self, request: web.BaseRequest) -> bool:
        return request.path == "/" and _equal(request.query.get("token", ""), self.token)

    def _check_origin(self, request: web.BaseRequest) -> None:
        if request.headers.get("Sec-Fetch-Site", "none") in _OURS:
            return
        is_visit = (request.headers.get("Sec-Fetch-Mode"), request.headers.get("Sec-Fetch-Dest")) == (
            "navigate",
            "document",
        )
        raise Refused(403, "This page answers only itself, not other pages.", again=is_visit)


def _equal(given: str, wanted: str) -> bool:
    """Compare in a time that does not tell how much is right."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode())
