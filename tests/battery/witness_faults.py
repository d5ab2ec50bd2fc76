"""The witness's faults of the connection: broken connections, refusals, delays, answers in the wrong place."""

import asyncio
import email.utils
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.battery.api import Reply, error, inventories, status_line
from tests.battery.witness_exchange import HTML, Exchange, fault

# ------------------------------------------------------------------------------------------------ broken connections


@fault("reset-before")
async def reset_before(x: Exchange) -> None:
    x.connection.reset()


@fault("fin-before")
async def fin_before(x: Exchange) -> None:
    await x.connection.fin()


@fault("reset-after")
async def reset_after(x: Exchange) -> None:
    await x.good()
    x.connection.reset()


@fault("fin-after")
async def fin_after(x: Exchange) -> None:
    await x.good()
    await x.connection.fin()


async def _cut(x: Exchange, part: Callable[[Reply], bytes]) -> None:
    await x.connection.send(part(await x.claimed()))
    await asyncio.sleep(0.01)  # so that it arrives on its own
    await x.connection.fin()


@fault("cut-status")
async def cut_status(x: Exchange) -> None:
    await _cut(x, lambda reply: status_line(reply.status))


@fault("cut-header")
async def cut_header(x: Exchange) -> None:
    await _cut(x, lambda reply: reply.head()[:-6])


@fault("cut-body")
async def cut_body(x: Exchange) -> None:
    await _cut(x, lambda reply: reply.wire()[: -max(1, len(reply.body) // 2)])


@fault("whole-then-reset")
async def whole_then_reset(x: Exchange) -> None:
    await x.say(await x.good())
    await asyncio.sleep(0.01)
    x.connection.reset()


@fault("drop-idle")
async def drop_idle(x: Exchange) -> None:
    """The keep-alive race: a good answer, then the connection is closed."""
    await x.say(await x.good())
    await asyncio.sleep(float(x.rule.arg or 0))
    await x.connection.fin()


@fault("drip")
async def drip(x: Exchange) -> None:
    for byte in (await x.claimed(default=True)).wire():
        await x.connection.send(bytes([byte]))
        await asyncio.sleep(float(x.rule.arg or 1.0))


@fault("silent")
async def silent(x: Exchange) -> None:
    await x.claimed(default=False)
    await x.connection.until_gone()


# ------------------------------------------------------------------------------------------------ refusals and delays


def _listed(arg: Any) -> list[Any]:
    return arg if isinstance(arg, list) else [arg]


@fault("status")
async def status(x: Exchange) -> None:
    """arg: number, or [number, body, headers]. Not applied."""
    number, body, headers = (*_listed(x.rule.arg or 502), HTML.decode(), {})[:3]
    bodiless = number < 200 or number in (204, 304)
    reply = Reply.text(number, "" if bodiless else body, "text/html")
    await x.connection.send(Reply(number, reply.body, {**reply.headers, **headers}).wire())


@fault("json-status")
async def json_status(x: Exchange) -> None:
    """arg: [number, code]. Not applied."""
    number, code = (*_listed(x.rule.arg or 503), "SYS.1000")[:2]
    await x.say(error(code, "said by the witness's script", number))


@fault("redirect")
async def redirect(x: Exchange) -> None:
    """arg: target, or [target, number]."""
    target, number = (*_listed(x.rule.arg), 302)[:2]
    await x.say(Reply(number, HTML, {"Location": str(target)}))


@fault("retry-after")
async def retry_after(x: Exchange) -> None:
    """arg: [number, value of the header, or now+SECONDS and now-SECONDS for a date]. Not applied."""
    number, value = x.rule.arg
    if str(value).startswith("now"):
        value = email.utils.formatdate(time.time() + float(value[3:]), usegmt=True)
    await x.say(Reply(number, b"busy", {"Retry-After": str(value)}))


@fault("rate-limit")
async def rate_limit(x: Exchange) -> None:
    """Give a good answer with rate limit headers."""
    reply = await x.good()
    await x.say(Reply(reply.status, reply.body, {**reply.headers, **x.rule.arg}))


@fault("slow")
async def slow(x: Exchange) -> None:
    """Give a good answer, arg seconds late."""
    reply = await x.good()
    await asyncio.sleep(float(x.rule.arg or 0.5))
    await x.say(reply)


@fault("login-slow")
async def login_slow(x: Exchange) -> None:
    await asyncio.sleep(float(x.rule.arg or 1.0))
    await x.say(await x.good())


@fault("login-refused")
async def login_refused(x: Exchange) -> None:
    await x.say(error(str(x.rule.arg or "ID.1000"), "wrong account name or password"))


@fault("kill-session")
async def kill_session(x: Exchange) -> None:
    """End every session, then answer as usual."""
    x.api.sessions.clear()
    await x.say(await x.good())


# ------------------------------------------------------------------------------------------------ answers out of place


@fault("wrong-uuid")
async def wrong_uuid(x: Exchange) -> None:
    await x.claimed()
    await x.say(x.shown(x.other_image()))


@dataclass
class _Held:
    """An answer that waits for another to change places with it."""

    reply: Reply
    partner: "asyncio.Future[Reply]"


_waiting: list[_Held] = []


@fault("swap")
async def swap(x: Exchange) -> None:
    reply = await x.good()
    if _waiting:
        held = _waiting.pop()
        held.partner.set_result(reply)
        await x.say(held.reply)
        return
    mine = _Held(reply, asyncio.get_running_loop().create_future())
    _waiting.append(mine)
    try:
        got = await asyncio.wait_for(mine.partner, float(x.rule.arg or 0.3))
    except TimeoutError:
        _waiting.remove(mine)
        got = reply
    await x.say(got)


@fault("ghost")
async def ghost(x: Exchange) -> None:
    """Send one answer more than requested: the next request on this connection may get it."""
    reply = await x.good()
    await x.connection.send(reply.wire() + (x.shown(x.image) if x.kind == "put" else reply).wire())


@fault("cached")
async def cached(x: Exchange) -> None:
    """Answer with the image as it was before all changes."""
    old = x.api.before.get(x.image, {})
    await x.claimed()
    await x.say(inventories([old]) if x.kind == "read" else Reply.of(200, {"inventory": old}))
