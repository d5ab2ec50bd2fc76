"""This file has requests put on the wire by other processes, so that HTTP has a core of its own.

Everything that decides stays in the run's process: claims, pace, gate, verdicts, the ledger. A process that sends is
handed one finished request at a time and gives back one Answer, so there is one ledger, one rate and one outcome a row,
however many processes there are. When such a process ends, what it had been handed may have gone out: those requests are
«sent, no answer», and every row of theirs is asked about like any other that was cut off.
"""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bulkimg.errors import UsageError
from bulkimg.zstack.http import HttpClient, tls_of
from bulkimg.zstack.pipe import READY, Pipe
from bulkimg.zstack.wire import Answer

GRACE = 5.0  # seconds beyond a request's own timeout, after which its process is taken for stuck
LOOK = 1.0  # seconds between two looks at the oldest request
_ENDED = Answer(None, failure="NO_ANSWER", detail="the process that was sending it ended", sent=True)


class Senders:
    """Sends requests by `count` processes; by itself until the first of them is there, and once none is left.

    The arguments are HttpClient's. UsageError where a process cannot be started. `on_lost` is told how many processes are left,
    when one has ended by itself.
    """

    def __init__(self, count: int, *, timeout: float, ca_file: Path | None, now: Callable[[], float]) -> None:
        self.on_lost: Callable[[int], None] = lambda left: None
        self._closing = False
        tls_of(ca_file)  # what is wrong with it is said before any process is started
        self._all = [_Sender(timeout, ca_file, self._lost) for _ in range(count)]
        self._alone = HttpClient(timeout=timeout, ca_file=ca_file, now=now)
        self._starting = [asyncio.ensure_future(sender.start()) for sender in self._all]

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        """One request and its answer, or why there is none."""
        least: _Sender | None = None
        for sender in self._all:
            if sender.is_there and (least is None or len(sender.open) < len(least.open)):
                least = sender
        return await (least or self._alone).send(method, url, headers, body)

    def _lost(self) -> None:
        if not self._closing:
            self.on_lost(sum(not sender.is_lost for sender in self._all))

    async def close(self) -> None:
        """Ends the processes, and whatever they still send."""
        self._closing = True
        await asyncio.gather(*self._starting)
        await asyncio.gather(*(sender.close() for sender in self._all))
        await self._alone.close()


class _Sender:
    """One process that sends, and what it has been handed. `lost` is called when it has ended."""

    def __init__(self, timeout: float, ca_file: Path | None, lost: Callable[[], None]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-P", "-m", "bulkimg.zstack.sender", str(theirs.fileno())]
            try:
                self._process = subprocess.Popen(
                    [*command, str(timeout), str(ca_file or "")],
                    pass_fds=[theirs.fileno()],
                    env=_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,  # ours may be a log of JSON
                )
            except OSError as error:
                ours.close()
                raise UsageError(f"--processes: no other process can be started: {error.strerror}; use 1") from None
        self._ours = ours
        self._loop = asyncio.get_running_loop()
        self._pipe = Pipe(self._take, self._lost)
        self._longest = timeout + GRACE
        self._look: asyncio.Handle | None = None
        self._number = READY
        self._tell_lost = lost
        self.is_there = self.is_lost = False
        self.open: dict[int, tuple[asyncio.Future[Answer], float]] = {}  # the oldest first

    async def start(self) -> None:
        """Listen to it; it says by itself when it is there."""
        await self._loop.create_unix_connection(lambda: self._pipe, sock=self._ours)
        self._look = self._loop.call_later(LOOK, self._look_at_oldest, READY)

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        self._number = number = self._number + 1
        done: asyncio.Future[Answer] = self._loop.create_future()
        self.open[number] = done, self._loop.time()
        self._pipe.put((number, method, url, dict(headers), body))
        try:
            return await done
        finally:
            if self.open.pop(number, None) and self.is_there:  # given up: nobody waits for its answer
                self._pipe.put((number,))

    async def close(self) -> None:
        """Whatever is still open is broken off. After `start`."""
        if self._look:
            self._look.cancel()
        self._pipe.close()
        try:
            await asyncio.to_thread(self._process.wait, GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)

    def _take(self, value: tuple[int, Any]) -> None:
        number, said = value
        if number == READY:
            self.is_there = True
        elif (waits := self.open.pop(number, None)) and not waits[0].done():
            if isinstance(said, str):
                waits[0].set_exception(RuntimeError(f"a process that sends failed: {said}"))
            else:
                waits[0].set_result(Answer(*said))

    def _lost(self) -> None:
        self.is_there, self.is_lost = False, True
        while self.open:
            done, _ = self.open.pop(next(iter(self.open)))
            if not done.done():
                done.set_result(_ENDED)
        self._tell_lost()

    def _look_at_oldest(self, late: int) -> None:
        """End a process that is stuck. `late`: the request that was too late a look ago; between two looks its answer was taken,
        if it had come while we ourselves were stopped."""
        number, (_, since) = next(iter(self.open.items()), (READY, (None, self._loop.time())))
        is_late = self._loop.time() - since > self._longest
        if is_late and number == late:
            self._process.kill()
        self._look = self._loop.call_later(LOOK, self._look_at_oldest, number if is_late else READY)


def _environment() -> dict[str, str]:
    """Ours without what may be a credential, and with the path that our own modules were found on: the working directory,
    where anybody may have put an ssl.py, is in it only if it is in ours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BULKIMG_")}
    return {**kept, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}
