"""Apply the faults that `faults.py` draws: before a request is executed, and after."""

import asyncio
import socket
import struct

from aiohttp import web

from bulkimg.sandbox.faults import Fault
from bulkimg.sandbox.sessions import Identity


def before(fault: Fault, request: web.Request, identity: Identity) -> web.StreamResponse | None:
    """Return the answer that replaces the real one, if the fault has one."""
    if fault.kind == "reset-before":
        _reset(request)
        return web.Response()
    if fault.kind == "429":
        return web.Response(status=429, text="too many requests", headers={"Retry-After": f"{fault.argument:g}"})
    if fault.kind in ("500", "502", "503"):
        return web.Response(status=int(fault.kind), text="<html><body>the proxy is not well</body></html>")
    if fault.kind == "expire":
        identity.expire_all()
    return None


async def after(fault: Fault, request: web.Request, answer: web.Response) -> web.StreamResponse:
    """Change the answer of a request that was executed."""
    if fault.kind == "reset-after":
        _reset(request)
    elif fault.kind == "slow":
        await asyncio.sleep(fault.argument)
    elif fault.kind == "drop" and request.transport:
        asyncio.get_running_loop().call_later(0.01, request.transport.close)
    elif fault.kind == "truncate":
        whole = answer.body if isinstance(answer.body, bytes) else b""
        cut = web.StreamResponse(status=answer.status, headers={"Content-Length": str(len(whole) + 10)})
        await cut.prepare(request)
        await cut.write(whole[: len(whole) // 2])
        if request.transport:
            request.transport.close()
        return cut
    return answer


def _reset(request: web.Request) -> None:
    """End the connection with RST, so that the client sees a reset and not an end."""
    if request.transport is not None:
        sock = request.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
