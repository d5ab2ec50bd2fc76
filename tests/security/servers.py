"""Hostile servers on raw sockets: answers by the kind of call, and a sink that must get no connection."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from tests.zstack.raw import Raw, Reply, http, raw_server

HEX32 = "[0-9a-f]{32}"
# docs/dev/reliability.md, invariant 22, written again: shares nothing with bulkimg.
OURS = re.compile(
    rf"/zstack/v1/(accounts/login|accounts/sessions/{HEX32}|api-jobs/{HEX32}|images/{HEX32}|images/{HEX32}/actions"
    rf"|images(\?[^#\s]*)?|(?:user|system)-tags(\?[^#\s]*)?|tags/{HEX32})"
)


@dataclass(frozen=True)
class Call:
    """A request for the script of a test. `kind`: login, logout, put, poll, read or list."""

    kind: str
    uuid: str  # of the image, the job or the session; empty if the path has none
    headers: dict[str, str]
    body: Any

    @property
    def wanted(self) -> dict[str, Any]:
        """Return the fields of a PUT."""
        return next(iter(self.body.values()))

    @property
    def job(self) -> str:
        return self.headers.get("x-job-uuid", "")


Script = Callable[[Call], bytes | None]


def kind_of(path: str) -> str:
    """Return which call of the API a path is."""
    for mark, kind in (("/login", "login"), ("/sessions/", "logout"), ("/actions", "put"), ("/api-jobs/", "poll")):
        if mark in path:
            return kind
    return "read" if re.search(rf"/images/{HEX32}$", path) else "list"


def call_of(request: tuple[str, str, dict[str, str], bytes]) -> Call:
    """Parse the newest request."""
    _, path, headers, body = request
    found = re.search(HEX32, path.partition("?")[0])
    return Call(kind_of(path), found.group() if found else "", headers, json.loads(body) if body else None)


def json_answer(document: Any, status: str = "200 OK", *headers: str) -> bytes:
    """Return a complete JSON answer."""
    return http(json.dumps(document).encode(), status, "Content-Type: application/json", *headers)


def refusal(code: str, details: str, description: str = "refused") -> bytes:
    """Return ZStack's own error object."""
    error = {"code": code, "description": description, "details": details}
    return json_answer({"error": error}, "503 Service Unavailable")


def honest(call: Call, session: str = "a" * 32) -> bytes:
    """Return the answer of a good server of the documented dialect."""
    if call.kind == "put":
        return json_answer({"inventory": {"uuid": call.uuid, **call.wanted}})
    if call.kind == "read":
        return json_answer({"inventories": [{"uuid": call.uuid, "name": "old"}]})
    if call.kind == "login":
        return json_answer({"inventory": {"uuid": session}})
    if call.kind == "poll":
        return http(b"the job has been expired", "404 Not Found")
    return json_answer({"inventories": [], "total": 0} if call.kind == "list" else {})


def scripted(script: Script, session: str = "a" * 32) -> Reply:
    """Return the script's answer, or the honest one. An empty answer breaks the connection."""

    async def reply(raw: Raw, writer: asyncio.StreamWriter) -> bool:
        call = call_of(raw.requests[-1])
        said = script(call)
        data = honest(call, session) if said is None else said
        writer.write(data)
        await writer.drain()
        return bool(data)

    return reply


def strangers(raw: Raw) -> list[str]:
    """Return the requested paths that are not in the fixed list."""
    return [path for _, path, _, _ in raw.requests if not OURS.fullmatch(path)]


@contextlib.asynccontextmanager
async def sink() -> AsyncIterator[Raw]:
    """Start a second origin. It answers, so that a client would continue; `connections` counts the connections."""

    async def reply(_: Raw, writer: asyncio.StreamWriter) -> bool:
        writer.write(http(b'{"inventory": {"uuid": "' + b"b" * 32 + b'"}}'))
        await writer.drain()
        return True

    async with raw_server(reply) as raw:
        yield raw


def port_of(raw: Raw) -> str:
    return raw.url.rsplit(":", 1)[1]


def address_of(raw: Raw) -> str:
    return raw.url.removeprefix("http://")
