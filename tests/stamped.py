"""A sandbox whose log says when the kernel received each request, however late the sandbox read it.

A rate is counted by these moments: on a busy machine a server reads together what came one after the other.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from aiohttp import web

from bulkimg.sandbox import Options
from bulkimg.sandbox.server import Sandbox
from tests.arrival import StampingSocket
from tests.conftest import ROOT, Server


class StampedSandbox(Sandbox):
    """The `at` of its log is of the kernel."""

    def __init__(self, options: Options, arrived: Mapping[int, float]) -> None:
        super().__init__(options)
        self._arrived = arrived

    def _note(self, request: web.Request, body: bytes) -> None:
        super()._note(request, body)
        assert request.transport is not None
        arrived = self._arrived[request.transport.get_extra_info("socket").fileno()]
        self.log[-1]["at"] = time.time() - (time.monotonic() - arrived)


async def _serve(options: Options) -> None:
    """Serve until SIGTERM. Prints URL and session first."""
    listener = StampingSocket.listening(0)
    sandbox = StampedSandbox(options, listener.arrived)
    runner = web.AppRunner(sandbox.app(), access_log=None, handle_signals=False, shutdown_timeout=0.5)
    await runner.setup()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await web.SockSite(runner, listener, backlog=1024).start()
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", sandbox.identity.first_session, flush=True)
    await ended.wait()
    await runner.cleanup()


@contextlib.contextmanager
def stamped_sandbox(**options: Any) -> Iterator[Server]:
    """Start such a sandbox on a free port. It ends with the block. `options` are fields of Options."""
    environment = {"PATH": os.defpath, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.stamped", json.dumps(options)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        greeting = process.stdout.readline()
        url, session = greeting.split()
        yield Server(url, session, process.pid, greeting)
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


if __name__ == "__main__":
    asyncio.run(_serve(Options(**json.loads(sys.argv[1]))))
