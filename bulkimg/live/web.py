"""Serve the live page on 127.0.0.1: all runs of a runs directory, and each of them as its report. It only reads."""

import asyncio
import logging
import os
import re
import secrets
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from markupsafe import Markup

from bulkimg.errors import UsageError
from bulkimg.ledger import RunDirectory
from bulkimg.live import private
from bulkimg.live.board import Board
from bulkimg.live.doors import HEADERS, TOKEN_BYTES, Doors, Refused
from bulkimg.live.drawing import Drawing
from bulkimg.live.served import NAME, is_served
from bulkimg.live.streams import MOST_STREAMS, Channel
from bulkimg.report import render
from bulkimg.webserver import Server

_RUN = re.compile(rf"/run/({NAME})(/stream)?", re.ASCII)
_STYLES = ("page.css", "report.css", "live.css")
_SCRIPT = "live.js"
MOST_CHANNELS = 64  # drawings that are kept; the one that was asked for longest ago goes
_NOTHING = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


_log = logging.getLogger("bulkimg.live")
_log.addFilter(lambda record: not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError)))  # no HTTP


@dataclass(frozen=True, slots=True)
class Options:
    """What to show and where. `port` 0 takes a free one; `idle` are seconds; `run` is the page to open, or ""."""

    runs_dir: Path
    port: int = 0
    idle: float = 3600.0
    run: str = ""


class Site:
    """The pages. Each page has one drawing for all its viewers."""

    def __init__(self, options: Options, doors: Doors, executor: ThreadPoolExecutor) -> None:
        self._options = options
        self._doors = doors
        self._executor = executor
        self._channels: dict[str, Channel] = {}
        self._streams = 0
        self.used_at = time.monotonic()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request. Every answer has the same headers, whatever it is."""
        try:
            if self._doors.check(request):
                self.used_at = time.monotonic()
                return self._welcome(request)
            self.used_at = time.monotonic()
            return await self._page(request)
        except Refused as refusal:
            return _refusal(refusal)

    @property
    def idle(self) -> float:
        """Return the seconds since the last request; 0 while a page is open."""
        return 0.0 if self._streams else time.monotonic() - self.used_at

    def _welcome(self, request: web.BaseRequest) -> web.Response:
        """Exchange the token for the cookie. The address bar then shows no token."""
        run = request.query.get("run", "")
        place = f"/run/{run}" if _RUN.fullmatch(f"/run/{run}") else "/"
        return web.Response(status=303, headers={**_headers(), "Location": place, "Set-Cookie": self._doors.set_cookie})

    async def _page(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.raw_path.partition("?")[0]
        run = "" if path in ("/", "/stream") else self._run(path)
        channel = self._channel(run)
        if path == "/stream" or (run and path != f"/run/{run}"):
            return await self._stream(request, channel)
        body, is_open = await channel.now(), not channel.is_final
        shown = _Shown(f"Run {run}" if run else "Runs", run, str(self._options.runs_dir))
        if is_open:
            shown = shown._replace(stream=f"/run/{run}/stream" if run else "/stream", script=_SCRIPT)
        else:
            shown = shown._replace(line="This run is over.")
        return _html(shown, body)

    def _run(self, path: str) -> str:
        """Return the run of a path. Only names of runs are looked up, and only in the runs directory."""
        found = _RUN.fullmatch(path)
        if found is None or not self._is_known(found[1]):
            raise Refused(404, "There is no such page.")
        return found[1]

    def _is_known(self, run: str) -> bool:
        """Return whether there is such a run, or was one when its page was opened."""
        return run in self._channels or is_served(RunDirectory(self._options.runs_dir / run))

    def _channel(self, name: str) -> Channel:
        channel = self._channels.pop(name, None)
        if channel is None:
            place = self._options.runs_dir
            drawing = Drawing(RunDirectory(place / name)) if name else Board(place)
            channel = Channel(drawing, self._executor, time.monotonic)
        self._channels[name] = channel  # the newest is the last
        if len(self._channels) > MOST_CHANNELS:
            del self._channels[next(iter(self._channels))]
        return channel

    async def _stream(self, request: web.BaseRequest, channel: Channel) -> web.StreamResponse:
        if self._streams >= MOST_STREAMS:
            raise Refused(503, f"{MOST_STREAMS} pages are open already; close one, and this one continues.")
        response = web.StreamResponse(headers={**_headers(), "Content-Type": "text/event-stream; charset=utf-8"})
        if request.method == "HEAD":
            return response
        self._streams += 1
        try:
            await response.prepare(request)
            with suppress(ConnectionError):
                async for event in channel.follow():
                    await response.write(event)
        finally:
            self._streams -= 1
            self.used_at = time.monotonic()
        return response


def _headers(policy: str = _NOTHING) -> dict[str, str]:
    return {**HEADERS, "Content-Security-Policy": policy}


class _Shown(NamedTuple):
    """What stands around a body. `again`: the browser is sent to the list of runs, by this page and not by another."""

    heading: str
    run: str = ""
    place: str = ""
    line: str = ""
    stream: str = ""
    script: str = ""
    again: bool = False


def _html(shown: _Shown, body: Markup, status: int = 200, **more: str) -> web.Response:
    connects = bool(shown.script)
    pieces = render.page("live.html", styles=_STYLES, script=shown.script, connects=connects, shown=shown, body=body)
    policy = render.policy(_STYLES, shown.script, connects=connects)
    headers = {**_headers(f"{policy}; frame-ancestors 'none'"), **more}
    return web.Response(status=status, text="".join(pieces), content_type="text/html", headers=headers)


def _refusal(refusal: Refused) -> web.Response:
    body = render.fragment("live_sentence.html", run_id="", text=str(refusal))
    more = {"X-Why": str(refusal), **({"Allow": "GET, HEAD"} if refusal.status == 405 else {})}
    return _html(_Shown("bulkimg", again=refusal.again), body, refusal.status, **more)


async def serve(options: Options, ready: Callable[[str, int], None]) -> bool:
    """Serve until a signal, or until no request came for the idle time; returns True for that. Raises UsageError if the port is taken.

    `ready` gets the address with its token, and the port.
    """
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    with _listener(options.port) as listener, ThreadPoolExecutor(1, "draw") as executor:
        port = listener.getsockname()[1]
        cookie = private.cookie_of(port) if options.port else secrets.token_urlsafe(TOKEN_BYTES)
        doors = Doors(port, secrets.token_urlsafe(TOKEN_BYTES), cookie)
        site = Site(options, doors, executor)
        server = Server(site.answer, _headers(), access_log=None, logger=_log, handler_cancellation=True)
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.SockSite(runner, listener).start()
            run = f"&run={options.run}" if options.run else ""
            ready(f"http://127.0.0.1:{port}/?token={doors.token}{run}", port)
            return await _until(ended, site, options.idle)
        finally:
            await runner.cleanup()


def _listener(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise UsageError(
            f"port {port} on 127.0.0.1: {os.strerror(error.errno or 0)}; choose another with --port"
        ) from None


async def _until(ended: asyncio.Event, site: Site, idle: float) -> bool:
    """Wait for the end. Returns True if no request came for `idle` seconds."""
    while not ended.is_set():
        if (left := idle - site.idle) <= 0:
            return True
        with suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), left)
    return False
