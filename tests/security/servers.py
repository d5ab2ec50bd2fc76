"""Hostile servers on raw sockets: answers by the kind of call, and a sink that must get no connection."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable

from tests.battery.api import Api, Call, Reply
from tests.zstack.raw import Raw, always, http, raw_server
from tests.zstack.raw import Reply as Replies

HEX32 = "[0-9a-f]{32}"
# docs/dev/reliability.md, invariant 22, written again: shares nothing with bulkimg.
OURS = re.compile(
    rf"/zstack/v1/(accounts/login|accounts/sessions/{HEX32}|api-jobs/{HEX32}|images/{HEX32}|images/{HEX32}/actions"
    rf"|images(\?[^#\s]*)?|(?:user|system)-tags(\?[^#\s]*)?|tags/{HEX32})"
)


Script = Callable[[Call], Reply | bytes | None]


def api(session: str = "a" * 32) -> Api:
    """Return a good server: it answers as documented, it has every image, and a login gives this session."""
    return Api(new_session=lambda: session, unseen={"name": "old"})


def call_of(raw: Raw) -> Call:
    """Return the newest request."""
    return Call.of(*raw.requests[-1])


def scripted(script: Script = lambda call: None, good: Api | None = None) -> Replies:
    """Give the script's answer, or that of a good server. An empty answer breaks the connection."""
    good = good or api()

    async def reply(raw: Raw, writer: asyncio.StreamWriter) -> bool:
        call = call_of(raw)
        said = script(call)
        said = good.answer(call) if said is None else said
        data = said.wire() if isinstance(said, Reply) else said
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

    async with raw_server(always(http(b'{"inventory": {"uuid": "' + b"b" * 32 + b'"}}'), stays=True)) as raw:
        yield raw


def port_of(raw: Raw) -> str:
    return raw.url.rsplit(":", 1)[1]


def address_of(raw: Raw) -> str:
    return raw.url.removeprefix("http://")
